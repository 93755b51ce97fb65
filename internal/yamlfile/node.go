package yamlfile

import (
	"regexp"
	"strconv"
	"strings"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"
)

// Kind is the type of a value in a file.
type Kind uint8

// The types of values.
const (
	Null Kind = iota
	Bool
	Number
	String
	List
	Map
)

// String returns the word for the kind in messages.
func (k Kind) String() string {
	return [...]string{"null", "a boolean", "a number", "a string", "a list", "a mapping"}[k]
}

// Node is a value read from YAML or JSON that knows its line.
type Node struct {
	Kind Kind
	// Line counts from 1.
	Line int
	// Text is a string's value, or the JSON text of a boolean or number.
	Text   string
	Items  []*Node
	Fields []Field
}

// Field is one entry of a mapping.
type Field struct {
	Key   string
	Line  int
	Value *Node
}

// Get returns the value of a mapping's key, or nil.
func (n *Node) Get(key string) *Node {
	if n == nil {
		return nil
	}
	for i := range n.Fields {
		if n.Fields[i].Key == key {
			return n.Fields[i].Value
		}
	}
	return nil
}

// AppendJSON appends the value as compact JSON.
func (n *Node) AppendJSON(b []byte) []byte {
	switch n.Kind {
	case Null:
		return append(b, "null"...)
	case Bool, Number:
		return append(b, n.Text...)
	case String:
		return appendQuoted(b, n.Text)
	case List:
		b = append(b, '[')
		for i, item := range n.Items {
			if i > 0 {
				b = append(b, ',')
			}
			b = item.AppendJSON(b)
		}
		return append(b, ']')
	default:
		b = append(b, '{')
		for i := range n.Fields {
			if i > 0 {
				b = append(b, ',')
			}
			b = appendQuoted(b, n.Fields[i].Key)
			b = append(b, ':')
			b = n.Fields[i].Value.AppendJSON(b)
		}
		return append(b, '}')
	}
}

// appendQuoted appends a JSON string. Unlike encoding/json it leaves <, > and &
// readable.
func appendQuoted(b []byte, s string) []byte {
	const hex = "0123456789abcdef"
	b = append(b, '"')
	for _, r := range s {
		switch {
		case r == '"' || r == '\\':
			b = append(b, '\\', byte(r))
		case r == '\n':
			b = append(b, '\\', 'n')
		case r == '\r':
			b = append(b, '\\', 'r')
		case r == '\t':
			b = append(b, '\\', 't')
		case r < 0x20 || r == 0x7f:
			b = append(b, '\\', 'u', '0', '0', hex[r>>4], hex[r&15])
		default:
			b = utf8.AppendRune(b, r)
		}
	}
	return append(b, '"')
}

// YAML returns the value as a tree for the YAML encoder.
func (n *Node) YAML() *yaml.Node {
	scalar := func(tag, text string) *yaml.Node {
		return &yaml.Node{Kind: yaml.ScalarNode, Tag: tag, Value: text}
	}
	switch n.Kind {
	case Null:
		return scalar("!!null", "null")
	case Bool:
		return scalar("!!bool", n.Text)
	case Number:
		if strings.ContainsAny(n.Text, ".eE") {
			return scalar("!!float", n.Text)
		}
		return scalar("!!int", n.Text)
	case String:
		return yamlString(n.Text)
	case List:
		out := &yaml.Node{Kind: yaml.SequenceNode, Tag: "!!seq"}
		if len(n.Items) == 0 {
			out.Style = yaml.FlowStyle
		}
		for _, item := range n.Items {
			out.Content = append(out.Content, item.YAML())
		}
		return out
	default:
		out := &yaml.Node{Kind: yaml.MappingNode, Tag: "!!map"}
		if len(n.Fields) == 0 {
			out.Style = yaml.FlowStyle
		}
		for i := range n.Fields {
			out.Content = append(out.Content, yamlString(n.Fields[i].Key), n.Fields[i].Value.YAML())
		}
		return out
	}
}

// oldYAML matches what readers of YAML 1.1 take for booleans or for numbers to
// the base of 60; the library writes these strings without quotes.
var oldYAML = regexp.MustCompile(`^(?i:y|n|yes|no|on|off)$|^[-+]?[0-9][0-9_]*(?::[0-5]?[0-9])+(?:\.[0-9_]*)?$`)

// yamlString returns a string for the YAML encoder, quoted where a reader of
// any YAML version could take it for something else.
func yamlString(s string) *yaml.Node {
	out := &yaml.Node{}
	out.SetString(s)
	if out.Tag == "!!binary" { // not UTF-8; cannot come out of JSON
		out.Tag, out.Value = "!!str", strings.ToValidUTF8(s, string(utf8.RuneError))
	}
	if s != "" && strings.IndexByte("yYnNoO+-0123456789", s[0]) >= 0 && oldYAML.MatchString(s) {
		out.Style = yaml.DoubleQuotedStyle
	}
	return out
}

// Locate returns the deepest value that a path such as "variants.on" or
// "levels[2].name" or "/levels/2/name" leads to. Where the path leaves the tree
// it stops, so the answer is always a line near the fault.
func (n *Node) Locate(path string) *Node {
	for n != nil {
		path = strings.TrimLeft(path, "./[]\"'")
		if path == "" {
			return n
		}
		next, rest := n.step(path)
		if next == nil {
			return n
		}
		n, path = next, rest
	}
	return n
}

// step follows one element of a path. Keys may hold dots, so the longest key
// that the path begins with wins.
func (n *Node) step(path string) (*Node, string) {
	boundary := func(rest string) bool { return rest == "" || strings.ContainsRune("./[]\"'", rune(rest[0])) }
	switch n.Kind {
	case Map:
		best := -1
		for i := range n.Fields {
			key := n.Fields[i].Key
			if key != "" && strings.HasPrefix(path, key) && boundary(path[len(key):]) &&
				(best < 0 || len(key) > len(n.Fields[best].Key)) {
				best = i
			}
		}
		if best < 0 {
			return nil, ""
		}
		value := *n.Fields[best].Value
		value.Line = n.Fields[best].Line
		return &value, path[len(n.Fields[best].Key):]
	case List:
		end := 0
		for end < len(path) && '0' <= path[end] && path[end] <= '9' {
			end++
		}
		i, err := strconv.Atoi(path[:end])
		if err != nil || i >= len(n.Items) || !boundary(path[end:]) {
			return nil, ""
		}
		return n.Items[i], path[end:]
	default:
		return nil, ""
	}
}
