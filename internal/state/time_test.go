package state

import (
	"math"
	"testing"

	"github.com/holdfast-dev/holdfast/internal/document"
)

// TestTimeNeverGoesBack applies commands that were stamped earlier than what came
// before them, by the same leader and by the next one.
func TestTimeNeverGoesBack(t *testing.T) {
	h := newHarness(t, DefaultLimits())
	h.must(put("a", document.Flag, "x", "1"))
	latest := h.now
	for _, back := range []int64{1, 60_000, 3_600_000, math.MaxInt32} {
		for _, term := range []uint64{h.term, h.term + 1} {
			h.term, h.now = term, latest-back
			h.apply(tick())
			r := h.must(put("a", document.Flag, "x", string(requestOf(h.index))))
			x := h.View().Namespace("a").Get(document.Key{Kind: document.Flag, Name: "x"})
			if h.View().Time() != latest || x.UpdateTime != latest || x.ModRevision != r.Revision {
				t.Fatalf("a command stamped %d ms earlier: state time %d, want %d; updated at %d", back, h.View().Time(), latest, x.UpdateTime)
			}
		}
	}
	h.now = latest + 1
	if h.apply(tick()); h.View().Time() != latest+1 {
		t.Fatalf("state time %d stands still", h.View().Time())
	}
}

// TestTickSpendsNoRevision lets hours go by.
func TestTickSpendsNoRevision(t *testing.T) {
	h := newHarness(t, DefaultLimits())
	h.must(put("a", document.Flag, "x", "1"))
	before := h.View()
	for range 100 {
		h.now += 15_000
		r := h.apply(tick())
		if v := h.View(); r.Revision != 1 || v.Revision() != 1 || r.Touched != nil || v.Time() != h.now || v.Hash() == before.Hash() || essence(v) != essence(before) {
			t.Fatalf("a tick: %+v, revision %d, time %d", r, v.Revision(), v.Time())
		}
	}
}

// TestOverrideEndsByExpireOnly looks at an override around its end: it ends at
// the first Expire that is not before it, and by nothing else.
func TestOverrideEndsByExpireOnly(t *testing.T) {
	h := newHarness(t, DefaultLimits())
	o := put("a", document.Override, "o", "1")
	o.TtlMs = 5_000
	h.must(o, put("a", document.Flag, "x", "1"))
	key, end := document.Key{Kind: document.Override, Name: "o"}, h.now+5_000
	if have, ok := h.View().NextEnd(); !ok || have != end {
		t.Fatalf("the next end is %d, want %d", have, end)
	}

	h.now = end - 1
	if r := h.apply(expire()); r.Revision != 1 || r.Touched != nil {
		t.Fatalf("ended a millisecond early: %+v", r)
	}
	h.now = end + 3_600_000
	h.apply(tick())
	h.must(put("b", document.Flag, "x", "1"))
	if h.View().Namespace("a").Get(key) == nil {
		t.Fatal("time alone has ended it")
	}

	h.now = end - 2_000 // the next leader's clock is late, state time is not
	h.term++
	r := h.apply(expire())
	d, _ := h.View().Namespace("a").Since(1)
	if r.Revision != 3 || len(r.Touched) != 1 || h.View().Namespace("a").Get(key) != nil || len(d.Deletes) != 1 || !d.Deletes[0].Ended {
		t.Fatalf("not ended: %+v, %+v", r, d)
	}
	if _, ok := h.View().NextEnd(); ok || h.View().Overrides() != 0 {
		t.Fatalf("%d overrides are left", h.View().Overrides())
	}
	if r := h.apply(expire()); r.Revision != 3 {
		t.Fatalf("nothing ended at revision %d", r.Revision)
	}
}

// TestOverrideEndsOnTheMillisecond expires at the end itself.
func TestOverrideEndsOnTheMillisecond(t *testing.T) {
	h := newHarness(t, DefaultLimits())
	h.must(put("a", document.Override, "o", "1"))
	for _, c := range []struct {
		pass int64
		left int
	}{{4_999, 1}, {1, 0}} {
		h.now += c.pass
		if h.apply(expire()); h.View().Overrides() != c.left {
			t.Fatalf("%d overrides %d ms after the end", h.View().Overrides(), c.left-1)
		}
	}
}

// TestOverridePutAgainLastsLonger puts the same override once more: it is another
// one, because its time begins anew. A flag put once more is the same.
func TestOverridePutAgainLastsLonger(t *testing.T) {
	h := newHarness(t, DefaultLimits())
	h.must(put("a", document.Override, "o", "1"), put("a", document.Flag, "x", "1"))
	h.now += 4_000
	r := h.must(put("a", document.Override, "o", "1"), put("a", document.Flag, "x", "1"))
	if end, _ := h.View().NextEnd(); end != h.now+5_000 || r.Changes[0] != document.Updated || r.Changes[1] != document.Unchanged {
		t.Fatalf("%v, the end is %d ms away", r.Changes, end-h.now)
	}
	h.now += 4_000
	if h.apply(expire()); h.View().Overrides() != 1 {
		t.Fatal("it ended when it would have at first")
	}
}

// TestLeaderChangeKeepsEnds checks that an override that was put under one leader
// lasts as long under the next one, whose wall clock is an hour behind.
func TestLeaderChangeKeepsEnds(t *testing.T) {
	h := newHarness(t, DefaultLimits())
	h.must(put("a", document.Override, "o", "1"))
	before, _ := h.View().NextEnd()
	h.term++ // it stamps from state time on, as it may not be behind it
	h.now = h.View().Time()
	h.apply(tick())
	if after, _ := h.View().NextEnd(); after != before || after-h.View().Time() != 5_000 {
		t.Fatalf("the end moved from %d to %d, at %d", before, after, h.View().Time())
	}
}
