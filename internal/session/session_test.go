package session

import (
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/holdfast-dev/holdfast/internal/document"
	"github.com/holdfast-dev/holdfast/internal/mirror"
	holdfastv1 "github.com/holdfast-dev/holdfast/proto/holdfast/v1"
)

// TestFollows follows a server through changes, and acknowledges each at once.
func TestFollows(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, w := newNetwork(t), newTruth()
		w.put("a", "1")
		w.put("b", "1")
		srv := n.serve("a:1", &server{truth: w})
		s, a := n.open(func(c *Config) { c.Identity.Labels = map[string]string{"zone": "eu-1"} }, "a:1")
		defer end(t, s, a)
		synctest.Wait()
		a.has(w)
		hello := srv.hellos[0]
		if hello.Cursor != nil || hello.Source != holdfastv1.Source_SOURCE_DEFAULTS || hello.Identity.Id != "i1" || hello.Identity.Labels["zone"] != "eu-1" || hello.Namespace != "default" {
			t.Errorf("hello: %v", hello)
		}
		if c := a.change(); !c.Replace || c.Source != FromServer || c.StateTime != time.Now().UnixMilli() {
			t.Errorf("the first change: %+v", c)
		}
		for _, put := range [][2]string{{"a", "2"}, {"b", ""}, {"c", "1"}, {"", ""}} {
			w.put(put[0], put[1])
			synctest.Wait() // no time passes
			a.has(w)
			at, _ := w.now()
			if ack := srv.lastAck(); ack.GetRevision() != at.Revision || string(ack.GetRoot()) != string(rootSlice(w.content(at.Revision))) || ack.GetEpoch().GetCounter() != 1 {
				t.Errorf("acknowledged %v at %s", ack, at)
			}
		}
		if c := a.change(); c.Replace || len(c.Delta.Puts)+len(c.Delta.Deletes) != 0 {
			t.Errorf("a revision that changes nothing here: %+v", c)
		}
		changes := len(a.changes)
		wait(time.Minute)
		if len(a.changes) != changes || srv.connects() != 1 || len(srv.acks) > changes+1 {
			t.Errorf("in a quiet minute: %d changes, %d connections, %d acknowledgements", len(a.changes)-changes, srv.connects(), len(srv.acks))
		}
		st := s.Status()
		at, _ := w.now()
		if !st.Connected || st.Server != (Server{Addr: "a:1", ID: "server-a:1"}) || st.Source != FromServer || st.Position != at || st.Err != nil || time.Since(st.Heard) > 5*time.Second || st.Connects != 1 {
			t.Errorf("status %+v", st)
		}
	})
}

func rootSlice(content map[document.Key]*document.Resource) []byte {
	root := rootOf(content)
	return root[:]
}

// TestPreviousServer watches a server that has no sessions.
func TestPreviousServer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, w := newNetwork(t), newTruth()
		w.put("a", "1")
		srv := n.serve("a:1", &server{truth: w}, true)
		s, a := n.open(nil, "a:1")
		defer end(t, s, a)
		synctest.Wait()
		a.has(w)
		w.put("a", "2")
		synctest.Wait()
		a.has(w)
		if st := s.Status(); !st.Connected || st.Server != (Server{Addr: "a:1", Previous: true}) {
			t.Errorf("status %+v", st)
		}
		n.kill("a:1", srv)
		wait(time.Second)
		again := n.serve("a:1", &server{truth: w}, true)
		w.put("b", "1")
		wait(10 * time.Second)
		a.has(w)
		if cursor := again.watches[0].Cursor; cursor.GetRevision() != 2 {
			t.Errorf("watched on from %v", cursor)
		}
		if c := a.change(); c.Replace {
			t.Error("a snapshot where a delta would do")
		}
	})
}

// TestHeals loses a part of a change on the way. The next stream begins with a
// snapshot; nothing wrong is ever installed, which the handler checks.
func TestHeals(t *testing.T) {
	for name, mangle := range map[string]func(d *holdfastv1.Delta){
		"a lost definition": func(d *holdfastv1.Delta) { d.Puts = nil },
		"a gap":             func(d *holdfastv1.Delta) { d.From++ },
		"a wrong root":      func(d *holdfastv1.Delta) { d.Root[0]++ },
		"nonsense":          func(d *holdfastv1.Delta) { d.Chunk = 7 },
	} {
		for _, previous := range []bool{false, true} {
			t.Run(name, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					n, w := newNetwork(t), newTruth()
					w.put("a", "1")
					var broken atomic.Bool
					broken.Store(true)
					srv := n.serve("a:1", &server{truth: w, mangle: func(m *holdfastv1.ConnectResponse) {
						if d := m.GetDelta(); d != nil && broken.Swap(false) {
							mangle(d)
						}
					}}, make([]bool, map[bool]int{true: 1}[previous])...)
					s, a := n.open(nil, "a:1")
					defer end(t, s, a)
					synctest.Wait()
					w.put("a", "2")
					wait(time.Second)
					a.has(w)
					if name == "nonsense" {
						return // the stream was at fault, not what is held
					}
					cursor := srv.watches
					if !a.change().Replace || previous && cursor[1].Cursor != nil || !previous && srv.hellos[1].Cursor != nil {
						t.Errorf("no snapshot was asked for")
					}
					if err := a.lastError(); !mirror.NeedsSnapshot(err) || s.Status().Resyncs != 1 {
						t.Errorf("the reason is %v, after %d snapshots", err, s.Status().Resyncs)
					}
				})
			})
		}
	}
}

// TestWrongSnapshots keeps what is held from a server whose snapshots do not fit,
// and asks more and more seldom.
func TestWrongSnapshots(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, w := newNetwork(t), newTruth()
		w.put("a", "1")
		var broken atomic.Bool
		srv := n.serve("a:1", &server{truth: w, mangle: func(m *holdfastv1.ConnectResponse) {
			if d := m.GetDelta(); d != nil && broken.Load() {
				d.Root[0]++
			}
			if s := m.GetSnapshot(); s != nil && broken.Load() {
				s.Root[0]++
			}
		}})
		s, a := n.open(nil, "a:1")
		defer end(t, s, a)
		synctest.Wait()
		broken.Store(true)
		w.put("a", "2")
		wait(time.Hour)
		if c := srv.connects(); c < 60 || c > 400 {
			t.Errorf("%d connections in an hour, want about 120", c)
		}
		if at := s.Status().Position.Revision; at != 1 {
			t.Errorf("went on to %d", at)
		}
		broken.Store(false)
		wait(2 * time.Minute)
		a.has(w)
	})
}

// TestEpochs follows restores, and nothing else that calls itself the cluster.
func TestEpochs(t *testing.T) {
	fork, foreign := epochOf(1), epochOf(2)
	fork.Nonce++
	foreign.Lineage[0]++
	for name, c := range map[string]struct {
		to        document.Epoch
		connected bool // while it happens
		follows   bool
		err       error
	}{
		"restored":                                {epochOf(2), true, true, nil},
		"restored meanwhile":                      {epochOf(2), false, true, nil},
		"restored from another cluster":           {foreign, true, true, nil},
		"restored from another cluster meanwhile": {foreign, false, false, mirror.ErrForeign},
		"a fork":       {fork, true, false, mirror.ErrForked},
		"an older one": {epochOf(0), true, false, mirror.ErrOlderEpoch},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n, w := newNetwork(t), newTruth()
				w.put("a", "1")
				w.put("a", "2")
				srv := n.serve("a:1", &server{truth: w})
				s, a := n.open(nil, "a:1")
				defer end(t, s, a)
				synctest.Wait()
				a.has(w)
				if !c.connected {
					n.kill("a:1", srv)
					wait(time.Second)
				}
				w.become(c.to, 1)
				if !c.connected {
					n.serve("a:1", &server{truth: w})
				}
				wait(10 * time.Second)
				if c.follows {
					a.has(w)
					return
				}
				if at := s.Status().Position; at != (mirror.Position{Epoch: epochOf(1), Revision: 2}) {
					t.Errorf("followed to %s", at)
				}
				if err := s.Status().Err; name != "an older one" && !errors.Is(err, c.err) {
					t.Errorf("the reason is %v, want %v", err, c.err)
				}
			})
		})
	}
}

// TestLeavesAServerThatIsSilent tries again where there is no other one.
func TestLeavesAServerThatIsSilent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, w := newNetwork(t), newTruth()
		w.put("a", "1")
		var quiet atomic.Bool
		n.serve("a:1", &server{truth: w, mute: quiet.Load})
		s, a := n.open(nil, "a:1")
		defer end(t, s, a)
		synctest.Wait()
		a.has(w)
		quiet.Store(true)
		wait(soonest)
		if a.lastError() != nil {
			t.Errorf("left too early: %v", a.lastError())
		}
		wait(latest - soonest)
		if !errors.Is(a.lastError(), errSilent) {
			t.Errorf("not left: %v", a.lastError())
		}
		quiet.Store(false)
		w.put("a", "2")
		wait(time.Minute)
		a.has(w)
	})
}

// TestLeavesAServerThatDoesNotAnswer tries another one, after 5 s.
func TestLeavesAServerThatDoesNotAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, w := newNetwork(t), newTruth()
		w.put("a", "1")
		hang := make(chan struct{})
		n.serve("hung:1", &server{truth: w, refuse: func() error { <-hang; return nil }})
		n.serve("fine:1", &server{truth: w})
		s, a := n.open(nil, "hung:1", "fine:1")
		defer end(t, s, a)
		defer close(hang)
		wait(6 * time.Second)
		a.has(w)
		if st := s.Status(); st.Server.Addr != "fine:1" {
			t.Errorf("status %+v", st)
		}
	})
}

// TestServerBehind does not go back with a server that has not caught up, and goes
// on with one that has.
func TestServerBehind(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, w, old := newNetwork(t), newTruth(), newTruth()
		w.put("a", "1")
		w.put("a", "2")
		old.put("a", "1")
		dir := t.TempDir()
		srv := n.serve("a:1", &server{truth: w})
		s, a := n.open(func(c *Config) { c.Dir = dir }, "a:1")
		synctest.Wait()
		a.has(w)
		end(t, s, a)
		n.kill("a:1", srv)
		n.serve("old:1", &server{truth: old})

		s, a = n.open(func(c *Config) { c.Dir = dir }, "old:1", "a:1")
		wait(time.Minute)
		if at := s.Status().Position.Revision; at != 2 {
			t.Errorf("went back to %d", at)
		}
		n.serve("a:1", &server{truth: w})
		w.put("a", "3")
		wait(time.Minute)
		a.has(w)
		end(t, s, a)
	})
}

// TestWaitsAsLongAsItIsAsked honours the time that a full server asks for.
func TestWaitsAsLongAsItIsAsked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, w := newNetwork(t), newTruth()
		w.put("a", "1")
		full, err := status.New(codes.ResourceExhausted, "too many sessions").WithDetails(&errdetails.RetryInfo{RetryDelay: durationpb.New(20 * time.Second)})
		if err != nil {
			t.Fatal(err)
		}
		var refused atomic.Bool
		srv := n.serve("a:1", &server{truth: w, refuse: func() error {
			if refused.Swap(true) {
				return nil
			}
			return full.Err()
		}})
		s, a := n.open(nil, "a:1")
		defer end(t, s, a)
		wait(time.Minute)
		a.has(w)
		if pause := srv.times[1].Sub(srv.times[0]); pause < 20*time.Second || pause > 41*time.Second {
			t.Errorf("came back after %v", pause)
		}
	})
}

// TestReport tells servers what the instance cannot obey, bounded, and again when
// that changes.
func TestReport(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, w := newNetwork(t), newTruth()
		w.put("a", "1")
		srv := n.serve("a:1", &server{truth: w})
		s, a := n.open(nil, "a:1")
		defer end(t, s, a)
		a.mu.Lock()
		for range 40 {
			a.report.Problems = append(a.report.Problems, Problem{
				Key: document.Key{Kind: document.Flag, Name: "a"}, Message: "x" + strings.Repeat("é", 400) + "\xff",
			})
		}
		a.mu.Unlock()
		w.put("a", "2")
		synctest.Wait()
		ack := srv.lastAck()
		if len(ack.Problems) != maxProblems || ack.ProblemCount != 40 {
			t.Fatalf("told of %d problems of %d", len(ack.Problems), ack.ProblemCount)
		}
		if m := ack.Problems[0].Message; len(m) > maxProblemBytes || !strings.HasSuffix(m, "éé…") || ack.Problems[0].Key.Name != "a" {
			t.Errorf("told %d bytes: %s", len(m), m)
		}
		a.mu.Lock()
		a.report = Report{OverriddenBy: "HOLDFAST_DISABLE"}
		a.mu.Unlock()
		s.Acknowledge()
		synctest.Wait()
		if ack := srv.lastAck(); ack.OverriddenBy != "HOLDFAST_DISABLE" || ack.ProblemCount != 0 || ack.Revision != 2 {
			t.Errorf("told %v", ack)
		}
	})
}

// TestPanicsAreContained loses a change that the handler cannot bear, and nothing
// else.
func TestPanicsAreContained(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, w := newNetwork(t), newTruth()
		w.put("a", "1")
		srv := n.serve("a:1", &server{truth: w})
		s, a := n.open(nil, "a:1")
		defer end(t, s, a)
		synctest.Wait()
		a.mu.Lock()
		a.tamper = func(Change) { panic("a bug") }
		a.mu.Unlock()
		w.put("a", "2")
		wait(time.Hour)
		if err := a.lastError(); !errors.Is(err, errPanic) || !strings.Contains(err.Error(), "a bug") {
			t.Errorf("got %v", err)
		}
		if c := srv.connects(); c > 400 {
			t.Errorf("%d connections in an hour", c)
		}
		if ack := srv.lastAck(); ack.Revision != 1 {
			t.Errorf("acknowledged %v", ack)
		}
		a.mu.Lock()
		a.tamper = nil
		a.mu.Unlock()
		wait(2 * time.Minute)
		a.has(w)
	})
}

// TestUnknownMessages passes over what later versions may send.
func TestUnknownMessages(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, w := newNetwork(t), newTruth()
		w.put("a", "1")
		n.serve("a:1", &server{truth: w, mangle: func(m *holdfastv1.ConnectResponse) {
			m.Head = &holdfastv1.SignedHead{Head: []byte("head"), Signature: []byte("x")}
			m.Gossip = &holdfastv1.GossipSettings{Label: "cell"}
			if m.GetProgress() != nil {
				m.Event = nil
			}
		}})
		s, a := n.open(nil, "a:1")
		defer end(t, s, a)
		wait(time.Minute)
		w.put("b", "1")
		synctest.Wait()
		a.has(w)
		if a.lastError() != nil {
			t.Error(a.lastError())
		}
	})
}

// TestLearnsServers uses the addresses that a server has, after its own.
func TestLearnsServers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, w := newNetwork(t), newTruth()
		w.put("a", "1")
		told := func(*holdfastv1.Hello) *holdfastv1.Welcome {
			return &holdfastv1.Welcome{Servers: []string{"a:1", "b:1", "b:1", "nonsense"}}
		}
		srv := n.serve("a:1", &server{truth: w, told: told})
		n.serve("b:1", &server{truth: w})
		s, a := n.open(nil, "a:1")
		defer end(t, s, a)
		synctest.Wait()
		n.kill("a:1", srv)
		w.put("a", "2")
		wait(5 * time.Second)
		a.has(w)
		if st := s.Status(); st.Server.Addr != "b:1" {
			t.Errorf("status %+v", st)
		}
	})
}
