package document

import (
	"bytes"
	"fmt"
	"slices"
	"unicode/utf8"
)

// MaxDepth is how deep arrays and objects may be nested.
const MaxDepth = 64

// SyntaxError tells why a text is not a JSON document that can be kept.
type SyntaxError struct {
	// Path leads to the value at fault, such as "targeting.if[0]"; empty for the
	// document itself.
	Path string
	// Offset is the byte of the source at fault, from 0.
	Offset int
	// Msg says what is wrong.
	Msg string
}

// Error returns the path, the message and the offset.
func (e *SyntaxError) Error() string {
	if e.Path == "" {
		return fmt.Sprintf("%s (byte %d)", e.Msg, e.Offset)
	}
	return fmt.Sprintf("%s: %s (byte %d)", e.Path, e.Msg, e.Offset)
}

// Canonical returns the one text that stands for a JSON document: no white
// space, the keys of each object sorted by their UTF-8 bytes, only the escapes
// that JSON demands, numbers as ECMAScript prints them. Equal documents have
// equal texts, and Canonical of a canonical text is that text.
//
// It refuses, with a *SyntaxError, what readers of different languages would
// understand differently: duplicate keys, invalid UTF-8, lone surrogates,
// nesting beyond MaxDepth, data after the document, and numbers that a float64
// does not hold: integers beyond ±MaxInteger however they are written (so also
// 1e300), and fractions too small to differ from 0.
//
// The result shares no memory with src. Time and memory are linear in src, but
// for the sorting of keys.
func Canonical(src []byte) ([]byte, error) {
	c := canonicalizer{src: src, out: make([]byte, 0, len(src))}
	if err := c.value(0); err != nil {
		return nil, err
	}
	if c.skipSpace(); c.pos < len(src) {
		return nil, c.fail(c.pos, "data after the end of the document")
	}
	return c.out, nil
}

// canonicalizer reads src once, from the left, and writes out as it goes.
type canonicalizer struct {
	src []byte
	pos int
	out []byte

	path    []step   // from the document to the value that is being read
	members []member // of the objects that are being read, innermost last
	scratch []byte   // the members of an object while they are put in order
}

// step is one step of a path: a key of an object, or, where key is nil, an index.
type step struct {
	key   []byte
	index int
}

// member is a member of an object.
type member struct {
	key      []byte // decoded
	offset   int    // of the key in src
	from, to int    // the canonical member in out, without commas
}

// value reads one value that is nested in depth arrays and objects.
func (c *canonicalizer) value(depth int) error {
	c.skipSpace()
	if c.pos == len(c.src) {
		return c.unexpected("a value")
	}
	switch b := c.src[c.pos]; {
	case b == '{' || b == '[':
		if depth == MaxDepth {
			return c.fail(c.pos, fmt.Sprintf("nested deeper than %d levels", MaxDepth))
		}
		if b == '{' {
			return c.object(depth + 1)
		}
		return c.array(depth + 1)
	case b == '"':
		_, err := c.text()
		return err
	case b == '-' || isDigit(b):
		return c.number()
	}
	for _, word := range [...]string{"true", "false", "null"} {
		if bytes.HasPrefix(c.src[c.pos:], []byte(word)) {
			c.pos += len(word)
			c.out = append(c.out, word...)
			return nil
		}
	}
	return c.unexpected("a value")
}

func (c *canonicalizer) array(depth int) error {
	c.pos++
	c.out = append(c.out, '[')
	if c.accept(']') {
		c.out = append(c.out, ']')
		return nil
	}
	for i := 0; ; i++ {
		c.path = append(c.path, step{index: i})
		if err := c.value(depth); err != nil {
			return err
		}
		c.path = c.path[:len(c.path)-1]
		switch {
		case c.accept(','):
			c.out = append(c.out, ',')
		case c.accept(']'):
			c.out = append(c.out, ']')
			return nil
		default:
			return c.unexpected("',' or ']'")
		}
	}
}

func (c *canonicalizer) object(depth int) error {
	c.pos++
	c.out = append(c.out, '{')
	body, first := len(c.out), len(c.members)
	if c.accept('}') {
		c.out = append(c.out, '}')
		return nil
	}
	for {
		if err := c.member(depth); err != nil {
			return err
		}
		switch {
		case c.accept(','):
			c.out = append(c.out, ',')
		case c.accept('}'):
			if err := c.order(body, c.members[first:]); err != nil {
				return err
			}
			c.members = c.members[:first]
			c.out = append(c.out, '}')
			return nil
		default:
			return c.unexpected("',' or '}'")
		}
	}
}

func (c *canonicalizer) member(depth int) error {
	c.skipSpace()
	if c.pos == len(c.src) || c.src[c.pos] != '"' {
		return c.unexpected("a key in quotes")
	}
	m := member{offset: c.pos, from: len(c.out)}
	var err error
	if m.key, err = c.text(); err != nil {
		return err
	}
	if !c.accept(':') {
		return c.unexpected("':'")
	}
	c.out = append(c.out, ':')
	c.path = append(c.path, step{key: m.key})
	if err := c.value(depth); err != nil {
		return err
	}
	c.path = c.path[:len(c.path)-1]
	m.to = len(c.out)
	c.members = append(c.members, m)
	return nil
}

// order puts the members of an object, which out holds from body on, into the
// order of their keys.
func (c *canonicalizer) order(body int, members []member) error {
	sorted := true
	for i := 1; i < len(members) && sorted; i++ {
		sorted = bytes.Compare(members[i-1].key, members[i].key) < 0
	}
	if sorted {
		return nil
	}
	// Stable, so that of two equal keys the second is the duplicate.
	slices.SortStableFunc(members, func(a, b member) int { return bytes.Compare(a.key, b.key) })
	for i := 1; i < len(members); i++ {
		if m := members[i]; bytes.Equal(members[i-1].key, m.key) {
			return c.fail(m.offset, fmt.Sprintf("duplicate key %q", m.key))
		}
	}
	c.scratch = append(c.scratch[:0], c.out[body:]...)
	c.out = c.out[:body]
	for i, m := range members {
		if i > 0 {
			c.out = append(c.out, ',')
		}
		c.out = append(c.out, c.scratch[m.from-body:m.to-body]...)
	}
	return nil
}

// accept skips white space and then b, if it is there.
func (c *canonicalizer) accept(b byte) bool {
	c.skipSpace()
	if c.pos == len(c.src) || c.src[c.pos] != b {
		return false
	}
	c.pos++
	return true
}

func (c *canonicalizer) skipSpace() {
	for c.pos < len(c.src) {
		switch c.src[c.pos] {
		case ' ', '\t', '\n', '\r':
			c.pos++
		default:
			return
		}
	}
}

// unexpected reports what stands at pos in place of what was wanted.
func (c *canonicalizer) unexpected(wanted string) error {
	if c.pos == len(c.src) {
		return c.fail(c.pos, "the document ends where "+wanted+" is expected")
	}
	r, _ := utf8.DecodeRune(c.src[c.pos:])
	return c.fail(c.pos, fmt.Sprintf("%q where %s is expected", r, wanted))
}

func (c *canonicalizer) fail(offset int, msg string) error {
	var path Path
	for _, s := range c.path {
		if s.key == nil {
			path = path.Index(s.index)
		} else {
			path = path.Key(string(s.key))
		}
	}
	return &SyntaxError{Path: string(path), Offset: offset, Msg: msg}
}

func isDigit(b byte) bool { return '0' <= b && b <= '9' }
