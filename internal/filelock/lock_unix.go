//go:build unix

package filelock

import (
	"os"
	"syscall"
)

// Works tells whether Try keeps others out.
const Works = true

// Try takes the lock of an open file or fails at once. The system releases it when
// the file is closed or the process ends, however it ends.
func Try(f *os.File) error {
	return syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB) //nolint:wrapcheck // the caller names the file
}
