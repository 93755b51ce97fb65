package conformance

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// nodeProvider is a provider for JavaScript in a process of its own; see
// clients/client.mjs.
type nodeProvider struct {
	web  bool
	told *events

	mu      sync.Mutex
	in      io.Writer
	last    int
	waiting map[int]chan answer
	context string // that was set last
}

// answer is an answer to one command.
type answer struct {
	ID      int    `json:"id"`
	Failure string `json:"failure"`
	details

	Event string   `json:"event"` // instead of an answer
	Flags []string `json:"flags"`
}

// connectNode starts a provider for JavaScript.
func connectNode(name string) func(t *testing.T, at address) provider {
	return func(t *testing.T, at address) provider {
		t.Helper()
		options, err := json.Marshal(map[string]any{
			"host": at.host, "port": at.port, "selector": at.selector, "context": at.context,
			"baseUrl": fmt.Sprintf("http://%s:%d", at.host, at.port),
		})
		if err != nil {
			t.Fatal(err)
		}
		p := &nodeProvider{web: strings.HasSuffix(name, "-web"), told: newEvents(), waiting: map[int]chan answer{}, context: plain(at.context)}
		p.start(t, name, string(options))
		p.told.wait(t, 0, "STARTED")
		return p
	}
}

func (p *nodeProvider) start(t *testing.T, name, options string) {
	t.Helper()
	cmd := exec.Command("node", "client.mjs", name, options)
	cmd.Dir = "clients"
	log, err := os.Create(filepath.Join(t.TempDir(), "client.log"))
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stderr = log
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatalf("start node: %v", err)
	}
	p.in = in
	read := make(chan struct{})
	go func() {
		defer close(read)
		p.read(out)
	}()
	t.Cleanup(func() {
		_ = in.Close() // which ends it
		late := time.AfterFunc(10*time.Second, func() { _ = cmd.Process.Kill() })
		<-read
		_ = cmd.Wait()
		late.Stop()
		_ = log.Close()
		if t.Failed() {
			said, _ := os.ReadFile(log.Name())
			t.Logf("%s said:\n%s", name, said[max(0, len(said)-4096):])
		}
	})
}

// read takes what the process writes until it ends.
func (p *nodeProvider) read(out io.Reader) {
	lines := bufio.NewScanner(out)
	lines.Buffer(nil, 16<<20)
	for lines.Scan() {
		var a answer
		if err := json.Unmarshal(lines.Bytes(), &a); err != nil {
			a = answer{Event: "GARBLED", details: details{Message: lines.Text()}}
		}
		if a.ID == 0 {
			p.told.add(event{Name: a.Event, Flags: a.Flags, Message: a.Message})
			continue
		}
		p.mu.Lock()
		waiting := p.waiting[a.ID]
		delete(p.waiting, a.ID)
		p.mu.Unlock()
		waiting <- a
	}
	p.told.add(event{Name: "ENDED"})
}

func (p *nodeProvider) events() *events { return p.told }

// command sends a command and waits for the answer.
func (p *nodeProvider) command(t *testing.T, what string, arguments map[string]any) answer {
	t.Helper()
	p.mu.Lock()
	p.last++
	id, waiting := p.last, make(chan answer, 1)
	p.waiting[id] = waiting
	p.mu.Unlock()
	arguments["id"], arguments["do"] = id, what
	if _, err := fmt.Fprintln(p.in, plain(arguments)); err != nil {
		t.Fatalf("%s: %v", what, err)
	}
	select {
	case a := <-waiting:
		if a.Failure != "" {
			t.Fatalf("%s: %s", what, a.Failure)
		}
		return a
	case <-time.After(patience):
		t.Fatalf("%s: no answer within %s", what, patience)
		return answer{}
	}
}

func (p *nodeProvider) evaluate(t *testing.T, kind, key string, byDefault any, context map[string]any) details {
	t.Helper()
	if context == nil {
		context = map[string]any{}
	}
	if kind == integer {
		kind = number
	}
	if p.web && p.context != plain(context) {
		p.command(t, "context", map[string]any{"context": context})
		p.context = plain(context)
	}
	return p.command(t, "evaluate", map[string]any{"type": kind, "key": key, "default": byDefault, "context": context}).details
}
