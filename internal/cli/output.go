package cli

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"time"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"

	"github.com/holdfast-dev/holdfast/internal/document"
	"github.com/holdfast-dev/holdfast/internal/yamlfile"
	holdfastv1 "github.com/holdfast-dev/holdfast/proto/holdfast/v1"
)

// format is how data is written to standard output.
type format string

const (
	tableFormat format = "table"
	jsonFormat  format = "json"
	yamlFormat  format = "yaml"
)

// formats lists the formats for -o.
func formats() []string {
	return []string{string(tableFormat), "wide", string(jsonFormat), string(yamlFormat)}
}

// head begins every JSON and YAML answer.
type head struct {
	APIVersion string `json:"apiVersion"`
	Kind       string `json:"kind"`
}

// newHead returns the head of an answer of a kind.
func newHead(kind string) head { return head{apiVersion, kind} }

// resourceView is a resource in JSON and YAML. It is also a document that apply
// reads; apply ignores the status.
type resourceView struct {
	head
	Name      string            `json:"name"`
	Namespace string            `json:"namespace"`
	Labels    map[string]string `json:"labels,omitempty"`
	Spec      json.RawMessage   `json:"spec"`
	Status    *resourceStatus   `json:"status,omitempty"`
}

// resourceStatus is what the servers know about a resource.
type resourceStatus struct {
	CreateRevision uint64     `json:"create_revision"`
	ModRevision    uint64     `json:"mod_revision"`
	Version        uint64     `json:"version"`
	CreateTime     time.Time  `json:"create_time"`
	UpdateTime     time.Time  `json:"update_time"`
	EndTime        *time.Time `json:"end_time,omitempty"`
	Actor          string     `json:"actor"`
	ActorVerified  bool       `json:"actor_verified"`
	Reason         string     `json:"reason,omitempty"`
}

// listView is a list of things of any kind.
type listView[T any] struct {
	head
	Revision uint64 `json:"revision,omitempty"`
	Items    []T    `json:"items"`
}

// kindOf returns the kind of a wire key.
func kindOf(key *holdfastv1.ResourceKey) document.Kind { return document.Kind(key.GetKind()) }

// viewOf returns a resource for output.
func viewOf(r *holdfastv1.Resource) resourceView {
	v := resourceView{
		head: newHead(kindTitle(kindOf(r.GetKey()))), Name: r.GetKey().GetName(),
		Namespace: namespaceOf(r.GetKey()), Labels: r.GetLabels(), Spec: rawSpec(r.GetSpec()),
		Status: &resourceStatus{
			CreateRevision: r.GetCreateRevision(), ModRevision: r.GetModRevision(), Version: r.GetVersion(),
			CreateTime: r.GetCreateTime().AsTime(), UpdateTime: r.GetUpdateTime().AsTime(),
			Actor: r.GetActor().GetName(), ActorVerified: r.GetActor().GetVerified(), Reason: r.GetReason(),
		},
	}
	if r.GetEndTime() != nil {
		end := r.GetEndTime().AsTime()
		v.Status.EndTime = &end
	}
	return v
}

// namespaceOf returns the namespace of a wire key.
func namespaceOf(key *holdfastv1.ResourceKey) string {
	if ns := key.GetNamespace(); ns != "" {
		return ns
	}
	return document.DefaultNamespace
}

// rawSpec returns a definition for embedding; one that is not JSON as a string,
// so that an answer never becomes unreadable.
func rawSpec(spec []byte) json.RawMessage {
	switch {
	case len(spec) == 0:
		return json.RawMessage("null")
	case json.Valid(spec):
		return spec
	default:
		return (&yamlfile.Node{Kind: yamlfile.String, Text: string(spec)}).AppendJSON(nil)
	}
}

// emit writes a value to standard output as JSON or YAML.
func (a *app) emit(v any) error {
	var buf bytes.Buffer
	if err := encode(&buf, a.format, v, true); err != nil {
		return err
	}
	return a.flush(buf.Bytes())
}

// flush writes to standard output. A reader that went away, as head does, is
// not an error worth a message, but it ends the command.
func (a *app) flush(b []byte) error {
	if _, err := a.io.Out.Write(b); err != nil {
		return fmt.Errorf("write to standard output: %w", err)
	}
	return nil
}

// encode writes a value as JSON or YAML. Both come from the same JSON, so they
// never differ in more than notation.
func encode(w io.Writer, f format, v any, indent bool) error {
	var buf bytes.Buffer
	enc := json.NewEncoder(&buf)
	enc.SetEscapeHTML(false)
	if indent && f != yamlFormat {
		enc.SetIndent("", "  ")
	}
	if err := enc.Encode(v); err != nil {
		return fmt.Errorf("encode output: %w", err)
	}
	if f != yamlFormat {
		_, err := w.Write(buf.Bytes())
		return err
	}
	text, err := jsonToYAML(buf.Bytes())
	if err != nil {
		return err
	}
	_, err = w.Write(text)
	return err
}

// jsonToYAML rewrites one JSON value as YAML with the keys in the same order.
func jsonToYAML(src []byte) ([]byte, error) {
	// A definition of a server may be JSON and not UTF-8.
	nodes, faults := yamlfile.Parse(".json", bytes.ToValidUTF8(src, []byte(string(utf8.RuneError))))
	if len(faults) > 0 || len(nodes) != 1 {
		return nil, fmt.Errorf("convert output to YAML: %d values, %v", len(nodes), faults)
	}
	var buf bytes.Buffer
	if err := writeYAML(&buf, nodes[0]); err != nil {
		return nil, fmt.Errorf("convert output to YAML: %w", err)
	}
	return buf.Bytes(), nil
}

// yamlChunk is how many items of a list are encoded at once.
const yamlChunk = 100

// writeYAML writes a value as one YAML document. The library keeps all of a
// document in memory several times over, so the lists in a mapping, which is
// what grows with the cluster, are handed to it in parts.
func writeYAML(buf *bytes.Buffer, n *yamlfile.Node) error {
	if n.Kind != yamlfile.Map || len(n.Fields) == 0 {
		return encodeYAML(buf, n)
	}
	for _, f := range n.Fields {
		if f.Value.Kind != yamlfile.List || len(f.Value.Items) <= yamlChunk {
			if err := encodeYAML(buf, &yamlfile.Node{Kind: yamlfile.Map, Fields: []yamlfile.Field{f}}); err != nil {
				return err
			}
			continue
		}
		for i, items := 0, f.Value.Items; i < len(items); i += yamlChunk {
			var part bytes.Buffer
			chunk := &yamlfile.Node{Kind: yamlfile.List, Items: items[i:min(i+yamlChunk, len(items))]}
			if err := encodeYAML(&part, &yamlfile.Node{Kind: yamlfile.Map, Fields: []yamlfile.Field{{Key: f.Key, Value: chunk}}}); err != nil {
				return err
			}
			text := part.Bytes()
			if i > 0 { // the key stands before the first part only
				text = text[bytes.IndexByte(text, '\n')+1:]
			}
			buf.Write(text)
		}
	}
	return nil
}

// encodeYAML has the library write a value.
func encodeYAML(buf *bytes.Buffer, n *yamlfile.Node) error {
	enc := yaml.NewEncoder(buf)
	enc.SetIndent(2)
	return enc.Encode(n.YAML())
}

// definitionLines shows what people declare about a resource, as lines of YAML.
func definitionLines(r *holdfastv1.Resource) []string {
	if r == nil {
		return nil
	}
	view := struct {
		Ends   string            `json:"ends,omitempty"`
		Labels map[string]string `json:"labels,omitempty"`
		Spec   json.RawMessage   `json:"spec"`
	}{Labels: r.GetLabels(), Spec: rawSpec(r.GetSpec())}
	if end := r.GetEndTime(); end != nil {
		view.Ends = end.AsTime().Truncate(time.Second).Format(time.RFC3339)
	}
	var buf bytes.Buffer
	if err := encode(&buf, yamlFormat, view, false); err != nil {
		return []string{string(r.GetSpec())}
	}
	return splitLines(buf.String())
}

// table collects rows and writes them in aligned columns.
type table struct {
	rows [][]string
	// paint colours a cell after it was padded; it may be nil.
	paint func(row, column int, text string) string
}

// row adds a row.
func (t *table) row(cells ...string) { t.rows = append(t.rows, cells) }

// write writes the rows. The last column is not padded, so that lines do not end
// in spaces.
func (t *table) write(w io.Writer) error {
	var widths []int
	for _, cells := range t.rows {
		for i, c := range cells {
			if i == len(widths) {
				widths = append(widths, 0)
			}
			widths[i] = max(widths[i], utf8.RuneCountInString(printable(c)))
		}
	}
	var buf bytes.Buffer
	for n, cells := range t.rows {
		last := len(cells) - 1
		for last > 0 && cells[last] == "" {
			last--
		}
		for i, c := range cells[:last+1] {
			c = printable(c)
			pad := widths[i] - utf8.RuneCountInString(c)
			if t.paint != nil {
				c = t.paint(n, i, c)
			}
			buf.WriteString(c)
			if i < last {
				buf.WriteString(strings.Repeat(" ", pad+2))
			}
		}
		buf.WriteByte('\n')
	}
	_, err := w.Write(buf.Bytes())
	return err
}
