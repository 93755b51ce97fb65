// Package clienttest is the SDK without a network, for the tests of services: flags,
// modes, policies, held breakers and the clock are what the test says, through the
// same code that obeys a control plane.
//
//	plane := clienttest.New(t)
//	plane.SetFlag("new-checkout", true)
//	plane.Define("mode", "storefront", `{"levels": [{"name": "read-only", "effects": […]}]}`)
//	plane.SetMode("storefront", "read-only")
//	plane.SetFleet("payments", true) // the others find it broken
//	server := NewServer(plane.Client())
package clienttest

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/holdfast-dev/holdfast/internal/clock"
	"github.com/holdfast-dev/holdfast/internal/document"
	"github.com/holdfast-dev/holdfast/internal/flags"
	"github.com/holdfast-dev/holdfast/pkg/client"
	"github.com/holdfast-dev/holdfast/pkg/client/internal/feed"
)

// Plane stands in for a control plane. Its methods fail the test where a server
// would refuse; what they change holds when they return. One goroutine may use it;
// the client may be used by any number.
type Plane struct {
	tb       testing.TB
	client   *client.Client
	feed     feed.Feed
	revision uint64
	tree     document.Tree
	runs     bool
}

// Option changes how a Plane is made.
type Option func(*options)

type options struct {
	config client.Config
	start  time.Time
	runs   bool
}

// Config lets the client have a configuration, of which Servers, CacheDir and
// LocalOverrides are not used. Without one the service is "test".
func Config(config client.Config) Option { return func(o *options) { o.config = config } }

// At sets the time at which the clock stands when the test begins.
func At(start time.Time) Option { return func(o *options) { o.start = start } }

// RunningClock lets the clock run: that of the process, or of the bubble of
// testing/synctest. Advance cannot be used then.
func RunningClock() Option { return func(o *options) { o.runs = true } }

// New opens a client for a test, and closes it when the test ends. Its clock stands
// still at the beginning of 2026 unless told otherwise: breakers, ends of overrides
// and rules that look at the time go by it, while deadlines of contexts and pauses
// between retries take real time.
func New(tb testing.TB, opts ...Option) *Plane {
	tb.Helper()
	o := options{start: time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)}
	for _, apply := range opts {
		apply(&o)
	}
	if o.config.Service == "" {
		o.config.Service = "test"
	}
	if o.config.InstanceID == "" {
		o.config.InstanceID = "test-1"
	}
	if o.config.Logger == nil {
		o.config.Logger = slog.New(slog.NewTextHandler(output{tb}, nil))
	}
	o.config.CacheDir = ""
	p := &Plane{tb: tb, runs: o.runs, feed: feed.Feed{Clock: clock.Manual(o.start)}}
	if o.runs {
		p.feed.Clock = clock.New()
	}
	var err error
	if p.client, err = client.OpenFeed(o.config, &p.feed); err != nil {
		tb.Fatalf("clienttest: %v", err)
	}
	tb.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		if err := p.client.Close(ctx); err != nil {
			tb.Errorf("clienttest: %v", err)
		}
	})
	p.install(document.Delta{})
	return p
}

// output is where the log of the client goes: to the test's.
type output struct{ tb testing.TB }

// Write implements io.Writer.
func (o output) Write(line []byte) (int, error) {
	o.tb.Helper()
	o.tb.Logf("%s", strings.TrimRight(string(line), "\n"))
	return len(line), nil
}

var _ io.Writer = output{}

// Client returns the client.
func (p *Plane) Client() *client.Client { return p.client }

// Define puts a definition, "flag", "mode", "policy" or "override", as JSON.
func (p *Plane) Define(kind, name, definition string) {
	p.tb.Helper()
	k, err := document.ParseKind(kind)
	if err != nil {
		p.tb.Fatalf("clienttest: %v", err)
	}
	p.put(document.Key{Kind: k, Name: name}, []byte(definition), 0)
}

// Remove removes a definition, if there is one.
func (p *Plane) Remove(kind, name string) {
	p.tb.Helper()
	k, err := document.ParseKind(kind)
	if err != nil {
		p.tb.Fatalf("clienttest: %v", err)
	}
	key := document.Key{Kind: k, Name: name}
	p.revision++
	p.tree = p.tree.Delete(key)
	p.install(document.Delta{Deletes: []document.Tombstone{{Key: key, Revision: p.revision}}})
}

// SetFlag defines a flag that has a value for everybody: a bool, string, number, or
// something that is an object in JSON.
func (p *Plane) SetFlag(key string, value any) {
	p.tb.Helper()
	text, err := json.Marshal(value)
	if err != nil {
		p.tb.Fatalf("clienttest: flag %s: %v", key, err)
	}
	p.Define("flag", key, fmt.Sprintf(`{"state":"ENABLED","variants":{"test":%s},"defaultVariant":"test"}`, text))
}

// SetPolicy defines the policy of a dependency, as JSON.
func (p *Plane) SetPolicy(dependency, definition string) {
	p.tb.Helper()
	p.Define("policy", dependency, definition)
}

// SetMode sets the level of a mode that is defined, for as long as the test lasts or
// until another call.
func (p *Plane) SetMode(name, level string) {
	p.tb.Helper()
	p.SetModeFor(name, level, 0)
}

// SetModeFor sets the level of a mode until so much time has passed; 0 for ever.
func (p *Plane) SetModeFor(name, level string, ttl time.Duration) {
	p.tb.Helper()
	key := document.Key{Kind: document.Override, Name: "test-mode-" + name}
	if level == flags.Normal {
		p.Remove("override", key.Name)
		return
	}
	spec, _ := json.Marshal(map[string]string{"mode": name, "level": level}) //nolint:errchkjson // strings
	if problems := p.put(key, spec, ttl); slices.ContainsFunc(problems, func(s string) bool { return strings.HasPrefix(s, key.String()) }) {
		p.tb.Fatalf("clienttest: mode %s: %s", name, strings.Join(problems, "; "))
	}
}

// HoldBreaker holds the breakers of a dependency open, or closed; ReleaseBreaker ends
// it.
func (p *Plane) HoldBreaker(dependency string, open bool) {
	p.tb.Helper()
	hold := "closed"
	if open {
		hold = "open"
	}
	spec, _ := json.Marshal(map[string]string{"breaker": dependency, "hold": hold}) //nolint:errchkjson // strings
	p.put(document.Key{Kind: document.Override, Name: "test-breaker-" + dependency}, spec, 0)
}

// ReleaseBreaker ends what HoldBreaker began.
func (p *Plane) ReleaseBreaker(dependency string) {
	p.tb.Helper()
	p.Remove("override", "test-breaker-"+dependency)
}

// SetFleet lets the other instances of the fleet find a dependency broken, or no longer.
// What that means the dependency's policy says: by default a breaker heeds them once two
// calls of its own have failed, and lets few calls through from then on, which may
// convince it of the contrary; where fleet_without_traffic is "enforce" it does so at
// once, if it has no calls to judge by. Status shows it; events tell only of the breakers.
func (p *Plane) SetFleet(dependency string, broken bool) {
	p.tb.Helper()
	p.feed.Heed(dependency, broken)
}

// Advance moves the clock.
func (p *Plane) Advance(d time.Duration) {
	p.tb.Helper()
	if p.runs {
		p.tb.Fatal("clienttest: Advance of a clock that runs by itself")
	}
	p.feed.Clock.Advance(d)
	p.feed.Expire()
}

// put validates a definition as a server does and lets the client obey it.
func (p *Plane) put(key document.Key, definition []byte, ttl time.Duration) []string {
	p.tb.Helper()
	if err := key.Validate(); err != nil {
		p.tb.Fatalf("clienttest: %v", err)
	}
	canonical, err := document.Canonical(definition)
	if err != nil {
		p.tb.Fatalf("clienttest: %s: %v", key, err)
	}
	if violations := (flags.Validator{}).Validate(key, canonical); len(violations) > 0 {
		p.tb.Fatalf("clienttest: %s: %s", key, violations[0])
	}
	p.revision++
	now := p.feed.Clock.Wall().UnixMilli()
	r := &document.Resource{Key: key, Spec: canonical, CreateRevision: p.revision, ModRevision: p.revision, Version: 1, CreateTime: now, UpdateTime: now}
	if ttl > 0 {
		r.End = now + ttl.Milliseconds()
	}
	p.tree = p.tree.Put(key, r.Hash())
	return p.install(document.Delta{Puts: []*document.Resource{r}})
}

func (p *Plane) install(d document.Delta) []string {
	d.Namespace, d.To, d.Root = document.DefaultNamespace, p.revision, p.tree.Root()
	d.From = max(p.revision, 1) - 1
	return p.feed.Install(d, p.feed.Clock.Wall().UnixMilli())
}
