package relay

import (
	"bytes"
	"context"
	"crypto/rand"
	"maps"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/holdfast-dev/holdfast/internal/document"
	"github.com/holdfast-dev/holdfast/internal/gossip"
	"github.com/holdfast-dev/holdfast/internal/mirror"
	"github.com/holdfast-dev/holdfast/internal/session"
	"github.com/holdfast-dev/holdfast/internal/trust"
	holdfastv1 "github.com/holdfast-dev/holdfast/proto/holdfast/v1"
)

// record is a head as it travels, with the change from a revision if that is not 0.
func (c *cluster) record(signed *holdfastv1.SignedHead, from, to uint64, holder string) []byte {
	h := &signedHead{signed: signed, holder: holder}
	if from > 0 {
		old := c.mirror(from)
		h.from, h.base = from, old.Root()
		h.delta, _ = proto.Marshal(mirror.NewSheaf(c.mirror(to).Since(old), sheafBytes).Message(0))
	}
	return h.encode()
}

// TestRefusesHeads: whatever is wrong with a head, it is not obeyed, not passed on, and
// the right one is obeyed after it.
func TestRefusesHeads(t *testing.T) {
	for name, spoil := range map[string]func(w *world) []byte{
		"forged": func(w *world) []byte {
			h := trust.SignHead(w.cluster.key, w.cluster.head(3))
			h.Signature[10]++
			return w.cluster.record(h, 2, 3, "")
		},
		"forged content under a right signature": func(w *world) []byte {
			h := trust.SignHead(w.cluster.key, w.cluster.head(2))
			h.Head = trust.SignHead(w.cluster.key, w.cluster.head(3)).GetHead()
			return w.cluster.record(h, 2, 3, "")
		},
		"a timestamp as a head": func(w *world) []byte { return w.cluster.record(w.cluster.stamp(), 2, 3, "") },
		"unknown signer": func(w *world) []byte {
			return w.cluster.record(trust.SignHead(newKey(w.t), w.cluster.head(3)), 2, 3, "")
		},
		"unknown signer with a known id": func(w *world) []byte {
			h := trust.SignHead(newKey(w.t), w.cluster.head(3))
			h.KeyId = w.cluster.key.ID().String()
			return w.cluster.record(h, 2, 3, "")
		},
		"replayed": func(w *world) []byte {
			return w.cluster.record(trust.SignHead(w.cluster.key, w.cluster.head(1)), 0, 1, "")
		},
		"downgraded": func(w *world) []byte {
			h := w.cluster.head(3)
			h.Epoch.Counter--
			return w.cluster.record(trust.SignHead(w.cluster.key, h), 2, 3, "")
		},
		"forked": func(w *world) []byte {
			h := w.cluster.head(3)
			h.Epoch.Nonce++
			return w.cluster.record(trust.SignHead(w.cluster.key, h), 2, 3, "")
		},
		"other namespace": func(w *world) []byte {
			h := w.cluster.head(3)
			h.Namespace = "other"
			return w.cluster.record(trust.SignHead(w.cluster.key, h), 2, 3, "")
		},
		"other lineage": func(w *world) []byte {
			h := w.cluster.head(3)
			h.Epoch.Lineage[0]++
			return w.cluster.record(trust.SignHead(w.cluster.key, h), 2, 3, "")
		},
		"truncated": func(w *world) []byte {
			b := w.cluster.record(trust.SignHead(w.cluster.key, w.cluster.head(3)), 2, 3, "")
			return b[:len(b)-1]
		},
		"too long": func(w *world) []byte {
			return append(w.cluster.record(trust.SignHead(w.cluster.key, w.cluster.head(3)), 2, 3, ""), 0)
		},
		"nothing": func(*world) []byte { return nil },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				for _, spec := range []string{`"1"`, `"2"`} {
					w.cluster.put(map[string]string{"a": spec})
				}
				i := w.instances(1)[0]
				w.cutOff(i, true)
				wait(10 * time.Second)
				w.cluster.put(map[string]string{"a": `"3"`})
				if _, news := i.relay.Merge(spoil(w)); news {
					t.Error("it is passed on")
				}
				wait(10 * time.Second)
				if i.revision() != 2 || i.source() != session.FromServer {
					t.Errorf("at %d from %s", i.revision(), i.source())
				}
				if m := i.relay.Metrics(); name != "replayed" && name != "downgraded" && name != "forked" && name != "other lineage" && m.Forged+m.Malformed != 1 {
					t.Errorf("not counted: %+v", m)
				}
				if _, news := i.relay.Merge(w.cluster.record(trust.SignHead(w.cluster.key, w.cluster.head(3)), 2, 3, "")); !news {
					t.Error("the right head is no news")
				}
				wait(time.Second)
				if i.revision() != 3 || i.source() != session.FromPeer {
					t.Errorf("at %d from %s after the right head", i.revision(), i.source())
				}
			})
		})
	}
}

// TestTruncatedRecords: no prefix of a record or message is taken for one, and none
// does any harm.
func TestTruncatedRecords(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.cluster.put(map[string]string{"a": `"1"`})
		w.cluster.put(map[string]string{"a": `"2"`})
		r := New(Config{Namespace: namespace})
		if err := r.TrustServer(w.cluster.set.Bytes()); err != nil {
			t.Fatal(err)
		}
		for _, b := range [][]byte{
			w.cluster.record(trust.SignHead(w.cluster.key, w.cluster.head(2)), 1, 2, "i1"),
			appendSigned([]byte{timeType}, w.cluster.stamp()),
			append([]byte{signersType}, w.cluster.signers(2, w.cluster.key).Bytes()...),
		} {
			for n := range b {
				if _, news := r.Merge(b[:n]); news {
					t.Fatalf("%d of %d bytes of %q are news", n, len(b), b[0])
				}
				wait(100 * time.Millisecond) // for what may be verified
			}
			if _, news := r.Merge(b); !news {
				t.Errorf("%q is no news", b[0])
			}
		}
		q := (&question{id: 1, certificate: []byte("c"), signature: []byte("s")}).encode()
		a := (&answer{kind: partType, part: []byte("p"), members: []string{"m"}}).encode()
		for n := range max(len(q), len(a)) {
			if n < len(q) {
				if _, err := decodeQuestion(q[:n]); err == nil {
					t.Errorf("%d bytes of a question are one", n)
				}
			}
		}
		for n := range len(a) - len("m") - 1 {
			if _, err := decodeAnswer(a[:n]); err == nil {
				t.Errorf("%d bytes of an answer are one", n)
			}
		}
	})
}

// TestTheMarkOutlivesTheCache: who has lost all but the mark is not set back by a peer.
func TestTheMarkOutlivesTheCache(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		for _, spec := range []string{`"1"`, `"2"`, `"3"`} {
			w.cluster.put(map[string]string{"a": spec})
		}
		i := w.instance()
		i.dir = t.TempDir()
		i.start()
		wait(5 * time.Second)
		i.close()
		w.cutOff(i, true)
		if err := os.Remove(filepath.Join(i.dir, "holdfast-default.cache")); err != nil {
			t.Fatal(err)
		}
		i.start()
		defer i.close()
		wait(10 * time.Second)
		if _, news := i.relay.Merge(w.cluster.record(trust.SignHead(w.cluster.key, w.cluster.head(2)), 0, 2, "")); news {
			t.Error("a head from before the mark is passed on")
		}
		wait(10 * time.Second)
		if i.session.Mirror().Position().Set() {
			t.Errorf("at %s", i.session.Mirror().Position())
		}
	})
}

// rogue is a member of the pool that does what it likes.
type rogue struct {
	w    *world
	pool *gossip.Pool
	ch   *gossip.Channel
	stop context.CancelFunc
	done sync.WaitGroup

	mu      sync.Mutex
	records map[string][]byte
	asked   int
}

func (g *rogue) Keys() []string              { return nil }
func (g *rogue) Merge([]byte) (string, bool) { return "", false }
func (g *rogue) Digest(string) uint64        { return 0 }
func (g *rogue) Encode(key string) []byte {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.records[key]
}

// say spreads a record.
func (g *rogue) say(key string, b []byte) {
	g.mu.Lock()
	g.records[key] = b
	g.mu.Unlock()
	g.ch.Spread(key)
}

// rogue starts one that answers questions so; nil never.
func (w *world) rogue(answer func(q question) *answer) *rogue {
	w.t.Helper()
	i := w.instance()
	ctx, stop := context.WithCancel(context.Background())
	g := &rogue{w: w, stop: stop, records: map[string][]byte{}}
	g.pool = w.pool(i.id, i.addr, i.seeds, func(p *gossip.Pool) {
		g.ch = p.AddRecords(channel, g)
		p.Handle(askKind, func(ctx context.Context, from gossip.Member, b []byte) {
			q, err := decodeQuestion(b)
			g.mu.Lock()
			g.asked++
			g.mu.Unlock()
			if err != nil || answer == nil {
				return
			}
			_ = p.Send(ctx, from.Name, tellKind, answer(q).encode())
		})
	})
	w.t.Cleanup(func() {
		stop()
		g.done.Wait()
		ctx, cancel := context.WithTimeout(ctx, time.Second)
		defer cancel()
		_ = g.pool.Close(ctx)
	})
	return g
}

// wrong is a document, as far as it goes.
func wrong(c *cluster, q question, change func(m *holdfastv1.ConnectResponse)) *answer {
	m := mirror.NewSheaf(c.whole(c.newest()), sheafBytes).Message(0)
	change(m)
	b, _ := proto.Marshal(m)
	return &answer{kind: partType, id: q.id, chunk: q.chunk, offset: q.offset, size: uint32(len(b)), part: b}
}

// TestRefusesDocuments: a member passes the right head on and has the wrong document,
// or none, or answers nothing; it is left alone, and an honest one asked.
func TestRefusesDocuments(t *testing.T) {
	for name, of := range map[string]func(w *world) func(q question) *answer{
		"a member that never answers": func(*world) func(question) *answer { return nil },
		"a lost definition": func(w *world) func(question) *answer {
			return func(q question) *answer {
				return wrong(w.cluster, q, func(m *holdfastv1.ConnectResponse) { s := m.GetSnapshot(); s.Resources = s.Resources[1:] })
			}
		},
		"another definition": func(w *world) func(question) *answer {
			return func(q question) *answer {
				return wrong(w.cluster, q, func(m *holdfastv1.ConnectResponse) { m.GetSnapshot().Resources[0].Spec = []byte(`"evil"`) })
			}
		},
		"another root": func(w *world) func(question) *answer {
			return func(q question) *answer {
				return wrong(w.cluster, q, func(m *holdfastv1.ConnectResponse) {
					s := m.GetSnapshot()
					s.Resources[0].Spec = []byte(`"evil"`)
					_, r, _ := document.FromProto(s.Resources[0])
					root := rootOf(map[document.Key]*document.Resource{r.Key: r})
					s.Resources, s.Root = s.Resources[:1], root[:]
				})
			}
		},
		"another epoch": func(w *world) func(question) *answer {
			return func(q question) *answer {
				return wrong(w.cluster, q, func(m *holdfastv1.ConnectResponse) { m.Epoch.Counter++ })
			}
		},
		"a later revision": func(w *world) func(question) *answer { // of the right content: it goes to the head's
			return func(q question) *answer {
				return wrong(w.cluster, q, func(m *holdfastv1.ConnectResponse) { m.GetSnapshot().Revision = math.MaxUint64 })
			}
		},
		"progress": func(w *world) func(question) *answer {
			return func(q question) *answer {
				return wrong(w.cluster, q, func(m *holdfastv1.ConnectResponse) {
					m.Event = &holdfastv1.ConnectResponse_Progress{Progress: &holdfastv1.Progress{Revision: 9, Root: q.root[:]}}
				})
			}
		},
		"no end": func(w *world) func(question) *answer {
			return func(q question) *answer {
				return wrong(w.cluster, q, func(m *holdfastv1.ConnectResponse) {
					s := m.GetSnapshot()
					s.Last, s.Chunk = false, q.chunk
					s.Resources[0].Spec = make([]byte, 180<<10)
				})
			}
		},
		"a truncated chunk": func(w *world) func(question) *answer {
			return func(q question) *answer {
				a := wrong(w.cluster, q, func(*holdfastv1.ConnectResponse) {})
				a.part = a.part[:len(a.part)/2]
				a.size = uint32(len(a.part))
				return a
			}
		},
		"a chunk without bytes": func(*world) func(question) *answer {
			return func(q question) *answer {
				return &answer{kind: partType, id: q.id, chunk: q.chunk, offset: q.offset, size: 100}
			}
		},
		"a chunk of 4 GiB": func(*world) func(question) *answer {
			return func(q question) *answer {
				return &answer{kind: partType, id: q.id, chunk: q.chunk, offset: q.offset, size: math.MaxUint32, part: make([]byte, 1000)}
			}
		},
		"noise": func(*world) func(question) *answer {
			return func(q question) *answer {
				part := make([]byte, 1000)
				_, _ = rand.Read(part)
				return &answer{kind: partType, id: q.id, chunk: q.chunk, offset: q.offset, size: 1000, part: part}
			}
		},
		"it never has it": func(*world) func(question) *answer {
			return func(q question) *answer {
				return &answer{kind: noneType, id: q.id, members: []string{"nobody", "", "i1"}}
			}
		},
		"it is always busy": func(*world) func(question) *answer {
			return func(q question) *answer { return &answer{kind: busyType, id: q.id} }
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				w.cluster.put(map[string]string{"a": `"1"`, "b": `"1"`, "c": `"1"`})
				all := w.instances(2)
				victim, honest := all[0], all[1]
				g := w.rogue(of(w))
				w.cutOff(victim, true)
				w.cutOff(honest, true)
				wait(15 * time.Second)
				large := strings.Repeat("z", 10<<10)
				w.cluster.put(map[string]string{"a": large})
				g.say(headKey, w.cluster.record(trust.SignHead(w.cluster.key, w.cluster.head(2)), 0, 2, g.pool.Name()))
				wait(20 * time.Second)
				ok := name == "a later revision"
				g.mu.Lock()
				asked := g.asked
				g.mu.Unlock()
				if got := victim.at(w.cluster); got != ok || asked == 0 {
					t.Errorf("obeyed: %v, after %d questions", got, asked)
				}
				if most := map[string]int{"no end": math.MaxInt, "it never has it": 30, "it is always busy": 30}[name]; asked > max(most, 3) {
					t.Errorf("asked %d times", asked)
				}
				if victim.revision() > 2 {
					t.Errorf("at %d", victim.revision())
				}
				w.cutOff(honest, false)
				until(t, 90*time.Second, "the honest one is asked", func() bool { return victim.at(w.cluster) && victim.revision() == 2 })
				if m := victim.relay.Metrics(); !ok && m.Documents != 1 {
					t.Errorf("metrics %+v", m)
				}
			})
		})
	}
}

// TestWrongDeltas: what comes with a right head is not believed because of that.
func TestWrongDeltas(t *testing.T) {
	for name, change := range map[string]func(w *world, h *signedHead){
		"noise": func(_ *world, h *signedHead) { h.delta = []byte("noise") },
		"another change": func(w *world, h *signedHead) {
			evil := mirror.NewSheaf(w.cluster.mirror(2).Since(w.cluster.mirror(1)), sheafBytes).Message(0)
			evil.GetDelta().Puts[0].Spec = []byte(`"evil"`)
			h.delta, _ = proto.Marshal(evil)
		},
		"another base": func(w *world, h *signedHead) { h.base, h.from = document.Root{1}, 2 },
		"a part": func(w *world, h *signedHead) {
			m := mirror.NewSheaf(w.cluster.mirror(2).Since(w.cluster.mirror(1)), sheafBytes).Message(0)
			m.GetDelta().Last = false
			h.delta, _ = proto.Marshal(m)
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				w.cluster.put(map[string]string{"a": `"1"`, "b": `"1"`})
				all := w.instances(2)
				w.cutOff(all[0], true)
				wait(10 * time.Second)
				h, err := decodeHead(w.clusterNext())
				if err != nil {
					t.Fatal(err)
				}
				w.cutOff(all[1], true)
				change(w, h)
				if name == "another base" { // it leads there from nowhere
					all[0].relay.Merge(h.encode())
					wait(5 * time.Second)
				} else if _, news := all[0].relay.Merge(h.encode()); !news {
					t.Fatal("the head is no news")
				}
				wait(5 * time.Second)
				if all[0].at(w.cluster) {
					t.Error("obeyed")
				}
				w.cutOff(all[1], false)
				until(t, time.Minute, "it is asked for", func() bool { return all[0].at(w.cluster) })
				if m := all[0].relay.Metrics(); m.Documents != 1 {
					t.Errorf("metrics %+v", m)
				}
			})
		})
	}
}

// clusterNext makes revision 2 without telling anybody, and returns its record.
func (w *world) clusterNext() []byte {
	c := w.cluster
	c.mu.Lock()
	next := maps.Clone(c.history[1])
	k := document.Key{Kind: document.Flag, Name: "a"}
	next[k] = &document.Resource{Key: k, Spec: []byte(`"2"`), CreateRevision: 2, ModRevision: 2, Version: 1}
	c.history = append(c.history, next)
	c.mu.Unlock()
	return c.record(trust.SignHead(c.key, c.head(2)), 1, 2, "")
}

// TestGarbageForever: a member floods another one with records, answers and questions.
// Memory stays as it is, and the document comes through.
func TestGarbageForever(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.cluster.put(map[string]string{"a": `"1"`})
		all := w.instances(2)
		victim := all[0]
		g := w.rogue(nil)
		w.cutOff(victim, true)
		wait(15 * time.Second)
		ctx, stop := context.WithCancel(context.Background())
		sent := 0
		var flood sync.WaitGroup
		flood.Go(func() {
			for n := uint64(1); ctx.Err() == nil; n++ {
				noise := make([]byte, 1000)
				_, _ = rand.Read(noise)
				h := w.cluster.head(1)
				h.Revision += n
				forged := trust.SignHead(w.cluster.key, h)
				forged.Signature[0]++
				g.say(headKey, w.cluster.record(forged, 0, 1, g.pool.Name()))
				for kind, b := range map[string][]byte{
					askKind:  (&question{id: n, root: w.cluster.head(1).Root, epoch: h.Epoch, certificate: noise[:300], signature: noise[:64]}).encode(),
					tellKind: (&answer{kind: partType, id: n, size: 1 << 20, part: bytes.Repeat(noise, 200)}).encode(),
				} {
					if g.pool.Send(ctx, victim.pool.Name(), kind, b) == nil {
						sent++
					}
				}
				time.Sleep(5 * time.Millisecond) //nolint:forbidigo // in a bubble, where it is the time of the bubble
			}
		})
		memory := func() uint64 {
			var m runtime.MemStats
			runtime.GC()
			runtime.ReadMemStats(&m)
			return m.HeapAlloc
		}
		wait(time.Second)
		before := memory()
		forever := 20 * time.Second
		if raceDetector {
			forever = 6 * time.Second
		}
		wait(forever)
		if now := memory(); now > before+(8<<20) {
			t.Errorf("%d bytes, before %d", now, before)
		}
		large := strings.Repeat("z", 300<<10)
		w.cluster.put(map[string]string{"a": large})
		took := until(t, time.Minute, "the document comes through", func() bool { return victim.at(w.cluster) })
		stop()
		flood.Wait()
		m := victim.relay.Metrics()
		t.Logf("obeyed after %v, beside %d messages: %+v", took, sent, m)
		if m.Forged+m.Overloaded == 0 || m.Refused == 0 || m.Malformed == 0 || sent < 1000 {
			t.Errorf("metrics %+v after %d messages", m, sent)
		}
	})
}

// TestTooMuchToVerify: there is a bound to what a flood costs, and it ends with it.
func TestTooMuchToVerify(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		c := w.cluster
		c.put(map[string]string{"a": `"1"`})
		c.put(map[string]string{"a": `"2"`})
		r := New(Config{Namespace: namespace})
		if err := r.TrustServer(c.set.Bytes()); err != nil {
			t.Fatal(err)
		}
		right := c.record(trust.SignHead(c.key, c.head(1)), 0, 1, "")
		for n := range uint64(2 * verifyBurst) {
			h := c.head(1)
			h.Revision += n
			r.Merge(c.record(trust.SignHead(newKey(t), h), 0, 1, ""))
		}
		if m := r.Metrics(); m.Forged != verifyBurst || m.Overloaded != verifyBurst {
			t.Errorf("metrics %+v", m)
		}
		if _, news := r.Merge(right); news {
			t.Error("verified beyond the bound")
		}
		r.Head(trust.SignHead(c.key, c.head(2)), nil) // a server's word is not bound
		if r.Status().Head.Revision != 2 {
			t.Error("the server is not heard")
		}
		wait(time.Second)
		for range 2 * verifyBurst { // what is known costs nothing
			r.Merge(c.record(trust.SignHead(c.key, c.head(2)), 0, 1, ""))
		}
		if m := r.Metrics(); m.Overloaded != verifyBurst+1 {
			t.Errorf("metrics %+v", m)
		}
	})
}

// TestOnlyTheAnswer: of all that members send, only the answer to the question under
// way is kept.
func TestOnlyTheAnswer(t *testing.T) {
	r := New(Config{Namespace: namespace})
	from := gossip.Member{Name: "holder"}
	r.asked, r.askedOf = question{id: 7, chunk: 2, offset: 100}, "holder"
	right := answer{kind: partType, id: 7, chunk: 2, offset: 100, size: 1, part: []byte("x")}
	for name, spoil := range map[string]func(a *answer, from *gossip.Member){
		"another member":   func(_ *answer, from *gossip.Member) { from.Name = "other" },
		"another transfer": func(a *answer, _ *gossip.Member) { a.id++ },
		"another chunk":    func(a *answer, _ *gossip.Member) { a.chunk++ },
		"another offset":   func(a *answer, _ *gossip.Member) { a.offset = 0 },
		"a question":       func(a *answer, _ *gossip.Member) { a.kind = questionType },
	} {
		a, from := right, from
		spoil(&a, &from)
		r.take(t.Context(), from, a.encode())
		if len(r.answers) != 0 {
			t.Errorf("%s is kept", name)
		}
	}
	r.take(t.Context(), from, nil)
	for range 3 { // the second and third are to no question
		r.take(t.Context(), from, right.encode())
	}
	if len(r.answers) != 1 || r.Metrics().Malformed != 8 {
		t.Errorf("%d answers, metrics %+v", len(r.answers), r.Metrics())
	}
}
