package client

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/holdfast-dev/holdfast/internal/document"
	"github.com/holdfast-dev/holdfast/internal/flags"
	holdfastv1 "github.com/holdfast-dev/holdfast/proto/holdfast/v1"
)

// lines collects what is logged.
type lines struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *lines) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(b)
}

func (l *lines) logger() *slog.Logger { return slog.New(slog.NewTextHandler(l, nil)) }

// count returns in how many lines a text is.
func (l *lines) count(text string) (n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for line := range strings.Lines(l.buf.String()) {
		if strings.Contains(strings.ReplaceAll(line, `\"`, `"`), text) {
			n++
		}
	}
	return n
}

// A namespace that has nothing is hardly what was meant.
func TestEmptyNamespace(t *testing.T) {
	var l lines
	c, err := build(Config{Service: "s", Namespace: "prod", Servers: []string{"a:1"}, Logger: l.logger()}, newTeller(t).clock)
	if err != nil {
		t.Fatal(err)
	}
	const want = `namespace "prod" has no resources: only the defaults of the code and the built-in policies apply`
	check := func(when string, empty bool, logged int) {
		t.Helper()
		if got := slices.Contains(c.Status().Problems, want); got != empty {
			t.Errorf("%s: problems are %q", when, c.Status().Problems)
		}
		if n := l.count(want); n != logged {
			t.Errorf("%s: logged %d times", when, n)
		}
	}
	check("before the first view", false, 0)
	c.holder.install(document.Delta{To: 1}, true, FromDisk)
	check("from the disk", true, 1)
	c.holder.install(document.Delta{From: 1, To: 2}, false, FromServer)
	check("confirmed", true, 1)
	r := &document.Resource{Key: document.Key{Kind: document.Policy, Name: "p"}, Spec: []byte(`{}`), CreateRevision: 3, ModRevision: 3, Version: 1}
	c.holder.install(document.Delta{From: 2, To: 3, Root: document.Tree{}.Put(r.Key, r.Hash()).Root(), Puts: []*document.Resource{r}}, false, FromServer)
	check("with a policy", false, 1)
	c.holder.decideLocally(&flags.Local{Disable: true}, "file")
	c.holder.install(document.Delta{From: 3, To: 4, Deletes: []document.Tombstone{{Key: r.Key, Revision: 4}}}, false, FromServer)
	check("disabled", false, 1)
}

// What is wrong with the file of local overrides is seen at the instance and at the
// servers.
func TestLocalFileProblems(t *testing.T) {
	leavesNothing(t)
	var l lines
	p, path := newPlane(t), filepath.Join(t.TempDir(), "here.json")
	c := p.openWith(t, Config{LocalOverrides: path, Logger: l.logger()})
	defer c.end(t)
	if n := l.count("which is not there yet"); n != 1 {
		t.Errorf("a file that is not there yet is reported %d times", n)
	}
	c.Bool("handled", false)
	for _, step := range []struct {
		text       string // empty removes the file
		overridden string // by, after the path; a pattern
		problem    []string
	}{
		{`{"flags":`, ` \(not obeyed: .+\)`, []string{"local overrides are not obeyed: " + path}},
		{`{"flags":{"beta":true,"handled":true,"typo":true}}`, ``, []string{"flag/typo: does not exist"}},
		{`{"flags":[]}`, ` \(as it was before; now not obeyed: .+\)`, []string{"flag/typo: does not exist", "local overrides are not obeyed: " + path}},
		{"", "", nil},
	} {
		want := regexp.MustCompile("^" + regexp.QuoteMeta(path) + step.overridden + "$")
		if err := os.WriteFile(path, []byte(step.text), 0o600); err != nil {
			t.Fatal(err)
		}
		if step.text == "" {
			_ = os.Remove(path)
		}
		p.told(t, fmt.Sprintf("what %s has done", step.text), func(a *holdfastv1.Ack) bool {
			if step.text == "" {
				return a.GetOverriddenBy() == ""
			}
			return want.MatchString(a.GetOverriddenBy())
		})
		got := c.Status().Problems
		if len(got) != len(step.problem) {
			t.Errorf("after %q the problems are %q", step.text, got)
		}
		for _, want := range step.problem {
			if !slices.ContainsFunc(got, func(line string) bool { return strings.HasPrefix(line, want) }) {
				t.Errorf("after %q the problems are %q, want %q", step.text, got, want)
			}
		}
	}
}

// While there is no view nobody knows which flags exist, unless there never will be one.
func TestUnknownLocalFlagsNeedAView(t *testing.T) {
	for servers, want := range map[string]int{"a:1": 0, "": 1} {
		config := Config{Service: "s", Logger: slog.New(slog.DiscardHandler)}
		if servers != "" {
			config.Servers = []string{servers}
		}
		c, err := build(config, newTeller(t).clock)
		if err != nil {
			t.Fatal(err)
		}
		c.holder.decideLocally(&flags.Local{Flags: map[string]json.RawMessage{"typo": json.RawMessage("true")}}, "file")
		if got := c.Status().Problems; len(got) != want {
			t.Errorf("with the servers %q the problems are %q", servers, got)
		}
	}
}

// An instance of another cluster than its servers says so for as long as it lasts.
func TestAnotherClusterIsAProblem(t *testing.T) {
	leavesNothing(t)
	var l lines
	dir, first, second := t.TempDir(), newPlane(t), newPlane(t)
	first.open(t, Config{CacheDir: dir}).end(t)
	if err := os.Remove(filepath.Join(dir, "holdfast-default.cache")); err != nil { // so that the servers do not see it themselves
		t.Fatal(err)
	}
	second.lineage = 2
	c := second.openWith(t, Config{CacheDir: dir, OpenTimeout: -1, Logger: l.logger()})
	defer c.end(t)
	const want = "the servers belong to another cluster (02000000/1)"
	for late := time.Now().Add(20 * time.Second); l.count(want) == 0; time.Sleep(time.Millisecond) { //nolint:forbidigo // waits for a log line
		if time.Now().After(late) {
			t.Fatalf("not logged:\n%s", l.buf.String())
		}
	}
	if s := c.Status(); len(s.Problems) != 1 || s.Problems[0] != s.LastError || !strings.HasPrefix(s.LastError, want) || s.Connected {
		t.Errorf("status %+v", s)
	}
}

// A start says what is odd about it, and nothing else.
func TestWhatAStartLogs(t *testing.T) {
	leavesNothing(t)
	path := filepath.Join(t.TempDir(), "here.json")
	if err := os.WriteFile(path, []byte(`{"disable":true}`), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		config  Config
		disable string
		want    string
		never   string
	}{
		"no servers":  {Config{}, "", `msg="no servers: only the code decides"`, "no view"},
		"file":        {Config{Servers: []string{"127.0.0.1:1"}, LocalOverrides: path}, "", "disable=true", "no view"},
		"environment": {Config{Servers: []string{"127.0.0.1:1"}}, "please", "value=please", "no view"},
		"no time":     {Config{Servers: []string{"127.0.0.1:1"}, OpenTimeout: time.Nanosecond}, "", "no view", "error=<nil>"},
	} {
		t.Run(name, func(t *testing.T) {
			var l lines
			t.Setenv(disableEnv, c.disable)
			c.config.Service, c.config.Logger = "s", l.logger()
			opened, err := Open(t.Context(), c.config)
			if err != nil {
				t.Fatal(err)
			}
			opened.end(t)
			if l.count(c.want) != 1 || l.count(c.never) != 0 {
				t.Errorf("want %q, not %q:\n%s", c.want, c.never, l.buf.String())
			}
		})
	}
}

// What a person or a log sees of an Explanation is what it says.
func TestExplanationsCanBeRead(t *testing.T) {
	p := newTeller(t)
	p.put(document.Flag, "beta", `{"state":"ENABLED","variants":{"x":{"b":[1,"two"],"a":1.5}},"defaultVariant":"x","metadata":{"team":"shop"}}`, 0)
	e := (&Client{holder: p.holder}).Explain("beta")
	if text := fmt.Sprintf("%+v", e); !strings.Contains(text, `Value:{"a":1.5,"b":[1,"two"]} Variant:x`) || !strings.Contains(text, `{Key:team Value:"shop"}`) {
		t.Errorf("as text: %s", text)
	}
	if text, err := json.Marshal(e); err != nil || !strings.Contains(string(text), `"Value":{"a":1.5,"b":[1,"two"]},"Variant":"x"`) {
		t.Errorf("as JSON: %s, %v", text, err)
	}
}
