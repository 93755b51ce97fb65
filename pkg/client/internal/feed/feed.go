// Package feed is what package clienttest and the SDK share: a view that comes from
// a test instead of a server.
package feed

import (
	"github.com/holdfast-dev/holdfast/internal/clock"
	"github.com/holdfast-dev/holdfast/internal/document"
)

// Feed is how a test tells a client what to obey. The client fills in the functions
// when it is opened.
type Feed struct {
	// Clock is the client's.
	Clock *clock.Clock
	// Install obeys a change at a state time, in milliseconds since 1970.
	Install func(d document.Delta, stateTime int64) (problems []string)
	// Expire ends what has ended by the clock.
	Expire func()
	// Heed lets breakers of a dependency heed that others find it broken, or no longer.
	Heed func(dependency string, broken bool)
}
