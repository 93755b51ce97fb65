package session

import (
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	holdfastv1 "github.com/holdfast-dev/holdfast/proto/holdfast/v1"
)

// soonest and latest are when an instance notices that its server has fallen silent, from
// the last report on.
const (
	soonest = DefaultProgressInterval + firstSlack
	latest  = DefaultProgressInterval + 2*firstSlack + secondLook
)

// TestReachesBesideASilentServer turns to another server long before the silent one would
// be given up, and says so.
func TestReachesBesideASilentServer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, w := newNetwork(t), newTruth()
		w.put("a", "1")
		var quiet atomic.Bool
		first := n.serve("a:1", &server{truth: w, mute: quiet.Load})
		s, a := n.open(nil, "a:1")
		defer end(t, s, a)
		synctest.Wait()
		s.learns("b:1")
		second := n.serve("b:1", &server{truth: w})
		quiet.Store(true)
		wait(soonest)
		if st := s.Status(); !st.Connected || st.Server.Addr != "a:1" {
			t.Errorf("left too early: %+v", st)
		}
		w.put("a", "2")
		wait(latest - soonest + firstPause)
		a.has(w)
		st := s.Status()
		if !st.Connected || st.Server.Addr != "b:1" || st.Connects != 2 || !errors.Is(st.Err, errSilent) {
			t.Errorf("status %+v", st)
		}
		if lost := a.lastError(); len(a.lost) != 1 || !errors.Is(lost, errSilent) {
			t.Errorf("told %v", a.lost)
		}
		quiet.Store(false) // nothing that it still says counts
		w.put("a", "3")
		wait(time.Minute)
		a.has(w)
		if first.connects() != 1 || second.connects() != 1 || second.lastAck().GetRevision() != 3 || len(a.servers) != 2 {
			t.Errorf("%d and %d streams; told of %v", first.connects(), second.connects(), a.servers)
		}
	})
}

// TestASilentServerSpeaksFirst stays with a server that was only slow, on the same stream:
// what was granted there still is, and what was to be told reaches it.
func TestASilentServerSpeaksFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, w := newNetwork(t), newTruth()
		w.put("a", "1")
		var quiet, granted atomic.Bool
		first := n.serve("a:1", &server{truth: w, mute: quiet.Load, mangle: func(m *holdfastv1.ConnectResponse) {
			if !granted.Swap(true) {
				m.Gossip = &holdfastv1.GossipSettings{Mode: relayed}
			}
		}})
		var settings []string
		s, a := n.open(func(c *Config) {
			c.Gossip = &Gossip{
				State: func() *holdfastv1.GossipState { return &holdfastv1.GossipState{Mode: relayed} }, Evidence: func([][]byte) {},
				Settings: func(s *holdfastv1.GossipSettings) { settings = append(settings, s.GetMode()) },
				Own:      func() []byte { return []byte("own") },
			}
		}, "a:1")
		defer end(t, s, a)
		synctest.Wait()
		hang := make(chan struct{})
		defer close(hang)
		s.learns("b:1")
		second := n.serve("b:1", &server{truth: w, refuse: func() error { <-hang; return nil }})
		quiet.Store(true)
		wait(latest + firstPause)
		if st := s.Status(); st.Connected || second.connects() != 1 {
			t.Errorf("beside a silent server: %d attempts, %+v", second.connects(), st)
		}
		a.mu.Lock()
		a.report = Report{OverriddenBy: "HOLDFAST_DISABLE"}
		a.mu.Unlock()
		first.mu.Lock()
		first.acks, first.others = nil, nil
		first.mu.Unlock()
		quiet.Store(false)
		w.put("a", "2")
		wait(time.Minute)
		a.has(w)
		st := s.Status()
		if !st.Connected || st.Server.Addr != "a:1" || st.Connects != 1 || first.connects() != 1 || second.connects() != 1 {
			t.Errorf("%d and %d streams, status %+v", first.connects(), second.connects(), st)
		}
		if !slices.Equal(settings, []string{relayed, relayed}) || len(first.others) == 0 || first.lastAck().GetOverriddenBy() == "" {
			t.Errorf("granted %v, told %v and %v", settings, first.others, first.lastAck())
		}
	})
}

// TestWhatIsNewIsToldToTheOneThatIsFollowed, also where the silent one was told already.
func TestWhatIsNewIsToldToTheOneThatIsFollowed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, w := newNetwork(t), newTruth()
		w.put("a", "1")
		var quiet atomic.Bool
		first := n.serve("a:1", &server{truth: w, mute: quiet.Load})
		s, a := n.open(nil, "a:1")
		defer end(t, s, a)
		synctest.Wait()
		s.learns("b:1")
		late := make(chan struct{})
		second := n.serve("b:1", &server{truth: w, refuse: func() error { <-late; return nil }})
		quiet.Store(true)
		wait(latest + firstPause)
		a.mu.Lock()
		a.report = Report{OverriddenBy: "HOLDFAST_DISABLE"}
		a.mu.Unlock()
		s.Acknowledge()
		synctest.Wait()
		close(late)
		synctest.Wait()
		if st := s.Status(); st.Server.Addr != "b:1" || first.connects() != 1 || second.connects() != 1 {
			t.Fatalf("%d and %d streams, status %+v", first.connects(), second.connects(), st)
		}
		if ack := second.lastAck(); ack.GetOverriddenBy() == "" || ack.GetRevision() != 1 {
			t.Errorf("told %v", ack)
		}
	})
}

// TestNothingCountsOfAStreamThatIsLeft, nor of a server that has not said who it is.
func TestNothingCountsOfAStreamThatIsLeft(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, w := newNetwork(t), newTruth()
		w.put("a", "1")
		n.serve("a:1", &server{truth: w})
		s, a := n.open(nil, "a:1")
		defer end(t, s, a)
		synctest.Wait()
		at, _ := w.now()
		w.put("a", "2")
		synctest.Wait()
		for want, st := range map[error]*stream{
			errSilent:    {session: s, server: Server{Addr: "b:1"}, dropped: true},
			errNoWelcome: {session: s},
		} {
			if err := st.handle(w.delta(at.Revision, at.Revision+1)); !errors.Is(err, want) {
				t.Errorf("got %v, want %v", err, want)
			}
		}
		if st := s.Status(); st.Server.Addr != "a:1" {
			t.Errorf("status %+v", st)
		}
	})
}

// TestNoAttemptBesideAServerThatSpeaks: one that speaks again just before the next attempt
// begins is not left for it.
func TestNoAttemptBesideAServerThatSpeaks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, w := newNetwork(t), newTruth()
		w.put("a", "1")
		srv := n.serve("a:1", &server{truth: w})
		s, a := n.open(nil, "a:1")
		defer end(t, s, a)
		synctest.Wait()
		k := keeper{session: s, ended: make(chan *stream, 1)}
		k.attempt(t.Context())
		wait(time.Second)
		if st := s.Status(); st.Attempts != 1 || st.Connects != 1 || srv.connects() != 1 {
			t.Errorf("%d streams, status %+v", srv.connects(), st)
		}
	})
}

// TestASilentStreamEnds where no server speaks, after three reports that did not come.
func TestASilentStreamEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, w := newNetwork(t), newTruth()
		w.put("a", "1")
		var quiet atomic.Bool
		hang := make(chan struct{})
		hung := func() error { <-hang; return nil }
		n.serve("a:1", &server{truth: w, mute: quiet.Load})
		s, a := n.open(nil, "a:1")
		defer end(t, s, a)
		synctest.Wait()
		s.learns("b:1", "c:1", "d:1")
		for _, addr := range []string{"b:1", "c:1", "d:1"} {
			n.serve(addr, &server{truth: w, refuse: hung})
		}
		defer close(hang)
		quiet.Store(true)
		silent := func() bool {
			s.mu.Lock()
			defer s.mu.Unlock()
			if len(s.streams) > maxStreams {
				t.Errorf("%d streams", len(s.streams))
			}
			return slices.ContainsFunc(s.streams, func(st *stream) bool { return st.silent })
		}
		wait(missed*DefaultProgressInterval - time.Millisecond)
		if !silent() {
			t.Error("its stream has ended already")
		}
		wait(time.Second)
		if silent() {
			t.Error("its stream goes on for ever")
		}
	})
}

// slowly takes its time to install what changes the revision from 1 on.
type slowly struct{ *app }

func (s slowly) Install(c Change) {
	if c.Delta.To > 1 {
		time.Sleep(3 * latest) //nolint:forbidigo // in a bubble
	}
	s.app.Install(c)
}

// TestASlowHandlerIsNoSilence does not blame the server for the time that the instance
// itself takes.
func TestASlowHandlerIsNoSilence(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, w := newNetwork(t), newTruth()
		w.put("a", "1")
		srv := n.serve("a:1", &server{truth: w})
		s, a := n.open(func(c *Config) { c.Handler = slowly{c.Handler.(*app)} }, "a:1")
		defer end(t, s, a)
		wait(10 * time.Second)
		w.put("a", "2")
		wait(4 * latest)
		a.has(w)
		if srv.connects() != 1 || len(a.lost) != 0 {
			t.Errorf("%d streams, told of %v", srv.connects(), a.lost)
		}
	})
}

// TestWhatIsUnderWayIsWaitedFor leaves a server in the middle of a change as late as
// before: over a slow link a second stream would only make it slower.
func TestWhatIsUnderWayIsWaitedFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, w := newNetwork(t), newTruth()
		w.put("a", "1")
		w.put("b", "1")
		slow := func(m *holdfastv1.ConnectResponse) {
			if m.GetSnapshot() != nil {
				time.Sleep(2 * DefaultProgressInterval) //nolint:forbidigo // in a bubble
			}
		}
		srv := []*server{n.serve("a:1", &server{truth: w, mangle: slow}), n.serve("b:1", &server{truth: w, mangle: slow})}
		s, a := n.open(nil, "a:1", "b:1")
		defer end(t, s, a)
		wait(time.Minute)
		a.has(w)
		if c := srv[0].connects() + srv[1].connects(); c != 1 {
			t.Errorf("%d streams", c)
		}
	})
}

// TestSlowServersAreNotLeft comes to rest although all servers report late, each time.
func TestSlowServersAreNotLeft(t *testing.T) {
	for _, late := range []time.Duration{2500 * time.Millisecond, 5 * time.Second, 9 * time.Second} {
		t.Run(fmt.Sprint(late), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n, w := newNetwork(t), newTruth()
				w.put("a", "1")
				var all []*server
				for _, addr := range []string{"a:1", "b:1", "c:1"} {
					all = append(all, n.serve(addr, &server{truth: w, mangle: func(m *holdfastv1.ConnectResponse) {
						if m.GetProgress() != nil {
							time.Sleep(late) //nolint:forbidigo // in a bubble
						}
					}}))
				}
				s, a := n.open(nil, "a:1", "b:1", "c:1")
				defer wait(late)
				defer end(t, s, a)
				streams := func() (c int) {
					for _, srv := range all {
						c += srv.connects()
					}
					return c
				}
				wait(time.Minute)
				begun := streams()
				wait(time.Hour)
				if c := streams(); begun > 8 || c != begun {
					t.Errorf("%d streams in the first minute, %d in the hour after it", begun, c-begun)
				}
			})
		})
	}
}

// TestCrowdLeavesASilentServer: instances leave a server that is silent for 8 s over
// seconds, not at once, and each of them once; where it is silent for less than a report
// takes nobody does.
func TestCrowdLeavesASilentServer(t *testing.T) {
	size := 1000
	if testing.Short() || raceDetector {
		size = 200
	}
	for _, pause := range []time.Duration{time.Second, 8 * time.Second} {
		t.Run(fmt.Sprint(pause), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n, w := newNetwork(t), newTruth()
				w.put("a", "1")
				var quiet atomic.Bool
				n.serve("a:1", &server{truth: w, mute: quiet.Load})
				sessions, apps := make([]*Session, size), make([]*app, size)
				for i := range size { // all at the same moment, as after a restart of the servers
					sessions[i], apps[i] = n.open(func(c *Config) { c.Identity.ID = fmt.Sprint(i) }, "a:1")
				}
				wait(2*DefaultProgressInterval + time.Second)
				for _, s := range sessions {
					s.learns("b:1")
				}
				other := n.serve("b:1", &server{truth: w})
				quiet.Store(true)
				wait(pause)
				quiet.Store(false)
				wait(time.Minute)
				perTenth := map[time.Duration]int{}
				most := 0
				for _, at := range other.times {
					tenth := at.Sub(other.times[0]) / (100 * time.Millisecond)
					perTenth[tenth]++
					most = max(most, perTenth[tenth])
				}
				want := 0
				if pause > latest {
					want = size
				}
				if len(other.times) != want || most > max(size/6, 25) {
					t.Errorf("%d left, want %d; %d of them within 100 ms", len(other.times), want, most)
				}
				t.Logf("%d left in %d tenths of a second, at most %d in one", len(other.times), len(perTenth), most)
				for i := range size {
					apps[i].has(w)
					if c := sessions[i].Status().Connects; c > 2 {
						t.Errorf("an instance connected %d times", c)
					}
					end(t, sessions[i], apps[i])
				}
			})
		})
	}
}

func TestLateness(t *testing.T) {
	const interval, second = 5 * time.Second, time.Second
	var l lateness
	now := time.Now()
	for i, c := range []struct {
		silence, want time.Duration // 0 for another server that was sooner
	}{
		{interval, 0},
		{13 * second, 0}, // once
		{interval, 0},
		{8 * second, 0},
		{second, 0}, // within an interval
		{9 * second, 6 * second},
		{8 * second, 6 * second},
		{2 * second, 6 * second},
		{2 * second, 6 * second},
		{2 * second, 3 * second}, // a whole interval
		{0, 6 * second},
		{0, 10 * second},
		{14 * second, 10 * second},
		{interval + second/2, 5 * second},
	} {
		now = now.Add(c.silence)
		if c.silence > 0 {
			l.heard(now, c.silence, interval)
		} else {
			l.overtaken(interval)
		}
		if l.by != c.want {
			t.Errorf("step %d: late by %v, want %v", i, l.by, c.want)
		}
	}
}
