//go:build !faults

package seam

// Enabled tells whether the seams are compiled in.
const Enabled = false

// Fail returns the error that is armed for the point; always nil here.
func Fail(string) error { return nil }

// Tracing tells whether events are written anywhere.
func Tracing() bool { return false }

// Record records what became of the state; nothing here.
func Record(*Applied) {}

// Event records something that happened; nothing here.
func Event(string, ...any) {}
