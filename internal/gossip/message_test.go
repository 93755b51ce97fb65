package gossip

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/holdfast-dev/holdfast/internal/gossip/mesh"
)

// pair starts two members; prepare runs before each starts.
func pair(t *testing.T, network *mesh.Network, prepare func(i int, p *Pool)) []*Pool {
	t.Helper()
	var pools []*Pool
	for i := range 2 {
		transport, err := network.Transport(fmt.Sprintf("10.0.0.%d:1", i+1))
		if err != nil {
			t.Fatal(err)
		}
		p, err := New(Config{Name: string(rune('a' + i)), Label: "pair", Profile: Instances, Transport: transport, Join: []string{"10.0.0.1:1"}})
		if err != nil {
			t.Fatal(err)
		}
		prepare(i, p)
		if err := p.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = p.Close(context.Background()) })
		pools = append(pools, p)
	}
	until(t, time.Minute, "pool is whole", func() bool { return len(pools[0].Members()) == 2 && len(pools[1].Members()) == 2 })
	return pools
}

func TestSendReachesTheHandler(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		settle(t)
		type got struct {
			from Member
			body []byte
		}
		arrived := make(chan got, 1)
		pools := pair(t, mesh.New(31), func(_ int, p *Pool) {
			p.Handle("mail", func(_ context.Context, from Member, b []byte) { arrived <- got{from, b} })
		})
		body := bytes.Repeat([]byte("x"), MaxMessage)
		if err := pools[0].Send(t.Context(), pools[1].Name(), "mail", body); err != nil {
			t.Fatal(err)
		}
		if g := <-arrived; g.from.Name != pools[0].Name() || g.from.Addr != "10.0.0.1:1" || !bytes.Equal(g.body, body) {
			t.Errorf("%d bytes from %+v", len(g.body), g.from)
		}
		// A kind that the other does not know hurts nobody.
		if err := pools[0].Send(t.Context(), pools[1].Name(), "unknown", body); err != nil {
			t.Fatal(err)
		}
		until(t, time.Second, "counted", func() bool { return pools[1].Metrics().Malformed == 1 })
	})
}

// TestLongRecordsDoNotWait: what is longer than any record takes no memory while it waits
// to be refused.
func TestLongRecordsDoNotWait(t *testing.T) {
	p, err := New(Config{Name: "a"})
	if err != nil {
		t.Fatal(err)
	}
	p.AddRecords("facts", newFacts())
	message := append(appendName(nil, "facts"), make([]byte, recordLimit)...)
	delegate{p}.NotifyMsg(message)
	delegate{p}.NotifyMsg(message[:recordLimit])
	if m := p.Metrics(); len(p.inbox) != 1 || m.Malformed != 1 {
		t.Errorf("%d wait, %d are malformed", len(p.inbox), m.Malformed)
	}
}

// moody are records that cannot stand one of them.
type moody struct{ *facts }

func (m moody) Merge(b []byte) (string, bool) {
	key, news := m.facts.Merge(b)
	if key == "bad" {
		panic("bug")
	}
	return key, news
}

// TestPanicsEndHere: what records or a handler cannot stand is dropped, by whatever way
// it came; the process and the pool go on.
func TestPanicsEndHere(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		settle(t)
		mine, theirs, arrived := newFacts(), newFacts(), make(chan string, 1)
		mine.set("bad", 1) // goes also with the exchange of those who meet
		var channel *Channel
		pools := pair(t, mesh.New(32), func(i int, p *Pool) {
			if i == 0 {
				channel = p.AddRecords("facts", mine)
				return
			}
			p.AddRecords("facts", moody{theirs})
			p.Handle("mail", func(_ context.Context, _ Member, b []byte) {
				if string(b) == "bad" {
					panic("bug")
				}
				arrived <- string(b)
			})
		})
		mine.set("bad", 2)
		channel.Spread("bad")
		until(t, time.Minute, "it has come", func() bool { return theirs.version("bad") == 2 })
		mine.set("good", 1)
		channel.Spread("good")
		until(t, time.Minute, "the next record is taken", func() bool { return theirs.version("good") == 1 })
		for _, mail := range []string{"bad", "good"} {
			if err := pools[0].Send(t.Context(), pools[1].Name(), "mail", []byte(mail)); err != nil {
				t.Fatal(err)
			}
		}
		if got := <-arrived; got != "good" {
			t.Error(got)
		}
	})
}

func TestSendIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		settle(t)
		network := mesh.New(32)
		pools := pair(t, network, func(int, *Pool) {})
		to := pools[1].Name()
		if err := pools[0].Send(t.Context(), to, "mail", make([]byte, MaxMessage+1)); !errors.Is(err, ErrTooLarge) {
			t.Error(err)
		}
		if err := pools[0].Send(t.Context(), "nobody", "mail", nil); !errors.Is(err, ErrUnknownMember) {
			t.Error(err)
		}
		network.Cut("10.0.0.1:1", "10.0.0.2:1") // it hangs
		var hanging sync.WaitGroup
		for range sendLimit {
			hanging.Go(func() {
				if err := pools[0].Send(t.Context(), to, "mail", nil); err == nil {
					t.Error("sent over a cut link")
				}
			})
		}
		synctest.Wait()
		if err := pools[0].Send(t.Context(), to, "mail", nil); !errors.Is(err, ErrBusy) {
			t.Error(err)
		}
		start := time.Now()
		hanging.Wait()
		if took := time.Since(start); took > 2*streamTimeout {
			t.Errorf("hung for %v", took)
		}
		network.Heal()
		if err := pools[0].Send(t.Context(), to, "mail", nil); err != nil {
			t.Error("places were not given back:", err)
		}
		// The context ends the wait; the place stays taken until the attempt has ended.
		network.Cut("10.0.0.1:1", "10.0.0.2:1")
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		defer cancel()
		start = time.Now()
		if err := pools[0].Send(ctx, to, "mail", nil); !errors.Is(err, context.DeadlineExceeded) || time.Since(start) != 50*time.Millisecond {
			t.Errorf("%v after %v", err, time.Since(start))
		}
		if err := pools[0].Close(t.Context()); err != nil {
			t.Error(err)
		}
		if err := pools[0].Send(t.Context(), to, "mail", nil); err == nil {
			t.Error("sent by a closed pool")
		}
	})
}

// A peer that accepts streams and never reads them does not hold a sender for ever.
func TestSendToOneThatNeverReads(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		settle(t)
		network := mesh.New(33)
		pools := pair(t, network, func(int, *Pool) {})
		silent, err := network.Transport("10.0.0.9:1")
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = silent.Shutdown() }()
		pools[0].arrive(Member{Name: "silent", Addr: "10.0.0.9:1"})
		start := time.Now()
		if err := pools[0].Send(t.Context(), "silent", "mail", make([]byte, MaxMessage)); err == nil {
			t.Error("nobody read it")
		}
		if took := time.Since(start); took > 2*streamTimeout {
			t.Errorf("held for %v", took)
		}
	})
}

// Handlers that hang let messages of their kind be dropped, and nothing else.
func TestFloodIsDroppedAndCounted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		settle(t)
		release := make(chan struct{})
		var working, most, done atomic.Int32
		heard := newFacts()
		told := newFacts()
		var channel *Channel
		pools := pair(t, mesh.New(34), func(i int, p *Pool) {
			if i == 1 {
				p.Handle("mail", func(ctx context.Context, _ Member, _ []byte) {
					most.Store(max(most.Load(), working.Add(1)))
					defer working.Add(-1)
					select {
					case <-release:
						done.Add(1)
					case <-ctx.Done():
					}
				})
				p.AddRecords("facts", heard)
			} else {
				channel = p.AddRecords("facts", told)
			}
		})
		const flood = 1000
		message := append(appendName(appendName(nil, "mail"), pools[0].Name()), "x"...)
		for range flood {
			delegate{pools[1]}.NotifyMsg(message)
		}
		synctest.Wait()
		if m := pools[1].Metrics(); m.Dropped < flood-handlerQueue-handlerWorkers || most.Load() != handlerWorkers {
			t.Errorf("dropped %d, %d at a time", m.Dropped, most.Load())
		}
		told.set("x", 1)
		channel.Spread("x")
		until(t, time.Second, "records arrive", func() bool { return heard.version("x") == 1 })
		close(release)
		synctest.Wait()
		if n := int(done.Load()); n < handlerQueue || n > handlerQueue+handlerWorkers {
			t.Errorf("%d handled", n)
		}
		// Strangers are not handed out, and neither is what cannot be read.
		before, handled := pools[1].Metrics(), done.Load()
		delegate{pools[1]}.NotifyMsg(append(appendName(appendName(nil, "mail"), "stranger"), "x"...))
		delegate{pools[1]}.NotifyMsg(append(appendName(nil, "mail"), 200, 1))
		delegate{pools[1]}.NotifyMsg(make([]byte, MaxMessage+1000))
		synctest.Wait()
		if m := pools[1].Metrics(); m.Dropped != before.Dropped+2 || m.Malformed != before.Malformed+1 || done.Load() != handled {
			t.Errorf("dropped %d, malformed %d", m.Dropped-before.Dropped, m.Malformed-before.Malformed)
		}
	})
}

// Close ends handlers, whatever they wait for.
func TestCloseEndsHandlers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		settle(t)
		started := make(chan struct{}, handlerWorkers)
		pools := pair(t, mesh.New(35), func(_ int, p *Pool) {
			p.Handle("mail", func(ctx context.Context, _ Member, _ []byte) { started <- struct{}{}; <-ctx.Done() })
		})
		for range 3 * handlerWorkers {
			if err := pools[0].Send(t.Context(), pools[1].Name(), "mail", nil); err != nil {
				t.Fatal(err)
			}
		}
		<-started
		if err := pools[1].Close(t.Context()); err != nil {
			t.Fatal(err)
		}
	})
}

func TestProbe(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		settle(t)
		network := mesh.New(36)
		faulty := func(addr string, faults *faults) *Pool {
			transport, err := network.Transport(addr)
			if err != nil {
				t.Fatal(err)
			}
			p, err := New(Config{Name: "x", Label: "pair", Profile: Instances, Transport: faultyTransport{transport, faults}})
			if err != nil {
				t.Fatal(err)
			}
			if err := p.Start(); err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = p.Close(context.Background()) })
			return p
		}
		var mine, its faults
		pool := faulty("10.0.1.1:1", &mine)
		stranger := faulty("10.0.1.2:1", &its) // never joins
		probe := func(addr, name string, want ...error) {
			t.Helper()
			start := time.Now()
			err := pool.Probe(t.Context(), addr, name)
			for _, w := range []error{ErrNoPing, ErrNoStream} {
				if expected := contained(want, w); errors.Is(err, w) != expected {
					t.Errorf("%v is %v", err, w)
				}
			}
			if took := time.Since(start); took > 10*time.Second || len(want) == 0 && (err != nil || took > time.Second) {
				t.Errorf("%v after %v", err, took)
			}
		}
		probe("10.0.1.2:1", stranger.Name())
		if len(pool.Members()) != 1 || len(stranger.Members()) != 1 {
			t.Error("a probe makes members")
		}
		probe("10.0.1.2:1", "another name", ErrNoPing, ErrNoStream)
		probe("10.0.1.3:1", stranger.Name(), ErrNoPing, ErrNoStream)
		its.noPackets.Store(true) // its answers do not get out
		probe("10.0.1.2:1", stranger.Name(), ErrNoPing)
		its.noPackets.Store(false)
		its.noStreams.Store(true)
		probe("10.0.1.2:1", stranger.Name(), ErrNoStream)
		its.noStreams.Store(false)
		mine.noStreams.Store(true)
		probe("10.0.1.2:1", stranger.Name(), ErrNoStream)
		mine.noStreams.Store(false)
		probe("10.0.1.2:1", stranger.Name())
		if err := pool.Probe(t.Context(), "no address", "x"); err == nil {
			t.Error("probed no address")
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if err := pool.Probe(ctx, "10.0.1.3:1", "x"); !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	})
}

func contained(errs []error, err error) bool {
	for _, e := range errs {
		if errors.Is(e, err) {
			return true
		}
	}
	return false
}

type faults struct{ noPackets, noStreams atomic.Bool }

type faultyTransport struct {
	*mesh.Transport
	faults *faults
}

func (f faultyTransport) WriteTo(b []byte, addr string) (time.Time, error) {
	if f.faults.noPackets.Load() {
		return time.Now(), nil
	}
	return f.Transport.WriteTo(b, addr)
}

func (f faultyTransport) DialTimeout(addr string, timeout time.Duration) (net.Conn, error) {
	if f.faults.noStreams.Load() {
		return nil, errors.New("no streams today")
	}
	return f.Transport.DialTimeout(addr, timeout)
}

func TestProbeThroughAnother(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		settle(t)
		network := mesh.New(37)
		pools := pair(t, network, func(int, *Pool) {})
		transport, err := network.Transport("10.0.0.3:1")
		if err != nil {
			t.Fatal(err)
		}
		stranger, err := New(Config{Name: "c", Label: "pair", Profile: Instances, Transport: transport})
		if err != nil {
			t.Fatal(err)
		}
		if err := stranger.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = stranger.Close(context.Background()) })
		via := pools[1].Name()
		if err := pools[0].ProbeThrough(t.Context(), via, "10.0.0.3:1", stranger.Name()); err != nil {
			t.Error(err)
		}
		for i := range 15 {
			err := pools[0].ProbeThrough(t.Context(), via, "10.0.0.3:1", stranger.Name())
			if i+1 < askBurst && err != nil || i+1 >= askBurst && !errors.Is(err, ErrNoProbe) {
				t.Errorf("question %d at once: %v", i+2, err)
			}
		}
		if got := pools[1].Metrics().Dropped; got != 6 {
			t.Errorf("dropped %d", got)
		}
		network.Cut("10.0.0.3:1", "10.0.0.2:1") // only the member cannot reach it
		<-time.After(time.Second)
		if err := pools[0].ProbeThrough(t.Context(), via, "10.0.0.3:1", stranger.Name()); !errors.Is(err, ErrNoPing) || !errors.Is(err, ErrNoStream) {
			t.Error(err)
		}
		if err := pools[0].Probe(t.Context(), "10.0.0.3:1", stranger.Name()); err != nil {
			t.Error(err)
		}
		if err := pools[0].ProbeThrough(t.Context(), "nobody", "10.0.0.3:1", stranger.Name()); !errors.Is(err, ErrUnknownMember) {
			t.Error(err)
		}
		if err := pools[0].ProbeThrough(t.Context(), via, "10.0.0.3:1", strings.Repeat("x", nameLimit+1)); err == nil {
			t.Error("a long name")
		}
		// One that is not a member is not probed for.
		before := pools[1].Metrics().Dropped
		ask := append(appendName(appendName(nil, probeOther), "stranger"), "12345678"...)
		delegate{pools[1]}.NotifyMsg(append(appendName(ask, "x"), "10.0.0.3:1"...))
		synctest.Wait()
		if got := pools[1].Metrics().Dropped; got != before+1 {
			t.Errorf("dropped %d", got-before)
		}
		// Many askers at once; the first is forgotten.
		<-time.After(askBurst / askRate * time.Second)
		for i := range askLimit + 5 {
			if got := pools[1].mayAsk(fmt.Sprint(i), time.Now()); got != (i < askLimit) {
				t.Errorf("asker %d: %v", i, got)
			}
		}
	})
}
