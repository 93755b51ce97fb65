package cli

import (
	"regexp"
	"strconv"
	"strings"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"
)

// nodeKind is the type of a value in a file.
type nodeKind uint8

const (
	nullNode nodeKind = iota
	boolNode
	numberNode
	stringNode
	listNode
	mapNode
)

// String returns the word for the kind in messages.
func (k nodeKind) String() string {
	return [...]string{"null", "a boolean", "a number", "a string", "a list", "a mapping"}[k]
}

// node is a value read from YAML or JSON that knows its line.
type node struct {
	kind nodeKind
	// line counts from 1.
	line int
	// text is a string's value, or the JSON text of a boolean or number.
	text   string
	items  []*node
	fields []field
}

// field is one entry of a mapping.
type field struct {
	key   string
	line  int
	value *node
}

// get returns the value of a mapping's key, or nil.
func (n *node) get(key string) *node {
	if n == nil {
		return nil
	}
	for i := range n.fields {
		if n.fields[i].key == key {
			return n.fields[i].value
		}
	}
	return nil
}

// appendJSON appends the value as compact JSON.
func (n *node) appendJSON(b []byte) []byte {
	switch n.kind {
	case nullNode:
		return append(b, "null"...)
	case boolNode, numberNode:
		return append(b, n.text...)
	case stringNode:
		return appendQuoted(b, n.text)
	case listNode:
		b = append(b, '[')
		for i, item := range n.items {
			if i > 0 {
				b = append(b, ',')
			}
			b = item.appendJSON(b)
		}
		return append(b, ']')
	default:
		b = append(b, '{')
		for i := range n.fields {
			if i > 0 {
				b = append(b, ',')
			}
			b = appendQuoted(b, n.fields[i].key)
			b = append(b, ':')
			b = n.fields[i].value.appendJSON(b)
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

// yaml returns the value as a tree for the YAML encoder.
func (n *node) yaml() *yaml.Node {
	scalar := func(tag, text string) *yaml.Node {
		return &yaml.Node{Kind: yaml.ScalarNode, Tag: tag, Value: text}
	}
	switch n.kind {
	case nullNode:
		return scalar("!!null", "null")
	case boolNode:
		return scalar("!!bool", n.text)
	case numberNode:
		if strings.ContainsAny(n.text, ".eE") {
			return scalar("!!float", n.text)
		}
		return scalar("!!int", n.text)
	case stringNode:
		return yamlString(n.text)
	case listNode:
		out := &yaml.Node{Kind: yaml.SequenceNode, Tag: "!!seq"}
		if len(n.items) == 0 {
			out.Style = yaml.FlowStyle
		}
		for _, item := range n.items {
			out.Content = append(out.Content, item.yaml())
		}
		return out
	default:
		out := &yaml.Node{Kind: yaml.MappingNode, Tag: "!!map"}
		if len(n.fields) == 0 {
			out.Style = yaml.FlowStyle
		}
		for i := range n.fields {
			out.Content = append(out.Content, yamlString(n.fields[i].key), n.fields[i].value.yaml())
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

// locate returns the deepest value that a path such as "variants.on" or
// "levels[2].name" or "/levels/2/name" leads to. Where the path leaves the tree
// it stops, so the answer is always a line near the fault.
func (n *node) locate(path string) *node {
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
func (n *node) step(path string) (*node, string) {
	boundary := func(rest string) bool { return rest == "" || strings.ContainsRune("./[]\"'", rune(rest[0])) }
	switch n.kind {
	case mapNode:
		best := -1
		for i := range n.fields {
			key := n.fields[i].key
			if key != "" && strings.HasPrefix(path, key) && boundary(path[len(key):]) &&
				(best < 0 || len(key) > len(n.fields[best].key)) {
				best = i
			}
		}
		if best < 0 {
			return nil, ""
		}
		value := *n.fields[best].value
		value.line = n.fields[best].line
		return &value, path[len(n.fields[best].key):]
	case listNode:
		end := 0
		for end < len(path) && '0' <= path[end] && path[end] <= '9' {
			end++
		}
		i, err := strconv.Atoi(path[:end])
		if err != nil || i >= len(n.items) || !boundary(path[end:]) {
			return nil, ""
		}
		return n.items[i], path[end:]
	default:
		return nil, ""
	}
}
