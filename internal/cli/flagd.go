package cli

import (
	"fmt"

	"github.com/holdfast-dev/holdfast/internal/document"
)

// flagdReader turns a flagd file into Flag documents.
type flagdReader struct {
	file     string
	reader   *manifestReader
	labels   map[string]string
	inliner  *inliner
	metadata *node
}

func newFlagdReader(file string, reader *manifestReader, labels map[string]string) *flagdReader {
	return &flagdReader{file: file, reader: reader, labels: labels, inliner: &inliner{file: file, reader: reader}}
}

// readFlagd reads the flags of a flagd file. Shared evaluators are put into the
// rules that refer to them; the metadata of the set is put into each flag that
// does not say otherwise; $schema is ignored.
func readFlagd(file string, src []byte, namespace string, labels map[string]string) ([]*manifest, []problem) {
	r := newFlagdReader(file, &manifestReader{namespace: namespace}, labels)
	docs, faults := parseFile(file, src)
	for _, f := range faults {
		r.reader.problems = append(r.reader.problems, problem{file: file, line: f.line, text: f.msg})
	}
	if len(faults) > 0 {
		return nil, r.reader.problems
	}
	if len(docs) != 1 || docs[0].kind != mapNode {
		return nil, []problem{{file: file, line: 1, text: "a flagd file is one mapping with the key flags"}}
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
			if f.value.kind != mapNode {
				r.reader.bad(r.file, f.value, "$evaluators is %s; it must be a mapping", f.value.kind)
				continue
			}
			r.inliner.declare(f.value)
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
			r.reader.problems = append(r.reader.problems, problem{file: r.file, line: f.line, text: text})
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
	inlined, ok := r.inliner.flag(name, spec)
	if !ok {
		inlined = without(spec, "targeting") // for what else is wrong; the file is refused
	}
	if spec, ok = r.merge(name, inlined); !ok {
		return
	}
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

// merge puts the metadata of the set into a flag; the flag's own wins. It returns
// false after recording that the file says too much in this way.
func (r *flagdReader) merge(name string, spec *node) (*node, bool) {
	if r.metadata == nil || len(r.metadata.fields) == 0 {
		return spec, true
	}
	own := spec.get("metadata")
	if own != nil && own.kind != mapNode {
		return spec, true // the validator tells
	}
	if !r.inliner.spend(spec, name, len(r.metadata.fields), "the metadata of the set") {
		return nil, false
	}
	merged, has := &node{kind: mapNode, line: r.metadata.line}, map[string]bool{}
	if own != nil {
		merged.line = own.line
		merged.fields = append(merged.fields, own.fields...)
		for _, f := range own.fields {
			has[f.key] = true
		}
	}
	for _, f := range r.metadata.fields {
		if !has[f.key] {
			merged.fields = append(merged.fields, f)
		}
	}
	out := without(spec, "metadata")
	out.fields = append(out.fields, field{"metadata", merged.line, merged})
	return out, true
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
