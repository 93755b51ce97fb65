package cli

import (
	"errors"
	"fmt"
	"io"
	"strings"
)

// failure is an error made for a reader: what was wrong, where, and what to do.
type failure struct {
	// code is the exit code of the process.
	code int
	// what says what was wrong, in one line.
	what string
	// details say where, one line each.
	details []string
	// hints say what to do, one line each.
	hints []string
	// cause is the error behind it, for errors.Is; its text is not printed.
	cause error
}

// Error implements error.
func (f *failure) Error() string {
	return strings.Join(append([]string{f.what}, f.details...), "; ")
}

// Unwrap implements the protocol of errors.Is.
func (f *failure) Unwrap() error { return f.cause }

// addHint adds a line on what to do.
func (f *failure) addHint(format string, args ...any) {
	f.hints = append(f.hints, fmt.Sprintf(format, args...))
}

// hint returns f with one more line on what to do.
func (f *failure) hint(format string, args ...any) *failure {
	f.addHint(format, args...)
	return f
}

// addDetail adds a line on where it was wrong.
func (f *failure) addDetail(format string, args ...any) {
	f.details = append(f.details, fmt.Sprintf(format, args...))
}

// detail returns f with one more line on where it was wrong.
func (f *failure) detail(format string, args ...any) *failure {
	f.addDetail(format, args...)
	return f
}

// fail returns a failure that exits with code.
func fail(code int, format string, args ...any) *failure {
	return &failure{code: code, what: fmt.Sprintf(format, args...)}
}

// usage returns a failure of the command line.
func usage(format string, args ...any) *failure { return fail(exitUsage, format, args...) }

// errInterrupted ends the process after the user has asked for it. What there
// is to say has been said.
var errInterrupted = &failure{code: exitInterrupted}

// errSilent ends the process with the code for "changes found" and no message.
var errSilent = &failure{code: exitError}

// exitCodeOf returns the exit code that an error asks for.
func exitCodeOf(err error) int {
	if err == nil {
		return exitOK
	}
	if f, ok := errors.AsType[*failure](err); ok {
		return f.code
	}
	return exitError
}

// writef writes to memory, or to a stream whose failure there is nobody to tell:
// standard error.
func writef(w io.Writer, format string, args ...any) {
	_, _ = fmt.Fprintf(w, format, args...)
}

// report writes an error for a reader. A failure without text writes nothing.
func (p palette) report(w io.Writer, err error) {
	var f *failure
	if !errors.As(err, &f) {
		f = &failure{what: err.Error()}
	}
	if f.what == "" {
		return
	}
	writef(w, "%s %s\n", p.red("Error:"), printable(f.what))
	for _, line := range f.details {
		writef(w, "  %s\n", printable(line))
	}
	for _, line := range f.hints {
		writef(w, "%s %s\n", p.bold("Hint:"), printable(line))
	}
}

// oneLine folds white space, so that a message of the network stays one line.
func oneLine(s string) string { return strings.Join(strings.Fields(s), " ") }
