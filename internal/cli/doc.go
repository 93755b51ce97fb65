// Package cli is the operator's command line as functions: it reads arguments,
// talks to the servers over their public API and writes to the given streams,
// so that tests drive it without a process.
//
// Data goes to standard output and messages go to standard error. Questions are
// asked on a terminal only; elsewhere a missing answer is an error that names
// the flag to give. Every way of ending has an exit code, listed by [ExitCodes].
//
// A write has one request id for its whole life: it is retried with that id and
// its age, never with a new one, so that it is applied once however often it is
// sent.
package cli
