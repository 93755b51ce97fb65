//go:build faults && !linux

package seam

// monotonic is a clock that processes share; this system has none.
func monotonic() int64 { return 0 }
