package state

import (
	"bytes"
	"slices"

	"github.com/holdfast-dev/holdfast/internal/document"
	"github.com/holdfast-dev/holdfast/internal/seam"
	storagev1 "github.com/holdfast-dev/holdfast/proto/holdfast/storage/v1"
	holdfastv1 "github.com/holdfast-dev/holdfast/proto/holdfast/v1"
)

// Change is what a transaction does, or would do, to one resource.
type Change struct {
	Namespace string
	document.Key
	Type document.ChangeType
	// Before and After are the resource before and after, nil where there is
	// none. An unchanged resource is both.
	Before, After *document.Resource
}

// changes tells whether anything is another one afterwards.
func (c *Change) changes() bool { return c.Type != document.Unchanged && c.Type != document.Absent }

// author is what every change of a command has in common.
type author struct {
	revision uint64
	now      int64
	actor    string
	verified bool
	reason   string
}

func (v *View) author(cmd *storagev1.Command) author {
	return author{
		revision: v.revision + 1,
		now:      max(v.now, cmd.GetTimeMs()),
		actor:    cmd.GetActor().GetName(),
		verified: cmd.GetActor().GetVerified(),
		reason:   cmd.GetReason(),
	}
}

// Plan tells what Apply would make of a command with a transaction if it came
// next: by the same code, without a trace. Whether the request was applied
// before is not considered.
func (v *View) Plan(cmd *storagev1.Command) ([]Change, *Rejection) {
	if cmd.GetTimeMs() > maxTime {
		return nil, reject(ReasonInvalidCommand, "the time is out of range")
	}
	return v.plan(v.author(cmd), cmd.GetTransaction())
}

// plan works out the changes of a transaction, or why it is refused. A resource
// occurs once, so no step depends on another one, and nothing is changed until
// all of it is known to fit.
func (v *View) plan(by author, tx *storagev1.Transaction) ([]Change, *Rejection) {
	steps, limits := tx.GetSteps(), v.limits
	switch {
	case len(steps) == 0:
		return nil, reject(ReasonInvalidCommand, "the transaction has no steps")
	case len(steps) > limits.Steps:
		return nil, reject(ReasonCommandTooLarge, "the transaction has %d steps; at most %d are allowed", len(steps), limits.Steps)
	}
	changes := make([]Change, len(steps))
	var seen map[place]struct{}
	if len(steps) > 1 {
		seen = make(map[place]struct{}, len(steps))
	}
	for i, s := range steps {
		if problem := checkStep(s, limits); problem != "" {
			return nil, reject(ReasonInvalidCommand, "%s", problem).at(i)
		}
		p := placeOf(s)
		if _, twice := seen[p]; twice {
			return nil, reject(ReasonInvalidCommand, "%s occurs twice", p).at(i)
		}
		if seen != nil {
			seen[p] = struct{}{}
		}
		before := v.lookup(p)
		if rejection := checkRevision(s, p, before); rejection != nil {
			return nil, rejection.at(i)
		}
		changes[i] = step(s, p, before, by)
	}
	if rejection := v.checkLimits(changes); rejection != nil {
		return nil, rejection
	}
	return changes, nil
}

// step works out one change.
func step(s *storagev1.Step, p place, before *document.Resource, by author) Change {
	c := Change{Namespace: p.namespace, Key: p.Key, Before: before}
	switch {
	case s.GetDelete() && before == nil:
		c.Type = document.Absent
	case s.GetDelete():
		c.Type = document.Deleted
	case before == nil:
		c.Type = document.Created
		c.After = resource(s, p.Key, by)
		c.After.CreateRevision, c.After.CreateTime, c.After.Version = by.revision, by.now, 1
	case p.Kind != document.Override && same(s, before):
		c.Type = document.Unchanged
		c.After = before
	default:
		c.Type = document.Updated
		c.After = resource(s, p.Key, by)
		c.After.CreateRevision, c.After.CreateTime = before.CreateRevision, before.CreateTime
		c.After.Version = before.Version + 1
	}
	return c
}

// resource builds what a step puts. It shares the step's bytes.
func resource(s *storagev1.Step, key document.Key, by author) *document.Resource {
	r := &document.Resource{
		Key: key, Spec: s.GetSpec(), ModRevision: by.revision, UpdateTime: by.now,
		Actor: by.actor, ActorVerified: by.verified, Reason: by.reason,
	}
	if n := len(s.GetLabels()); n > 0 {
		r.Labels = make([]document.Label, n)
	}
	for i, l := range s.GetLabels() {
		r.Labels[i] = document.Label{Key: l.GetKey(), Value: l.GetValue()}
	}
	if ttl := s.GetTtlMs(); ttl > 0 {
		r.End = by.now + ttl
	}
	return r
}

// same tells whether a step puts what is there.
func same(s *storagev1.Step, r *document.Resource) bool {
	return bytes.Equal(s.GetSpec(), r.Spec) &&
		slices.EqualFunc(s.GetLabels(), r.Labels, func(a *storagev1.Label, b document.Label) bool {
			return a.GetKey() == b.Key && a.GetValue() == b.Value
		})
}

// checkStep tells what is wrong with the form of a step. Proposers check more
// and explain better; this keeps out what the state could not hold.
func checkStep(s *storagev1.Step, limits *Limits) string {
	kind, override := s.GetKey().GetKind(), s.GetKey().GetKind() == holdfastv1.Kind_KIND_OVERRIDE
	switch ns, name := s.GetKey().GetNamespace(), s.GetKey().GetName(); {
	case kind < 1 || kind > holdfastv1.Kind_KIND_OVERRIDE:
		return "the kind is unknown"
	case !sound(ns) || !sound(name):
		return "the namespace or the name is empty, too long, or holds control characters"
	case s.GetDelete() && (s.GetTtlMs() != 0 || len(s.GetSpec()) > 0 || len(s.GetLabels()) > 0):
		return "a deletion has a definition"
	case s.GetTtlMs() < 0 || s.GetTtlMs() > limits.TTL.Milliseconds():
		return "the time to live is out of range"
	case !s.GetDelete() && override != (s.GetTtlMs() > 0):
		return "overrides have a time to live, and nothing else has"
	}
	for i, l := range s.GetLabels() {
		if i > 0 && s.GetLabels()[i-1].GetKey() >= l.GetKey() {
			return "the labels are not in order"
		}
	}
	return ""
}

// sound tells whether a name can be stored.
func sound(name string) bool { return document.CheckStored(name) == nil }

func placeOf(s *storagev1.Step) place {
	key := document.Key{Kind: document.Kind(s.GetKey().GetKind()), Name: s.GetKey().GetName()} //nolint:gosec // checked
	return place{s.GetKey().GetNamespace(), key}
}

// checkRevision checks the precondition of a step.
func checkRevision(s *storagev1.Step, p place, before *document.Resource) *Rejection {
	if s.ExpectedRevision == nil {
		return nil
	}
	actual := uint64(0)
	if before != nil {
		actual = before.ModRevision
	}
	want := s.GetExpectedRevision()
	if want == actual || before == nil && seam.Bug(seam.AbsentMatches) {
		return nil
	}
	r := reject(ReasonRevisionMismatch, "%s is at revision %d, not %d", p, actual, want)
	switch {
	case actual == 0:
		r = reject(ReasonRevisionMismatch, "%s does not exist; revision %d was expected", p, want)
	case want == 0:
		r = reject(ReasonRevisionMismatch, "%s exists already, at revision %d", p, actual)
	}
	r.Actual = actual
	return r
}

// checkLimits refuses changes that would exceed a limit. What only makes the
// state smaller is never refused.
func (v *View) checkLimits(changes []Change) *Rejection {
	var declared, overrides usage
	var fresh map[string]struct{} // namespaces that there are not yet
	for i := range changes {
		c := &changes[i]
		if c.Type == document.Unchanged {
			continue
		}
		u := &declared
		if c.Kind == document.Override {
			u = &overrides
		}
		if c.Before != nil {
			u.count--
			u.bytes -= c.Before.Size()
		}
		if c.After == nil {
			continue
		}
		u.count++
		u.bytes += c.After.Size()
		if !v.has(c.Namespace) {
			if fresh == nil {
				fresh = make(map[string]struct{})
			}
			fresh[c.Namespace] = struct{}{}
		}
	}
	l := v.limits
	over := func(have, more, limit int) bool { return more > 0 && have+more > limit }
	d, o := v.declared, v.overrides
	switch {
	case over(v.namespaces.Len(), len(fresh), l.Namespaces):
		return reject(ReasonTooManyNamespaces, "there are %d namespaces; at most %d are allowed", v.namespaces.Len(), l.Namespaces)
	case over(d.count, declared.count, l.Declared):
		return reject(ReasonTooManyResources, "there are %d flags, modes and policies; at most %d are allowed", d.count, l.Declared)
	case over(o.count, overrides.count, l.Overrides):
		return reject(ReasonTooManyOverrides, "there are %d overrides; at most %d are allowed", o.count, l.Overrides)
	case over(d.bytes, declared.bytes, l.DeclaredBytes):
		return reject(ReasonStateFull, "flags, modes and policies take %d bytes; at most %d are allowed", d.bytes, l.DeclaredBytes)
	case over(o.bytes, overrides.bytes, l.OverrideBytes):
		return reject(ReasonStateFull, "overrides take %d bytes; at most %d are allowed", o.bytes, l.OverrideBytes)
	}
	return nil
}

// typesOf returns the types of changes.
func typesOf(changes []Change) []document.ChangeType {
	if len(changes) == 0 {
		return nil
	}
	types := make([]document.ChangeType, len(changes))
	for i := range changes {
		types[i] = changes[i].Type
	}
	return types
}
