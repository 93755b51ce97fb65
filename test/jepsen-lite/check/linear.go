package check

import (
	"cmp"
	"fmt"
	"maps"
	"math"
	"os"
	"path/filepath"
	"slices"
	"sort"
	"strings"
	"time"

	"github.com/anishathalye/porcupine"

	"github.com/holdfast-dev/holdfast/test/jepsen-lite/history"
)

// porcupineRegisters is how many registers may take all the time that is allowed for
// one. The rest is not decided, and said to be so.
const porcupineRegisters = 5

// register is one register in one epoch: what porcupine checks on its own.
type register struct {
	key   string
	epoch uint64
}

// step is an operation on one register as the model sees it.
type step struct {
	op   *history.Op
	cell history.Cell
	// verb: get, set, refused (a condition did not hold), missing (nothing to delete).
	verb string
	// at is the revision of a set, 0 if nobody knows it: then it may never have happened.
	// before is that of the set before it.
	at, before uint64
}

// content is the state of a register in the model. Without known, its revision is
// some revision above the one that it tells; wild, it is not known at all.
type content struct {
	value    string
	revision uint64
	last     uint64 // the revision of the last set that has one
	there    bool
	known    bool
	wild     bool
}

// linearizable checks every register with porcupine. Writes of unknown outcome
// whose fate the servers' traces tell are checked as what they were.
func linearizable(f *facts) *finding {
	out := &finding{}
	parts := f.steps()
	drawn := largest(parts)
	deadline := time.Now().Add(porcupineRegisters * f.o.Porcupine)
	for _, r := range slices.SortedFunc(maps.Keys(parts), func(a, b register) int {
		return cmp.Or(cmp.Compare(a.key, b.key), cmp.Compare(a.epoch, b.epoch))
	}) {
		steps := parts[r]
		out.looked(len(steps))
		allowed := min(f.o.Porcupine, time.Until(deadline))
		if allowed <= 0 {
			out.doubt("%s: no time was left for its %d operations", r.key, len(steps))
			continue
		}
		model := registerModel(f.log.epochs && r.epoch != f.log.first)
		result, info := porcupine.CheckOperationsVerbose(model, steps, allowed)
		name := r.key
		if r.epoch > 0 {
			name = fmt.Sprintf("%s in epoch %d", r.key, r.epoch)
		}
		picture := ""
		if result != porcupine.Ok || r == drawn {
			info.AddAnnotations(f.annotations())
			picture = f.draw(out, model, info, name)
		}
		switch result {
		case porcupine.Illegal:
			out.fail("%s: no order of its %d operations explains them%s", name, len(steps), picture)
		case porcupine.Unknown:
			out.doubt("%s: %d operations could not be decided within %v%s", name, len(steps), allowed.Round(time.Millisecond), picture)
		case porcupine.Ok:
		}
	}
	return out
}

// largest is the register with the most operations, drawn also if all is well.
func largest(parts map[register][]porcupine.Operation) register {
	var most register
	for r, steps := range parts {
		if len(steps) > len(parts[most]) || (len(steps) == len(parts[most]) && r.key < most.key) {
			most = r
		}
	}
	return most
}

// draw writes porcupine's drawing and tells where.
func (f *facts) draw(out *finding, model porcupine.Model, info porcupine.LinearizationInfo, name string) string {
	if f.o.Dir == "" {
		return ""
	}
	safe := strings.Map(func(r rune) rune {
		if r == '/' || r == ' ' || r == ':' {
			return '-'
		}
		return r
	}, name)
	path := filepath.Join("porcupine", safe+".html")
	err := os.MkdirAll(filepath.Join(f.o.Dir, "porcupine"), 0o755)
	if err == nil {
		err = porcupine.VisualizePath(model, info, filepath.Join(f.o.Dir, path))
	}
	if err != nil {
		out.doubt("draw %s: %v", name, err)
		return ""
	}
	return ", see " + path
}

// annotations are the faults, for the drawing.
func (f *facts) annotations() []porcupine.Annotation {
	var notes []porcupine.Annotation
	for _, fault := range f.faults() {
		notes = append(notes, porcupine.Annotation{
			Tag: "faults", Start: fault.begin, End: fault.end,
			Description: fault.name, Details: strings.Join(fault.targets, " ") + "\n" + fault.proof,
		})
	}
	return notes
}

// steps takes the operations apart by register.
func (f *facts) steps() map[register][]porcupine.Operation {
	parts := make(map[register][]porcupine.Operation)
	clients := make(map[string]int)
	order := f.order()
	for i := range f.Ops {
		op := &f.Ops[i]
		name := op.Client
		if op.Probe || op.Outcome == history.Unknown {
			name = fmt.Sprintf("%s#%d", op.Client, i) // it overlaps what its client does else
		}
		for _, s := range f.stepsOf(op) {
			id, ok := clients[name]
			if !ok {
				id = len(clients)
				clients[name] = id
			}
			at := f.happened(op)
			epoch := f.log.place(op.Epoch, 0).Epoch
			if writes(op) && op.Outcome != history.Failed {
				epoch = max(at.Epoch, f.log.first)
			}
			call, ret := order.within(op, at)
			s.before = f.log.previous(s.cell.Key, f.log.place(epoch, s.at))
			r := register{s.cell.Key, epoch}
			parts[r] = append(parts[r], porcupine.Operation{ClientId: id, Input: s, Call: call, Return: ret})
		}
	}
	return parts
}

func (f *facts) stepsOf(op *history.Op) []step {
	fate, settled := f.log.fate[op]
	switch {
	case op.F == history.Get && op.Outcome == history.OK && !op.Local:
		return stepsFor(op, "get", 0)
	case !writes(op) || (fate.never && op.Outcome == history.Unknown):
		return nil
	case op.Outcome == history.OK:
		return stepsFor(op, "set", op.Revision)
	case op.Outcome == history.Unknown && settled:
		return stepsFor(op, "set", fate.at.Revision)
	case op.Outcome == history.Unknown:
		return stepsFor(op, "set", 0)
	case len(op.Cells) == 1 && op.Code == history.CodeMismatch && op.Cells[0].Expects:
		return stepsFor(op, "refused", 0)
	case len(op.Cells) == 1 && op.Code == history.CodeNotFound && op.Cells[0].Absent:
		return stepsFor(op, "missing", 0)
	default:
		return nil
	}
}

func stepsFor(op *history.Op, verb string, at uint64) []step {
	steps := make([]step, 0, len(op.Cells))
	for _, c := range op.Cells {
		steps = append(steps, step{op: op, cell: c, verb: verb, at: at})
	}
	return steps
}

// order narrows the time in which an operation can have happened, by the revisions
// that answers tell: what happened at a later revision happened later. That they tell
// the truth is for the revision sweep to find; here it keeps the search short.
type order struct {
	answers []answer // by place; the time is the earliest return from there on
	calls   []answer // by place; the time is the earliest moment at which all up to there can have happened
}

type answer struct {
	at   history.Place
	read bool // reads at a place come after the write that made it
	t    int64
}

func compareAnswers(a, b answer) int {
	return cmp.Or(comparePlaces(a.at, b.at), compareBools(a.read, b.read))
}

func (f *facts) order() *order {
	o := &order{}
	for i := range f.Ops {
		op := &f.Ops[i]
		if op.Outcome != history.OK {
			continue
		}
		o.answers = append(o.answers, answer{at: f.log.place(op.Epoch, max(op.Store, op.Revision)), t: op.Return})
		if at := f.happened(op); at.Revision > 0 && !op.Local {
			o.calls = append(o.calls, answer{at: at, read: !writes(op), t: op.Call})
		}
	}
	slices.SortFunc(o.answers, compareAnswers)
	slices.SortFunc(o.calls, compareAnswers)
	for i := len(o.answers) - 2; i >= 0; i-- {
		o.answers[i].t = min(o.answers[i].t, o.answers[i+1].t)
	}
	for i := 1; i < len(o.calls); i++ {
		step := int64(0)
		if compareAnswers(o.calls[i-1], o.calls[i]) != 0 {
			step = 1 // so that the search tries them in this order
		}
		o.calls[i].t = max(o.calls[i].t, o.calls[i-1].t+step)
	}
	return o
}

// happened is the state at which an operation took effect, as far as it is known.
func (f *facts) happened(op *history.Op) history.Place {
	switch {
	case writes(op) && op.Outcome == history.OK:
		return f.log.committed(op)
	case writes(op):
		return f.log.fate[op].at
	case op.Outcome == history.OK:
		return f.log.place(op.Epoch, op.Store)
	default:
		return history.Place{}
	}
}

// within is when an operation can have happened. A write of which nobody knows whether
// it happened may do so at any time after its call.
func (o *order) within(op *history.Op, at history.Place) (call, ret int64) {
	call, ret = op.Call, op.Return
	if op.Outcome == history.Unknown {
		ret = math.MaxInt64
	}
	asked := ret
	if at.Revision == 0 {
		return call, ret
	}
	next := sort.Search(len(o.answers), func(i int) bool {
		return at.Before(o.answers[i].at) || (writes(op) && at == o.answers[i].at)
	})
	if next < len(o.answers) {
		ret = min(ret, o.answers[next].t)
	}
	is := answer{at: at, read: !writes(op)}
	if before := sort.Search(len(o.calls), func(i int) bool { return compareAnswers(o.calls[i], is) >= 0 }); before > 0 {
		call = max(call, o.calls[before-1].t+1)
	}
	if call > ret { // the revisions contradict the times: that is none of this rule's business
		return op.Call, asked
	}
	return call, ret
}

// registerModel is a register with revisions. With wild, its first content is not
// known: a backup was restored.
func registerModel(wild bool) porcupine.Model {
	return porcupine.Model{
		Init: func() any { return content{known: true, wild: wild} },
		Step: func(state, input, _ any) (bool, any) {
			return apply(state.(content), input.(step))
		},
		DescribeOperation: func(input, _ any) string {
			s := input.(step)
			return fmt.Sprintf("%s %s %s", s.op.F, showCell(s.cell), s.op.Outcome)
		},
		DescribeState: func(state any) string { return fmt.Sprintf("%+v", state) },
	}
}

// apply tells whether a step is possible in a state, and the state after it.
func apply(c content, s step) (bool, content) {
	switch s.verb {
	case "get":
		return read(c, s.cell)
	case "missing":
		return c.wild || !c.there, c
	case "refused":
		return c.wild || !holds(c, s.cell) || !c.known, c
	}
	next := content{value: s.cell.Value, there: !s.cell.Absent, known: s.at > 0, revision: s.at, last: s.at}
	if s.at == 0 { // perhaps it happens here, perhaps never
		if s.cell.Expects && !c.wild && !holds(c, s.cell) {
			return true, c
		}
		next.revision, next.last = c.revision, c.last
		return true, next
	}
	legal := s.before == c.last && (c.wild || s.at > c.revision && (!s.cell.Expects || holds(c, s.cell)) && (c.there || !s.cell.Absent))
	return legal, next
}

func read(c content, cell history.Cell) (bool, content) {
	if c.wild {
		return true, content{value: cell.Value, revision: cell.Revision, last: c.last, there: !cell.Absent, known: true}
	}
	if cell.Absent {
		return !c.there, c
	}
	if !c.there || c.value != cell.Value || (c.known && cell.Revision != c.revision) || (!c.known && cell.Revision <= c.revision) {
		return false, c
	}
	c.revision, c.known = cell.Revision, true
	return true, c
}

// holds tells whether a condition can hold.
func holds(c content, cell history.Cell) bool {
	switch {
	case cell.Expect == 0:
		return !c.there
	case !c.there:
		return false
	case c.known:
		return cell.Expect == c.revision
	default:
		return cell.Expect > c.revision
	}
}
