package cli

import (
	"bufio"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	"go.uber.org/goleak"
)

// TestMain makes this test binary the program of the scripts as well.
func TestMain(m *testing.M) {
	testscript.Main(suite{m}, map[string]func(){
		"holdfast": func() { os.Exit(Run(os.Args[1:], OS())) },
	})
}

// suite looks for leaked goroutines and removes what the tests built.
type suite struct{ m *testing.M }

// Run implements testscript.TestingM.
func (s suite) Run() int {
	code := s.m.Run()
	if builtDir != "" {
		_ = os.RemoveAll(builtDir)
	}
	if code == 0 {
		if err := goleak.Find(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
	}
	return code
}

// builtDir holds the server that buildServer built.
var builtDir string

// buildServer builds the real server once per test process.
var buildServer = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "holdfast-cli-test")
	if err != nil {
		return "", err
	}
	builtDir = dir
	binary := filepath.Join(dir, "controlplane")
	out, err := exec.Command("go", "build", "-o", binary, "github.com/holdfast-dev/holdfast/cmd/controlplane").CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("build controlplane: %w\n%s", err, out)
	}
	return binary, nil
})

// TestScripts runs the scripts. Those whose name begins with "local" need no
// server; each of the others gets a throw-away one of its own.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:                 filepath.Join("testdata", "script"),
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		UpdateScripts:       os.Getenv("UPDATE_SCRIPTS") != "",
		Setup: func(env *testscript.Env) error {
			env.Setenv("HOME", env.WorkDir)
			env.Setenv("USER", "alice")
			// With the race detector every process would linger for a second.
			env.Setenv("GORACE", "atexit_sleep_ms=0")
			env.Setenv("HOLDFAST_CLI_CONFIG", filepath.Join(env.WorkDir, "contexts.yaml"))
			examples, err := filepath.Abs(filepath.Join("..", "..", "examples"))
			if err != nil {
				return err
			}
			env.Setenv("EXAMPLES", examples)
			env.Values[scriptInstancesKey{}] = scriptInstances{}
			if strings.HasPrefix(filepath.Base(env.WorkDir), "script-local") {
				// Nothing listens on the port of "discard".
				env.Setenv("HOLDFAST_ADDR", "127.0.0.1:9")
				return nil
			}
			var flags []string
			if strings.HasPrefix(filepath.Base(env.WorkDir), "script-mtls") {
				var err error
				if flags, err = makeCertificates(env); err != nil {
					return err
				}
			}
			if strings.HasPrefix(filepath.Base(env.WorkDir), "script-gossip") {
				key := filepath.Join(env.WorkDir, "gossip.key")
				if err := os.WriteFile(key, []byte(base64.StdEncoding.EncodeToString(make([]byte, 32))), 0o600); err != nil {
					return err
				}
				flags = []string{"--gossip-key-file", key}
			}
			addr, err := startServer(env, flags...)
			env.Setenv("HOLDFAST_ADDR", addr)
			return err
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"exits":    exits,
			"watching": watching,
			"instance": instance,
			"eq":       equalText,
		},
	})
}

// makeCertificates makes an authority, and certificates of a server, an operator
// and an instance, and returns the flags that make a server use them.
func makeCertificates(env *testscript.Env) ([]string, error) {
	for _, args := range [][]string{
		{"tls", "ca", "create"},
		{"tls", "cert", "create", "s1", "--role", "server", "--host", "127.0.0.1"},
		{"tls", "cert", "create", "olga", "--role", "operator"},
		{"tls", "cert", "create", "shop", "--role", "instance"},
	} {
		var out strings.Builder
		a := newApp(IO{In: strings.NewReader(""), Out: &out, Err: &out, Getenv: func(string) string { return "" }})
		if code := a.run(context.Background(), append(args, "--dir", env.WorkDir)); code != exitOK {
			return nil, fmt.Errorf("%v: %s", args, out.String())
		}
	}
	return []string{
		"--tls-ca", filepath.Join(env.WorkDir, "ca.pem"),
		"--tls-cert", filepath.Join(env.WorkDir, "s1.pem"), "--tls-key", filepath.Join(env.WorkDir, "s1.key"),
	}, nil
}

// startServer starts a throw-away server that ends with the script.
func startServer(env *testscript.Env, flags ...string) (string, error) {
	binary, err := buildServer()
	if err != nil {
		return "", err
	}
	cmd := exec.Command(binary, append([]string{"--dev", "--port-base", "0"}, flags...)...)
	cmd.Dir = env.WorkDir
	var log strings.Builder
	out, err := cmd.StdoutPipe()
	if err != nil {
		return "", err
	}
	cmd.Stderr = cmd.Stdout
	if err := cmd.Start(); err != nil {
		return "", err
	}
	addrs, ready, done := make(chan string, 1), make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		var once sync.Once
		lines := bufio.NewScanner(out)
		for lines.Scan() {
			fmt.Fprintln(&log, lines.Text())
			if m := apiLine.FindStringSubmatch(lines.Text()); m != nil {
				select {
				case addrs <- m[1]:
				default:
				}
			}
			if strings.Contains(lines.Text(), "the API serves") {
				once.Do(func() { close(ready) })
			}
		}
	}()
	env.Defer(func() {
		_ = cmd.Process.Kill()
		<-done
		_ = cmd.Wait()
	})
	select {
	case <-ready:
		return <-addrs, nil
	case <-done:
		return "", fmt.Errorf("the server ended: %s", log.String())
	case <-time.After(20 * time.Second):
		return "", errors.New("the server did not start in time")
	}
}

// apiLine finds the address of the API in what the server prints.
var apiLine = regexp.MustCompile(`\bapi=(\S+)`)

// exits runs a program and checks its exit code: exits CODE PROGRAM ARG...
func exits(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: exits CODE PROGRAM ARG...")
	}
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	err = ts.Exec(args[1], args[2:]...)
	got := 0
	var exit *exec.ExitError
	switch {
	case errors.As(err, &exit):
		got = exit.ExitCode()
	case err != nil:
		ts.Fatalf("%v", err)
	}
	if got != want {
		ts.Fatalf("exit code %d, not %d\nstdout:\n%s\nstderr:\n%s", got, want, ts.ReadFile("stdout"), ts.ReadFile("stderr"))
	}
}

// watching waits until the server has so many open watches: watching N.
func watching(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: watching N")
	}
	for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); {
		ts.Check(ts.Exec("holdfast", "cluster", "status", "-o", "json"))
		if strings.Contains(ts.ReadFile("stdout"), `"watchers": `+args[0]+",") {
			return
		}
	}
	ts.Fatalf("the server does not have %s watches", args[0])
}

// volatile is what differs between two runs of a script.
var volatile = []struct {
	re   *regexp.Regexp
	with string
}{
	{regexp.MustCompile(`\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z`), "TIME"},
	{regexp.MustCompile(`\b\d\d:\d\d:\d\d(\.\d+)?\b`), "CLOCK"},
	{regexp.MustCompile(`alice@[^\s"]+`), "alice@HOST"},
	{regexp.MustCompile(`127\.0\.0\.1:\d+`), "ADDR"},
	{regexp.MustCompile(`\b\d+s ago`), "NOW"},
}

// equalText compares a stream with a file, without what differs between runs:
// eq stdout|stderr|FILE FILE.
func equalText(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: eq stdout|stderr|FILE FILE")
	}
	got, want := ts.ReadFile(args[0]), ts.ReadFile(args[1])
	for _, v := range volatile {
		got = v.re.ReplaceAllString(got, v.with)
	}
	if got == want {
		return
	}
	if os.Getenv("UPDATE_SCRIPTS") != "" {
		ts.Logf("UPDATE %s <<<\n%s>>>", args[1], got)
	}
	ts.Fatalf("%s differs from %s:\n%s", args[0], args[1], diffText(want, got))
}

// diffText shows a difference for a test's failure.
func diffText(want, got string) string {
	var b strings.Builder
	palette{}.diff(&b, diffLines(splitLines(want), splitLines(got)))
	return b.String()
}
