package client

import (
	"cmp"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/holdfast-dev/holdfast/internal/clock"
	"github.com/holdfast-dev/holdfast/internal/document"
	"github.com/holdfast-dev/holdfast/internal/flags"
	"github.com/holdfast-dev/holdfast/internal/guard"
	"github.com/holdfast-dev/holdfast/internal/policy"
	"github.com/holdfast-dev/holdfast/internal/seam"
)

// holder keeps the view that the process obeys. Whoever reads it loads a pointer;
// changes are made one at a time, under mu: by the session, by the clock, and by
// the file of local overrides.
//
// Lock order: mu, then cellsMu.
type holder struct {
	clock    *clock.Clock
	instance flags.Instance
	base     map[string]policy.Policy // settings given in code
	// namespace is what the view is of; alone tells that nobody will ever tell one.
	namespace string
	alone     bool
	// apply makes the rules hold for calls, and changed tells of another view;
	// neither may call the holder's methods that change it.
	apply   func(guard.Rules)
	changed func(ViewChanged)

	current atomic.Pointer[holding]
	ahead   atomic.Int64 // state time less the clock, in nanoseconds
	changes atomic.Uint64

	mu sync.Mutex
	// full is the view as the servers tell it; what has ended is taken out of
	// current only, so that a server's word is needed to forget it.
	full    *flags.View
	local   *flags.Local
	localBy string // where local comes from
	fault   string // why what it says now is not obeyed; empty if it is
	source  Source
	empty   bool  // nothing is in full
	ended   int64 // see endTime

	cellsMu sync.Mutex
	cells   map[string]*cell
}

// unknownTime stands for state time that nobody has told.
const unknownTime = math.MinInt64

// holding is what is obeyed now. It is immutable.
type holding struct {
	view     *flags.View // nil: only the code decides
	source   Source
	by       string // what beats the control plane; empty for nothing
	fault    string // why the local file is not obeyed; empty if it is
	file     string // the local file with the fault
	disabled bool
	empty    bool // the namespace has no resources
	problems []string
	reported []flags.Problem
	// unknown are the flags that only local overrides name.
	unknown []string
}

// told returns what servers are told of what beats them.
func (of *holding) told() string {
	fault := strings.TrimPrefix(of.fault, of.file+": ")
	switch {
	case of.fault == "":
		return of.by
	case of.by == "":
		return of.file + " (not obeyed: " + fault + ")"
	default:
		return of.file + " (as it was before; now not obeyed: " + fault + ")"
	}
}

func newHolder(c *clock.Clock, instance flags.Instance, base map[string]policy.Policy) *holder {
	h := &holder{clock: c, instance: instance, base: base, source: FromDefaults, cells: map[string]*cell{}}
	h.apply, h.changed = func(guard.Rules) {}, func(ViewChanged) {}
	h.full = flags.NewView(instance)
	h.current.Store(&holding{source: FromDefaults})
	h.ahead.Store(unknownTime)
	return h
}

// view returns what is obeyed; nil where only the code decides.
func (h *holder) view() *flags.View { return h.current.Load().view }

// flag returns a flag; nil where only the code decides.
func (h *holder) flag(key string) *flags.Resolved { return h.current.Load().flag(key) }

func (of *holding) flag(key string) *flags.Resolved {
	if of.view == nil {
		return nil
	}
	return of.view.Flag(key)
}

// disabledBy returns what has disabled the SDK; empty for nothing.
func (h *holder) disabledBy() string {
	if now := h.current.Load(); now.disabled {
		return now.by
	}
	return ""
}

// now returns the wall time in seconds for a flag whose rules look at it.
func (h *holder) now(r *flags.Resolved) int64 {
	if !r.Timed() {
		return 0
	}
	return h.clock.Wall().Unix()
}

// wall returns the wall time at which an end, in state time, comes; zero for 0.
func (h *holder) wall(end int64) time.Time {
	if end == 0 {
		return time.Time{}
	}
	if now := h.stateTime(); now > 0 {
		end += h.clock.Wall().UnixMilli() - now
	}
	return time.UnixMilli(end)
}

// setTime takes in the estimate of state time, 0 if it is not known. Where it goes
// back, what has ended is looked at again only if reset is set.
func (h *holder) setTime(now int64, reset bool) {
	if now == 0 {
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.ahead.Store(now*int64(time.Millisecond) - h.clock.Now())
	if reset {
		h.ended = 0
	}
}

// endTime returns the state time up to which everything has ended; 0 if it is not
// known. It does not go back with the estimate. The caller holds mu.
func (h *holder) endTime() int64 {
	h.ended = max(h.ended, h.stateTime())
	return h.ended
}

// stateTime returns the estimate of state time in milliseconds; 0 if it is not known.
func (h *holder) stateTime() int64 {
	ahead := h.ahead.Load()
	if ahead == unknownTime {
		return 0
	}
	return (ahead + h.clock.Now()) / int64(time.Millisecond)
}

// install obeys what the servers tell: a change of what was there, or, where replace
// is set, all of it.
func (h *holder) install(d document.Delta, replace bool, source Source) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if seam.Bug(seam.UpdatesInPieces) && !replace && len(d.Puts) > 1 {
		first := d
		first.Puts = d.Puts[:1]
		h.full, h.source = h.full.Update(first), source
		h.obey(false)
	}
	if replace {
		h.full = h.full.Replace(d)
	} else {
		h.full = h.full.Update(d)
	}
	if replace || len(d.Puts)+len(d.Deletes) > 0 {
		h.empty = len(d.Puts) == 0 && d.Root == document.Tree{}.Root()
	}
	h.source = source
	h.obey(replace)
}

// decideLocally obeys local overrides, nil for none, that come from somewhere.
func (h *holder) decideLocally(l *flags.Local, from string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.local, h.localBy, h.fault = l, from, ""
	h.full = h.full.WithLocal(l)
	h.obey(true)
}

// localFailed tells why a file of local overrides is not obeyed, empty that it is
// again. What it said before stays.
func (h *holder) localFailed(from, fault string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.localBy, h.fault = from, fault
	h.obey(false)
}

// longestLook is the longest time between two looks at what ends: by then the estimate
// of state time may be another one.
const longestLook = time.Hour

// expire ends what has ended by now and returns in how long to look again; 0 if
// nothing ends.
func (h *holder) expire() time.Duration {
	h.mu.Lock()
	defer h.mu.Unlock()
	now := h.endTime()
	if v := h.view(); v != nil && now > 0 && v.Expire(now) != v {
		h.obey(false)
	}
	v := h.view()
	if v == nil || v.NextEnd() == 0 || now == 0 {
		return 0
	}
	left := min(v.NextEnd()-now, longestLook.Milliseconds())
	return max(time.Millisecond, time.Duration(left)*time.Millisecond)
}

// obey puts what holds now into force; replaced tells that it was not derived from
// what held before. The caller holds mu.
func (h *holder) obey(replaced bool) {
	was := h.current.Load()
	next := &holding{source: h.source, fault: h.fault, file: h.localBy}
	if h.local != nil {
		next.by, next.disabled = h.localBy, h.local.Disable
	}
	if !next.disabled && (h.source != FromDefaults || h.local != nil) {
		next.view = h.full
		if now := h.endTime(); now > 0 {
			next.view = h.full.Expire(now)
		}
	}
	h.lookForProblems(next)
	h.apply(h.rules(next))
	h.exchange(next)
	h.changes.Add(1)
	change := ViewChanged{
		Revision: revisionOf(next.view), Source: next.source, Modes: modesChanged(was.view, next.view), Problems: h.problems(next),
		Replaced: replaced || was.view == nil || next.view == nil,
	}
	if !change.Replaced {
		for before, after := range next.view.Changes(was.view) {
			change.Flags = append(change.Flags, cmp.Or(after, before).Key())
		}
	}
	h.changed(change)
}

// lookForProblems notes what is wrong with what is to be obeyed. The caller holds mu.
func (h *holder) lookForProblems(next *holding) {
	if next.fault != "" {
		next.problems = append(next.problems, "local overrides are not obeyed: "+next.fault)
	}
	if next.view == nil {
		return
	}
	next.empty = h.empty && (h.source == FromServer || h.source == FromPeer || h.source == FromDisk)
	next.reported = next.view.Problems()
	for _, p := range next.reported {
		next.problems = append(next.problems, p.String())
	}
	if h.local == nil || len(h.local.Flags) == 0 || h.source == FromDefaults && !h.alone {
		return
	}
	without := h.full.WithLocal(nil)
	for _, key := range slices.Sorted(maps.Keys(h.local.Flags)) {
		if without.Flag(key) == nil {
			next.unknown = append(next.unknown, key)
		}
	}
}

// emptyNamespace says that a namespace has no resources.
func emptyNamespace(name string) string {
	return fmt.Sprintf("namespace %q has no resources: only the defaults of the code and the built-in policies apply", name)
}

func revisionOf(v *flags.View) uint64 {
	if v == nil {
		return 0
	}
	return v.Revision()
}

// modesChanged lists the modes that are at another level than before.
func modesChanged(was, is *flags.View) []string {
	levels := map[string]int{}
	for _, l := range levelsOf(was) {
		levels[l.Mode] = -l.Rank
	}
	for _, l := range levelsOf(is) {
		levels[l.Mode] += l.Rank
	}
	maps.DeleteFunc(levels, func(_ string, difference int) bool { return difference == 0 })
	return slices.Sorted(maps.Keys(levels))
}

func levelsOf(v *flags.View) []flags.Level {
	if v == nil {
		return nil
	}
	return v.Levels()
}

// cell is a flag that the code has handles of.
type cell struct {
	holder   *holder
	key      string
	resolved atomic.Pointer[flags.Resolved]
	loose    bool   // resolved is not kept up to date: the flag is looked up each time
	wanted   uint32 // types that handles want, a bit each; under cellsMu
}

// maxCells bounds the flags whose handles are brought up to date with each view. A
// program that makes handles of keys without end looks the further ones up.
const maxCells = 10_000

// cell returns the cell of a flag for a handle of a type.
func (h *holder) cell(key string, wanted flags.Type) *cell {
	h.cellsMu.Lock()
	defer h.cellsMu.Unlock()
	c, ok := h.cells[key]
	if !ok && len(h.cells) >= maxCells {
		return &cell{holder: h, key: key, loose: true}
	}
	if !ok {
		c = &cell{holder: h, key: key}
		c.resolved.Store(h.flag(key))
		h.cells[key] = c
	}
	c.wanted |= 1 << wanted
	return c
}

// now returns the wall time for rules that look at it.
func (c *cell) now(r *flags.Resolved) int64 { return c.holder.now(r) }

// flag returns the flag as it is now; nil where the code decides.
func (c *cell) flag() *flags.Resolved {
	if c.loose {
		return c.holder.flag(c.key)
	}
	return c.resolved.Load()
}

// decide returns the variant for the attributes; nil where the code decides.
func (c *cell) decide(attributes []Attribute) *flags.Variant {
	r := c.flag()
	if r == nil {
		return nil
	}
	return r.Evaluate(c.now(r), attributes...).Variant
}

// exchange lets next be obeyed: it points the cells at its flags. A cell that is made
// meanwhile waits for it.
func (h *holder) exchange(next *holding) {
	h.cellsMu.Lock()
	defer h.cellsMu.Unlock()
	for key, c := range h.cells {
		var r *flags.Resolved
		if next.view != nil {
			r = next.view.Flag(key)
		}
		c.resolved.Store(r)
	}
	h.current.Store(next)
}

// problems lists what cannot be obeyed, with the flags that the code has handles of
// another type of, those that nobody but the local file knows, and that there is
// nothing at all.
func (h *holder) problems(of *holding) []string {
	h.cellsMu.Lock()
	defer h.cellsMu.Unlock()
	var all []string
	for key, c := range h.cells {
		if r := c.resolved.Load(); r != nil && r.Type() != flags.NullType && c.wanted != 1<<r.Type() {
			all = append(all, fmt.Sprintf("flag/%s: is a %s, but the code reads it as another type", key, r.Type()))
		}
	}
	for _, key := range of.unknown {
		if h.cells[key] == nil && len(h.cells) < maxCells {
			all = append(all, fmt.Sprintf("flag/%s: does not exist, nor has the code a handle of it, but a local override sets it", key))
		}
	}
	slices.Sort(all)
	if of.empty {
		all = append(all, emptyNamespace(h.namespace))
	}
	return slices.Concat(of.problems, all)
}

// rules is a view with the settings given in code, as calls obey it.
type rules struct {
	*flags.View
	base     map[string]policy.Policy
	disabled bool
}

// Disabled implements guard.Rules.
func (r rules) Disabled() bool { return r.disabled }

// Policy implements guard.Rules.
func (r rules) Policy(dependency string) policy.Policy {
	if base, ok := r.base[dependency]; ok {
		return r.PolicyOver(base, dependency)
	}
	if strings.HasPrefix(dependency, serverPrefix) {
		return r.PolicyOver(builtIn(dependency), dependency)
	}
	p, _ := r.View.Policy(dependency)
	return p
}

// serverPrefix begins the name of the policy by which a service bounds the calls
// that it handles.
const serverPrefix = "server:"

// builtIn returns the settings of a dependency that nothing is said about. A server
// is bounded only where a policy says so.
func builtIn(dependency string) policy.Policy {
	p := policy.Default()
	if strings.HasPrefix(dependency, serverPrefix) {
		p.Bulkhead.MaxConcurrent = 0
	}
	return p
}

func (h *holder) rules(of *holding) guard.Rules {
	v := of.view
	if v == nil {
		v = flags.NewView(h.instance)
	}
	return rules{v, h.base, of.disabled}
}
