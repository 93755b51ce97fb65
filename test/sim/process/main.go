// Command process is an instance for tests with real processes: the SDK, and calls to
// one dependency that fail when it is told so. It reads commands from standard input,
// one a line, and writes what happens to standard output, one JSON object a line.
//
//	fail NAME, heal NAME   calls to the dependency fail from now on, or succeed
//	watch NAME             tell when somebody is first seen to find it broken
//	cut, mend              have no connection to servers from now on, or have them again
//	follow MODE            tell when the level of the mode changes
//	report                 tell how the process is
//
// It ends with standard input.
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"net"
	"os"
	"runtime"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc"

	"github.com/holdfast-dev/holdfast/pkg/client"
)

// Line is what the process tells.
type Line struct {
	// Time is the wall clock of the host, in nanoseconds since 1970.
	Time int64  `json:"time"`
	Kind string `json:"kind"` // breaker, mode, seen or report
	// To is the state that a breaker came to, or the level of the mode, and Name of
	// which dependency or mode.
	To   string `json:"to,omitempty"`
	Name string `json:"name,omitempty"`
	// Report is in answer to "report".
	Report *Report `json:"report,omitempty"`
}

// Report is how the process is.
type Report struct {
	Status     client.Status     `json:"status"`
	Fleet      client.FleetStats `json:"fleet"`
	CPU        time.Duration     `json:"cpu"` // used so far
	Goroutines int               `json:"goroutines"`
	HeapBytes  uint64            `json:"heap_bytes"`
	Calls      uint64            `json:"calls"`   // that reached the dependency
	Fetched    int64             `json:"fetched"` // bytes from servers
}

type process struct {
	client *client.Client
	wire   *wire

	mu     sync.Mutex // guards what follows
	out    *json.Encoder
	broken map[string]bool
	calls  uint64
}

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run() error {
	servers := flag.String("servers", "", "addresses of servers, separated by commas")
	addr := flag.String("addr", "127.0.0.1", "own address")
	id := flag.String("id", "", "instance id")
	zone := flag.String("zone", "", "zone")
	gossip := flag.String("gossip", client.GossipDirect, "off, relayed or direct")
	cache := flag.String("cache", "", "directory of the cache; empty: none")
	rate := flag.Float64("rate", 5, "calls a second to each dependency")
	dependencies := flag.String("dependencies", "payments,stock,search", "what is called")
	flag.Parse()

	w := &wire{from: &net.TCPAddr{IP: net.ParseIP(*addr)}, conns: map[*wired]bool{}}
	c, err := client.Open(context.Background(), client.Config{
		Servers: strings.Split(*servers, ","), Service: "checkout", InstanceID: *id, Labels: map[string]string{"zone": *zone},
		LocalAddr: *addr, Gossip: *gossip, CacheDir: *cache, Logger: slog.New(slog.NewTextHandler(os.Stderr, nil)),
		ServerDialOptions: []grpc.DialOption{grpc.WithContextDialer(w.dial)},
	})
	if err != nil {
		return fmt.Errorf("open: %w", err)
	}
	p := &process{client: c, wire: w, out: json.NewEncoder(os.Stdout), broken: map[string]bool{}}
	ctx, cancel := context.WithCancel(context.Background())
	var work sync.WaitGroup
	work.Go(func() { p.events(ctx) })
	for d := range strings.SplitSeq(*dependencies, ",") {
		work.Go(func() { p.load(ctx, d, *rate) })
	}
	p.commands(ctx)
	cancel()
	work.Wait()
	closing, done := context.WithTimeout(context.Background(), 5*time.Second)
	defer done()
	if err := c.Close(closing); err != nil {
		return fmt.Errorf("close: %w", err)
	}
	return nil
}

func (p *process) tell(l Line) {
	l.Time = time.Now().UnixNano()
	p.mu.Lock()
	defer p.mu.Unlock()
	_ = p.out.Encode(l) // who listened is gone: standard input ends too
}

func (p *process) commands(ctx context.Context) {
	in := bufio.NewScanner(os.Stdin)
	for in.Scan() {
		verb, name, _ := strings.Cut(in.Text(), " ")
		switch verb {
		case "fail", "heal":
			p.mu.Lock()
			p.broken[name] = verb == "fail"
			p.mu.Unlock()
		case "cut", "mend":
			p.wire.set(verb == "cut")
		case "watch":
			go p.watch(ctx, name)
		case "follow":
			go p.follow(ctx, name)
		case "report":
			p.report()
		}
	}
}

// events tells of breakers.
func (p *process) events(ctx context.Context) {
	for e := range p.client.Events(ctx) {
		if b := e.Breaker; b != nil {
			p.tell(Line{Kind: "breaker", Name: b.Dependency, To: b.To})
		}
	}
}

// follow tells when the level of a mode changes.
func (p *process) follow(ctx context.Context, name string) {
	mode, was := p.client.Mode(name), ""
	every(ctx, 2*time.Millisecond, func() bool {
		if level := mode.Level().Name; level != was {
			was = level
			p.tell(Line{Kind: "mode", Name: name, To: level})
		}
		return true
	})
}

// watch tells when somebody else is first known to find a dependency broken.
func (p *process) watch(ctx context.Context, name string) {
	every(ctx, 2*time.Millisecond, func() bool {
		for _, v := range p.client.Status().Fleet {
			if v.Dependency == name && v.HostsOpen > 0 {
				p.tell(Line{Kind: "seen", Name: name})
				return false
			}
		}
		return true
	})
}

func every(ctx context.Context, pause time.Duration, f func() bool) {
	ticker := time.NewTicker(pause)
	defer ticker.Stop()
	for f() {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
	}
}

var errBroken = errors.New("told to fail")

// load calls a dependency.
func (p *process) load(ctx context.Context, name string, rate float64) {
	every(ctx, time.Duration(float64(time.Second)/rate), func() bool {
		_, _ = client.Do(ctx, p.client, name, func(context.Context) (struct{}, error) {
			p.mu.Lock()
			defer p.mu.Unlock()
			if p.broken[name] {
				p.calls++
				return struct{}{}, errBroken
			}
			return struct{}{}, nil
		})
		return true
	})
}

func (p *process) report() {
	var memory runtime.MemStats
	runtime.ReadMemStats(&memory)
	p.mu.Lock()
	calls := p.calls
	p.mu.Unlock()
	p.tell(Line{Kind: "report", Report: &Report{
		Status: p.client.Status(), Fleet: p.client.Stats().Fleet, CPU: cpu(), Goroutines: runtime.NumGoroutine(),
		HeapBytes: memory.HeapAlloc, Calls: calls, Fetched: p.wire.fetched.Load(),
	}})
}
