//go:build unix && !linux

package demo

import "syscall"

// apart keeps a terminal's Ctrl-C from a process: this one stops them in order.
func apart() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setpgid: true} }
