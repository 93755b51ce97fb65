package cli

import (
	"slices"
	"strings"

	"github.com/holdfast-dev/holdfast/internal/flags"
)

// member returns the labels of an instance that a selector chooses; false if there
// can be none.
func member(selector string) (labels map[string]string, ok bool) {
	labels = map[string]string{}
	parsed, err := flags.ParseSelector(selector)
	if err != nil {
		return labels, false
	}
	allowed, refused, present := map[string][]string{}, map[string][]string{}, map[string]bool{}
	for _, t := range terms(parsed.String()) {
		key, values, negative := t.read()
		switch {
		case negative:
			refused[key] = append(refused[key], values...)
		case values == nil:
			present[key] = true
		case allowed[key] == nil:
			allowed[key] = values
		default:
			allowed[key] = slices.DeleteFunc(slices.Clone(allowed[key]), func(v string) bool { return !slices.Contains(values, v) })
		}
	}
	for key := range present {
		if allowed[key] == nil {
			// Of a label that only has to be there; not all of them are refused.
			for i := range len(refused[key]) + 1 {
				allowed[key] = append(allowed[key], "any"+strings.Repeat("-other", i))
			}
		}
	}
	for key, values := range allowed {
		for _, v := range values {
			if !slices.Contains(refused[key], v) {
				labels[key] = v
				break
			}
		}
	}
	return labels, parsed.Matches(func(key string) (string, bool) {
		v, ok := labels[key]
		return v, ok
	})
}

// selectorTerm is one condition of a selector in its normal form.
type selectorTerm string

// terms cuts a selector in its normal form at the commas that are not within
// parentheses.
func terms(selector string) []selectorTerm {
	var out []selectorTerm
	depth, start := 0, 0
	for i := range len(selector) {
		switch selector[i] {
		case '(':
			depth++
		case ')':
			depth--
		case ',':
			if depth == 0 {
				out = append(out, selectorTerm(selector[start:i]))
				start = i + 1
			}
		}
	}
	if start < len(selector) {
		out = append(out, selectorTerm(selector[start:]))
	}
	return out
}

// read returns the key, the values, nil where only the label is asked for, and
// whether the term says that the label is none of them.
func (t selectorTerm) read() (key string, values []string, negative bool) {
	s := string(t)
	if key, ok := strings.CutPrefix(s, "!"); ok {
		return key, nil, true
	}
	if key, list, ok := strings.Cut(s, " "); ok {
		word, inside, _ := strings.Cut(strings.TrimSuffix(list, ")"), " (")
		return key, strings.Split(inside, ","), word == "notin"
	}
	if key, value, ok := strings.Cut(s, "!="); ok {
		return key, []string{value}, true
	}
	if key, value, ok := strings.Cut(s, "="); ok {
		return key, []string{value}, false
	}
	return s, nil, false
}
