package facade

import (
	"cmp"
	"fmt"
	"strings"

	"github.com/holdfast-dev/holdfast/internal/document"
	"github.com/holdfast-dev/holdfast/internal/flags"
)

// selectorHeader is the header, and in lower case the metadata key, that selects
// flags.
const selectorHeader = "Flagd-Selector"

// The keys of a selector.
const (
	keySource = "source"
	keySet    = "flagSetId"
)

// selector says which flags are meant. It can be a key of maps.
type selector struct {
	namespace string
	named     bool // the namespace was named
	set       string
	bySet     bool // only the flags of the set, or those without one
}

// everything selects the default namespace.
func everything() selector { return selector{namespace: document.DefaultNamespace} }

// parseSelector reads "source=NAMESPACE", "flagSetId=SET", both with a comma
// between them, or a bare namespace. Nothing selects the default namespace.
func parseSelector(text string) (selector, error) {
	s := everything()
	if text = strings.TrimSpace(text); text == "" {
		return s, nil
	}
	if len(text) > maxSelectorBytes {
		return s, fmt.Errorf("selector has %d bytes; at most %d are allowed", len(text), maxSelectorBytes)
	}
	if !strings.Contains(text, "=") {
		err := s.pair(keySource + "=" + text)
		return s, err
	}
	for pair := range strings.SplitSeq(text, ",") {
		if err := s.pair(pair); err != nil {
			return everything(), fmt.Errorf("selector %q: %w", text, err)
		}
	}
	return s, nil
}

func (s *selector) pair(pair string) error {
	key, value, found := strings.Cut(pair, "=")
	key, value = strings.TrimSpace(key), strings.TrimSpace(value)
	switch {
	case !found:
		return fmt.Errorf("%q is not KEY=VALUE", pair)
	case key == keySource && s.named, key == keySet && s.bySet:
		return fmt.Errorf("the key %s is given twice", key)
	case key == keySource:
		s.namespace, s.named = cmp.Or(value, document.DefaultNamespace), true
		if err := document.CheckStored(s.namespace); err != nil {
			return fmt.Errorf("the namespace is none: %w", err)
		}
	case key == keySet:
		s.set, s.bySet = value, true
	default:
		return fmt.Errorf("unknown key %q; known are %s and %s", key, keySource, keySet)
	}
	return nil
}

// String returns a selector that means the same.
func (s selector) String() string {
	switch {
	case s.named && s.bySet:
		return keySource + "=" + s.namespace + "," + keySet + "=" + s.set
	case s.named && strings.Contains(s.namespace, ","):
		return s.namespace // it can only have been bare
	case s.named:
		return keySource + "=" + s.namespace
	case s.bySet:
		return keySet + "=" + s.set
	default:
		return ""
	}
}

// has tells whether a flag is selected; nil never is.
func (s selector) has(f *flags.Resolved) bool {
	return f != nil && (!s.bySet || f.Set() == s.set)
}

// metadata is what is said of all flags together, sorted by key.
func (s selector) metadata() []flags.Attribute {
	var m []flags.Attribute
	if s.bySet {
		m = append(m, flags.Attribute{Key: keySet, Value: flags.String(s.set)})
	}
	if s.named {
		m = append(m, flags.Attribute{Key: keySource, Value: flags.String(s.namespace)})
	}
	return m
}
