//go:build faults

package seam

import (
	"syscall"
	"unsafe"
)

// monotonic is the clock that all processes of the machine share and that jumps of
// the wall clock do not touch, in nanoseconds; 0 where the system has none.
func monotonic() int64 {
	const clockMonotonic = 1
	var now syscall.Timespec
	if _, _, errno := syscall.RawSyscall(syscall.SYS_CLOCK_GETTIME, clockMonotonic, uintptr(unsafe.Pointer(&now)), 0); errno != 0 { //nolint:gosec // the call's own form
		return 0
	}
	return now.Nano()
}
