package cluster

import "syscall"

// dieWithParent makes the kernel kill a server when the test binary dies in
// whatever way, a panic or Ctrl-C included. Linux ties this to the thread that
// forked; the Go runtime keeps its threads, and nothing here locks one.
func dieWithParent() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
}
