package sim

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/holdfast-dev/holdfast/pkg/client"
	"github.com/holdfast-dev/holdfast/test/cluster"
)

// BuildProcess compiles the instance of test/sim/process into dir.
func BuildProcess(ctx context.Context, dir string) (string, error) {
	root, err := cluster.Root(ctx)
	if err != nil {
		return "", fmt.Errorf("build instance: %w", err)
	}
	path := filepath.Join(dir, "instance")
	cmd := exec.CommandContext(ctx, "go", "build", "-o", path, "./test/sim/process")
	cmd.Dir = root
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build instance: %w\n%s", err, out)
	}
	return path, nil
}

// Line is what a process tells: see test/sim/process.
type Line struct {
	Time   int64   `json:"time"`
	Kind   string  `json:"kind"`
	To     string  `json:"to"`
	Name   string  `json:"name"`
	Report *Report `json:"report"`
}

// Report is how a process is.
type Report struct {
	Status     client.Status                           `json:"status"`
	Fleet      struct{ SentPackets, SentBytes uint64 } `json:"fleet"`
	CPU        time.Duration                           `json:"cpu"`
	Goroutines int                                     `json:"goroutines"`
	HeapBytes  uint64                                  `json:"heap_bytes"`
	Fetched    int64                                   `json:"fetched"`
	Calls      uint64                                  `json:"calls"`
}

// Process is an instance in a process of its own, on a loopback address of its own.
type Process struct {
	ID, Addr string

	cmd  *exec.Cmd
	in   io.WriteCloser
	log  *os.File
	done chan struct{}

	mu    sync.Mutex // guards lines
	lines []Line
	more  chan struct{} // closed when there are more
}

// StartProcess starts an instance with the given number, in a zone, whose log goes to
// dir.
func StartProcess(program, dir string, n int, servers []string, gossip string) (*Process, error) {
	p := &Process{
		ID: fmt.Sprintf("checkout-%02d", n), Addr: fmt.Sprintf("127.0.1.%d", n+1),
		done: make(chan struct{}), more: make(chan struct{}),
	}
	var err error
	if p.log, err = os.OpenFile(filepath.Join(dir, p.ID+".log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600); err != nil {
		return nil, fmt.Errorf("start %s: %w", p.ID, err)
	}
	args := []string{"-id", p.ID, "-addr", p.Addr, "-zone", fmt.Sprintf("eu-%d", n%3+1), "-gossip", gossip, "-cache", filepath.Join(dir, p.ID), "-servers", strings.Join(servers, ",")}
	p.cmd = exec.Command(program, args...)
	p.cmd.Stderr, p.cmd.Env = p.log, cluster.Environ()
	if p.in, err = p.cmd.StdinPipe(); err != nil {
		return nil, fmt.Errorf("start %s: %w", p.ID, err)
	}
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		return nil, fmt.Errorf("start %s: %w", p.ID, err)
	}
	if err := p.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", p.ID, err)
	}
	go p.read(out)
	return p, nil
}

func (p *Process) read(out io.Reader) {
	defer close(p.done)
	in := bufio.NewScanner(out)
	in.Buffer(nil, 1<<20)
	for in.Scan() {
		var l Line
		if json.Unmarshal(in.Bytes(), &l) != nil {
			continue
		}
		p.mu.Lock()
		p.lines = append(p.lines, l)
		close(p.more)
		p.more = make(chan struct{})
		p.mu.Unlock()
	}
}

// Tell gives the process a command.
func (p *Process) Tell(command string) error {
	if _, err := fmt.Fprintln(p.in, command); err != nil {
		return fmt.Errorf("tell %s %q: %w", p.ID, command, err)
	}
	return nil
}

// Wait returns the first line from a time on that is meant.
func (p *Process) Wait(ctx context.Context, from time.Time, meant func(*Line) bool) (Line, error) {
	for at := 0; ; {
		p.mu.Lock()
		for ; at < len(p.lines); at++ {
			if l := p.lines[at]; l.Time >= from.UnixNano() && meant(&l) {
				p.mu.Unlock()
				return l, nil
			}
		}
		more := p.more
		p.mu.Unlock()
		select {
		case <-more:
		case <-p.done:
			return Line{}, fmt.Errorf("%s has ended", p.ID)
		case <-ctx.Done():
			return Line{}, fmt.Errorf("%s says nothing of the kind: %w", p.ID, ctx.Err())
		}
	}
}

// Report asks how the process is.
func (p *Process) Report(ctx context.Context) (*Report, error) {
	from := time.Now()
	if err := p.Tell("report"); err != nil {
		return nil, err
	}
	l, err := p.Wait(ctx, from, func(l *Line) bool { return l.Kind == "report" })
	return l.Report, err
}

// Stop ends the process, and kills it if that takes too long.
func (p *Process) Stop() error {
	_ = p.in.Close()
	timer := time.AfterFunc(15*time.Second, func() { _ = p.cmd.Process.Kill() })
	defer timer.Stop()
	<-p.done
	err := p.cmd.Wait()
	_ = p.log.Close()
	if err != nil {
		return fmt.Errorf("stop %s: %w", p.ID, err)
	}
	return nil
}
