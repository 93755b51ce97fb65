//go:build unix

package node

import (
	"os"
	"syscall"
)

// locksWork tells whether lockFile keeps others out.
const locksWork = true

// lockFile takes the lock or fails at once. The system releases it when the
// process ends, however it ends.
func lockFile(f *os.File) error {
	return syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB) //nolint:wrapcheck // the caller names the file
}
