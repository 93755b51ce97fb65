package breaker

import (
	"slices"
	"sync/atomic"
	"testing"
	"time"
)

// TestCanariesOfManyDoNotMeet: instances that heed at the same instant differ in when they
// let a call through.
func TestCanariesOfManyDoNotMeet(t *testing.T) {
	var all []time.Duration
	for seed := range uint64(100) {
		b := New(0, defaults(), seed)
		b.Heed(0, false, true)
		all = append(all, b.Admit(0).RetryAfter)
	}
	slices.Sort(all)
	if all[0] < 4*time.Second || all[99] > 6*time.Second || all[75]-all[25] < 500*time.Millisecond {
		t.Fatal(all)
	}
}

// TestCanariesOfOneDependency: methods take turns, those first that have not been tried,
// until one goes well.
func TestCanariesOfOneDependency(t *testing.T) {
	var canaries Canaries
	var all [3]*fixture
	for i := range all {
		all[i] = newFixture(t, heeding)
		all[i].Share(&canaries)
		all[i].calls(Failure)
		all[i].Heed(all[i].now, true, false)
	}
	pass := func(d time.Duration) {
		for _, f := range all {
			f.pass(d)
		}
	}
	waits := func(f *fixture, want time.Duration) {
		t.Helper()
		if d := f.reject(); d != want {
			t.Fatalf("waits %v, want %v", d, want)
		}
	}
	a, b, well := all[0], all[1], all[2]
	pass(5 * time.Second)
	a.calls(Failure)
	waits(b, 5*time.Second)
	waits(well, 10*time.Second)
	waits(a, 10*time.Second)
	pass(5 * time.Second)
	waits(well, 5*time.Second)
	b.calls(Failure)
	waits(b, 10*time.Second)
	pass(5 * time.Second)
	waits(a, 5*time.Second) // its own time is up, as is that of another who has not been tried
	well.calls(Success)
	waits(a, 5*time.Second)

	pass(time.Second)
	well.calls(Success)
	a.calls(Neutral)
	waits(b, 4*time.Second)
	pass(time.Second)
	well.calls(Success)
	well.changed(Hearsay, Closed, Vetoed)
}

// methods are breakers of one dependency, open by hearsay, which their own failures do not
// open.
type methods struct {
	now  int64
	all  []*Breaker
	went []int // canaries of each
}

func newMethods(n int, seed uint64) *methods {
	s, canaries := defaults(), new(Canaries)
	heeding(&s)
	s.FailureThreshold = 0
	m := &methods{now: int64(time.Hour), went: make([]int, n)}
	for i := range n {
		b := New(m.now, s, seed<<8+uint64(i))
		b.Share(canaries)
		b.Record(m.now, b.Admit(m.now).Ticket, Failure, 0)
		b.Heed(m.now, true, false)
		m.all = append(m.all, b)
	}
	return m
}

// call calls a method.
func (m *methods) call(i int, c Class) {
	if a := m.all[i].Admit(m.now); a.Admitted {
		m.went[i]++
		m.all[i].Record(m.now, a.Ticket, c, 0)
	}
}

// TestCanariesAreFair: in an hour in which all are dead each method has its canaries, also
// one that is called seldom beside many that are called all the time; and all of them
// together have few.
func TestCanariesAreFair(t *testing.T) {
	const step = 100 * time.Millisecond
	for seed := range uint64(2) {
		for _, n := range []int{1, 2, 5, 12} {
			m, seldom := newMethods(n, seed), n-1
			for at := time.Duration(0); at < time.Hour; at += step {
				m.now += int64(step)
				for i := range n {
					if i == 0 || i != seldom || at%(10*time.Second) == 0 {
						m.call(i, Failure)
					}
				}
			}
			all := 0
			for i, went := range m.went {
				if all += went; went < 3600/80 || went > 3600/20 {
					t.Errorf("seed %d: method %d of %d had %d canaries in an hour: %v", seed, i, n, went, m.went)
				}
			}
			if all > 3600/4 {
				t.Errorf("seed %d: %d methods had %d canaries in an hour", seed, n, all)
			}
		}
	}
}

// TestCanariesFindTheWell: a method that is well again comes back soon, though another one
// stays dead and is called as often.
func TestCanariesFindTheWell(t *testing.T) {
	const step = 100 * time.Millisecond
	for seed := range uint64(100) {
		m := newMethods(2, seed)
		for end := m.now + int64(3*time.Minute); m.now < end; m.now += int64(step) {
			m.call(0, Failure)
			m.call(1, Failure)
		}
		since := m.now
		for m.all[1].Snapshot(m.now).State == Hearsay && time.Duration(m.now-since) < time.Hour {
			m.now += int64(step)
			m.call(0, Failure)
			m.call(1, Success)
		}
		// A wait of 30 s, a turn of 5 s and two more good ones a second later each, with jitter.
		if took := time.Duration(m.now - since); took > 46*time.Second {
			t.Errorf("seed %d: back after %v", seed, took)
		}
	}
}

// TestCanariesAtTheSameInstant: of calls of several methods at once one goes, and no turn
// gets lost: the others go one after the other.
func TestCanariesAtTheSameInstant(t *testing.T) {
	var went [2]atomic.Int64
	var m *methods
	rounds := 0
	duel(4000, func() {
		rounds++
		m = newMethods(2, 1)
		m.now += int64(7 * time.Second)
		went[0].Store(0)
		went[1].Store(0)
	}, func(who int) {
		for i := range m.all {
			i = (i + who*rounds) % 2 // both begin with the same one in every other round
			if m.all[i].Admit(m.now).Admitted {
				went[i].Add(1)
			}
		}
	}, func() {
		first := int(went[1].Load())
		if went[0].Load()+went[1].Load() != 1 {
			t.Fatalf("%d and %d went at once", went[0].Load(), went[1].Load())
		}
		if wait := m.all[1-first].Admit(m.now).RetryAfter; wait <= 0 || wait > 6*time.Second {
			t.Fatalf("the other one waits %v", wait)
		}
	})
}
