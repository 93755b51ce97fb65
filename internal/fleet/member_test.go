package fleet

import (
	"context"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/holdfast-dev/holdfast/internal/breaker"
	"github.com/holdfast-dev/holdfast/internal/health"
	"github.com/holdfast-dev/holdfast/internal/policy"
)

// outage is a dependency that a test breaks, and what reaches it.
type outage struct {
	down  atomic.Bool
	calls atomic.Int64 // that were made
}

func (o *outage) result() error {
	if o.down.Load() {
		return errDown
	}
	return nil
}

// run has instances call the dependency at a rate until stop is called.
func (o *outage) run(all []*instance, every func(k int) time.Duration) (stop func()) {
	return o.runOn("payments", all, every)
}

func (o *outage) runOn(name string, all []*instance, every func(k int) time.Duration) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{}, len(all))
	for k, i := range all {
		go func() {
			i.load(ctx, name, every(k), o.result, func() { o.calls.Add(1) })
			done <- struct{}{}
		}()
	}
	return func() {
		cancel()
		for range all {
			<-done
		}
	}
}

func always(d time.Duration) func(int) time.Duration { return func(int) time.Duration { return d } }

// opened counts those who hold calls back.
func opened(all []*instance) (n int) {
	for _, i := range all {
		if s := i.state("payments"); s == breaker.Open || s == breaker.HalfOpen || s == breaker.Hearsay {
			n++
		}
	}
	return n
}

// TestDeadDependency: where a few find a dependency dead, those who only have a
// suspicion of their own hold back as well, long before their own breakers would.
func TestDeadDependency(t *testing.T) {
	for _, test := range []struct {
		name  string
		alone bool
		least int
		most  int
	}{{"with gossip", false, 8, 10}, {"alone", true, 3, 5}} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				all := newEther().fleet(t, 10, option{alone: test.alone})
				defer closeAll(all)
				var o outage
				stop := o.run(all, func(k int) time.Duration {
					if k < 4 {
						return 20 * time.Millisecond
					}
					return time.Second
				})
				defer stop()
				<-time.After(5 * time.Second)
				o.down.Store(true)
				<-time.After(2500 * time.Millisecond)
				if n := opened(all); n < test.least || n > test.most {
					t.Errorf("%d of 10 hold calls back 2.5 s after the dependency died; want %d to %d", n, test.least, test.most)
				}
				if !test.alone {
					for _, i := range all {
						t.Logf("%s: %v %+v", i.id, i.state("payments"), i.verdict("payments"))
					}
				}
			})
		})
	}
}

// TestNoSuspicion: whatever others say, who has calls that go well, and who has none,
// goes on by the defaults.
func TestNoSuspicion(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		all := newEther().fleet(t, 8, option{})
		defer closeAll(all)
		for _, i := range all {
			i.call("payments", nil)
		}
		<-time.After(time.Minute)
		var broken, fine outage
		broken.down.Store(true)
		defer broken.run(all[:6], always(20*time.Millisecond))()
		defer fine.run(all[6:7], always(20*time.Millisecond))()
		<-time.After(5 * time.Second)
		if n := opened(all[:6]); n != 6 {
			t.Fatalf("%d of 6 are open", n)
		}
		if well := all[6]; well.state("payments") != breaker.Closed || len(well.trace) != 0 {
			t.Errorf("who has successes: %v", well.trace)
		}
		idle := all[7]
		if idle.state("payments") != breaker.Closed || len(idle.trace) != 0 {
			t.Errorf("who makes no calls: %v", idle.trace)
		}
		if v := idle.verdict("payments"); !v.Open || v.Hearsay || v.Finding.HostsOpen != 6 {
			t.Errorf("the verdict of who makes no calls: %+v", v)
		}
		if !idle.call("payments", nil) {
			t.Error("who makes no calls may make none")
		}
	})
}

// TestSickHost: one instance that finds everything broken keeps nobody else from
// calling, also those who have a suspicion of their own, and doubts itself.
func TestSickHost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		all := newEther().fleet(t, 8, option{})
		defer closeAll(all)
		var sick, fine outage
		sick.down.Store(true)
		defer fine.run(all[1:], always(50*time.Millisecond))()
		defer sick.run(all[:1], always(50*time.Millisecond))()
		for second := range 20 {
			<-time.After(time.Second)
			for _, i := range all[1:] {
				if second == 10 {
					i.call("payments", errDown)
					i.call("payments", errDown)
				}
				if s := i.state("payments"); s != breaker.Closed {
					t.Fatalf("after %d s: %s is %v: %v", second, i.id, s, i.trace)
				}
			}
		}
		// Who said that it suspects says no more than every second refresh that all is well.
		<-time.After(2 * health.Refresh)
		if v := all[0].verdict("payments"); !v.Open || v.Reason != "own evidence" || v.Finding.WeightWell == 0 {
			t.Errorf("the sick one concludes %+v; votes %+v", v, all[0].member.Explain("payments").Votes)
		}
		for _, dependency := range []string{"stock", "mail"} {
			for range 10 {
				all[0].call(dependency, errDown)
				for _, i := range all[1:] {
					i.call(dependency, nil)
				}
			}
		}
		<-time.After(100 * time.Millisecond)
		if d := all[0].member.Stats().Doubt; d == 0 {
			t.Error("who finds everything broken does not doubt itself")
		}
		for _, v := range all[1].member.Explain("payments").Votes {
			if v.ID == all[0].id && v.Ignored == "" {
				t.Errorf("its vote counts: %+v", v)
			}
		}
	})
}

// TestVeto: an instance that was cut off by hearsay comes back by its own canaries,
// although the others go on finding the dependency broken.
func TestVeto(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		all := newEther().fleet(t, 8, option{})
		defer closeAll(all)
		var broken, own outage
		broken.down.Store(true)
		defer broken.run(all[:5], always(20*time.Millisecond))()
		victim := all[7]
		victim.call("payments", nil)
		<-time.After(5 * time.Second)
		victim.call("payments", errDown)
		victim.call("payments", errDown)
		if s := victim.state("payments"); s != breaker.Hearsay {
			t.Fatalf("with a suspicion of its own it is %v: %+v", s, victim.verdict("payments"))
		}
		<-time.After(100 * time.Millisecond)
		if v := victim.verdict("payments"); !v.Hearsay || v.Reason != "quorum" {
			t.Errorf("it concludes %+v", v)
		}
		defer own.run(all[7:], always(20*time.Millisecond))()
		<-time.After(10 * time.Second)
		if s, calls := victim.state("payments"), own.calls.Load(); s != breaker.Closed || calls < 200 {
			t.Errorf("10 s later it is %v and has made %d calls: %v", s, calls, victim.trace)
		}
		if n := opened(all[:5]); n != 5 {
			t.Errorf("%d of the 5 others are open", n)
		}
	})
}

// TestVetoOfAnotherMethod: an instance for which one method goes well heeds nobody because
// of another one that fails, and goes on saying that the dependency is well.
func TestVetoOfAnotherMethod(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		all := newEther().fleet(t, 8, option{})
		defer closeAll(all)
		var broken, well outage
		broken.down.Store(true)
		defer well.runOn("payments/read", all[7:], always(10*time.Millisecond))()
		<-time.After(time.Second)
		defer broken.run(all[:5], always(20*time.Millisecond))()
		<-time.After(4 * time.Second)
		victim := all[7]
		for range 2 {
			victim.call("payments/post", errDown)
			<-time.After(100 * time.Millisecond)
			if s := victim.state("payments"); s != breaker.Closed {
				t.Errorf("it is %v: %+v", s, victim.verdict("payments"))
			}
			if v := victim.verdict("payments"); !v.Others || v.Hearsay || v.Opinion != health.Well {
				t.Errorf("it concludes %+v", v)
			}
		}
	})
}

// TestDoubter: who doubts itself obeys nobody, also where everybody says so.
func TestDoubter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newEther()
		all := e.fleet(t, 5, option{})
		slow := e.instance(t, option{id: "slow", vitals: func() Vitals { return Vitals{Health: 5, Members: 6} }})
		all = append(all, slow)
		defer closeAll(all)
		for range 10 {
			for _, i := range all[:5] {
				i.call("payments", errDown)
			}
		}
		<-time.After(time.Second)
		slow.call("payments", errDown)
		slow.call("payments", errDown)
		<-time.After(time.Second)
		if s := slow.state("payments"); s != breaker.Closed || len(slow.trace) != 0 {
			t.Errorf("it is %v: %v", s, slow.trace)
		}
		if v := slow.verdict("payments"); v.Reason != "doubts itself" || !v.Others || v.Hearsay || slow.member.Stats().Doubt == 0 {
			t.Errorf("it concludes %+v", v)
		}
	})
}

// TestClose: what was done to breakers because of others ends with the member.
func TestClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		all := newEther().fleet(t, 6, option{})
		defer closeAll(all[:5])
		for range 10 {
			for _, i := range all[:5] {
				i.call("payments", errDown)
			}
		}
		<-time.After(time.Second)
		last := all[5]
		last.call("payments", errDown)
		last.call("payments", errDown)
		<-time.After(300 * time.Millisecond) // that is news to it
		if s := last.state("payments"); s != breaker.Hearsay {
			t.Fatalf("it is %v", s)
		}
		last.close()
		if s := last.state("payments"); s != breaker.Recovering {
			t.Errorf("after its member has stopped it is %v", s)
		}
	})
}

// TestFlapper: an instance that changes its mind all the time says no more than others
// take, and takes back at once what is no longer so.
func TestFlapper(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		all := newEther().fleet(t, 3, option{policy: func(p *policy.Policy) {
			p.CircuitBreaker.Timeout, p.CircuitBreaker.MaxTimeout = 50*time.Millisecond, 50*time.Millisecond
			p.CircuitBreaker.SuccessThreshold, p.CircuitBreaker.Ramp = 1, nil
		}})
		defer closeAll(all)
		for range 10 {
			all[0].call("payments", errDown)
		}
		<-time.After(100 * time.Millisecond)
		if n := len(all[1].member.Explain("payments").Votes); n != 1 {
			t.Fatalf("%d votes", n)
		}
		all[0].call("payments", nil) // the probe
		<-time.After(100 * time.Millisecond)
		if votes := all[1].member.Explain("payments").Votes; len(votes) != 0 || all[0].state("payments") != breaker.Closed {
			t.Errorf("it is %v, and others hold %+v", all[0].state("payments"), votes)
		}
		before := all[0].member.Stats().Published
		for k := range 400 {
			all[0].call("payments", [...]error{errDown, nil}[k/10%2])
			<-time.After(25 * time.Millisecond)
		}
		if n := all[0].member.Stats().Published - before; n > voiceRate*10+voiceBurst {
			t.Errorf("%d records in 10 s", n)
		}
		if m := all[1].store.Metrics(); m.Fast != 0 {
			t.Errorf("others drop some of them: %+v", m)
		}
	})
}

// TestLeave: an instance that stops takes its vote with it.
func TestLeave(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		all := newEther().fleet(t, 5, option{})
		defer closeAll(all[1:])
		for range 10 {
			all[0].call("payments", errDown)
		}
		<-time.After(200 * time.Millisecond)
		if n := len(all[1].member.Explain("payments").Votes); n != 1 {
			t.Fatalf("%d votes", n)
		}
		all[0].close()
		<-time.After(100 * time.Millisecond)
		if votes := all[1].member.Explain("payments").Votes; len(votes) != 0 {
			t.Errorf("after it has left: %+v", votes)
		}
	})
}

// TestRestart: what an instance said before it crashed is void as soon as it speaks
// again, which it does because others still hold it against it.
func TestRestart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newEther()
		all := e.fleet(t, 3, option{})
		defer closeAll(all[1:])
		for range 10 {
			all[0].call("payments", errDown)
		}
		<-time.After(200 * time.Millisecond)
		e.mu.Lock()
		e.instances = e.instances[1:] // nothing that it says arrives
		e.lost = func(from, _ string) bool { return from == all[0].id }
		e.mu.Unlock()
		all[0].close()
		e.mu.Lock()
		e.lost = nil
		e.mu.Unlock()
		again := e.instance(t, option{id: "checkout-0", zone: "zone-0", incarnation: 2})
		defer again.close()
		again.store.Merge(all[1].store.Encode("checkout-0")) // as anti-entropy does
		<-time.After(200 * time.Millisecond)
		if votes := all[1].member.Explain("payments").Votes; len(votes) != 0 {
			t.Errorf("the vote of an earlier life: %+v", votes)
		}
		again.call("payments", errDown)
		for range 10 {
			again.call("payments", errDown)
		}
		<-time.After(200 * time.Millisecond)
		if votes := all[1].member.Explain("payments").Votes; len(votes) != 1 {
			t.Errorf("its new vote: %+v", votes)
		}
	})
}

// TestIdle: while all is well a member does nothing at all, and it is silent again some
// time after an outage.
func TestIdle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		all := newEther().fleet(t, 3, option{})
		defer closeAll(all)
		ten := func(err error) {
			for range 10 {
				for _, i := range all {
					i.call("payments", err)
				}
			}
		}
		ten(nil)
		<-time.After(time.Second)
		steps := func() (n uint64) {
			for _, i := range all {
				n += i.member.counts.steps.Load()
			}
			return n
		}
		before := steps()
		<-time.After(time.Hour)
		if n := steps() - before; n != 0 {
			t.Errorf("%d looks in an hour in which nothing happened", n)
		}
		ten(errDown)
		<-time.After(time.Second)
		for _, i := range all {
			if i.member.Record() == nil {
				t.Errorf("%s has not said that it is open", i.id)
			}
		}
		for range 60 {
			<-time.After(time.Second)
			ten(nil)
		}
		<-time.After(10 * time.Minute)
		before = steps()
		<-time.After(time.Hour)
		if n := steps() - before; n != 0 || len(all[0].store.Keys()) != 0 {
			t.Errorf("%d looks in an hour long after, %v", n, all[0].store.Keys())
		}
	})
}

// TestRecovery: of all who hold a dependency open a few probe, and the others take
// their word for it.
func TestRecovery(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const n = 20
		all := newEther().fleet(t, n, option{})
		defer closeAll(all)
		var o outage
		defer o.run(all, always(20*time.Millisecond))()
		<-time.After(3 * time.Second)
		o.down.Store(true)
		<-time.After(2 * time.Second)
		if k := opened(all); k != n {
			t.Fatalf("%d of %d hold back", k, n)
		}
		during := o.calls.Load()
		<-time.After(20 * time.Second)
		probes := o.calls.Load() - during
		o.down.Store(false)
		began := time.Now()
		for opened(all) > 0 && time.Since(began) < time.Minute {
			<-time.After(10 * time.Millisecond)
		}
		took := time.Since(began)
		t.Logf("%d probes in 20 s of outage; all recovering %v after its end", probes, took)
		if probes > 24 {
			t.Errorf("%d instances made %d probes in 20 s", n, probes)
		}
		if took > 15*time.Second {
			t.Errorf("recovery took %v", took)
		}
		var recovered uint64
		var back []int64
		for _, i := range all {
			recovered += i.member.Stats().Recovered
			back = append(back, i.back...)
		}
		if spread := time.Duration(slices.Max(back) - slices.Min(back)); spread < 900*time.Millisecond || spread > 4*time.Second {
			t.Errorf("they came back within %v", spread)
		}
		if recovered < n/2 {
			t.Errorf("%d of %d recovered because of the probes of others", recovered, n)
		}
	})
}

// TestDeaf: without anything from others a member changes nothing: the breakers go
// through the same states at the same times as without one.
func TestDeaf(t *testing.T) {
	traces := func(alone bool) (all [][]string) {
		synctest.Test(t, func(t *testing.T) {
			e := newEther()
			e.lost = func(string, string) bool { return true }
			members := e.fleet(t, 6, option{alone: alone})
			var o outage
			stops := []func(){
				o.run(members, func(k int) time.Duration { return time.Duration(20+k*150) * time.Millisecond }),
				o.runOn("payments/Put", members, func(k int) time.Duration { return time.Duration(33+k*70) * time.Millisecond }),
				o.runOn("payments/List", members, func(k int) time.Duration { return time.Duration(400+k*170) * time.Millisecond }),
			}
			<-time.After(777 * time.Microsecond) // never in the same moment as a call
			for range 3 {
				<-time.After(7 * time.Second)
				o.down.Store(true)
				<-time.After(40 * time.Second)
				o.down.Store(false)
				<-time.After(30 * time.Second)
			}
			for _, stop := range stops {
				stop()
			}
			closeAll(members)
			for _, i := range members {
				all = append(all, i.trace)
			}
		})
		return all
	}
	with, without := traces(false), traces(true)
	for k := range with {
		if len(without[k]) == 0 || !slices.Equal(with[k], without[k]) {
			t.Errorf("instance %d:\nwith    %s\nwithout %s", k, strings.Join(with[k], "\n        "), strings.Join(without[k], "\n        "))
		}
	}
}
