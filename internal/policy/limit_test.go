package policy

import (
	"math"
	"testing"
	"time"

	"pgregory.net/rapid"
)

func adaptive(least, most int) Bulkhead {
	return Bulkhead{Adaptive: true, MinConcurrent: least, MaxConcurrent: most}
}

// dependency answers in a time that is even while it has enough workers, and grows
// with what is too many.
type dependency struct {
	workers int
	service time.Duration
	timeout time.Duration
}

// period is what calls see of it that keep so many places taken.
func (d dependency) period(taken int) Period {
	took := time.Duration(float64(d.service) * max(float64(taken)/float64(d.workers), 1))
	p := Period{Calls: 100, Mean: took, Peak: taken}
	if d.timeout > 0 && took > d.timeout {
		p.Dropped = p.Calls
	}
	return p
}

// load runs for so many periods with as many calls as there are places, up to
// offered.
func (d dependency) load(b Bulkhead, a AdaptiveLimit, offered, periods int) AdaptiveLimit {
	for range periods {
		a = b.Adapt(a, d.period(min(int(a.Limit), offered)))
	}
	return a
}

func within(t *testing.T, what string, a AdaptiveLimit, least, most float64) {
	t.Helper()
	if a.Limit < least || a.Limit > most {
		t.Errorf("%s: a limit of %.1f, want %v to %v", what, a.Limit, least, most)
	}
}

func TestAdaptiveLimit(t *testing.T) {
	b := adaptive(8, 1024)
	healthy := dependency{workers: 100, service: 10 * time.Millisecond}
	start := b.StartLimit()
	within(t, "at the start", start, 90, 91)
	within(t, "without calls", b.Adapt(start, Period{}), 90, 91)
	within(t, "without load", healthy.load(b, start, 20, 1000), 90, 91)

	full := healthy.load(b, AdaptiveLimit{Limit: 8}, 10_000, 1000)
	within(t, "with all the load there can be", full, 100, 200)
	within(t, "and ten hours later", healthy.load(b, full, 10_000, 360_000), 100, 200)

	slow := dependency{workers: 20, service: 50 * time.Millisecond}
	within(t, "when it has become overloaded", slow.load(b, full, 10_000, 30), 8, 16)
	within(t, "and when it has become slower for good", slow.load(b, full, 10_000, 2000), 20, 40)
	within(t, "and when it is back", healthy.load(b, slow.load(b, full, 10_000, 2000), 10_000, 1000), 100, 200)

	stuck := dependency{workers: 100, service: time.Second, timeout: time.Millisecond}
	within(t, "when all is out of time", stuck.load(b, full, 10_000, 10), 8, 8)
	within(t, "and stays so", stuck.load(b, full, 10_000, 100_000), 8, 8)

	now := full
	for range 20 {
		now = b.Adapt(now, Period{Calls: 1000, Dropped: 5, Mean: 10 * time.Millisecond, Peak: 10})
	}
	within(t, "with a few drops and no load", now, full.Limit, full.Limit)
	for range 50 {
		now = b.Adapt(now, Period{Calls: 1000, Dropped: 100, Mean: 10 * time.Millisecond, Peak: int(now.Limit)})
	}
	within(t, "with a tenth refused for overload", now, 8, 20)
}

// TestAdaptiveLimitStays between its bounds, whatever it sees, and never grows by
// places that nobody used.
func TestAdaptiveLimitStays(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		least := rapid.IntRange(1, 1000).Draw(t, "min")
		b := adaptive(least, rapid.IntRange(least, 2000).Draw(t, "max"))
		a := b.StartLimit()
		for range 50 {
			p := Period{
				Calls: rapid.Uint64Range(0, 1000).Draw(t, "calls"),
				Mean:  time.Duration(rapid.Int64Range(0, math.MaxInt64).Draw(t, "mean")),
				Peak:  rapid.IntRange(0, 4000).Draw(t, "peak"),
			}
			p.Dropped = rapid.Uint64Range(0, p.Calls).Draw(t, "dropped")
			next := b.Adapt(a, p)
			if !(next.Limit >= float64(b.MinConcurrent) && next.Limit <= float64(b.MaxConcurrent)) || !(next.Baseline >= 0) {
				t.Fatalf("%+v after %+v", next, p)
			}
			if next.Limit > a.Limit && 2*float64(p.Peak) < a.Limit {
				t.Fatalf("%+v after %+v, of which nobody used the half", next, p)
			}
			a = next
		}
		// New bounds hold at once.
		b = adaptive(3, 5)
		if next := b.Adapt(a, Period{}); next.Limit < 3 || next.Limit > 5 {
			t.Fatalf("%+v between 3 and 5", next)
		}
	})
}

func TestPart(t *testing.T) {
	b := Bulkhead{
		MaxConcurrent: 50, MaxQueue: 3, MaxWait: time.Second, Adaptive: true,
		Methods: map[string]int{"/shop.Orders/Get": 10, "/shop.Orders/*": 20, "import": 100},
	}
	for _, c := range []struct {
		name, key string
		limit     int
	}{
		{"/shop.Orders/Get", "/shop.Orders/Get", 10},
		{"/shop.Orders/Put", "/shop.Orders/*", 20},
		{"/shop.Orders/List", "/shop.Orders/*", 20},
		{"import", "import", 50}, // not more than the whole
		{"/shop.Users/Get", "", 0},
		{"export", "", 0},
	} {
		key, part, ok := b.Part(c.name)
		if key != c.key || ok != (c.key != "") || part.MaxConcurrent != c.limit {
			t.Errorf("%s: %q with %d places (%v), want %q with %d", c.name, key, part.MaxConcurrent, ok, c.key, c.limit)
		}
		if ok && (part.Adaptive || part.MaxQueue != 3 || part.MaxWait != time.Second || part.MaxConcurrent != b.Limit(c.name)) {
			t.Errorf("%s: %+v", c.name, part)
		}
	}
}
