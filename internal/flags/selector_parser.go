package flags

import (
	"fmt"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
)

// selectorParser reads a selector token by token. A token is a word, one of the
// signs , ( ) = == != ! or, at the end and after an error, empty.
type selectorParser struct {
	text  string
	start int // of the token
	end   int // of the token
	token string
	word  bool  // the token is a word
	err   error // the text cannot be cut into tokens
}

// next moves to the next token.
func (p *selectorParser) next() {
	rest := strings.TrimLeftFunc(p.text[p.end:], unicode.IsSpace)
	p.start = len(p.text) - len(rest)
	n := len(rest) - len(strings.TrimLeftFunc(rest, isWord))
	p.word = n > 0
	switch {
	case p.word, rest == "":
	case strings.HasPrefix(rest, "=="), strings.HasPrefix(rest, "!="):
		n = 2
	case strings.ContainsRune(",()=!", rune(rest[0])):
		n = 1
	default:
		r, _ := utf8.DecodeRuneInString(rest)
		p.err = &SelectorError{p.start, fmt.Sprintf("%q cannot be part of a key or value", r)}
	}
	p.token, p.end = rest[:n], p.start+n
}

// isWord tells whether a character may be part of a key or value.
func isWord(r rune) bool {
	return r != utf8.RuneError && (unicode.IsLetter(r) || unicode.IsDigit(r) || unicode.IsMark(r) || strings.ContainsRune("-_./:@+*~", r))
}

func (p *selectorParser) expected(what string) error {
	switch {
	case p.err != nil:
		return p.err
	case p.token == "":
		return &SelectorError{p.start, "it ends where " + what + " is expected"}
	default:
		return &SelectorError{p.start, fmt.Sprintf("%q where %s is expected", p.token, what)}
	}
}

// take returns the word at hand and moves on.
func (p *selectorParser) take(what string) (string, error) {
	if !p.word {
		return "", p.expected(what)
	}
	word := p.token
	p.next()
	return word, nil
}

func (p *selectorParser) term() (term, error) {
	var t term
	var err error
	if p.token == "!" {
		p.next()
		t.negative = true
		t.key, err = p.take("the key of a label")
		return t, err
	}
	if t.key, err = p.take("the key of a label"); err != nil {
		return t, err
	}
	switch sign := p.token; {
	case sign == "=" || sign == "==" || sign == "!=":
		p.next()
		t.negative = sign == "!="
		value, err := p.take("a value")
		t.values = []string{value}
		return t, err
	case sign == "in" || sign == "notin":
		p.next()
		t.negative = sign == "notin"
		t.values, err = p.set()
		return t, err
	case sign == "," || sign == "" && p.err == nil:
		return t, nil
	default:
		return t, p.expected("one of = != in notin ,")
	}
}

// set reads values in parentheses.
func (p *selectorParser) set() ([]string, error) {
	if p.token != "(" {
		return nil, p.expected("'('")
	}
	p.next()
	var values []string
	for {
		value, err := p.take("a value")
		if err != nil {
			return nil, err
		}
		values = append(values, value)
		switch p.token {
		case ",":
			p.next()
		case ")":
			p.next()
			slices.Sort(values)
			return slices.Compact(values), nil
		default:
			return nil, p.expected("',' or ')'")
		}
	}
}
