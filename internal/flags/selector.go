package flags

import (
	"fmt"
	"slices"
	"strings"
)

// Selector chooses instances by their labels. The zero value chooses all. It is
// immutable.
type Selector struct {
	terms []term
}

// term is one condition. Equality is membership in a set of one.
type term struct {
	key      string
	values   []string // sorted, each once; nil asks only whether the label exists
	negative bool
}

// Matches tells whether an instance is chosen; get returns the value of a label,
// and whether there is one. It allocates nothing.
func (s Selector) Matches(get func(key string) (value string, ok bool)) bool {
	for i := range s.terms {
		t := &s.terms[i]
		value, ok := get(t.key)
		if t.values != nil && ok {
			_, ok = slices.BinarySearch(t.values, value)
		}
		if ok == t.negative {
			return false
		}
	}
	return true
}

// String returns the normal form: terms and values sorted, each once. Selectors
// with equal normal forms choose the same instances.
func (s Selector) String() string {
	texts := make([]string, len(s.terms))
	for i, t := range s.terms {
		texts[i] = t.String()
	}
	return strings.Join(texts, ",")
}

func (t term) String() string {
	switch {
	case t.values == nil && t.negative:
		return "!" + t.key
	case t.values == nil:
		return t.key
	case len(t.values) == 1 && t.negative:
		return t.key + "!=" + t.values[0]
	case len(t.values) == 1:
		return t.key + "=" + t.values[0]
	case t.negative:
		return t.key + " notin (" + strings.Join(t.values, ",") + ")"
	default:
		return t.key + " in (" + strings.Join(t.values, ",") + ")"
	}
}

// MaxSelector is the longest selector, in bytes.
const MaxSelector = 4096

// SelectorError tells why a text is not a selector.
type SelectorError struct {
	// Offset is the byte of the text at fault, from 0.
	Offset int
	// Msg says what is wrong.
	Msg string
}

// Error returns the message and the offset.
func (e *SelectorError) Error() string {
	return fmt.Sprintf("%s (byte %d)", e.Msg, e.Offset)
}

// ParseSelector reads a selector: conditions joined by commas, which all have to
// hold. White space between words means nothing.
//
//	service=checkout       the label has that value; also ==
//	zone!=eu-1             the label has another value, or does not exist
//	zone in (eu-1,eu-2)    the label has one of the values
//	zone notin (eu-1)      it has none of them, or does not exist
//	canary                 the label exists
//	!canary                it does not
//
// Keys and values consist of letters, digits and any of -_./:@+*~ and are never
// empty. The empty text chooses every instance. Errors are *SelectorError.
func ParseSelector(text string) (Selector, error) {
	if len(text) > MaxSelector {
		return Selector{}, &SelectorError{MaxSelector, fmt.Sprintf("%d bytes are too long; at most %d are allowed", len(text), MaxSelector)}
	}
	p := selectorParser{text: text}
	if p.next(); p.token == "" {
		return Selector{}, p.err
	}
	var s Selector
	for {
		t, err := p.term()
		if err != nil {
			return Selector{}, err
		}
		s.terms = append(s.terms, t)
		if p.token == "" && p.err == nil {
			return s.normal(), nil
		}
		if p.token != "," {
			return Selector{}, p.expected("',' or the end")
		}
		p.next()
	}
}

// normal sorts the terms and drops those that occur twice.
func (s Selector) normal() Selector {
	slices.SortFunc(s.terms, func(a, b term) int { return strings.Compare(a.String(), b.String()) })
	s.terms = slices.CompactFunc(s.terms, func(a, b term) bool { return a.String() == b.String() })
	return s
}
