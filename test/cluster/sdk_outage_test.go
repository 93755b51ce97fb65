package cluster_test

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/holdfast-dev/holdfast/pkg/client"
	holdfastv1 "github.com/holdfast-dev/holdfast/proto/holdfast/v1"
	"github.com/holdfast-dev/holdfast/test/cluster"
)

// shopper decides and makes guarded calls all the time.
type shopper struct {
	in    *instance
	color *client.StringFlag
	mode  *client.Mode
	// value is what the flag may be: while it changes, one or the other.
	value [2]atomic.Pointer[string]

	mu     sync.Mutex // guards the fields below
	batch  cluster.Durations
	calls  cluster.Durations
	wrong  []error
	served int
}

const (
	// batchSize decisions are timed together: one takes about as long as a reading of
	// the clock.
	batchSize = 64
	codeValue = "code"
)

func newShopper(in *instance, value string) *shopper {
	s := &shopper{in: in, color: in.String("color", codeValue), mode: in.Mode("storefront")}
	s.expect(value, value)
	return s
}

// expect tells what the flag is from now on: one or the other.
func (s *shopper) expect(one, other string) {
	s.value[0].Store(&one)
	s.value[1].Store(&other)
}

// run goes on until ctx ends.
func (s *shopper) run(ctx context.Context) {
	for ctx.Err() == nil {
		began := time.Now()
		var got string
		for range batchSize {
			got = s.color.Get(client.Targeting("user"))
			s.mode.Is("read-only")
		}
		decided := time.Since(began)
		began = time.Now()
		answer, err := client.Do(ctx, s.in.Client, "search", func(context.Context) (string, error) { return "hits", nil })
		called := time.Since(began)
		s.mu.Lock()
		s.batch, s.calls = append(s.batch, decided), append(s.calls, called)
		s.served += batchSize
		if got != *s.value[0].Load() && got != *s.value[1].Load() {
			s.wrong = append(s.wrong, fmt.Errorf("the flag is %q, want %q or %q", got, *s.value[0].Load(), *s.value[1].Load()))
		}
		if (err != nil || answer != "hits") && ctx.Err() == nil {
			s.wrong = append(s.wrong, fmt.Errorf("a guarded call answered %q, %w", answer, err))
		}
		s.mu.Unlock()
		time.Sleep(time.Millisecond)
	}
}

// phase forgets what was measured, lets some time pass and returns what came then.
func (s *shopper) phase(t *testing.T, name string, d time.Duration) (decisions, calls cluster.Durations) {
	t.Helper()
	s.mu.Lock()
	s.batch, s.calls = nil, nil
	s.mu.Unlock()
	time.Sleep(d)
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.batch) == 0 {
		t.Errorf("%s: nothing was decided", name)
	}
	decisions, calls = slices.Clone(s.batch), slices.Clone(s.calls)
	t.Logf("%-18s %6d decisions, %d at a time: p50 %v, p99 %v; %4d guarded calls: p50 %v, p99 %v", name, batchSize*len(decisions), batchSize,
		decisions.Quantile(0.5), decisions.Quantile(0.99), len(calls), calls.Quantile(0.5), calls.Quantile(0.99))
	return decisions, calls
}

// Instances go on deciding, all decisions right and as fast as ever, while one server
// is away and while all are: also one that is started then, from its disk. An override
// ends in time meanwhile. When the servers are back, all of it converges.
func TestInstancesGoOnWithoutServers(t *testing.T) {
	t.Parallel()
	c := start(t, cluster.Options{})
	write(t, c, 0, storefront(), cluster.Flag("", "color", "red"))
	fill(t, c)
	dir := t.TempDir()
	in, other := openInstance(t, addresses(c), keeping(t.TempDir())), openInstance(t, addresses(c), keeping(dir))
	s := newShopper(in, "red")
	ctx, stop := context.WithCancel(t.Context())
	var shopping sync.WaitGroup
	shopping.Go(func() { s.run(ctx) })
	defer shopping.Wait()
	defer stop()
	before, callsBefore := s.phase(t, "connected", time.Second)

	loseOne(t, c, s)
	const ttl = 4 * time.Second
	sent := time.Now()
	revision := write(t, c, 0, readOnly(ttl))
	in.has(t, revision)
	other.has(t, revision)
	for i := range c.Len() {
		must(t, c.Kill(i))
	}
	in.wait(t, "cut off", disconnected)
	wantReadOnly(t, in)
	other.close(t)
	other = restartFromDisk(t, c, dir, revision)
	after, callsAfter := s.phase(t, "all servers killed", 2*time.Second)
	for _, i := range []*instance{in, other} {
		ended := wantNormal(t, i)
		t.Logf("the override ended %v after it was set for %v, while cut off", ended.Sub(sent).Round(time.Millisecond), ttl)
		if late := ended.Sub(sent) - ttl; late < 0 || late > 2*time.Second {
			t.Errorf("the override ended %v late", late)
		}
	}
	compare(t, "decisions", before, after)
	compare(t, "guarded calls", callsBefore, callsAfter)
	bringBack(t, c, s, in, other)
	stop()
	shopping.Wait()
	for _, err := range s.wrong {
		t.Error(err)
	}
	t.Logf("%d decisions, all answered", s.served)
}

// fill gives the instances more to hold and to read from disk.
func fill(t *testing.T, c *cluster.Cluster) {
	t.Helper()
	for range heldFlags / writeFlags {
		var ops []*holdfastv1.Operation
		for range writeFlags {
			ops = append(ops, cluster.Flag("", "flag-"+hex.EncodeToString(cluster.NewRequestID()), "x"))
		}
		write(t, c, 0, ops...)
	}
}

// heldFlags are written in transactions of writeFlags.
const heldFlags, writeFlags = 1000, 250

// loseOne kills the server of the instance, which goes on with another one.
func loseOne(t *testing.T, c *cluster.Cluster, s *shopper) {
	t.Helper()
	victim := slices.Index(addresses(c), s.in.Status().Server)
	if victim < 0 {
		t.Fatalf("the instance is connected to %q, want one of %v", s.in.Status().Server, addresses(c))
	}
	must(t, c.Kill(victim))
	s.phase(t, "one server killed", time.Second)
	s.expect("red", "green")
	through := c.Others(victim)[0]
	leader(t, c)
	took := s.in.has(t, write(t, c, through, cluster.Flag("", "color", "green")))
	t.Logf("with one server killed a change was obeyed %v after its acknowledgement", took.Round(time.Millisecond))
	s.expect("green", "green")
	restart(t, c, victim)
}

// wantReadOnly requires that an instance obeys the override.
func wantReadOnly(t *testing.T, in *instance) {
	t.Helper()
	if !in.Mode("storefront").Is("read-only") {
		t.Errorf("the mode is at %+v, want read-only", in.Mode("storefront").Level())
	}
	_, err := client.Do(t.Context(), in.Client, "cart", func(context.Context) (int, error) { return 0, nil })
	if !errors.Is(err, client.Degraded) {
		t.Errorf("a call that read-only refuses ended with %v", err)
	}
}

// wantNormal waits until the override has ended and returns when.
func wantNormal(t *testing.T, in *instance) time.Time {
	t.Helper()
	must(t, cluster.Poll(within(t, 20*time.Second), func() error {
		if l := in.Mode("storefront").Level(); l.Rank > 0 {
			return fmt.Errorf("the mode is still at %+v", l)
		}
		return nil
	}))
	if _, err := client.Do(t.Context(), in.Client, "cart", func(context.Context) (int, error) { return 0, nil }); err != nil {
		t.Errorf("a call fails after the override has ended: %v", err)
	}
	return time.Now()
}

// restartFromDisk opens an instance while no server is there.
func restartFromDisk(t *testing.T, c *cluster.Cluster, dir string, revision uint64) *instance {
	t.Helper()
	in := openInstance(t, addresses(c), keeping(dir))
	t.Logf("opened from disk in %s ms", cluster.Millis(in.opening))
	if in.opening > time.Second {
		t.Errorf("opening from disk took %v", in.opening)
	}
	if s := in.Status(); s.Source != client.FromDisk || s.Revision != revision {
		t.Errorf("started with revision %d from %s, want %d from %s", s.Revision, s.Source, revision, client.FromDisk)
	}
	if v := in.String("color", codeValue).Get(); v != "green" {
		t.Errorf("the flag is %q, want green", v)
	}
	wantReadOnly(t, in)
	return in
}

// compare prints how the tail changed, and fails only where it is another order of
// magnitude: other programs run on the machine.
func compare(t *testing.T, what string, before, after cluster.Durations) {
	t.Helper()
	was, is := before.Quantile(0.99), after.Quantile(0.99)
	t.Logf("p99 of %s without servers: × %.2f of that before", what, float64(is)/float64(was))
	if is > 20*was+10*time.Millisecond {
		t.Errorf("p99 of %s went from %v to %v", what, was, is)
	}
}

// bringBack starts the servers and waits until the instances obey a new change.
func bringBack(t *testing.T, c *cluster.Cluster, s *shopper, instances ...*instance) {
	t.Helper()
	for i := range c.Len() {
		must(t, c.Restart(i))
	}
	must(t, c.WaitReady(within(t, 30*time.Second), 0))
	leader(t, c)
	s.expect("green", "blue")
	revision, wrote := write(t, c, 0, cluster.Flag("", "color", "blue")), time.Now()
	for _, in := range instances {
		in.has(t, revision)
		if v := in.String("color", codeValue).Get(); v != "blue" {
			t.Errorf("the flag is %q after convergence, want blue", v)
		}
	}
	took := time.Since(wrote)
	t.Logf("servers back: converged %v after the first write", took.Round(time.Millisecond))
	if took > 15*time.Second {
		t.Errorf("it took %v to converge", took)
	}
	s.expect("blue", "blue")
	s.phase(t, "servers back", 500*time.Millisecond)
}
