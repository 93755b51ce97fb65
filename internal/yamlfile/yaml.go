package yamlfile

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"math"
	"regexp"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// chunk is the text of one YAML document and the number of lines before it.
type chunk struct {
	text   []byte
	before int
}

// splitYAML cuts a stream at its document markers. Documents are parsed one by
// one so that a fault in one does not hide those of the others.
func splitYAML(src []byte) []chunk {
	var out []chunk
	start, startLine, line := 0, 0, 0
	cut := func(end int) {
		if text := src[start:end]; meaningful(text) {
			out = append(out, chunk{text, startLine})
		}
	}
	for pos := 0; pos < len(src); line++ {
		end := bytes.IndexByte(src[pos:], '\n')
		next := pos + end + 1
		if end < 0 {
			next = len(src)
		}
		text := bytes.TrimRight(src[pos:next], "\r\n")
		switch {
		case bytes.Equal(text, []byte("...")):
			cut(pos)
			start, startLine = next, line+1
		case bytes.HasPrefix(text, []byte("---")) && (len(text) == 3 || text[3] == ' ' || text[3] == '\t'):
			cut(pos)
			start, startLine = pos, line
		}
		pos = next
	}
	cut(len(src))
	return out
}

// meaningful tells whether a chunk holds more than comments and markers.
func meaningful(text []byte) bool {
	for line := range bytes.Lines(text) {
		line = bytes.TrimSpace(line)
		if bytes.HasPrefix(line, []byte("---")) {
			line = bytes.TrimSpace(line[3:])
		}
		if len(line) > 0 && line[0] != '#' && line[0] != '%' {
			return true
		}
	}
	return false
}

// yamlLine finds the line in a message of the YAML library.
var yamlLine = regexp.MustCompile(`^(?:yaml: )?(?:line (\d+): )?(.*)$`)

// parseYAML reads the documents of a stream and returns all faults at once.
func parseYAML(src []byte) ([]*Node, []*Fault) {
	var out []*Node
	var faults []*Fault
	for _, c := range splitYAML(src) {
		var doc yaml.Node
		if err := unmarshalYAML(c.text, &doc); err != nil {
			m := yamlLine.FindStringSubmatch(strings.Join(strings.Fields(err.Error()), " "))
			line, _ := strconv.Atoi(m[1])
			// The library counts beyond the end at times.
			line = min(max(line, 1), 1+bytes.Count(bytes.TrimSuffix(c.text, []byte{'\n'}), []byte{'\n'}))
			faults = append(faults, &Fault{c.before + line, "not YAML: " + m[2]})
			continue
		}
		if len(doc.Content) == 0 {
			continue
		}
		conv := yamlReader{before: c.before}
		n, err := conv.value(doc.Content[0], 0)
		if err != nil {
			faults = append(faults, err)
			continue
		}
		out = append(out, n)
	}
	return out, faults
}

// unmarshalYAML turns a panic of the library into an error: the text comes from
// a file and must not end the program.
func unmarshalYAML(src []byte, into *yaml.Node) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("the parser gave up: %v", p)
		}
	}()
	dec := yaml.NewDecoder(bytes.NewReader(src))
	if err := dec.Decode(into); err != nil {
		return err
	}
	// The library stops after the first value and leaves it to the caller to
	// notice that there is more.
	var rest yaml.Node
	if err := dec.Decode(&rest); !errors.Is(err, io.EOF) {
		return cmp.Or(err, fmt.Errorf("line %d: a second value without --- before it", rest.Line))
	}
	return nil
}

// yamlReader converts the library's tree.
type yamlReader struct {
	before int
	// aliases is how many aliases lead to the value at hand, and nodes how many
	// values were reached through any. Others are not counted: they are as many as
	// the file, whose size is bounded, spells out.
	aliases, nodes int
}

func (r *yamlReader) fault(y *yaml.Node, format string, args ...any) *Fault {
	return &Fault{y.Line + r.before, fmt.Sprintf(format, args...)}
}

func (r *yamlReader) value(y *yaml.Node, depth int) (*Node, *Fault) {
	if r.aliases > 0 {
		r.nodes++
	}
	switch {
	case depth > MaxDepth:
		return nil, r.fault(y, "nested deeper than %d levels", MaxDepth)
	case r.nodes > MaxNodes:
		return nil, r.fault(y, "the aliases of the document expand to more than %d values", MaxNodes)
	}
	n := &Node{Line: y.Line + r.before}
	switch y.Kind {
	case yaml.AliasNode:
		r.aliases++
		defer func() { r.aliases-- }()
		return r.value(y.Alias, depth+1)
	case yaml.SequenceNode:
		n.Kind = List
		for _, item := range y.Content {
			v, err := r.value(item, depth+1)
			if err != nil {
				return nil, err
			}
			n.Items = append(n.Items, v)
		}
		return n, nil
	case yaml.MappingNode:
		n.Kind = Map
		return n, r.mapping(n, y, depth)
	default:
		return n, r.scalar(n, y)
	}
}

// mapping reads a mapping. Keys of merged mappings ("<<") yield to its own.
func (r *yamlReader) mapping(n *Node, y *yaml.Node, depth int) *Fault {
	at := map[string]int{}
	var merged []*Node
	for i := 0; i+1 < len(y.Content); i += 2 {
		key := y.Content[i]
		v, err := r.value(y.Content[i+1], depth+1)
		if err != nil {
			return err
		}
		if key.Tag == "!!merge" {
			merged = append(merged, v)
			continue
		}
		for key.Kind == yaml.AliasNode {
			key = key.Alias
		}
		if key.Kind != yaml.ScalarNode || key.ShortTag() == "!!null" || key.ShortTag() == "!!binary" {
			return r.fault(key, "a key must be a string")
		}
		if _, twice := at[key.Value]; twice {
			return r.fault(key, "the key %q occurs twice", key.Value)
		}
		at[key.Value] = len(n.Fields)
		n.Fields = append(n.Fields, Field{key.Value, key.Line + r.before, v})
	}
	for len(merged) > 0 {
		m := merged[0]
		merged = merged[1:]
		if m.Kind == List {
			merged = append(append([]*Node(nil), m.Items...), merged...)
			continue
		}
		if m.Kind != Map {
			return &Fault{m.Line, "<< needs a mapping, not " + m.Kind.String()}
		}
		for _, f := range m.Fields {
			if _, own := at[f.Key]; !own {
				at[f.Key] = len(n.Fields)
				n.Fields = append(n.Fields, f)
			}
		}
	}
	return nil
}

// scalar reads a plain value by the rules of YAML 1.2: on, off, yes and no are
// strings.
func (r *yamlReader) scalar(n *Node, y *yaml.Node) *Fault {
	switch tag := y.ShortTag(); tag {
	case "!!null":
		n.Kind = Null
	case "!!bool":
		n.Kind, n.Text = Bool, strings.ToLower(y.Value)
		if n.Text != "true" && n.Text != "false" {
			return r.fault(y, "%q is not a boolean: write true or false", y.Value)
		}
	case "!!str", "!!timestamp":
		n.Kind, n.Text = String, y.Value
	case "!!int", "!!float":
		n.Kind = Number
		var v any
		if err := y.Decode(&v); err != nil {
			return r.fault(y, "%q is not a number", y.Value)
		}
		switch v := v.(type) {
		case int:
			n.Text = strconv.Itoa(v)
		case int64:
			n.Text = strconv.FormatInt(v, 10)
		case uint64:
			n.Text = strconv.FormatUint(v, 10)
		case float64:
			if math.IsNaN(v) || math.IsInf(v, 0) {
				return r.fault(y, "%q is not a number that JSON can hold", y.Value)
			}
			if !strings.ContainsAny(y.Value, ".eE") {
				return r.fault(y, "%q is outside of ±(2^53-1), where numbers are exact", y.Value)
			}
			n.Text = strconv.FormatFloat(v, 'g', -1, 64)
		default:
			return r.fault(y, "%q is not a number", y.Value)
		}
	default:
		return r.fault(y, "the tag %s is not known here", strings.Trim(strconv.Quote(tag), `"`))
	}
	return nil
}
