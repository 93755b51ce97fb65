package sim

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/holdfast-dev/holdfast/pkg/client"
	holdfastv1 "github.com/holdfast-dev/holdfast/proto/holdfast/v1"
	"github.com/holdfast-dev/holdfast/test/cluster"
)

const processes = 30

// The document has so many flags, each of so many bytes.
const (
	documentFlags = 50
	flagBytes     = 4000
)

// herd is a number of processes with three servers.
type herd struct {
	*testing.T
	cluster *cluster.Cluster
	all     []*Process
}

func newHerd(t *testing.T) *herd {
	t.Helper()
	dir := t.TempDir()
	server, err := cluster.BuildServer(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	program, err := BuildProcess(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	c, err := cluster.Start(t.Context(), cluster.Options{Server: server})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	h := &herd{T: t, cluster: c}
	for n := range processes {
		p, err := StartProcess(program, dir, n, []string{c.Addr(n % 3), c.Addr((n + 1) % 3), c.Addr((n + 2) % 3)}, client.GossipDirect)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := p.Stop(); err != nil {
				t.Error(err)
			}
		})
		h.all = append(h.all, p)
	}
	return h
}

// each does something with all processes at once.
func (h *herd) each(f func(n int, p *Process) error) {
	h.Helper()
	var work sync.WaitGroup
	for n, p := range h.all {
		work.Go(func() {
			if err := f(n, p); err != nil {
				h.Error(err)
			}
		})
	}
	work.Wait()
	if h.Failed() {
		h.FailNow()
	}
}

func (h *herd) tell(command string) {
	h.Helper()
	h.each(func(_ int, p *Process) error { return p.Tell(command) })
}

// took waits until those that are meant tell something, and returns how long each took.
func (h *herd) took(from time.Time, within time.Duration, meant func(n int) bool, line func(*Line) bool) []time.Duration {
	h.Helper()
	ctx, cancel := context.WithTimeout(h.Context(), within)
	defer cancel()
	var mu sync.Mutex
	var all []time.Duration
	h.each(func(n int, p *Process) error {
		if !meant(n) {
			return nil
		}
		l, err := p.Wait(ctx, from, line)
		mu.Lock()
		defer mu.Unlock()
		all = append(all, time.Duration(l.Time-from.UnixNano()))
		return err
	})
	return all
}

func (h *herd) reports() []*Report {
	h.Helper()
	ctx, cancel := context.WithTimeout(h.Context(), 10*time.Second)
	defer cancel()
	all := make([]*Report, len(h.all))
	h.each(func(n int, p *Process) (err error) {
		all[n], err = p.Report(ctx)
		return err
	})
	return all
}

// until waits until all reports are as they should be.
func (h *herd) until(within time.Duration, what string, ok func(*Report) bool) []*Report {
	h.Helper()
	for late := time.Now().Add(within); ; {
		all := h.reports()
		bad := slices.IndexFunc(all, func(r *Report) bool { return !ok(r) })
		if bad < 0 {
			return all
		}
		if time.Now().After(late) {
			h.Fatalf("not within %v: %s: %+v", within, what, all[bad].Status)
		}
		<-time.After(200 * time.Millisecond)
	}
}

func (h *herd) write(ops ...*holdfastv1.Operation) {
	h.Helper()
	ctx, cancel := context.WithTimeout(h.Context(), 20*time.Second)
	defer cancel()
	if _, err := h.cluster.Writer(0, 5*time.Second).Write(ctx, "test", ops...); err != nil {
		h.Fatal(err)
	}
}

// costs shows what a member costs over a time.
func (h *herd) costs(table *Table, what string, over time.Duration) {
	h.Helper()
	before := h.reports()
	<-time.After(over)
	after := h.reports()
	var cpu time.Duration
	var sent, packets, heap, goroutines float64
	for n := range after {
		cpu += after[n].CPU - before[n].CPU
		sent += float64(after[n].Fleet.SentBytes - before[n].Fleet.SentBytes)
		packets += float64(after[n].Fleet.SentPackets - before[n].Fleet.SentPackets)
		heap += float64(after[n].HeapBytes) / (1 << 10)
		goroutines += float64(after[n].Goroutines)
	}
	all := float64(len(after))
	table.Row(what, fmt.Sprintf("%.2f %%", 100*cpu.Seconds()/over.Seconds()/all), sent/over.Seconds()/all, packets/over.Seconds()/all, goroutines/all, heap/all)
}

// Thirty processes with the SDK, each on its own address, and three servers.
func TestProcesses(t *testing.T) {
	if !*long {
		t.Skip("real processes: make sim")
	}
	h := newHerd(t)
	began := time.Now()
	h.until(2*time.Minute, "all are members", func(r *Report) bool {
		return r.Status.Gossip.Mode == client.GossipDirect && r.Status.Gossip.Members == processes+h.cluster.Len()
	})
	t.Logf("all know each other after %v", short(time.Since(began)))
	costs := NewTable(fmt.Sprintf("a member of %d processes and 3 servers costs", processes), "while", "CPU", "bytes/s sent", "packets/s", "goroutines", "heap KiB")
	h.costs(costs, "idle", 20*time.Second)

	h.firstSight()
	h.outage(costs)
	t.Log(costs)
	h.relay()
}

func (h *herd) everybody(int) bool { return true }
func (h *herd) others(n int) bool  { return n > 0 }

// firstSight lets calls of one process fail: how soon do the others know?
func (h *herd) firstSight() {
	h.Helper()
	times := NewTable("one process finds search broken; the others know", "round", "50 %", "99 %", "100 %")
	for round := range 3 {
		h.tell("watch search")
		if err := h.all[0].Tell("fail search"); err != nil {
			h.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(h.Context(), 20*time.Second)
		opened, err := h.all[0].Wait(ctx, time.Now().Add(-time.Second), func(l *Line) bool { return l.Kind == "breaker" && l.Name == "search" && l.To == "open" })
		cancel()
		if err != nil {
			h.Fatal(err)
		}
		all := h.took(time.Unix(0, opened.Time), 20*time.Second, h.others, func(l *Line) bool { return l.Kind == "seen" })
		times.Row(round+1, Percentile(all, 0.5), Percentile(all, 0.99), Percentile(all, 1))
		if err := h.all[0].Tell("heal search"); err != nil {
			h.Fatal(err)
		}
		h.until(2*time.Minute, "search is well", func(r *Report) bool {
			return !slices.ContainsFunc(r.Status.Fleet, func(v client.FleetVerdict) bool {
				return v.Dependency == "search" && (v.HostsOpen > 0 || v.Opinion == "open")
			})
		})
	}
	h.Log(times)
}

// outage lets calls of all processes fail.
func (h *herd) outage(costs *Table) {
	h.Helper()
	before := h.reports()
	from := time.Now()
	h.tell("fail payments")
	all := h.took(from, 30*time.Second, h.everybody, func(l *Line) bool {
		return l.Kind == "breaker" && l.Name == "payments" && (l.To == "open" || l.To == "hearsay")
	})
	h.Logf("payments is dead for all: 50 %% fail fast after %v, 99 %% %v, 100 %% %v", Percentile(all, 0.5), Percentile(all, 0.99), Percentile(all, 1))
	<-time.After(time.Until(from.Add(10 * time.Second)))
	var sent uint64
	for n, r := range h.reports() {
		sent += r.Calls - before[n].Calls
	}
	h.Logf("%d calls of %d processes with 5/s each reached it in 10 s", sent, len(h.all))
	h.costs(costs, "in an outage", 20*time.Second)
	back := time.Now()
	h.tell("heal payments")
	recovered := h.took(back, 2*time.Minute, h.everybody, func(l *Line) bool { return l.Kind == "breaker" && l.Name == "payments" && l.To == "closed" })
	h.Logf("payments is back: 50 %% let all calls through after %v, 100 %% %v", Percentile(recovered, 0.5), Percentile(recovered, 1))
}

// relay cuts the sessions of all but one, and sets a mode.
func (h *herd) relay() {
	h.Helper()
	h.write(&holdfastv1.Operation{Action: &holdfastv1.Operation_Put{Put: &holdfastv1.Put{
		Key:  &holdfastv1.ResourceKey{Kind: holdfastv1.Kind_KIND_MODE, Name: "storefront"},
		Spec: []byte(`{"levels":[{"name":"read-only","effects":[{"action":"reject","operations":["cart"]}]}]}`),
	}}})
	for n := range documentFlags {
		h.write(&holdfastv1.Operation{Action: &holdfastv1.Operation_Put{Put: &holdfastv1.Put{
			Key:  &holdfastv1.ResourceKey{Kind: holdfastv1.Kind_KIND_FLAG, Name: fmt.Sprintf("flag-%02d", n)},
			Spec: fmt.Appendf(nil, `{"state":"ENABLED","variants":{"on":%q},"defaultVariant":"on"}`, strings.Repeat("x", flagBytes)),
		}}})
	}
	h.until(20*time.Second, "connected", func(r *Report) bool { return r.Status.Connected && r.Status.Revision > 0 })
	h.each(func(n int, p *Process) error {
		if n == 0 {
			return nil
		}
		return p.Tell("cut")
	})
	connected := func(r *Report) bool { return r.Status.Connected }
	h.tell("follow storefront")
	<-time.After(6 * time.Second) // peers are asked once servers have been gone for some seconds
	if all := h.reports(); !connected(all[0]) || slices.ContainsFunc(all[1:], connected) {
		h.Fatal("those who are to be cut off are not, or the one that is not is")
	}
	from := time.Now()
	h.write(&holdfastv1.Operation{Action: &holdfastv1.Operation_Put{Put: &holdfastv1.Put{
		Key:  &holdfastv1.ResourceKey{Kind: holdfastv1.Kind_KIND_OVERRIDE, Name: "incident"},
		Spec: []byte(`{"mode":"storefront","level":"read-only"}`), Ttl: durationpb.New(10 * time.Minute),
	}}})
	all := h.took(from, 30*time.Second, h.everybody, func(l *Line) bool { return l.Kind == "mode" && l.To == "read-only" })
	h.Logf("%d of %d have no session; a mode that is set is obeyed by 50 %% after %v, by all after %v", len(h.all)-1, len(h.all), Percentile(all, 0.5), Percentile(all, 1))
	before := h.fetched()
	h.tell("mend")
	h.until(time.Minute, "connected again", connected)
	<-time.After(time.Second)
	each := (h.fetched() - before) / int64(len(h.all)-1)
	h.Logf("with the servers back each fetched %d bytes in its first second; the document has more than %d", each, documentFlags*flagBytes)
	if each > documentFlags*flagBytes/2 {
		h.Error("with the servers back everybody fetches the document again")
	}
}

// fetched is how many bytes all but the first process have got from servers.
func (h *herd) fetched() (bytes int64) {
	for _, r := range h.reports()[1:] {
		bytes += r.Fetched
	}
	return bytes
}
