package nemesis_test

import (
	"context"
	"errors"
	"math"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/holdfast-dev/holdfast/test/jepsen-lite/history"
	"github.com/holdfast-dev/holdfast/test/jepsen-lite/nemesis"
)

// log is what faults were told to have done.
type log struct {
	mu    sync.Mutex // guards all
	all   []history.Fault
	ended []string
}

func (l *log) env() *nemesis.Env {
	return &nemesis.Env{Record: func(r any) {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.all = append(l.all, r.(history.Fault))
	}}
}

func (l *log) events(name string) string {
	var events []string
	for _, f := range l.all {
		if f.Name == name {
			events = append(events, f.Event)
		}
	}
	return strings.Join(events, " ")
}

// fake is a fault that shows what it is told to show.
func (l *log) fake(name, proof string, failure error) nemesis.Fault {
	return nemesis.Fault{Name: name, Hold: nemesis.Span{Min: time.Second, Max: 2 * time.Second}, Do: func(_ context.Context, s *nemesis.Strike) (func(context.Context) error, error) {
		s.Aim("s1")
		if proof != "" {
			s.Prove("%s", proof)
		}
		return func(context.Context) error {
			l.mu.Lock()
			defer l.mu.Unlock()
			l.ended = append(l.ended, name)
			return nil
		}, failure
	}}
}

func phase(limit time.Duration, faults ...nemesis.Fault) nemesis.Plan {
	return nemesis.Plan{Lanes: [][]nemesis.Fault{faults}, Gap: nemesis.Span{Min: time.Second, Max: 2 * time.Second}, For: limit, Each: true}
}

// A fault bit only if it showed a sign and no error; every one that was begun ends.
func TestFaultsProveThatTheyBit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := &log{}
		never := l.fake("never", "no", nil)
		never.Able = func(*nemesis.Env) error { return errors.New("no such thing here") }
		sum, err := nemesis.Run(t.Context(), l.env(), phase(0, l.fake("bites", "seen", nil), l.fake("shy", "", nil),
			l.fake("fails", "seen", errors.New("failed")), never), 1)
		if err != nil {
			t.Fatal(err)
		}
		if want := (nemesis.Summary{Bitten: 1, Toothless: 2, Skipped: 1}); sum != want {
			t.Errorf("%+v, want %+v", sum, want)
		}
		for name, want := range map[string]string{
			"bites": "begin bit end", "shy": "begin toothless end", "fails": "begin toothless end", "never": "skipped",
		} {
			if got := l.events(name); got != want {
				t.Errorf("%s: %q, want %q", name, got, want)
			}
		}
		if len(l.ended) != 3 {
			t.Errorf("ended: %v", l.ended)
		}
	})
}

// The order of faults follows from the seed.
func TestSeedsRepeat(t *testing.T) {
	order := func(seed uint64) []string {
		var names []string
		synctest.Test(t, func(t *testing.T) {
			l := &log{}
			faults := []nemesis.Fault{l.fake("a", "x", nil), l.fake("b", "x", nil), l.fake("c", "x", nil), l.fake("d", "x", nil)}
			if _, err := nemesis.Run(t.Context(), l.env(), phase(30*time.Second, faults...), seed); err != nil {
				t.Error(err)
			}
			names = l.ended
		})
		return names
	}
	first := order(1)
	if again := order(1); !slices.Equal(first, again) {
		t.Errorf("the same seed did %v, then %v", first, again)
	}
	if len(first) < 8 {
		t.Errorf("only %v in 30 s", first)
	}
	same := true
	for seed := range uint64(5) {
		same = same && slices.Equal(first[:4], order(seed + 2)[:4])
	}
	if same {
		t.Errorf("five other seeds began with %v as well", first[:4])
	}
}

// Times that are to be spread evenly are, by orders of magnitude, even if there are few.
func TestEvenHolds(t *testing.T) {
	for seed := range uint64(5) {
		var lengths []time.Duration
		synctest.Test(t, func(t *testing.T) {
			var bit time.Time // on the test's clock
			env := &nemesis.Env{Record: func(r any) {
				switch r.(history.Fault).Event {
				case history.FaultBit:
					bit = time.Now()
				case history.FaultEnd:
					lengths = append(lengths, time.Since(bit))
				}
			}}
			even := (&log{}).fake("even", "x", nil)
			even.Hold, even.EvenHolds = nemesis.Span{Min: 2 * time.Second, Max: 64 * time.Second}, true
			if _, err := nemesis.Run(t.Context(), env, phase(150*time.Second, even), seed); err != nil {
				t.Error(err)
			}
		})
		thirds := make(map[int]int) // 2–6.3, 6.3–20, 20–64 s
		for _, lasted := range lengths {
			thirds[int(math.Log(lasted.Seconds()/2)/math.Log(32)*3)]++
		}
		if n := len(lengths); n < 6 || thirds[0] < n/4 || thirds[1] < n/4 || thirds[2] < n/4 || len(thirds) > 3 {
			t.Errorf("seed %d: %v", seed, lengths)
		}
	}
}

// A phase that is interrupted ends what it had begun, and begins nothing more.
func TestInterruptedPhaseEndsItsFaults(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := &log{}
		ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
		defer cancel()
		began := time.Now()
		if _, err := nemesis.Run(ctx, l.env(), phase(time.Hour, l.fake("a", "x", nil), l.fake("b", "x", nil)), 1); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(began); took > time.Second {
			t.Errorf("it went on for %v", took)
		}
		if len(l.ended) != 1 {
			t.Errorf("ended: %v, want the one that had begun", l.ended)
		}
	})
}

// Names of faults are found, and mistakes are told.
func TestNamed(t *testing.T) {
	some, err := nemesis.Named("kill-leader", "kill-*")
	if err != nil || len(some) != 4 {
		t.Errorf("%d faults, %v", len(some), err)
	}
	if _, err := nemesis.Named("kil-leader"); err == nil {
		t.Error("a fault that does not exist was found")
	}
	seen := make(map[string]bool)
	for _, f := range nemesis.Catalogue() {
		if seen[f.Name] || f.Do == nil {
			t.Errorf("%s is there twice or does nothing", f.Name)
		}
		seen[f.Name] = true
	}
}
