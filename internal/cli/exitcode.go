package cli

// The exit codes of the program. They are contract: scripts branch on them.
const (
	exitOK           = 0
	exitError        = 1
	exitUsage        = 2
	exitNotFound     = 3
	exitAuth         = 4
	exitConflict     = 5
	exitNotConverged = 7
	exitUnavailable  = 8
	exitRefused      = 9
	exitInterrupted  = 130
)

// ExitCode is one row of the table of exit codes.
type ExitCode struct {
	// Code is what the process exits with.
	Code int
	// Name is a short word for it.
	Name string
	// Meaning says when it occurs.
	Meaning string
}

// ExitCodes lists every exit code in order, for help and documentation.
func ExitCodes() []ExitCode {
	return []ExitCode{
		{exitOK, "ok", "done; also a dry run, unless --exit-code is given"},
		{exitError, "error", "something failed that has no code of its own, such as the evaluation of a flag; with --exit-code: a dry run found changes"},
		{exitUsage, "usage", "the command line or a file given to it is wrong; nothing was sent, or the server refused it as invalid"},
		{exitNotFound, "not found", "a named resource, server or context does not exist"},
		{exitAuth, "auth", "the certificate is missing, not trusted, or its role does not allow this"},
		{exitConflict, "conflict", "somebody else changed the resource in between, or the request is too old to be applied"},
		{exitNotConverged, "not converged", "the change is committed, but not every server has applied it, or not every connected instance obeys it, in time"},
		{exitUnavailable, "unavailable", "no server answered, or the cluster has no leader; the message says whether the change may have happened"},
		{exitRefused, "refused", "a limit or a guard refused it"},
		{exitInterrupted, "interrupted", "Ctrl-C; watch ends with 0"},
	}
}
