package demo

import "syscall"

// apart keeps a terminal's Ctrl-C from a process, since this one stops them in
// order, and ends it together with this one, however that ends.
func apart() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}
