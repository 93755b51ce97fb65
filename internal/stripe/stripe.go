// Package stripe spreads counters over cache lines, so that cores which count at the
// same time do not wait for each other.
package stripe

import "unsafe"

const bits = 3

// Count is how many stripes there are.
const Count = 1 << bits

// Index returns the stripe of the calling goroutine, below Count, by where its stack
// is: a hint that costs nothing and stays the same while a goroutine is busy. Who
// counts may use any stripe, so nothing depends on it but speed.
func Index() uint64 {
	var here byte
	return uint64(uintptr(unsafe.Pointer(&here))>>11) * 0x9e3779b97f4a7c15 >> (64 - bits) //nolint:gosec // only a hint
}
