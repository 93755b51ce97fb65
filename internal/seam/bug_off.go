//go:build !seeded

package seam

// Bug tells whether the process was given a bug; never here.
func Bug(string) bool { return false }
