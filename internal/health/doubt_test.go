package health

import (
	"testing"
	"time"
)

func TestDoubt(t *testing.T) {
	well := Vitals{Members: 100, Dependencies: 10, Heard: time.Second}
	with := func(change func(*Vitals)) Vitals { v := well; change(&v); return v }
	type at struct {
		after time.Duration
		v     Vitals
		want  Doubt
	}
	lost := func(n int, left uint64) Vitals { return with(func(v *Vitals) { v.Members -= n; v.Left = left }) }
	for name, story := range map[string][]at{
		"well":               {{0, well, 0}, {time.Second, well, 0}},
		"slow":               {{0, with(func(v *Vitals) { v.Health = 2 }), 0}, {0, with(func(v *Vitals) { v.Health = 3 }), DoubtSlow}},
		"half fails":         {{0, with(func(v *Vitals) { v.Failing = 5 }), 0}},
		"most fail":          {{0, with(func(v *Vitals) { v.Failing = 6 }), DoubtAll}},
		"both of two":        {{0, Vitals{Dependencies: 2, Failing: 2}, 0}},
		"two of three":       {{0, Vitals{Dependencies: 3, Failing: 2}, DoubtAll}},
		"deaf":               {{0, with(func(v *Vitals) { v.Heard = 16 * time.Second }), DoubtDeaf}},
		"alone":              {{0, Vitals{Members: 1, Heard: time.Hour}, 0}},
		"no gossip":          {{0, Vitals{Heard: time.Hour}, 0}},
		"members crash":      {{0, well, 0}, {20 * time.Second, lost(41, 0), DoubtAlone}, {20 * time.Second, lost(41, 0), 0}},
		"fewer crash":        {{0, well, 0}, {20 * time.Second, lost(40, 0), 0}},
		"slowly":             {{0, well, 0}, {20 * time.Second, lost(25, 0), 0}, {20 * time.Second, lost(50, 0), 0}, {40 * time.Second, lost(60, 0), 0}},
		"they leave":         {{0, well, 0}, {time.Second, lost(60, 60), 0}},
		"some leave":         {{0, well, 0}, {time.Second, lost(90, 60), DoubtAlone}},
		"they come back":     {{0, well, 0}, {time.Second, lost(50, 0), DoubtAlone}, {time.Second, well, 0}},
		"two of four vanish": {{0, Vitals{Members: 4}, 0}, {0, Vitals{Members: 2}, 0}},
		"three of five":      {{0, Vitals{Members: 5}, 0}, {0, Vitals{Members: 2}, DoubtAlone}},
		"after a long sleep": {{0, well, 0}, {time.Hour, lost(90, 0), 0}},
		"all of it": {{0, well, 0}, {
			0,
			Vitals{Health: 9, Failing: 3, Dependencies: 3, Members: 2, Heard: time.Hour},
			DoubtSlow | DoubtAll | DoubtAlone | DoubtDeaf,
		}},
	} {
		var d Doubter
		var got Doubt
		now := int64(time.Hour)
		for i, s := range story {
			now += int64(s.after)
			if d, got = d.Observe(now, s.v); got != s.want {
				t.Errorf("%s, step %d: %q, want %q", name, i, got, s.want)
			}
		}
	}
}
