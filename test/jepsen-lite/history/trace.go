package history

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// trace reads what one process wrote about itself in one incarnation.
type trace struct {
	h           *History
	process     string
	incarnation int
	evidence    map[string]Said
	members     map[string]struct{} // full names, with a suffix for each start
}

// event is a line of a trace. It has fields of no interest here, too.
type event struct {
	Kind string
	M    int64 // monotonic time
	// applied, and restored snapshots
	Index, Term             uint64
	Command, State, Request string
	Revision, Epoch         uint64
	Effective, Restored     bool
	Leads                   bool // leadership
	Origin                  string
	Incarnation, Sequence   uint64            // evidence, forgotten
	Said                    map[string]string // opinions by dependency
	Pool, Name              string            // member
	Here                    bool
}

func newTrace(h *History, process string, incarnation int) *trace {
	return &trace{
		h: h, process: process, incarnation: incarnation,
		evidence: make(map[string]Said), members: make(map[string]struct{}),
	}
}

func (t *trace) add(line []byte) error {
	var e event
	if err := json.Unmarshal(line, &e); err != nil {
		return fmt.Errorf("no event of a trace: %w", err)
	}
	if e.Kind == "" || e.M == 0 {
		return errors.New("no event of a trace: it has no kind, or no monotonic time m")
	}
	switch e.Kind {
	case "applied":
		t.h.Applied = append(t.h.Applied, Applied{
			Server: t.process, Incarnation: t.incarnation, T: e.M, Index: e.Index, Term: e.Term,
			Command: e.Command, State: e.State, Revision: e.Revision, Epoch: e.Epoch, Request: e.Request,
			Effective: e.Effective, Restored: e.Restored,
		})
	case "leadership":
		t.h.Leads = append(t.h.Leads, Lead{Server: t.process, T: e.M, Term: e.Term, Leads: e.Leads})
	case "evidence", "forgotten":
		t.hear(&e)
	case "member":
		t.meet(&e)
	}
	return nil
}

// hear follows what the process holds of others. A record of an origin replaces the
// one before as a whole; the record itself is the evidence "ORIGIN/".
func (t *trace) hear(e *event) {
	maps.DeleteFunc(t.evidence, func(key string, _ Said) bool { return strings.HasPrefix(key, e.Origin+"/") })
	if e.Kind == "evidence" {
		all := make([]string, 0, len(e.Said))
		for _, dependency := range slices.Sorted(maps.Keys(e.Said)) {
			opinion := e.Said[dependency]
			all = append(all, dependency+" "+opinion)
			t.evidence[e.Origin+"/"+dependency] = Said{e.Incarnation, e.Sequence, opinion}
		}
		t.evidence[e.Origin+"/"] = Said{e.Incarnation, e.Sequence, strings.Join(all, ", ")}
	}
	t.h.Peers = append(t.h.Peers, Peers{Instance: t.process, T: e.M, Evidence: maps.Clone(t.evidence)})
}

// meet follows whom the process sees in the instances' pool. Members are told apart by
// process there; here the newest process of each id counts.
func (t *trace) meet(e *event) {
	if !strings.HasPrefix(e.Pool, "hf-") {
		return // the servers' own pool
	}
	if e.Here {
		t.members[e.Name] = struct{}{}
	} else {
		delete(t.members, e.Name)
	}
	ids := make([]string, 0, len(t.members))
	for name := range t.members {
		id, _, _ := strings.Cut(name, "/")
		ids = append(ids, id)
	}
	slices.Sort(ids)
	t.h.Peers = append(t.h.Peers, Peers{Instance: t.process, T: e.M, Members: slices.Compact(ids)})
}
