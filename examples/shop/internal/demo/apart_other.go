//go:build !unix

package demo

import "syscall"

// apart has no counterpart here.
func apart() *syscall.SysProcAttr { return nil }
