//go:build !linux

package cluster

import "syscall"

// dieWithParent has no counterpart here: an interrupted test may leave servers.
func dieWithParent() *syscall.SysProcAttr { return nil }
