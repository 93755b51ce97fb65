package cli

import (
	"fmt"

	"github.com/holdfast-dev/holdfast/internal/document"
	"github.com/holdfast-dev/holdfast/internal/yamlfile"
)

// flagdReader turns a flagd file into Flag documents.
type flagdReader struct {
	file     string
	reader   *manifestReader
	labels   map[string]string
	inliner  *inliner
	metadata *yamlfile.Node
}

func newFlagdReader(file string, reader *manifestReader, labels map[string]string) *flagdReader {
	return &flagdReader{file: file, reader: reader, labels: labels, inliner: &inliner{file: file, reader: reader}}
}

// readFlagd reads the flags of a flagd file. Shared evaluators are put into the
// rules that refer to them; the metadata of the set is put into each flag that
// does not say otherwise; $schema is ignored.
func readFlagd(file string, src []byte, namespace string, labels map[string]string) ([]*manifest, []problem) {
	r := newFlagdReader(file, &manifestReader{namespace: namespace}, labels)
	docs, faults := yamlfile.Parse(file, src)
	for _, f := range faults {
		r.reader.problems = append(r.reader.problems, problem{file: file, line: f.Line, text: f.Msg})
	}
	if len(faults) > 0 {
		return nil, r.reader.problems
	}
	if len(docs) != 1 || docs[0].Kind != yamlfile.Map {
		return nil, []problem{{file: file, line: 1, text: "a flagd file is one mapping with the key flags"}}
	}
	r.set(docs[0])
	return r.reader.manifests, r.reader.problems
}

// set reads the whole flag set.
func (r *flagdReader) set(doc *yamlfile.Node) {
	var all *yamlfile.Node
	for _, f := range doc.Fields {
		switch f.Key {
		case "$schema":
		case "flags":
			all = f.Value
		case "$evaluators":
			if f.Value.Kind != yamlfile.Map {
				r.reader.bad(r.file, f.Value, "$evaluators is %s; it must be a mapping", f.Value.Kind)
				continue
			}
			r.inliner.declare(f.Value)
		case "metadata":
			r.metadata = f.Value
			if f.Value.Kind != yamlfile.Map {
				r.reader.bad(r.file, f.Value, "metadata is %s; it must be a mapping", f.Value.Kind)
				r.metadata = nil
			}
		default:
			text := fmt.Sprintf("unknown key %q", f.Key)
			if hint := didYouMean(f.Key, []string{"flags", "$evaluators", "metadata", "$schema"}); hint != "" {
				text += "; " + hint
			}
			r.reader.problems = append(r.reader.problems, problem{file: r.file, line: f.Line, text: text})
		}
	}
	switch {
	case all == nil:
		r.reader.bad(r.file, doc, "the key flags is missing; is this a flagd file?")
	case all.Kind == yamlfile.Map:
		for _, f := range all.Fields {
			r.flag(f.Key, f.Line, f.Value)
		}
	case all.Kind == yamlfile.List:
		for _, item := range all.Items {
			key := item.Get("key")
			if item.Kind != yamlfile.Map || key == nil || key.Kind != yamlfile.String {
				r.reader.bad(r.file, item, "a flag in a list needs a key, a string")
				continue
			}
			r.flag(key.Text, item.Line, without(item, "key"))
		}
	default:
		r.reader.bad(r.file, all, "flags is %s; it must be a mapping or a list", all.Kind)
	}
}

// flag turns one flag into a document and reads that.
func (r *flagdReader) flag(name string, line int, spec *yamlfile.Node) {
	if spec.Kind != yamlfile.Map {
		r.reader.bad(r.file, spec, "flag %q is %s; it must be a mapping", name, spec.Kind)
		return
	}
	inlined, ok := r.inliner.flag(name, spec)
	if !ok {
		inlined = without(spec, "targeting") // for what else is wrong; the file is refused
	}
	if spec, ok = r.merge(name, inlined); !ok {
		return
	}
	field := func(key string, value *yamlfile.Node) yamlfile.Field {
		return yamlfile.Field{Key: key, Line: line, Value: value}
	}
	text := func(key, s string) yamlfile.Field {
		return field(key, &yamlfile.Node{Kind: yamlfile.String, Line: line, Text: s})
	}
	doc := &yamlfile.Node{Kind: yamlfile.Map, Line: line, Fields: []yamlfile.Field{
		text("kind", kindTitle(document.Flag)), text("name", name), field("spec", spec),
	}}
	if len(r.labels) > 0 {
		labels := &yamlfile.Node{Kind: yamlfile.Map, Line: line}
		for k, v := range r.labels {
			labels.Fields = append(labels.Fields, text(k, v))
		}
		doc.Fields = append(doc.Fields, field("labels", labels))
	}
	r.reader.document(r.file, doc)
}

// merge puts the metadata of the set into a flag; the flag's own wins. It returns
// false after recording that the file says too much in this way.
func (r *flagdReader) merge(name string, spec *yamlfile.Node) (*yamlfile.Node, bool) {
	if r.metadata == nil || len(r.metadata.Fields) == 0 {
		return spec, true
	}
	own := spec.Get("metadata")
	if own != nil && own.Kind != yamlfile.Map {
		return spec, true // the validator tells
	}
	if !r.inliner.spend(spec, name, len(r.metadata.Fields), "the metadata of the set") {
		return nil, false
	}
	merged, has := &yamlfile.Node{Kind: yamlfile.Map, Line: r.metadata.Line}, map[string]bool{}
	if own != nil {
		merged.Line = own.Line
		merged.Fields = append(merged.Fields, own.Fields...)
		for _, f := range own.Fields {
			has[f.Key] = true
		}
	}
	for _, f := range r.metadata.Fields {
		if !has[f.Key] {
			merged.Fields = append(merged.Fields, f)
		}
	}
	out := without(spec, "metadata")
	out.Fields = append(out.Fields, yamlfile.Field{Key: "metadata", Line: merged.Line, Value: merged})
	return out, true
}

// without returns a mapping without one key.
func without(n *yamlfile.Node, key string) *yamlfile.Node {
	out := *n
	out.Fields = nil
	for _, f := range n.Fields {
		if f.Key != key {
			out.Fields = append(out.Fields, f)
		}
	}
	return &out
}
