//go:build !seeded

package seam

// Seeded tells whether bugs are compiled in. As a constant it also keeps them out of
// what the compiler counts when it decides what to inline.
const Seeded = false

// Bug tells whether the process was given a bug; never here.
func Bug(string) bool { return false }
