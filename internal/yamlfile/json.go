package yamlfile

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
)

const (
	// MaxDepth is how deep a value in a file may be nested.
	MaxDepth = 64
	// MaxNodes is how many values the aliases of one YAML document may expand to,
	// and how many values the flags of a flagd file may get from what they share:
	// evaluators, written out wherever something refers to them, and the metadata of
	// the set. It stops what multiplies.
	MaxNodes = 1 << 20
)

// Fault is something wrong, with its line in the file.
type Fault struct {
	Line int
	Msg  string
}

// Error implements error.
func (e *Fault) Error() string { return fmt.Sprintf("line %d: %s", e.Line, e.Msg) }

// jsonReader reads JSON values and counts lines.
type jsonReader struct {
	src []byte
	dec *json.Decoder
	// offset is where line was counted up to.
	offset, line int
}

// parseJSON reads the JSON values of a file, one after the other.
func parseJSON(src []byte) ([]*Node, error) {
	r := &jsonReader{src: src, dec: json.NewDecoder(bytes.NewReader(src)), line: 1}
	r.dec.UseNumber()
	var out []*Node
	for {
		tok, err := r.dec.Token()
		if errors.Is(err, io.EOF) {
			return out, nil
		}
		if err != nil {
			return out, r.fault(err)
		}
		n, err := r.value(tok, 0)
		if err != nil {
			return out, err
		}
		out = append(out, n)
	}
}

// here returns the line at which the last token ended.
func (r *jsonReader) here() int {
	end := min(int(r.dec.InputOffset()), len(r.src))
	if end > r.offset {
		r.line += bytes.Count(r.src[r.offset:end], []byte{'\n'})
		r.offset = end
	}
	return r.line
}

// fault turns an error of the decoder into one with a line.
func (r *jsonReader) fault(err error) error {
	line := r.here()
	if syntax, ok := errors.AsType[*json.SyntaxError](err); ok {
		line = 1 + bytes.Count(r.src[:min(int(syntax.Offset), len(r.src))], []byte{'\n'})
	}
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return &Fault{1 + bytes.Count(r.src, []byte{'\n'}), "the JSON ends in the middle of a value"}
	}
	return &Fault{line, "not JSON: " + err.Error()}
}

// value reads the rest of the value that begins with tok.
func (r *jsonReader) value(tok json.Token, depth int) (*Node, error) {
	n := &Node{Line: r.here()}
	if depth > MaxDepth {
		return nil, &Fault{n.Line, fmt.Sprintf("nested deeper than %d levels", MaxDepth)}
	}
	switch v := tok.(type) {
	case nil:
		n.Kind = Null
	case bool:
		n.Kind, n.Text = Bool, fmt.Sprint(v)
	case json.Number:
		n.Kind, n.Text = Number, v.String()
	case string:
		n.Kind, n.Text = String, v
	case json.Delim:
		if v == '[' {
			n.Kind = List
			return n, r.list(n, depth)
		}
		n.Kind = Map
		return n, r.object(n, depth)
	}
	return n, nil
}

func (r *jsonReader) list(n *Node, depth int) error {
	for r.dec.More() {
		tok, err := r.dec.Token()
		if err != nil {
			return r.fault(err)
		}
		item, err := r.value(tok, depth+1)
		if err != nil {
			return err
		}
		n.Items = append(n.Items, item)
	}
	if _, err := r.dec.Token(); err != nil {
		return r.fault(err)
	}
	return nil
}

func (r *jsonReader) object(n *Node, depth int) error {
	seen := map[string]bool{}
	for r.dec.More() {
		tok, err := r.dec.Token()
		if err != nil {
			return r.fault(err)
		}
		key, line := tok.(string), r.here()
		if seen[key] {
			return &Fault{line, fmt.Sprintf("the key %q occurs twice", key)}
		}
		seen[key] = true
		tok, err = r.dec.Token()
		if err != nil {
			return r.fault(err)
		}
		value, err := r.value(tok, depth+1)
		if err != nil {
			return err
		}
		n.Fields = append(n.Fields, Field{key, line, value})
	}
	if _, err := r.dec.Token(); err != nil {
		return r.fault(err)
	}
	return nil
}
