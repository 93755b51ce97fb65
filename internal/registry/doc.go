// Package registry knows the instances of one server: those that have a session,
// and those that had one lately.
//
// An instance is a name, unique in its namespace, that one process after another
// goes by. Of two processes under one name the one with the newer incarnation is
// the instance; the other one's session is ended. Processes that mistake themselves
// for each other therefore do not push each other out in turns: the older one is
// refused for as long as the newer one is there.
//
// Who waits until instances obey a revision has a [Tally], which is kept up to date
// with each change, so that nobody looks through all instances but at its beginning.
//
// Time comes in as an argument. The package has no goroutine.
package registry
