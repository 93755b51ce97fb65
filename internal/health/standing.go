package health

import (
	"math"
	"time"

	"github.com/holdfast-dev/holdfast/internal/policy"
	"github.com/holdfast-dev/holdfast/internal/seam"
)

const (
	// settle is how long a quorum must be there before it is believed: witnesses of
	// the contrary are asked by the first open vote and answer within PoliteDelay, and
	// eager pushes bring nearly all of that within as long again. One hears both sides.
	settle = 100 * time.Millisecond
	// halfLife is that of the penalty which each change of a verdict adds, as route
	// flap damping has it (RFC 2439, where it is 15 minutes for routes; breakers open
	// for seconds). After it, the dwell time is back by a factor of 1.4 to 2.
	halfLife = time.Minute
	// maxPenalty bounds the exponent: 2^16 × the shortest dwell time is a minute.
	maxPenalty = 16
)

// Standing is what has been concluded so far about one dependency. The zero value has
// concluded nothing. Keep it from one Verdict to the next.
type Standing struct {
	suspecting, idle damper
	armed, armedIdle bool
}

// damper keeps a conclusion from flapping. Each change makes the next one wait.
type damper struct {
	open    bool
	scope   Scope
	wanted  int64   // since when it should open; only while wants
	wants   bool    // it should open, and settles
	until   int64   // it stands at least until then
	penalty float64 // at the last change
	changed int64   // when that was
}

// decayed is the penalty as it is now.
func (d *damper) decayed(now int64) float64 {
	return d.penalty * math.Exp2(-float64(max(now-d.changed, 0))/float64(halfLife))
}

// next is the damper after it has been told what the evidence says.
func (d damper) next(now int64, want bool, scope Scope, f *policy.Fleet) damper {
	if seam.Bug(seam.HearsayStays) && d.open {
		return d
	}
	switch {
	case want == d.open:
		d.wants = false
		if want {
			d.scope = scope
		}
		return d
	case want && !d.wants:
		d.wants, d.wanted = true, now
	case !want:
		d.wants = false
	}
	if now < d.again() {
		return d
	}
	p := min(d.decayed(now), maxPenalty)
	dwell := min(float64(f.Dwell)*math.Exp2(p), float64(max(f.MaxDwell, f.Dwell)))
	return damper{open: want, scope: scope, until: now + int64(dwell), penalty: p + 1, changed: now}
}

// again is when what is wanted may be.
func (d *damper) again() int64 {
	if d.wants {
		return max(d.until, d.wanted+int64(settle))
	}
	return d.until
}

// Again returns when to ask for the verdict again though nothing is heard; not ok if
// there is no need to.
func (s *Standing) Again(now int64) (at int64, ok bool) {
	for _, d := range []*damper{&s.suspecting, &s.idle} {
		if a := d.again(); a > now && (d.open || d.wants) && (!ok || a < at) {
			at, ok = a, true
		}
	}
	return at, ok
}

// Forgettable reports whether the zero value would do as well: nothing stands, and the
// penalty is too small to matter.
func (s *Standing) Forgettable(now int64) bool {
	for _, d := range []*damper{&s.suspecting, &s.idle} {
		if d.open || d.wants || now < d.until || d.decayed(now) > 0.1 {
			return false
		}
	}
	return true
}
