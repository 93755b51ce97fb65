package watch

import (
	"context"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/holdfast-dev/holdfast/internal/document"
	"github.com/holdfast-dev/holdfast/internal/state"
	storagev1 "github.com/holdfast-dev/holdfast/proto/holdfast/storage/v1"
)

// moment is a namespace at a revision of an epoch.
type moment struct {
	epoch     uint64
	revision  uint64
	namespace string
}

// truth is what every namespace was at every revision, by applying the log one
// entry at a time.
type truth struct {
	mu    sync.Mutex // guards the fields below
	roots map[moment]document.Root
	final Cursor
}

func (w *truth) note(v *state.View) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, name := range namespaces {
		w.roots[moment{v.Epoch().Counter, v.Revision(), name}] = v.Namespace(name).Root()
	}
	w.final = Cursor{Epoch: v.Epoch(), Revision: v.Revision(), Set: true}
}

func (w *truth) root(t failer, c Cursor, namespace string) document.Root {
	w.mu.Lock()
	defer w.mu.Unlock()
	root, ok := w.roots[moment{c.Epoch.Counter, c.Revision, namespace}]
	if !ok {
		t.Errorf("nothing ever was at revision %d of epoch %d", c.Revision, c.Epoch.Counter)
	}
	return root
}

var namespaces = []string{"a", "b", "c"}

// client is a naive subscriber: a map that events are applied to.
type client struct {
	t         failer
	truth     *truth
	namespace string
	content   map[document.Key]*document.Resource
	at        Cursor
}

// obey applies an event and checks it against the truth.
func (c *client) obey(e Event) {
	c.t.Helper()
	root := e.View.Namespace(c.namespace).Root()
	switch e.Kind {
	case Snapshot:
		c.content = make(map[document.Key]*document.Resource)
		e.View.Namespace(c.namespace).Ascend(0, "", "", func(r *document.Resource) bool {
			c.content[r.Key] = r
			return true
		})
	case Delta:
		d := e.Delta.Delta()
		if d.From > c.at.Revision || d.To != e.Revision || d.To <= c.at.Revision {
			c.t.Errorf("delta (%d, %d] for a client at %d", d.From, d.To, c.at.Revision)
		}
		for _, r := range d.Puts {
			c.content[r.Key] = r
		}
		for _, r := range d.Deletes {
			delete(c.content, r.Key)
		}
		root = d.Root
	case Woken:
		c.t.Errorf("woken by nobody")
	case Progress:
		if e.Revision < c.at.Revision {
			c.t.Errorf("progress from %d back to %d", c.at.Revision, e.Revision)
		}
	}
	c.at = Cursor{Epoch: e.View.Epoch(), Revision: e.Revision, Set: true}
	mine := document.Build(func(yield func(document.Key, [32]byte) bool) {
		for k, r := range maps.All(c.content) {
			if !yield(k, r.Hash()) {
				return
			}
		}
	}).Root()
	if want := c.truth.root(c.t, c.at, c.namespace); mine != want || root != want {
		c.t.Errorf("%s at revision %d of epoch %d after event %d: the client has %x, the event says %x, the truth is %x",
			c.namespace, c.at.Revision, c.at.Epoch.Counter, e.Kind, mine[:4], root[:4], want[:4])
	}
}

// TestEverySubscriberConverges writes through a server while another one lags
// behind, with subscribers that are slow, leave and resume, and hop between the
// two. Each has exactly the namespace at each revision that it is told of, and
// ends at the last one.
func TestEverySubscriberConverges(t *testing.T) {
	for seed := range uint64(4) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { converge(t, seed) })
		})
	}
}

func converge(t *testing.T, seed uint64) {
	t.Helper()
	limits := state.DefaultLimits()
	limits.Tombstones = 8
	servers := []*server{newServer(t, limits), newServer(t, limits)}
	w := &truth{roots: make(map[moment]document.Root)}
	w.note(servers[0].machine.View())
	w.note(state.New().View())
	log := make(chan state.Entry, 1_000)
	done := make(chan struct{})
	ctx, cancel := context.WithCancel(t.Context())
	var clients, lagging sync.WaitGroup
	random := func(n uint64) *rand.Rand { return rand.New(rand.NewPCG(seed, n)) }

	servers[0].feed([]state.Entry{{Index: 1, Term: 1, Data: encode(t, newEpoch(1, 1))}})
	servers[1].feed([]state.Entry{{Index: 1, Term: 1, Data: encode(t, newEpoch(1, 1))}})
	w.note(servers[0].machine.View())
	lagging.Go(func() { lag(servers[1], log, random(1)) })
	for i := range uint64(12) {
		clients.Go(func() { follow(ctx, t, servers, w, namespaces[i%3], random(100+i), done) })
	}
	r := random(0)
	for i := range 250 {
		time.Sleep(time.Duration(r.IntN(20)) * time.Millisecond) //nolint:forbidigo // virtual time
		entry := state.Entry{Index: uint64(i + 2), Term: 1, Data: encode(t, drawCommand(r, i))}
		w.foresee(servers[0], entry)
		servers[0].feed([]state.Entry{entry})
		log <- entry
	}
	close(log)
	lagging.Wait()
	close(done)
	clients.Wait()
	cancel()
	for _, s := range servers {
		if s.hub.Watchers() != 0 {
			t.Errorf("%d watchers left", s.hub.Watchers())
		}
	}
}

// foresee notes the truth before anybody can be told: on a copy of the server.
func (w *truth) foresee(s *server, entry state.Entry) {
	copied := state.NewLimited(state.DefaultLimits())
	reader, writer := io.Pipe()
	go func() {
		_, err := s.machine.View().WriteTo(writer)
		_ = writer.CloseWithError(err)
	}()
	if err := copied.Restore(reader); err != nil {
		s.t.Errorf("copy: %v", err)
		return
	}
	if _, err := copied.Apply([]state.Entry{entry}); err != nil {
		s.t.Errorf("apply: %v", err)
	}
	w.note(copied.View())
}

func drawCommand(r *rand.Rand, i int) *storagev1.Command {
	if r.IntN(60) == 0 {
		return newEpoch(1, uint64(i+10))
	}
	var steps []*storagev1.Step
	for _, name := range r.Perm(6)[:1+r.IntN(3)] {
		namespace := namespaces[min(2, r.IntN(6))]
		if r.IntN(3) == 0 {
			steps = append(steps, del(namespace, fmt.Sprint(name)))
		} else {
			steps = append(steps, put(namespace, fmt.Sprint(name), fmt.Sprint(r.IntN(3))))
		}
	}
	return write(steps...)
}

// lag applies the log in batches, late.
func lag(s *server, log <-chan state.Entry, r *rand.Rand) {
	for entry := range log {
		batch := []state.Entry{entry}
		time.Sleep(time.Duration(r.IntN(200)) * time.Millisecond) //nolint:forbidigo // virtual time
		for len(log) > 0 && len(batch) < 1+r.IntN(20) {
			batch = append(batch, <-log)
		}
		s.feed(batch)
	}
}

// follow is a client until it has everything.
func follow(ctx context.Context, t failer, servers []*server, w *truth, namespace string, r *rand.Rand, done <-chan struct{}) {
	c := &client{t: t, truth: w, namespace: namespace}
	pace := r.IntN(4) * 30
	ticker := time.NewTicker(time.Second)
	defer ticker.Stop()
	for {
		s := servers[r.IntN(2)].subscribe(namespace, c.at)
		for range 1 + r.IntN(20) {
			e, err := s.Next(ctx, ticker.C)
			if err != nil {
				t.Errorf("next: %v", err)
				s.Close()
				return
			}
			c.obey(e)
			if s.Cursor() != c.at {
				t.Errorf("the cursor is %+v, the client at %+v", s.Cursor(), c.at)
			}
			time.Sleep(time.Duration(r.IntN(1+pace)) * time.Millisecond) //nolint:forbidigo // virtual time
		}
		s.Close()
		select {
		case <-done:
			w.mu.Lock()
			final := w.final
			w.mu.Unlock()
			if c.at == final {
				return
			}
		default:
		}
	}
}

// TestNoLostWakeup has subscribers wait without any timer while changes come as
// fast as they can. A wake-up that is lost leaves one behind for ever, which
// ends the bubble as a deadlock.
func TestNoLostWakeup(t *testing.T) {
	for round := range 20 {
		t.Run(fmt.Sprint("round ", round), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := newCluster(t)
				const last = 50
				var all sync.WaitGroup
				for range 16 {
					s := c.subscribe("a", Cursor{})
					all.Go(func() {
						defer s.Close()
						for s.Cursor().Revision < last {
							if _, err := s.Next(t.Context(), nil); err != nil {
								t.Errorf("next: %v", err)
								return
							}
						}
					})
				}
				for i := range last {
					c.do(write(put("a", "x", fmt.Sprint(i))))
				}
				all.Wait()
			})
		})
	}
}

// TestNoLostWakeupInParallel is the same on real processors: bursts, after each
// of which everybody has to arrive before the next one begins.
func TestNoLostWakeupInParallel(t *testing.T) {
	const bursts, length, watchers = 2_000, 4, 8
	c := newCluster(t)
	arrived := make(chan struct{}, watchers)
	ctx, cancel := context.WithCancel(t.Context())
	var all sync.WaitGroup
	defer all.Wait()
	defer cancel()
	for range watchers {
		s := c.subscribe("a", Cursor{})
		all.Go(func() {
			defer s.Close()
			for s.Cursor().Revision < bursts*length {
				if _, err := s.Next(ctx, nil); err != nil {
					return
				}
				if at := s.Cursor().Revision; at > 0 && at%length == 0 {
					arrived <- struct{}{}
				}
			}
		})
	}
	for i := range bursts {
		for j := range length {
			c.do(write(put("a", "x", fmt.Sprint(i, j))))
		}
		for range watchers {
			select {
			case <-arrived:
			case <-time.After(10 * time.Second):
				t.Fatalf("somebody was not woken in burst %d: %+v", i, c.hub.Metrics())
			}
		}
	}
}
