package check

import (
	"cmp"
	"slices"

	"github.com/holdfast-dev/holdfast/test/jepsen-lite/history"
)

// span is a fault from its beginning to its end.
type span struct {
	id         int
	name       string
	targets    []string
	begin, end int64
	bit        bool
	toothless  bool
	skipped    bool
	began      bool
	ended      bool
	proof      string
}

// faults puts the steps of each fault together, in the order in which they began.
func (f *facts) faults() []*span {
	byID := make(map[int]*span)
	var spans []*span
	for i := range f.Faults {
		step := &f.Faults[i]
		s := byID[step.ID]
		if s == nil {
			s = &span{id: step.ID, name: step.Name, begin: step.T, end: f.lastMoment()}
			byID[step.ID] = s
			spans = append(spans, s)
		}
		for _, id := range step.Targets {
			if !slices.Contains(s.targets, id) {
				s.targets = append(s.targets, id)
			}
		}
		switch step.Event {
		case history.FaultBegin:
			s.began, s.begin = true, step.T
		case history.FaultBit:
			s.bit, s.proof = true, step.Proof
		case history.FaultToothless:
			s.toothless, s.proof = true, step.Proof
		case history.FaultEnd:
			s.ended, s.end = true, step.T
		case history.FaultSkipped:
			s.skipped, s.proof = true, step.Proof
		}
	}
	return spans
}

// lastMoment is the end of the run, as far as the history tells.
func (f *facts) lastMoment() int64 {
	return cmp.Or(f.Run.Ended, f.Run.Settled, f.Run.Healed)
}

// disturbed tells whether a process was stopped, started, killed or paused in a
// piece of time, or was paused when it began.
func (f *facts) disturbed(id string, from, to int64) bool {
	for i := range f.Servers {
		s := &f.Servers[i]
		if s.ID == id && s.T >= from && s.T <= to && s.Event != history.ProcessReady {
			return true
		}
	}
	return !f.alive(id, from)
}

// alive tells whether a process runs at a time. One of which nothing is recorded
// always does.
func (f *facts) alive(id string, t int64) bool {
	alive := true
	for i := range f.Servers {
		s := &f.Servers[i]
		if s.ID != id || s.T > t {
			continue
		}
		switch s.Event {
		case history.ProcessStart, history.ProcessReady, history.ProcessResume:
			alive = true
		case history.ProcessExit, history.ProcessKill, history.ProcessStop, history.ProcessPause:
			alive = false
		}
	}
	return alive
}

// starts are the times at which a process started.
func (f *facts) starts(id string) []int64 {
	var at []int64
	for i := range f.Servers {
		if s := &f.Servers[i]; s.ID == id && s.Event == history.ProcessStart {
			at = append(at, s.T)
		}
	}
	return at
}

// by groups records by a name, keeping their order.
func by[R any](records []R, name func(*R) string) map[string][]*R {
	groups := make(map[string][]*R)
	for i := range records {
		key := name(&records[i])
		groups[key] = append(groups[key], &records[i])
	}
	return groups
}
