package cli

import (
	"fmt"

	"github.com/holdfast-dev/holdfast/internal/document"
)

// flagdReader turns a flagd file into Flag documents.
type flagdReader struct {
	file       string
	reader     *manifestReader
	labels     map[string]string
	evaluators *node
	metadata   *node
}

// readFlagd reads the flags of a flagd file. Shared evaluators are put into the
// rules that refer to them; the metadata of the set is put into each flag that
// does not say otherwise; $schema is ignored.
func readFlagd(file string, src []byte, namespace string, labels map[string]string) ([]*manifest, []problem) {
	r := &flagdReader{file: file, reader: &manifestReader{namespace: namespace}, labels: labels}
	docs, faults := parseFile(file, src)
	for _, f := range faults {
		r.reader.problems = append(r.reader.problems, problem{file, f.line, f.msg})
	}
	if len(faults) > 0 {
		return nil, r.reader.problems
	}
	if len(docs) != 1 || docs[0].kind != mapNode {
		return nil, []problem{{file, 1, "a flagd file is one mapping with the key flags"}}
	}
	r.set(docs[0])
	return r.reader.manifests, r.reader.problems
}

// set reads the whole flag set.
func (r *flagdReader) set(doc *node) {
	var all *node
	for _, f := range doc.fields {
		switch f.key {
		case "$schema":
		case "flags":
			all = f.value
		case "$evaluators":
			r.evaluators = f.value
			if f.value.kind != mapNode {
				r.reader.bad(r.file, f.value, "$evaluators is %s; it must be a mapping", f.value.kind)
				r.evaluators = nil
			}
		case "metadata":
			r.metadata = f.value
			if f.value.kind != mapNode {
				r.reader.bad(r.file, f.value, "metadata is %s; it must be a mapping", f.value.kind)
				r.metadata = nil
			}
		default:
			text := fmt.Sprintf("unknown key %q", f.key)
			if hint := didYouMean(f.key, []string{"flags", "$evaluators", "metadata", "$schema"}); hint != "" {
				text += "; " + hint
			}
			r.reader.problems = append(r.reader.problems, problem{r.file, f.line, text})
		}
	}
	switch {
	case all == nil:
		r.reader.bad(r.file, doc, "the key flags is missing; is this a flagd file?")
	case all.kind == mapNode:
		for _, f := range all.fields {
			r.flag(f.key, f.line, f.value)
		}
	case all.kind == listNode:
		for _, item := range all.items {
			key := item.get("key")
			if item.kind != mapNode || key == nil || key.kind != stringNode {
				r.reader.bad(r.file, item, "a flag in a list needs a key, a string")
				continue
			}
			r.flag(key.text, item.line, without(item, "key"))
		}
	default:
		r.reader.bad(r.file, all, "flags is %s; it must be a mapping or a list", all.kind)
	}
}

// flag turns one flag into a document and reads that.
func (r *flagdReader) flag(name string, line int, spec *node) {
	if spec.kind != mapNode {
		r.reader.bad(r.file, spec, "flag %q is %s; it must be a mapping", name, spec.kind)
		return
	}
	before := len(r.reader.problems)
	spec = r.inline(spec, name, 0)
	if len(r.reader.problems) > before {
		return
	}
	spec = r.merge(spec)
	text := func(s string) *node { return &node{kind: stringNode, line: line, text: s} }
	doc := &node{kind: mapNode, line: line, fields: []field{
		{"kind", line, text(kindTitle(document.Flag))}, {"name", line, text(name)}, {"spec", line, spec},
	}}
	if len(r.labels) > 0 {
		labels := &node{kind: mapNode, line: line}
		for k, v := range r.labels {
			labels.fields = append(labels.fields, field{k, line, text(v)})
		}
		doc.fields = append(doc.fields, field{"labels", line, labels})
	}
	r.reader.document(r.file, doc)
}

// inline replaces every {"$ref": name} by the shared evaluator. References
// within evaluators are followed too, up to the depth of any definition, so a
// circle ends in an error.
func (r *flagdReader) inline(n *node, flag string, depth int) *node {
	if depth > maxDepth {
		r.reader.bad(r.file, n, "flag %q: $evaluators refer to each other in a circle", flag)
		return n
	}
	if ref := n.get("$ref"); ref != nil && len(n.fields) == 1 {
		target := r.evaluators.get(ref.text)
		if ref.kind != stringNode || target == nil {
			r.reader.bad(r.file, ref, "flag %q refers to %q, which $evaluators does not have", flag, ref.text)
			return n
		}
		return r.inline(target, flag, depth+1)
	}
	out := *n
	out.items, out.fields = nil, nil
	for _, item := range n.items {
		out.items = append(out.items, r.inline(item, flag, depth+1))
	}
	for _, f := range n.fields {
		out.fields = append(out.fields, field{f.key, f.line, r.inline(f.value, flag, depth+1)})
	}
	return &out
}

// merge puts the metadata of the set into a flag; the flag's own wins.
func (r *flagdReader) merge(spec *node) *node {
	if r.metadata == nil || len(r.metadata.fields) == 0 {
		return spec
	}
	own := spec.get("metadata")
	if own != nil && own.kind != mapNode {
		return spec // the validator tells
	}
	merged := &node{kind: mapNode, line: r.metadata.line}
	if own != nil {
		merged.line = own.line
		merged.fields = append(merged.fields, own.fields...)
	}
	for _, f := range r.metadata.fields {
		if own.get(f.key) == nil {
			merged.fields = append(merged.fields, f)
		}
	}
	out := without(spec, "metadata")
	out.fields = append(out.fields, field{"metadata", merged.line, merged})
	return out
}

// without returns a mapping without one key.
func without(n *node, key string) *node {
	out := *n
	out.fields = nil
	for _, f := range n.fields {
		if f.key != key {
			out.fields = append(out.fields, f)
		}
	}
	return &out
}
