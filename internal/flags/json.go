package flags

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"

	"github.com/holdfast-dev/holdfast/internal/document"
)

// ParseValue reads a JSON document. Integers that an int64 holds are integers,
// other numbers floats. Unlike a definition it may hold numbers of any size that a
// float64 has; of members with one key the last one counts.
func ParseValue(src []byte) (Value, error) {
	decoder := json.NewDecoder(bytes.NewReader(src))
	decoder.UseNumber()
	var parsed any
	if err := decoder.Decode(&parsed); err != nil {
		return Value{}, fmt.Errorf("read JSON: %w", err)
	}
	if _, err := decoder.Token(); !errors.Is(err, io.EOF) {
		return Value{}, fmt.Errorf("read JSON: data after the end of the document (byte %d)", decoder.InputOffset())
	}
	return valueOf(parsed)
}

// ParseAttributes reads a JSON object as attributes, sorted by key.
func ParseAttributes(src []byte) ([]Attribute, error) {
	v, err := ParseValue(src)
	if err != nil {
		return nil, err
	}
	members, ok := v.Members()
	if !ok {
		return nil, fmt.Errorf("read attributes: the document is of type %s, but must be an object", v.typ)
	}
	return members, nil
}

// valueOf returns what package json read with UseNumber. Members are sorted.
func valueOf(parsed any) (Value, error) {
	switch parsed := parsed.(type) {
	case nil:
		return Value{}, nil
	case bool:
		return Bool(parsed), nil
	case string:
		return String(parsed), nil
	case json.Number:
		return numberOf(string(parsed))
	case []any:
		elements := make([]Value, len(parsed))
		for i, e := range parsed {
			var err error
			if elements[i], err = valueOf(e); err != nil {
				return Value{}, err
			}
		}
		return List(elements...), nil
	case map[string]any:
		members := make([]Attribute, 0, len(parsed))
		for k, e := range parsed {
			v, err := valueOf(e)
			if err != nil {
				return Value{}, err
			}
			members = append(members, Attribute{Key: k, Value: v})
		}
		slices.SortFunc(members, func(a, b Attribute) int { return cmp.Compare(a.Key, b.Key) })
		return Object(members...), nil
	default:
		return Value{}, fmt.Errorf("%T is not a JSON value", parsed)
	}
}

func numberOf(text string) (Value, error) {
	if n, err := strconv.ParseInt(text, 10, 64); err == nil {
		return Int(n), nil
	}
	f, err := strconv.ParseFloat(text, 64)
	if err != nil {
		return Value{}, fmt.Errorf("number %.40s is out of range", text)
	}
	return Float(f), nil
}

// String returns the value as canonical JSON.
func (v Value) String() string { return string(v.AppendJSON(nil)) }

// MarshalJSON implements json.Marshaler.
func (v Value) MarshalJSON() ([]byte, error) { return v.AppendJSON(nil), nil }

// AppendJSON appends the value as canonical JSON. Of members with one key the
// last one is written.
func (v Value) AppendJSON(b []byte) []byte {
	switch v.typ {
	case NullType:
		return append(b, "null"...)
	case BoolType:
		return strconv.AppendBool(b, v.num != 0)
	case IntType:
		return strconv.AppendInt(b, int64(v.num), 10)
	case FloatType:
		return appendNumber(b, v.float())
	case StringType:
		return document.AppendString(b, strings.ToValidUTF8(v.str(), "\ufffd"))
	case ListType:
		b = append(b, '[')
		for i, e := range v.list() {
			if i > 0 {
				b = append(b, ',')
			}
			b = e.AppendJSON(b)
		}
		return append(b, ']')
	case ObjectType:
		return appendMembers(b, v.object())
	default:
		return append(b, "null"...)
	}
}

// appendBrief appends the value as JSON, or the beginning of it: results of rules
// can be much larger than what made them.
func (v Value) appendBrief(b []byte) []byte {
	const most = 200
	switch v.typ { //nolint:exhaustive // the others are short
	case StringType:
		if v.num > most {
			return append(document.AppendString(b, strings.ToValidUTF8(v.str()[:most], "\ufffd")), "…"...)
		}
	case ListType:
		b = append(b, '[')
		for i, e := range v.list() {
			if i > 0 {
				b = append(b, ',')
			}
			if len(b) > most {
				return append(b, "…"...)
			}
			b = e.appendBrief(b)
		}
		return append(b, ']')
	case ObjectType:
		b = append(b, '{')
		for i, m := range v.object() {
			if i > 0 {
				b = append(b, ',')
			}
			if len(b) > most {
				return append(b, "…"...)
			}
			b = append(String(m.Key).appendBrief(b), ':')
			b = m.Value.appendBrief(b)
		}
		return append(b, '}')
	}
	return v.AppendJSON(b)
}

func appendMembers(b []byte, members []Attribute) []byte {
	b = append(b, '{')
	for i, m := range sortedMembers(members) {
		if i > 0 {
			b = append(b, ',')
		}
		b = document.AppendString(b, strings.ToValidUTF8(m.Key, "\ufffd"))
		b = append(b, ':')
		b = m.Value.AppendJSON(b)
	}
	return append(b, '}')
}

// sortedMembers returns the members in the order of their keys, each key once.
func sortedMembers(members []Attribute) []Attribute {
	ordered := true
	for i := 1; i < len(members) && ordered; i++ {
		ordered = members[i-1].Key < members[i].Key
	}
	if ordered {
		return members
	}
	members = slices.Clone(members)
	slices.Reverse(members) // so that of equal keys the last one comes first
	slices.SortStableFunc(members, func(a, b Attribute) int { return cmp.Compare(a.Key, b.Key) })
	return slices.CompactFunc(members, func(a, b Attribute) bool { return a.Key == b.Key })
}
