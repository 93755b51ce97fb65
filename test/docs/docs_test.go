//go:build unix

// Package docs holds the documentation to the code. Every fenced block with the
// info string "console" in README.md and docs/ is typed into one shell per file,
// and what it prints must be what the page shows; the tables of errors, exit
// codes, settings and limits are compared with the code.
//
// In a block, a line that begins with "$ " is a command (a trailing backslash
// continues it), and the lines up to the next command are its output. "…" stands
// for any text, a line of only "…" for any lines, runs of blanks for any blanks,
// "(exit N)" for a status other than 0. A block "console background" is typed
// into a terminal of its own and keeps running once it has printed what is
// expected. Such a block without a command is what the latest terminal prints
// next, and a line "^C" interrupts it. A block "go NAME" is a file that commands
// name. Ports of three servers, 7400 to 7424, are moved to free ones, and bin/ and
// files to a temporary directory.
package docs

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

const (
	root           = "../.."
	commandTimeout = 2 * time.Minute
	// interrupt is a command of its own; see the package's comment.
	interrupt = "^C"
	// background is the info string of blocks that keep running.
	background = "console background "
)

type step struct {
	line       int
	command    string
	output     string
	exit       int
	background bool
	file       string // that the output is the content of
}

// killed is what the shell says about a process that a command has killed.
var killed = regexp.MustCompile(`^bash: line \d+: +\d+ (Killed|Terminated)`)

func TestDocs(t *testing.T) {
	if testing.Short() {
		t.Skip("runs real servers")
	}
	files, err := filepath.Glob(filepath.Join(root, "docs", "*.md"))
	if err != nil {
		t.Fatal(err)
	}
	programs := build(t)
	for _, file := range append(files, filepath.Join(root, "README.md")) {
		steps := parse(t, file)
		if len(steps) == 0 {
			continue
		}
		t.Run(filepath.Base(file), func(t *testing.T) {
			sh := startShell(t, programs)
			for _, s := range steps {
				sh.do(t, filepath.Base(file), s)
			}
		})
	}
}

// TestParse pins how a page is read.
func TestParse(t *testing.T) {
	file := filepath.Join(t.TempDir(), "page.md")
	page := "text\n```go a.go\npackage\n```\n```console\n$ one \\\n    more\nout …\n^C\n$ three\n(exit 2)\n```\n```sh\n$ not run\n```\n```console background\n$ two\nup\n```\n```console background\nmore\n```\n"
	if err := os.WriteFile(file, []byte(page), 0o600); err != nil {
		t.Fatal(err)
	}
	got := fmt.Sprintf("%+v", parse(t, file))
	want := "[{line:2 command: output:package\n exit:0 background:false file:a.go} {line:6 command:one \\\n    more output:out …\n exit:0 background:false file:} {line:9 command:^C output: exit:0 background:false file:} " +
		"{line:10 command:three output: exit:2 background:false file:} {line:17 command:two output:up\n exit:0 background:true file:} {line:21 command: output:more\n exit:0 background:true file:}]"
	if got != want {
		t.Errorf("parse:\n got %s\nwant %s", got, want)
	}
	for _, c := range []struct {
		want, got string
		ok        bool
	}{
		{"a …  c\n", "a b b c\n", true},
		{"a\n…\nz\n", "a\nb\nc\nz\n", true},
		{"a\n", "a\nb\n", false},
		{"a b\n", "a\nb\n", false},
	} {
		if pattern(c.want).MatchString(c.got) != c.ok {
			t.Errorf("pattern %q matches %q: want %v", c.want, c.got, c.ok)
		}
	}
}

func parse(t *testing.T, file string) []step {
	t.Helper()
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var steps []step
	var block string          // the info string of the block, empty outside
	var first, continued bool // line of the block; by a backslash
	for i, line := range strings.Split(string(data), "\n") {
		last := len(steps) - 1
		info, fence := strings.CutPrefix(line, "```")
		switch {
		case fence && block != "":
			block = ""
		case fence:
			block, first = info+" ", true // never empty inside
			if name, ok := strings.CutPrefix(info, "go "); ok {
				steps = append(steps, step{line: i + 1, file: name})
			}
			continue
		case strings.HasPrefix(block, "go ") && block != "go ":
			steps[last].output += line + "\n"
		case !strings.HasPrefix(block, "console "):
		case continued:
			steps[last].command += "\n" + line
			continued = strings.HasSuffix(line, "\\")
		case strings.HasPrefix(line, "$ "):
			steps = append(steps, step{line: i + 1, command: line[2:], background: block == background})
			continued = strings.HasSuffix(line, "\\")
		case line == interrupt:
			steps = append(steps, step{line: i + 1, command: interrupt})
		case first && block == background:
			steps = append(steps, step{line: i + 1, output: line + "\n", background: true})
		case strings.HasPrefix(line, "(exit "):
			steps[last].exit, _ = strconv.Atoi(strings.Trim(line, "(exit )"))
		case last >= 0:
			steps[last].output += line + "\n"
		}
		first = false
	}
	return steps
}

// pattern makes a regular expression of an expected output.
func pattern(want string) *regexp.Regexp {
	var b strings.Builder
	b.WriteString(`^`)
	for line := range strings.Lines(want) {
		line = strings.TrimRight(line, "\n")
		if strings.TrimSpace(line) == "…" {
			b.WriteString(`(?:.*\n)*?`)
			continue
		}
		expr := regexp.MustCompile(`[ \t]+`).ReplaceAllString(regexp.QuoteMeta(strings.TrimSpace(line)), `[ \t]+`)
		b.WriteString(`[ \t]*` + strings.ReplaceAll(expr, "…", `.*?`) + `[ \t]*\n`)
	}
	b.WriteString(`$`)
	return regexp.MustCompile(b.String())
}

// build makes the programs that pages call by name. It also looks at the files
// that pages name: a cached result then does not outlive a change of them.
func build(t *testing.T) (dir string) {
	t.Helper()
	for _, pattern := range []string{"scripts/*", "examples/*/*", "cmd/*/*.go"} {
		files, err := filepath.Glob(filepath.Join(root, pattern))
		if err != nil {
			t.Fatal(err)
		}
		for _, file := range files {
			if info, err := os.Stat(file); err == nil && info.IsDir() {
				continue
			}
			if _, err := os.ReadFile(file); err != nil {
				t.Fatal(err)
			}
		}
	}
	dir = t.TempDir()
	cmd := exec.CommandContext(t.Context(), "go", "build", "-o", dir+"/", "./cmd/...")
	cmd.Dir = root
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	return dir
}

// shell is the terminal that a page's commands are typed into.
type shell struct {
	cmd    *exec.Cmd
	in     io.Writer
	out    *bufio.Reader
	dir    string
	env    []string
	rename *strings.Replacer
	files  []string // that the page has shown
	// others are the terminals of the blocks that stay in the background.
	others []*terminal
}

func startShell(t *testing.T, programs string) *shell {
	t.Helper()
	dir, base := t.TempDir(), freePorts(t)
	pairs := []string{"-o bin/", "-o " + dir + "/bin/", "$PWD/bin", dir + "/bin"}
	for _, i := range serverPorts() {
		pairs = append(pairs, strconv.Itoa(7400+i), strconv.Itoa(base+i))
	}
	sh := &shell{
		dir: dir, rename: strings.NewReplacer(pairs...),
		env: append(environment(),
			"PATH="+programs+string(os.PathListSeparator)+os.Getenv("PATH"), "TMPDIR="+dir, "USER=ada", "CLUSTER_DATA="+dir+"/cluster",
			"HOLDFAST_CLI_CONFIG="+filepath.Join(dir, "cli.yaml"),
			"HOLDFAST_PORT_BASE="+strconv.Itoa(base), "HOLDFAST_ADDR=127.0.0.1:"+strconv.Itoa(base)),
	}
	sh.cmd = sh.command("--norc")
	in, err := sh.cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := sh.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	sh.in, sh.out = in, bufio.NewReader(out)
	sh.cmd.Stderr = sh.cmd.Stdout
	if err := sh.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		killGroup(sh.cmd)
		_ = sh.cmd.Wait()
		for _, other := range sh.others {
			killGroup(other.cmd)
			<-other.done
		}
	})
	return sh
}

// environment is this process's, without what would change the examples.
func environment() []string {
	return slices.DeleteFunc(os.Environ(), func(entry string) bool {
		return strings.HasPrefix(entry, "HOLDFAST_") || strings.HasPrefix(entry, "NO_COLOR=")
	})
}

// command is a shell in the repository, with a process group of its own.
func (sh *shell) command(args ...string) *exec.Cmd {
	cmd := exec.Command("bash", args...)
	cmd.Dir, cmd.Env = root, sh.env
	ownGroup(cmd)
	return cmd
}

// do takes one step and compares what it prints with what the page shows.
func (sh *shell) do(t *testing.T, file string, s step) {
	t.Helper()
	at := fmt.Sprintf("%s:%d: $ %s", file, s.line, s.command)
	want := sh.rename.Replace(s.output)
	switch {
	case strings.HasPrefix(s.command, "curl ") && !installed("curl"):
		return
	case s.file != "":
		sh.files = append(sh.files, s.file)
		if err := os.WriteFile(filepath.Join(sh.dir, s.file), []byte(want), 0o600); err != nil {
			t.Fatal(err)
		}
		return
	case s.command == interrupt:
		sh.interrupt(t, at)
		return
	case s.background:
		if s.command != "" {
			sh.open(t, s.command)
		}
		sh.latest(t, at).await(t, at, want)
		return
	}
	out, exit := sh.run(t, at, s.command)
	if exit != s.exit {
		t.Fatalf("%s\nexit status %d, want %d\n%s", at, exit, s.exit, out)
	}
	if !pattern(want).MatchString(out) {
		t.Fatalf("%s\n--- printed\n%s--- the page shows\n%s", at, out, s.output)
	}
}

func installed(program string) bool {
	_, err := exec.LookPath(program)
	return err == nil
}

// adapt moves the ports and the files of a command.
func (sh *shell) adapt(command string) string {
	command = sh.rename.Replace(command)
	for _, file := range sh.files {
		command = strings.ReplaceAll(command, " "+file, " "+filepath.Join(sh.dir, file))
	}
	return command
}

// run types a command and reads up to the marker that follows it.
func (sh *shell) run(t *testing.T, at, command string) (string, int) {
	t.Helper()
	timeout := time.AfterFunc(commandTimeout, func() { killGroup(sh.cmd) })
	defer timeout.Stop()
	if _, err := fmt.Fprintf(sh.in, "%s\n__status=$?; echo; echo __status $__status\n", sh.adapt(command)); err != nil {
		t.Fatalf("%s: %v", at, err)
	}
	var out strings.Builder
	for {
		line, err := sh.out.ReadString('\n')
		if err != nil {
			t.Fatalf("%s: no end within %v: %v\n%s", at, commandTimeout, err, out.String())
		}
		if status, ok := strings.CutPrefix(line, "__status "); ok {
			exit, _ := strconv.Atoi(strings.TrimSpace(status))
			return strings.TrimSuffix(out.String(), "\n"), exit
		}
		if !killed.MatchString(line) {
			out.WriteString(line)
		}
	}
}

// terminal is one that a command keeps busy. It collects what is printed.
type terminal struct {
	cmd  *exec.Cmd
	done chan struct{} // closed when the command has ended
	want string        // what it has printed so far, as the page shows it

	mu  sync.Mutex // guards out
	out bytes.Buffer
}

func (term *terminal) Write(b []byte) (int, error) {
	term.mu.Lock()
	defer term.mu.Unlock()
	return term.out.Write(b)
}

func (term *terminal) printed() string {
	term.mu.Lock()
	defer term.mu.Unlock()
	return term.out.String()
}

// open types a command into a terminal of its own.
func (sh *shell) open(t *testing.T, command string) {
	t.Helper()
	term := &terminal{cmd: sh.command("-c", sh.adapt(command)), done: make(chan struct{})}
	term.cmd.Stdout, term.cmd.Stderr = term, term
	if err := term.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	sh.others = append(sh.others, term)
	go func() {
		defer close(term.done)
		_ = term.cmd.Wait() // what it printed tells what went wrong
	}()
}

// latest returns the terminal opened last.
func (sh *shell) latest(t *testing.T, at string) *terminal {
	t.Helper()
	if len(sh.others) == 0 {
		t.Fatalf("%s: nothing runs in the background", at)
	}
	return sh.others[len(sh.others)-1]
}

// await waits until the terminal has printed what is expected as well.
func (term *terminal) await(t *testing.T, at, want string) {
	t.Helper()
	term.want += want
	expr := pattern(term.want)
	deadline := time.After(commandTimeout)
	for !expr.MatchString(term.printed()) {
		select {
		case <-term.done:
			deadline = time.After(0)
		case <-deadline:
			t.Fatalf("%s\n--- printed\n%s--- the page shows\n%s", at, term.printed(), term.want)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// interrupt presses Ctrl-C in the terminal opened last and waits for its end.
func (sh *shell) interrupt(t *testing.T, at string) {
	t.Helper()
	term := sh.latest(t, at)
	sh.others = sh.others[:len(sh.others)-1]
	interruptGroup(term.cmd)
	select {
	case <-term.done:
	case <-time.After(30 * time.Second):
		killGroup(term.cmd)
		<-term.done
		t.Errorf("%s: it had to be killed\n%s", at, term.printed())
	}
}

// serverPorts are the ports of three servers on one host, counted from the first.
func serverPorts() []int {
	var ports []int
	for server := range 3 {
		for port := range 5 {
			ports = append(ports, 10*server+port)
		}
	}
	return ports
}

// freePorts returns a first port from which on those of three servers are free.
func freePorts(t *testing.T) int {
	t.Helper()
candidates:
	for base := 21000 + os.Getpid()%500*25; base < 60000; base += 25 {
		for _, i := range serverPorts() {
			if !free(base + i) {
				continue candidates
			}
		}
		return base
	}
	t.Fatal("no free ports")
	return 0
}

func free(port int) bool {
	l, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
	if err != nil {
		return false
	}
	return l.Close() == nil
}
