package cli

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/holdfast-dev/holdfast/internal/yamlfile"
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
	// inlined counts towards yamlfile.MaxNodes.
	inlined int
}

// evaluator is an entry of $evaluators.
type evaluator struct {
	source *yamlfile.Node
	state  evaluatorState
	// rule is the source with evaluators in place of references, and size the
	// number of values that it has when written out. Both are there when done.
	rule *yamlfile.Node
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
func (r *inliner) declare(n *yamlfile.Node) {
	r.evaluators = make(map[string]*evaluator, len(n.Fields))
	for _, f := range n.Fields {
		r.evaluators[f.Key] = &evaluator{source: f.Value}
	}
}

// flag returns the definition of a flag with evaluators in place of references.
// It returns false after recording what is wrong with any.
func (r *inliner) flag(name string, spec *yamlfile.Node) (*yamlfile.Node, bool) {
	r.current = name
	out, _, ok := r.inline(spec)
	return out, ok
}

// spend counts values that flags get from what they share. It returns false after
// recording that they are too many.
func (r *inliner) spend(at *yamlfile.Node, flag string, values int, from string) bool {
	if r.inlined > yamlfile.MaxNodes {
		return false // told already
	}
	if r.inlined += min(values, yamlfile.MaxNodes+1); r.inlined > yamlfile.MaxNodes {
		r.reader.bad(r.file, at, "flag %q: with %s written out wherever it is meant, the flags of this file have more than %d values", flag, from, yamlfile.MaxNodes)
		return false
	}
	return true
}

// inline returns a value with evaluators in place of references, and the number
// of values that it has when written out. What holds no reference is not copied.
func (r *inliner) inline(n *yamlfile.Node) (out *yamlfile.Node, size int, ok bool) {
	if ref := n.Get("$ref"); ref != nil && len(n.Fields) == 1 {
		return r.refer(ref)
	}
	out, size, ok = n, 1, true
	changed := func() {
		if out == n {
			own := *n
			own.Items, own.Fields = slices.Clone(n.Items), slices.Clone(n.Fields)
			out = &own
		}
	}
	for i, item := range n.Items {
		value, values, fine := r.inline(item)
		if size, ok = min(size+values, yamlfile.MaxNodes+1), ok && fine; value != item {
			changed()
			out.Items[i] = value
		}
	}
	for i, f := range n.Fields {
		value, values, fine := r.inline(f.Value)
		if size, ok = min(size+values, yamlfile.MaxNodes+1), ok && fine; value != f.Value {
			changed()
			out.Fields[i].Value = value
		}
	}
	return out, size, ok
}

// refer returns the evaluator that a reference names.
func (r *inliner) refer(ref *yamlfile.Node) (*yamlfile.Node, int, bool) {
	e := r.evaluators[ref.Text]
	if ref.Kind != yamlfile.String || e == nil {
		way := ""
		if len(r.chain) > 0 {
			way = " by way of " + arrows(r.chain)
		}
		r.reader.bad(r.file, ref, "flag %q refers%s to %q, which $evaluators does not have", r.current, way, ref.Text)
		return nil, 0, false
	}
	switch e.state {
	case unread:
		r.read(ref, e)
	case reading:
		r.bad(ref, "$evaluators refer to each other in a circle: %s", arrows(slices.Concat(r.chain[slices.Index(r.chain, ref.Text):], []string{ref.Text})))
		return nil, 0, false
	case done, faulty:
	}
	if e.state == faulty {
		return nil, 0, false
	}
	if len(r.chain) == 0 && !r.spend(ref, r.current, e.size, fmt.Sprintf("the evaluator %q", ref.Text)) {
		return nil, 0, false
	}
	return e.rule, e.size, true
}

// read works an evaluator out.
func (r *inliner) read(ref *yamlfile.Node, e *evaluator) {
	r.chain = append(r.chain, ref.Text)
	defer func() { r.chain = r.chain[:len(r.chain)-1] }()
	e.state = faulty
	if len(r.chain) > yamlfile.MaxDepth {
		r.bad(ref, "more than %d $evaluators refer to each other in a row: %s", yamlfile.MaxDepth, arrows(r.chain))
		return
	}
	e.state = reading
	rule, size, ok := r.inline(e.source)
	switch {
	case !ok:
		e.state = faulty
	case size > yamlfile.MaxNodes:
		e.state = faulty
		r.bad(ref, "with $evaluators in place of what refers to them, %s has more than %d values", arrows(r.chain), yamlfile.MaxNodes)
	default:
		e.state, e.rule, e.size = done, rule, size
	}
}

// bad records a problem of the current flag.
func (r *inliner) bad(at *yamlfile.Node, format string, args ...any) {
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
