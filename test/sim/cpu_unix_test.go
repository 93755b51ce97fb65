//go:build unix

package sim

import (
	"syscall"
	"time"
)

// cpu is the time that the process has used, in itself and in the kernel.
func cpu() time.Duration {
	var use syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &use); err != nil {
		return 0
	}
	return time.Duration(use.Utime.Nano() + use.Stime.Nano())
}
