//go:build seeded

package seam

import "os"

// Seeded tells whether bugs are compiled in.
const Seeded = true

// The one bug of the process.
var bug = os.Getenv("HOLDFAST_BUG") //nolint:gochecknoglobals // seams have no owner to hold it

// Bug tells whether the process was given a bug.
func Bug(name string) bool { return bug == name }
