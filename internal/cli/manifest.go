package cli

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"
	"unicode"

	"github.com/holdfast-dev/holdfast/internal/document"
	"github.com/holdfast-dev/holdfast/internal/flags"
	"github.com/holdfast-dev/holdfast/internal/yamlfile"
)

// apiVersion is what documents and output call this contract.
const apiVersion = "holdfast/v1"

// listKind is the kind of a document that holds other documents.
const listKind = "List"

// maxDefinitionBytes is the longest definition that is accepted, as canonical
// JSON. It is what servers take in one transaction.
const maxDefinitionBytes = 512 << 10

// manifest is a declared resource as a file holds it.
type manifest struct {
	file      string
	line      int
	namespace string
	key       document.Key
	labels    map[string]string
	// spec is canonical JSON.
	spec []byte
	// specNode locates faults that a server finds in the spec.
	specNode *yamlfile.Node
}

// String names the resource as messages do.
func (m *manifest) String() string { return m.key.String() }

// problem is something wrong with a file.
type problem struct {
	file string
	line int
	// key is the resource in question, and path the place in its definition; either
	// may be empty.
	key, path string
	text      string
	// warning marks what may be as it is.
	warning bool
}

// String returns the problem as "file:line: key: path: text", without the place
// where it is of no file.
func (p problem) String() string {
	text := ""
	if p.file != "" {
		text = fmt.Sprintf("%s:%d: ", p.file, p.line)
	}
	if p.warning {
		text += "warning: "
	}
	if p.key != "" {
		text += p.key + ": "
	}
	return text + specViolation(p.path, p.text)
}

// documentKeys are the keys of a resource's document. What is printed beside the
// definition, its status and what is active, may come back and is ignored.
func documentKeys() []string {
	return []string{"apiVersion", "kind", "name", "namespace", "labels", "spec", "status", "active"}
}

// manifestReader collects the documents of files with everything that is wrong
// with them.
type manifestReader struct {
	// namespace is that of documents that name none.
	namespace string
	manifests []*manifest
	problems  []problem
	// seen finds resources that are declared twice.
	seen map[string]*manifest
	// lenient takes flagd files and overrides as well, which apply does not.
	lenient bool
	// faulty are those with problems, as far as they could be read.
	faulty []*manifest
}

// place names a resource in all namespaces.
type place struct {
	namespace string
	document.Key
}

// parse reads the documents of one file.
func (r *manifestReader) parse(file string, src []byte) {
	docs, faults := yamlfile.Parse(file, src)
	for _, f := range faults {
		r.problems = append(r.problems, problem{file: file, line: f.Line, text: f.Msg})
	}
	for _, n := range docs {
		r.document(file, n)
	}
}

// bad records a problem.
func (r *manifestReader) bad(file string, n *yamlfile.Node, format string, args ...any) {
	r.problems = append(r.problems, problem{file: file, line: n.Line, text: fmt.Sprintf(format, args...)})
}

// document reads one document: a resource, or a list of them.
func (r *manifestReader) document(file string, n *yamlfile.Node) {
	if n.Kind == yamlfile.Null {
		return
	}
	if n.Kind != yamlfile.Map {
		r.bad(file, n, "a document is a mapping with kind, name and spec, not %s", n.Kind)
		return
	}
	if n.Get("flags") != nil && n.Get("kind") == nil {
		if r.lenient {
			newFlagdReader(file, r, nil).set(n)
			return
		}
		r.bad(file, n, "this is a flagd file; load it with `holdfast import flagd %s`", file)
		return
	}
	kind := n.Get("kind")
	if kind != nil && kind.Kind == yamlfile.String && kind.Text == listKind {
		items := n.Get("items")
		if items == nil || items.Kind != yamlfile.List {
			r.bad(file, n, "a List needs items, a list of documents")
			return
		}
		for _, item := range items.Items {
			r.document(file, item)
		}
		return
	}
	if why := foreign(n); why != "" {
		r.bad(file, n, "this is not a Holdfast document: %s", why)
		return
	}
	before := len(r.problems)
	m := r.resource(file, n)
	if len(r.problems) > before {
		r.faulty = append(r.faulty, m)
		return
	}
	id := m.namespace + "\x00" + m.String()
	if first := r.seen[id]; first != nil {
		r.bad(file, n, "%s is declared twice, first at %s:%d", m, first.file, first.line)
		return
	}
	if r.seen == nil {
		r.seen = map[string]*manifest{}
	}
	r.seen[id] = m
	r.manifests = append(r.manifests, m)
}

// foreign tells by what a mapping is recognized as the document of another
// program, of which every single fault would only be noise; "" where it may be
// one of ours, however faulty.
func foreign(n *yamlfile.Node) string {
	kind, version := n.Get("kind"), n.Get("apiVersion")
	if kind == nil && n.Get("spec") == nil {
		for _, f := range n.Fields {
			if didYouMean(f.Key, []string{"kind", "spec"}) != "" {
				return ""
			}
		}
		return "it has neither kind nor spec"
	}
	if kind == nil || kind.Kind != yamlfile.String || version == nil || version.Kind != yamlfile.String || version.Text == apiVersion {
		return ""
	}
	if _, err := document.ParseKind(strings.ToLower(kind.Text)); err == nil {
		return ""
	}
	return fmt.Sprintf("its apiVersion is %q and its kind %q", version.Text, kind.Text)
}

// resource reads a document of a declared kind.
func (r *manifestReader) resource(file string, n *yamlfile.Node) *manifest {
	m := &manifest{file: file, line: n.Line, namespace: r.namespace}
	r.keys(file, n)
	if v := r.text(file, n, "apiVersion"); v != "" && v != apiVersion {
		r.bad(file, n.Get("apiVersion"), "apiVersion %q is not known; this program knows %s", v, apiVersion)
	}
	if kind := n.Get("kind"); kind == nil {
		r.bad(file, n, "kind is missing: Flag, Mode or Policy")
	} else if kind.Kind != yamlfile.String {
		r.bad(file, kind, "kind is %s; it must be Flag, Mode or Policy", kind.Kind)
	} else if k, err := parseDeclaredKind(kind.Text); err != nil && (!r.lenient || k != document.Override) {
		r.bad(file, kind, "%v", err)
	} else {
		m.key.Kind = k
	}
	if n.Get("name") == nil {
		r.bad(file, n, "name is missing")
	} else if m.key.Name = r.text(file, n, "name"); m.key.Name != "" || n.Get("name").Kind == yamlfile.String {
		if err := document.CheckName(m.key.Name); err != nil {
			r.bad(file, n.Get("name"), "%v", err)
		}
	}
	if ns := r.text(file, n, "namespace"); ns != "" {
		m.namespace = ns
		if err := document.CheckName(ns); err != nil {
			r.bad(file, n.Get("namespace"), "namespace: %v", err)
		}
	}
	m.labels = r.labels(file, n.Get("labels"))
	if spec := n.Get("spec"); spec == nil {
		r.bad(file, n, "spec is missing")
	} else {
		m.specNode = spec
		r.spec(m)
	}
	return m
}

// keys refuses keys that a document does not have.
func (r *manifestReader) keys(file string, n *yamlfile.Node) {
	for _, f := range n.Fields {
		if slices.Contains(documentKeys(), f.Key) {
			continue
		}
		msg := fmt.Sprintf("unknown key %q", f.Key)
		if f.Key == "metadata" {
			msg += "; name, namespace and labels stand at the top of the document"
		} else if hint := didYouMean(f.Key, documentKeys()); hint != "" {
			msg += "; " + hint
		}
		r.problems = append(r.problems, problem{file: file, line: f.Line, text: msg})
	}
}

// text returns a string of a document, or "" where it is missing or, after
// recording that, of another type.
func (r *manifestReader) text(file string, n *yamlfile.Node, key string) string {
	v := n.Get(key)
	switch {
	case v == nil:
		return ""
	case v.Kind != yamlfile.String:
		r.bad(file, v, "%s is %s; put it in quotes to make it a string", key, v.Kind)
		return ""
	}
	return v.Text
}

// labels reads the labels of a document.
func (r *manifestReader) labels(file string, n *yamlfile.Node) map[string]string {
	if n == nil || n.Kind == yamlfile.Null {
		return nil
	}
	if n.Kind != yamlfile.Map {
		r.bad(file, n, "labels is %s; it must be a mapping of strings", n.Kind)
		return nil
	}
	out := make(map[string]string, len(n.Fields))
	for _, f := range n.Fields {
		if f.Value.Kind != yamlfile.String {
			r.bad(file, f.Value, "the label %q is %s; put it in quotes to make it a string", f.Key, f.Value.Kind)
			continue
		}
		out[f.Key] = f.Value.Text
	}
	return out
}

// spec checks a definition the way the server will, so that every fault of every
// file is told at once and with its line.
func (r *manifestReader) spec(m *manifest) {
	if m.specNode.Kind != yamlfile.Map {
		r.bad(m.file, m.specNode, "spec is %s; it must be a mapping", m.specNode.Kind)
		return
	}
	canonical, err := document.Canonical(m.specNode.AppendJSON(nil))
	if err != nil {
		wrong := problem{file: m.file, line: m.specNode.Line, text: err.Error()}
		if m.key.Name != "" {
			wrong.key = m.String()
		}
		if syntax, ok := errors.AsType[*document.SyntaxError](err); ok {
			// Its offset is that of a text which nobody has seen.
			wrong.line, wrong.path, wrong.text = m.specNode.Locate(syntax.Path).Line, syntax.Path, syntax.Msg
		}
		r.problems = append(r.problems, wrong)
		return
	}
	m.spec = canonical
	if !m.key.Kind.Known() {
		return // told already
	}
	key := ""
	if m.key.Name != "" {
		key = m.String()
	}
	if len(canonical) > maxDefinitionBytes {
		r.problems = append(r.problems, problem{
			file: m.file, line: m.specNode.Line, key: key,
			text: fmt.Sprintf("the definition has %s; no server takes one over %s", humanBytes(uint64(len(canonical))), humanBytes(maxDefinitionBytes)),
		})
		return
	}
	for _, v := range (flags.Validator{}).Validate(m.key, canonical) {
		r.problems = append(r.problems, problem{
			file: m.file, line: m.specNode.Locate(v.Path).Line, key: key, path: v.Path, text: v.Message,
		})
	}
}

// specViolation joins the path and the message of a fault in a definition.
func specViolation(path, message string) string {
	if path == "" {
		return message
	}
	return path + ": " + message
}

// parseDeclaredKind reads the kind of a document, in any case. Overrides are
// returned with an error.
func parseDeclaredKind(s string) (document.Kind, error) {
	k, err := document.ParseKind(strings.ToLower(s))
	if err != nil {
		text := fmt.Sprintf("unknown kind %q: it is one of Flag, Mode, Policy", s)
		if hint := didYouMean(s, []string{"Flag", "Mode", "Policy"}); hint != "" {
			text += "; " + hint
		}
		return 0, errors.New(text)
	}
	if k == document.Override {
		return k, errors.New("overrides are temporary and are not applied from files; " +
			"use `holdfast mode set`, `holdfast flag set --variant` or `holdfast override set`")
	}
	return k, nil
}

// kindTitle returns the kind as documents spell it.
func kindTitle(k document.Kind) string {
	s := []rune(k.String())
	s[0] = unicode.ToUpper(s[0])
	return string(s)
}

// sortProblems orders problems by file and line.
func sortProblems(problems []problem) {
	slices.SortStableFunc(problems, func(x, y problem) int {
		return cmp.Or(strings.Compare(x.file, y.file), cmp.Compare(x.line, y.line))
	})
}

// problemFailure returns a failure that lists problems by file and line.
func problemFailure(problems []problem) *failure {
	const shown = 50
	sortProblems(problems)
	f := usage("%s in the files; nothing was sent", plural(len(problems), "problem"))
	for _, p := range problems[:min(len(problems), shown)] {
		f.addDetail("%s", p)
	}
	if rest := len(problems) - shown; rest > 0 {
		f.addDetail("and %s more", humanCount(rest))
	}
	return f
}

// plural counts things: "1 problem", "2 problems".
func plural(n int, noun string) string {
	switch {
	case n == 1:
		return "1 " + noun
	case strings.HasSuffix(noun, "y"):
		return humanCount(n) + " " + strings.TrimSuffix(noun, "y") + "ies"
	default:
		return humanCount(n) + " " + noun + "s"
	}
}
