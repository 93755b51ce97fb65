package cli

import (
	"bufio"
	"io"
	"os"
	"strings"
	"unicode"

	"golang.org/x/term"
)

// IO is what a process is given by whoever started it.
type IO struct {
	// In, Out and Err are the standard streams.
	In       io.Reader
	Out, Err io.Writer
	// InTTY, OutTTY and ErrTTY tell which of them are a terminal.
	InTTY, OutTTY, ErrTTY bool
	// Getenv looks up an environment variable; "" means not set.
	Getenv func(string) string
}

// OS returns the streams and the environment of this process.
func OS() IO {
	tty := func(f *os.File) bool { return term.IsTerminal(int(f.Fd())) }
	return IO{
		In: os.Stdin, Out: os.Stdout, Err: os.Stderr,
		InTTY: tty(os.Stdin), OutTTY: tty(os.Stdout), ErrTTY: tty(os.Stderr),
		Getenv: os.Getenv,
	}
}

// palette colours text by meaning, or leaves it alone. The zero value leaves it
// alone.
type palette struct{ on bool }

func (p palette) wrap(code, s string) string {
	if !p.on || s == "" {
		return s
	}
	return "\x1b[" + code + "m" + s + "\x1b[0m"
}

func (p palette) red(s string) string    { return p.wrap("31", s) }
func (p palette) green(s string) string  { return p.wrap("32", s) }
func (p palette) yellow(s string) string { return p.wrap("33", s) }
func (p palette) bold(s string) string   { return p.wrap("1", s) }
func (p palette) dim(s string) string    { return p.wrap("2", s) }

// printable replaces control characters. Names and reasons come from other
// people: they must not move the cursor or recolour the terminal.
func printable(s string) string {
	if strings.IndexFunc(s, func(r rune) bool { return !unicode.IsPrint(r) }) < 0 {
		return s
	}
	return strings.Map(func(r rune) rune {
		if r == '\n' || r == '\t' || r == '\r' {
			return ' '
		}
		if !unicode.IsPrint(r) {
			return unicode.ReplacementChar
		}
		return r
	}, s)
}

// asker asks questions on a terminal.
type asker struct {
	in  *bufio.Reader
	out io.Writer
	// enabled is false when there is nobody to ask.
	enabled bool
	// before and after surround every question.
	before, after func()
}

// ask returns the trimmed answer to a question, and false at the end of input.
func (a *asker) ask(question string) (string, bool) {
	a.before()
	defer a.after()
	writef(a.out, "%s", question)
	line, err := a.in.ReadString('\n')
	if err != nil && line == "" {
		writef(a.out, "\n")
		return "", false
	}
	return strings.TrimSpace(line), true
}

// confirm asks for consent to something destructive. Where nobody can be asked,
// consent must have been given as --yes.
func (a *asker) confirm(yes bool, what string) error {
	if yes {
		return nil
	}
	if !a.enabled {
		return usage("refusing to %s without --yes", what).
			hint("standard input is not a terminal, so nobody can be asked: give --yes if you mean it")
	}
	answer, _ := a.ask(strings.ToUpper(what[:1]) + what[1:] + "? [y/N] ")
	if answer != "y" && answer != "yes" {
		return fail(exitError, "not confirmed; nothing was changed")
	}
	return nil
}
