package session

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/holdfast-dev/holdfast/internal/document"
)

// TestStateTime keeps the estimate going while cut off.
func TestStateTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, w := newNetwork(t), newTruth()
		w.put("a", "1")
		srv := n.serve("a:1", &server{truth: w})
		s, a := n.open(nil, "a:1")
		defer end(t, s, a)
		synctest.Wait()
		w.mu.Lock()
		w.ahead = time.Hour // as after a leader with another clock was elected
		w.mu.Unlock()
		wait(6 * time.Second)
		if len(a.times) != 1 || a.times[0] < time.Now().Add(time.Hour-7*time.Second).UnixMilli() {
			t.Errorf("told %v", a.times)
		}
		n.kill("a:1", srv)
		wait(time.Minute)
		if got, want := s.StateTime(), time.Now().Add(time.Hour).UnixMilli(); got != want {
			t.Errorf("state time %d, want %d", got, want)
		}
	})
}

// TestStateTimeOfAnotherEpoch begins anew with an epoch that is installed, and pays no
// attention to one that is refused.
func TestStateTimeOfAnotherEpoch(t *testing.T) {
	fork := epochOf(1)
	fork.Nonce++
	for name, c := range map[string]struct {
		epoch document.Epoch
		ahead time.Duration
		want  time.Duration
	}{
		"restored": {epochOf(2), -time.Hour, -time.Hour},
		"a fork":   {fork, time.Hour, 0},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n, w := newNetwork(t), newTruth()
				w.put("a", "1")
				n.serve("a:1", &server{truth: w})
				s, a := n.open(nil, "a:1")
				defer end(t, s, a)
				synctest.Wait()
				w.mu.Lock()
				w.ahead = c.ahead
				w.mu.Unlock()
				w.become(c.epoch, 1)
				wait(10 * time.Second)
				want := time.Now().Add(c.want).UnixMilli()
				if got := s.StateTime(); got != want {
					t.Errorf("state time %d, want %d", got, want)
				}
				if got := a.change().StateTime; c.want != 0 && got != want-10_000 {
					t.Errorf("installed with state time %d, want %d", got, want-10_000)
				}
			})
		})
	}
}
