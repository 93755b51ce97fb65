package cli

import (
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/holdfast-dev/holdfast/internal/flags"
)

// TestMember draws instances and selectors, half of which are made to choose the
// instance: there is a member then. Whatever member returns, the selector chooses
// it.
func TestMember(t *testing.T) {
	keys, values := []string{"zone", "tier", "canary"}, []string{"a", "b", "any", "any-other"}
	rapid.Check(t, func(t *rapid.T) {
		instance := rapid.MapOf(rapid.SampledFrom(keys), rapid.SampledFrom(values)).Draw(t, "labels")
		get := func(key string) (string, bool) { v, ok := instance[key]; return v, ok }
		var terms []string
		fits := rapid.Bool().Draw(t, "fits")
		for range rapid.IntRange(0, 5).Draw(t, "terms") {
			key, value := rapid.SampledFrom(keys).Draw(t, "key"), rapid.SampledFrom(values).Draw(t, "value")
			list := strings.Join(rapid.SliceOfN(rapid.SampledFrom(values), 1, 3).Draw(t, "values"), ",")
			term := rapid.SampledFrom([]string{
				key, "!" + key, key + "=" + value, key + "!=" + value, key + " in (" + list + ")", key + " notin (" + list + ")",
			}).Draw(t, "term")
			if s, err := flags.ParseSelector(term); !fits || err == nil && s.Matches(get) {
				terms = append(terms, term)
			}
		}
		text := strings.Join(terms, ",")
		selector, err := flags.ParseSelector(text)
		if err != nil {
			t.Fatal(err)
		}
		labels, ok := member(text)
		if !ok && selector.Matches(get) {
			t.Fatalf("%q chooses %v, but member found nobody", text, instance)
		}
		if ok && !selector.Matches(func(key string) (string, bool) { v, ok := labels[key]; return v, ok }) {
			t.Fatalf("%q does not choose %v", text, labels)
		}
	})
}
