package cli

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// inliner puts the shared evaluators of a flagd file into the rules that refer to
// them. Each evaluator is worked out once, and all that refer to it share the
// result, so that the work is in what the file spells out, however often its
// evaluators refer to each other. What that would be when written out is counted,
// and refused before it is written.
type inliner struct {
	file       string
	reader     *manifestReader
	evaluators map[string]*evaluator
	// current is the flag that is read, and chain the evaluators by way of which,
	// outermost first.
	current string
	chain   []string
	// inlined counts towards maxNodes.
	inlined int
}

// evaluator is an entry of $evaluators.
type evaluator struct {
	source *node
	state  evaluatorState
	// rule is the source with evaluators in place of references, and size the
	// number of values that it has when written out. Both are there when done.
	rule *node
	size int
}

type evaluatorState uint8

const (
	unread evaluatorState = iota
	reading
	done
	faulty // and a problem tells why
)

// declare takes in $evaluators.
func (r *inliner) declare(n *node) {
	r.evaluators = make(map[string]*evaluator, len(n.fields))
	for _, f := range n.fields {
		r.evaluators[f.key] = &evaluator{source: f.value}
	}
}

// flag returns the definition of a flag with evaluators in place of references.
// It returns false after recording what is wrong with any.
func (r *inliner) flag(name string, spec *node) (*node, bool) {
	r.current = name
	out, _, ok := r.inline(spec)
	return out, ok
}

// spend counts values that flags get from what they share. It returns false after
// recording that they are too many.
func (r *inliner) spend(at *node, flag string, values int, from string) bool {
	if r.inlined > maxNodes {
		return false // told already
	}
	if r.inlined += min(values, maxNodes+1); r.inlined > maxNodes {
		r.reader.bad(r.file, at, "flag %q: with %s written out wherever it is meant, the flags of this file have more than %d values", flag, from, maxNodes)
		return false
	}
	return true
}

// inline returns a value with evaluators in place of references, and the number
// of values that it has when written out. What holds no reference is not copied.
func (r *inliner) inline(n *node) (out *node, size int, ok bool) {
	if ref := n.get("$ref"); ref != nil && len(n.fields) == 1 {
		return r.refer(ref)
	}
	out, size, ok = n, 1, true
	changed := func() {
		if out == n {
			own := *n
			own.items, own.fields = slices.Clone(n.items), slices.Clone(n.fields)
			out = &own
		}
	}
	for i, item := range n.items {
		value, values, fine := r.inline(item)
		if size, ok = min(size+values, maxNodes+1), ok && fine; value != item {
			changed()
			out.items[i] = value
		}
	}
	for i, f := range n.fields {
		value, values, fine := r.inline(f.value)
		if size, ok = min(size+values, maxNodes+1), ok && fine; value != f.value {
			changed()
			out.fields[i].value = value
		}
	}
	return out, size, ok
}

// refer returns the evaluator that a reference names.
func (r *inliner) refer(ref *node) (*node, int, bool) {
	e := r.evaluators[ref.text]
	if ref.kind != stringNode || e == nil {
		way := ""
		if len(r.chain) > 0 {
			way = " by way of " + arrows(r.chain)
		}
		r.reader.bad(r.file, ref, "flag %q refers%s to %q, which $evaluators does not have", r.current, way, ref.text)
		return nil, 0, false
	}
	switch e.state {
	case unread:
		r.read(ref, e)
	case reading:
		r.bad(ref, "$evaluators refer to each other in a circle: %s", arrows(slices.Concat(r.chain[slices.Index(r.chain, ref.text):], []string{ref.text})))
		return nil, 0, false
	case done, faulty:
	}
	if e.state == faulty {
		return nil, 0, false
	}
	if len(r.chain) == 0 && !r.spend(ref, r.current, e.size, fmt.Sprintf("the evaluator %q", ref.text)) {
		return nil, 0, false
	}
	return e.rule, e.size, true
}

// read works an evaluator out.
func (r *inliner) read(ref *node, e *evaluator) {
	r.chain = append(r.chain, ref.text)
	defer func() { r.chain = r.chain[:len(r.chain)-1] }()
	e.state = faulty
	if len(r.chain) > maxDepth {
		r.bad(ref, "more than %d $evaluators refer to each other in a row: %s", maxDepth, arrows(r.chain))
		return
	}
	e.state = reading
	rule, size, ok := r.inline(e.source)
	switch {
	case !ok:
		e.state = faulty
	case size > maxNodes:
		e.state = faulty
		r.bad(ref, "with $evaluators in place of what refers to them, %s has more than %d values", arrows(r.chain), maxNodes)
	default:
		e.state, e.rule, e.size = done, rule, size
	}
}

// bad records a problem of the current flag.
func (r *inliner) bad(at *node, format string, args ...any) {
	r.reader.bad(r.file, at, "flag %q: %s", r.current, fmt.Sprintf(format, args...))
}

// arrows joins the names of evaluators; of many, the first and the last ones.
func arrows(chain []string) string {
	const ends = 4
	names := make([]string, 0, 2*ends+1)
	for i, name := range chain {
		switch {
		case i < ends || i >= len(chain)-ends:
			names = append(names, strconv.Quote(name))
		case i == ends:
			names = append(names, "…")
		}
	}
	return strings.Join(names, " → ")
}
