package registry

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	holdfastv1 "github.com/holdfast-dev/holdfast/proto/holdfast/v1"
)

var start = time.Unix(1_000_000, 0)

func ackOf(revision uint64, problems uint32) *holdfastv1.Ack {
	return &holdfastv1.Ack{Epoch: &holdfastv1.Epoch{Counter: 1}, Revision: revision, ProblemCount: problems}
}

func at(epoch, revision uint64) Demand {
	return Demand{Epoch: &holdfastv1.Epoch{Counter: epoch}, Revision: revision}
}

func someone(id string, incarnation uint64) Instance {
	return Instance{Namespace: "default", Identity: &holdfastv1.Identity{Id: id, Service: "s", Incarnation: incarnation}}
}

// join lets somebody in who does not expect to be replaced.
func join(tb testing.TB, r *Registry, now time.Time, i Instance) *Session {
	tb.Helper()
	s, err := r.Join(now, i, func(err error) { tb.Errorf("%s was ended: %v", i.Identity.GetId(), err) })
	if err != nil {
		tb.Fatal(err)
	}
	return s
}

func listed(r *Registry, now time.Time) []string {
	list := []string{}
	for i := range r.Instances(now, "default") {
		list = append(list, i.Identity.GetId())
	}
	return list
}

func everybody(*Instance) bool { return true }

// twin is the naive registry: a list of all that happened, looked through for each
// question.
type twin struct {
	known map[[2]string]*known // by namespace and id
	order int
	limit int
}

type known struct {
	Instance
	live  bool
	ended error
	left  int // when, in the order of leaving
}

func (tw *twin) forget(now time.Time) {
	var gone []*known
	for _, k := range tw.known {
		if !k.live {
			gone = append(gone, k)
		}
	}
	slices.SortFunc(gone, func(a, b *known) int { return cmp.Compare(a.left, b.left) })
	for n, k := range gone {
		if len(gone)-n > tw.limit || now.Sub(k.LastSeen) > MaxGoneAge {
			delete(tw.known, [2]string{k.Namespace, k.Identity.GetId()})
		}
	}
}

func (tw *twin) list(namespace string) []*known {
	var all []*known
	for at, k := range tw.known {
		if at[0] == namespace {
			all = append(all, k)
		}
	}
	slices.SortFunc(all, func(a, b *known) int {
		return cmp.Or(cmp.Compare(a.Identity.GetService(), b.Identity.GetService()), cmp.Compare(a.Identity.GetId(), b.Identity.GetId()))
	})
	return all
}

// counts counts those of a service that obey a revision.
func (tw *twin) counts(namespace, service string, revision uint64) (connected, obeying, impaired int) {
	for _, k := range tw.list(namespace) {
		if !k.live || service != "" && k.Identity.GetService() != service {
			continue
		}
		connected++
		if k.Ack == nil || k.Ack.GetRevision() < revision {
			continue
		}
		obeying++
		if k.Ack.GetProblemCount() > 0 {
			impaired++
		}
	}
	return connected, obeying, impaired
}

// process is somebody with a session, in the test.
type process struct {
	session *Session
	known   *known
	ended   error
}

type asked struct {
	tally              *Tally
	namespace, service string
	revision           uint64
}

// TestRegistryLikeItsTwin has random processes come, tell and go.
func TestRegistryLikeItsTwin(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		r, tw := New(), &twin{known: make(map[[2]string]*known), limit: 3}
		r.limit = tw.limit
		now := start
		var processes []*process
		var tallies []asked
		namespaces, services := rapid.SampledFrom([]string{"a", "b"}), rapid.SampledFrom([]string{"s", "t"})
		anybody := func(t *rapid.T) *process {
			if len(processes) == 0 {
				t.Skip("nobody is there")
			}
			return rapid.SampledFrom(processes).Draw(t, "process")
		}
		t.Repeat(map[string]func(*rapid.T){
			"join": func(t *rapid.T) {
				i := Instance{
					Namespace: namespaces.Draw(t, "namespace"), AuthenticatedAs: rapid.SampledFrom([]string{"", "x"}).Draw(t, "certificate"),
					Identity: &holdfastv1.Identity{
						Id: rapid.SampledFrom([]string{"1", "2", "3", "4", "5"}).Draw(t, "id"), Service: services.Draw(t, "service"),
						Incarnation: rapid.Uint64Range(1, 3).Draw(t, "incarnation"),
					},
				}
				p := &process{}
				s, err := r.Join(now, i, func(err error) { p.ended = err })
				tw.forget(now)
				at := [2]string{i.Namespace, i.Identity.GetId()}
				have := tw.known[at]
				refuse := have != nil && have.live &&
					(have.Identity.GetIncarnation() > i.Identity.GetIncarnation() || have.AuthenticatedAs != i.AuthenticatedAs)
				if refuse != errors.Is(err, ErrReplaced) {
					t.Fatalf("join of %v beside %v: %v", i, have, err)
				}
				if refuse {
					return
				}
				if have != nil && have.live {
					have.live, have.ended = false, ErrReplaced
				}
				i.Since = now
				p.session, p.known = s, &known{Instance: i, live: true}
				tw.known[at] = p.known
				processes = append(processes, p)
			},
			"ack": func(t *rapid.T) {
				p := anybody(t)
				ack := ackOf(rapid.Uint64Range(0, 5).Draw(t, "revision"), rapid.Uint32Range(0, 1).Draw(t, "problems"))
				p.session.Ack(ack)
				if p.known.live {
					p.known.Ack = ack
				}
			},
			"leave": func(t *rapid.T) {
				p := anybody(t)
				p.session.Leave(now)
				if p.known.live {
					tw.order++
					p.known.live, p.known.LastSeen, p.known.left = false, now, tw.order
				}
				tw.forget(now)
			},
			"tally": func(t *rapid.T) {
				a := asked{namespace: namespaces.Draw(t, "namespace"), service: rapid.SampledFrom([]string{"", "s"}).Draw(t, "service"), revision: rapid.Uint64Range(0, 5).Draw(t, "revision")}
				var err error
				a.tally, err = r.Tally(a.namespace, func(i *Instance) bool { return a.service == "" || i.Identity.GetService() == a.service }, at(1, a.revision))
				if err != nil {
					t.Fatal(err)
				}
				tallies = append(tallies, a)
			},
			"close": func(t *rapid.T) {
				if len(tallies) == 0 {
					t.Skip("nobody counts")
				}
				n := rapid.IntRange(0, len(tallies)-1).Draw(t, "tally")
				tallies[n].tally.Close()
				tallies[n].tally.Close()
				tallies = slices.Delete(tallies, n, n+1)
			},
			"time": func(t *rapid.T) { now = now.Add(time.Duration(rapid.Int64Range(0, int64(MaxGoneAge)).Draw(t, "d"))) },
			"": func(t *rapid.T) {
				check(t, r, tw, now, tallies)
				for _, p := range processes {
					if !errors.Is(p.ended, p.known.ended) {
						t.Fatalf("%v was ended by %v", p.known.Instance, p.ended)
					}
				}
			},
		})
		for _, a := range tallies {
			a.tally.Close()
		}
		for _, p := range processes {
			p.session.Leave(now)
		}
		if later := now.Add(2 * MaxGoneAge); len(listed(r, later)) != 0 || len(r.spaces) != 0 || r.gone.n != 0 || r.tallies != 0 {
			t.Fatalf("%d namespaces, %d gone, %d tallies are left", len(r.spaces), r.gone.n, r.tallies)
		}
	})
}

func check(t *rapid.T, r *Registry, tw *twin, now time.Time, tallies []asked) {
	tw.forget(now)
	behind := 0
	for _, namespace := range []string{"a", "b"} {
		want := tw.list(namespace)
		n := 0
		for i := range r.Instances(now, namespace) {
			if n == len(want) || i.Identity != want[n].Identity || i.Connected() != want[n].live || i.Ack != want[n].Ack ||
				!i.Since.Equal(want[n].Since) || !i.LastSeen.Equal(want[n].LastSeen) {
				t.Fatalf("instance %d of %q is %v", n, namespace, i)
			}
			n++
		}
		if n != len(want) {
			t.Fatalf("%q has %d instances, want %d", namespace, n, len(want))
		}
		connected, obeying, _ := tw.counts(namespace, "", 3)
		behind += connected - obeying
	}
	if got := r.Count(func(string) Demand { return at(1, 3) }); got != behind {
		t.Fatalf("%d are behind, want %d", got, behind)
	}
	for _, a := range tallies {
		got := a.tally.Counts()
		connected, obeying, impaired := tw.counts(a.namespace, a.service, a.revision)
		if got.Connected != connected || got.Obeying != obeying || got.Impaired != impaired ||
			len(got.NotObeying) != connected-obeying || len(got.ImpairedOnes) != impaired {
			t.Fatalf("counted %+v, want %d connected, %d obeying, %d impaired", got, connected, obeying, impaired)
		}
	}
}

func TestGoneIsBounded(t *testing.T) {
	r := New()
	for n := range MaxGone + 10 {
		join(t, r, start, someone(fmt.Sprintf("%06d", n), 1)).Leave(start)
	}
	if got := listed(r, start); len(got) != MaxGone || got[0] != "000010" {
		t.Errorf("%d are remembered, from %s on", len(got), got[0])
	}
	if got := listed(r, start.Add(MaxGoneAge)); len(got) != MaxGone {
		t.Errorf("%d are remembered after %s", len(got), MaxGoneAge)
	}
	if got := listed(r, start.Add(MaxGoneAge+1)); len(got) != 0 {
		t.Errorf("%d are remembered after more than %s", len(got), MaxGoneAge)
	}
}

func TestTalliesAreBounded(t *testing.T) {
	r := New()
	var open []*Tally
	for range MaxTallies {
		tally, err := r.Tally("default", everybody, at(1, 1))
		if err != nil {
			t.Fatal(err)
		}
		open = append(open, tally)
	}
	if _, err := r.Tally("default", everybody, at(1, 1)); !errors.Is(err, ErrTooManyTallies) {
		t.Errorf("one more: %v", err)
	}
	open[0].Close()
	if _, err := r.Tally("default", everybody, at(1, 1)); err != nil {
		t.Error(err)
	}
}

// TestNamesAreBounded: all are named up to a number, and a few of more.
func TestNamesAreBounded(t *testing.T) {
	r := New()
	tally, err := r.Tally("default", everybody, at(1, 1))
	if err != nil {
		t.Fatal(err)
	}
	defer tally.Close()
	for n := range MaxNamed {
		join(t, r, start, someone(fmt.Sprintf("%03d", MaxNamed-n), 1))
	}
	all := tally.Counts().NotObeying
	if len(all) != MaxNamed || !slices.IsSortedFunc(all, func(a, b *Instance) int { return a.key().Compare(b.key()) }) {
		t.Errorf("%d are named", len(all))
	}
	join(t, r, start, someone("more", 1))
	if got := len(tally.Counts().NotObeying); got != few {
		t.Errorf("%d of more are named", got)
	}
}

// TestTallySignals: a change that matters is told, one that leaves nobody behind as
// such.
func TestTallySignals(t *testing.T) {
	r := New()
	tally, err := r.Tally("default", func(i *Instance) bool { return i.Identity.GetId() != "other" }, at(1, 5))
	if err != nil {
		t.Fatal(err)
	}
	defer tally.Close()
	told := func(what string, wantChanged, wantReached bool) {
		t.Helper()
		var changed, reached bool
		select {
		case <-tally.Changed():
			changed = true
		default:
		}
		select {
		case <-tally.Reached():
			reached = true
		default:
		}
		if changed != wantChanged || reached != wantReached {
			t.Errorf("%s: changed %t, reached %t", what, changed, reached)
		}
	}
	told("nothing", false, false)
	one := join(t, r, start, someone("1", 1))
	told("somebody came", true, false)
	other := join(t, r, start, someone("other", 1))
	other.Ack(ackOf(5, 0))
	told("somebody else", false, false)
	one.Ack(ackOf(5, 0))
	told("the last one obeys", true, true)
	two := join(t, r, start, someone("2", 1))
	one.Leave(start)
	told("one came, one left", true, false)
	two.Leave(start)
	told("the last one behind left", true, true)
	elsewhere := someone("3", 1)
	elsewhere.Namespace = "elsewhere"
	join(t, r, start, elsewhere)
	told("elsewhere", false, false)
}

// TestEpochsCount: a revision of an earlier epoch, or of another lineage, is not the
// one that is asked for.
func TestEpochsCount(t *testing.T) {
	i := Instance{Ack: ackOf(9, 0)}
	for _, test := range []struct {
		demand Demand
		want   bool
	}{
		{at(1, 9), true},
		{at(0, 9), true},
		{at(2, 1), false},
		{at(1, 10), false},
		{Demand{Epoch: &holdfastv1.Epoch{Lineage: []byte{2}}}, false},
	} {
		if got := i.Obeys(test.demand); got != test.want {
			t.Errorf("obeys %v: %t", test.demand, got)
		}
	}
	for _, silent := range []*Instance{{}, {Ack: &holdfastv1.Ack{Revision: 9}}} {
		if silent.Obeys(at(0, 0)) {
			t.Errorf("who told nothing obeys: %v", silent.Ack)
		}
	}
}

func TestProto(t *testing.T) {
	r := New()
	i := someone("1", 7)
	i.Address, i.AuthenticatedAs, i.Source = "10.0.0.1:2", "instance/checkout", holdfastv1.Source_SOURCE_DISK
	s := join(t, r, start, i)
	ack := ackOf(5, 2)
	ack.Problems, ack.OverriddenBy = []*holdfastv1.InstanceProblem{{Message: "no"}}, "HOLDFAST_DISABLE"
	s.Ack(ack)
	only := func() *holdfastv1.Instance {
		for i := range r.Instances(start.Add(time.Hour), "default") {
			return i.Proto("n1", start.Add(time.Hour))
		}
		return nil
	}
	p := only()
	if !p.GetConnected() || !p.GetLastSeen().AsTime().Equal(start.Add(time.Hour)) || !p.GetConnectedSince().AsTime().Equal(start) ||
		p.GetServerId() != "n1" || p.GetAddress() != i.Address || p.GetAuthenticatedAs() != i.AuthenticatedAs || p.GetSource() != i.Source ||
		p.GetRevision() != 5 || p.GetEpoch().GetCounter() != 1 || p.GetProblemCount() != 2 || len(p.GetProblems()) != 1 || p.GetOverriddenBy() == "" {
		t.Errorf("connected: %v", p)
	}
	s.Leave(start.Add(time.Minute))
	if p = only(); p.GetConnected() || !p.GetLastSeen().AsTime().Equal(start.Add(time.Minute)) || p.GetRevision() != 5 {
		t.Errorf("gone: %v", p)
	}
}

// BenchmarkAck is what one acknowledgement costs beside 10,000 sessions while
// somebody waits.
func BenchmarkAck(b *testing.B) {
	r := New()
	var sessions []*Session
	for n := range 10_000 {
		sessions = append(sessions, join(b, r, start, someone(fmt.Sprint(n), 1)))
	}
	tally, err := r.Tally("default", everybody, at(1, 1))
	if err != nil {
		b.Fatal(err)
	}
	defer tally.Close()
	acks := slices.Collect(maps.Values(map[int]*holdfastv1.Ack{0: ackOf(0, 0), 1: ackOf(1, 0)}))
	for n := 0; b.Loop(); n++ {
		sessions[n%len(sessions)].Ack(acks[n/len(sessions)%2])
	}
}

// BenchmarkTally is what it costs to begin to wait beside 10,000 sessions.
func BenchmarkTally(b *testing.B) {
	r := New()
	for n := range 10_000 {
		join(b, r, start, someone(fmt.Sprint(n), 1))
	}
	for b.Loop() {
		tally, err := r.Tally("default", everybody, at(1, 1))
		if err != nil {
			b.Fatal(err)
		}
		tally.Counts()
		tally.Close()
	}
}

// TestOrderHoldsWhileInstancesMove: lists of several servers are merged by it.
func TestOrderHoldsWhileInstancesMove(t *testing.T) {
	r := New()
	for _, id := range []string{"1", "2"} {
		join(t, r, start, someone(id, 1)).Leave(start)
	}
	var got []string
	for i := range r.Instances(start, "default") {
		got = append(got, i.Identity.GetService()+i.Identity.GetId())
		moved := someone("2", 2)
		moved.Identity.Service = "a"
		join(t, r, start, moved).Leave(start)
	}
	if !slices.Equal(got, []string{"s1", "s2"}) {
		t.Errorf("listed %q", got)
	}
	if got := listed(r, start); !slices.Equal(got, []string{"2", "1"}) {
		t.Errorf("listed %q after the move", got)
	}
}
