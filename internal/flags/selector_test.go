package flags

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

func labels(m map[string]string) func(string) (string, bool) {
	return func(key string) (string, bool) {
		value, ok := m[key]
		return value, ok
	}
}

func TestSelector(t *testing.T) {
	instance := labels(map[string]string{"service": "checkout", "zone": "eu-1", "canary": ""})
	for _, c := range []struct {
		text, normal string
		matches      bool
	}{
		{"", "", true},
		{" \t", "", true},
		{"service=checkout", "service=checkout", true},
		{" service == checkout ", "service=checkout", true},
		{"service=orders", "service=orders", false},
		{"cell=1", "cell=1", false},
		{"service!=checkout", "service!=checkout", false},
		{"service != orders", "service!=orders", true},
		{"cell!=1", "cell!=1", true},
		{"zone in (eu-2, eu-1,eu-2)", "zone in (eu-1,eu-2)", true},
		{"zone in(eu-3)", "zone=eu-3", false},
		{"zone notin (us-1,eu-1)", "zone notin (eu-1,us-1)", false},
		{"zone notin (us-1)", "zone!=us-1", true},
		{"cell notin (1,2)", "cell notin (1,2)", true},
		{"canary", "canary", true},
		{"!canary", "!canary", false},
		{"cell", "cell", false},
		{"! cell", "!cell", true},
		{"zone=eu-1,service=checkout,zone=eu-1", "service=checkout,zone=eu-1", true},
		{"zone=eu-1,service=orders", "service=orders,zone=eu-1", false},
		{"in in (in),notin=notin", "in=in,notin=notin", false},
		{"k8s.io/zone=a:b@c+d~*", "k8s.io/zone=a:b@c+d~*", false},
		{"größe=é", "größe=é", false},
	} {
		s, err := ParseSelector(c.text)
		if err != nil || s.String() != c.normal || s.Matches(instance) != c.matches {
			t.Errorf("%q is %q, matches: %v, %v; want %q, %v", c.text, s, s.Matches(instance), err, c.normal, c.matches)
		}
	}
	if !(Selector{}).Matches(instance) {
		t.Error("the zero value does not choose every instance")
	}
}

func TestSelectorRefuses(t *testing.T) {
	for text, want := range map[string]string{
		"service=":                         "it ends where a value is expected (byte 8)",
		"=checkout":                        `"=" where the key of a label is expected (byte 0)`,
		"a=b,":                             "it ends where the key of a label is expected (byte 4)",
		",a=b":                             `"," where the key of a label is expected (byte 0)`,
		"a=b c=d":                          `"c" where ',' or the end is expected (byte 4)`,
		"a b":                              `"b" where one of = != in notin , is expected (byte 2)`,
		"a IN (b)":                         `"IN" where one of = != in notin , is expected (byte 2)`,
		"zone in eu":                       `"eu" where '(' is expected (byte 8)`,
		"zone in ()":                       `")" where a value is expected (byte 9)`,
		"zone in (a b)":                    `"b" where ',' or ')' is expected (byte 11)`,
		"zone in (a,":                      "it ends where a value is expected (byte 11)",
		"zone in (a":                       "it ends where ',' or ')' is expected (byte 10)",
		"!":                                "it ends where the key of a label is expected (byte 1)",
		"!!a":                              `"!" where the key of a label is expected (byte 1)`,
		"!a=b":                             `"=" where ',' or the end is expected (byte 2)`,
		"a===b":                            `"=" where a value is expected (byte 3)`,
		`a="b"`:                            `'"' cannot be part of a key or value (byte 2)`,
		"a;b":                              "';' cannot be part of a key or value (byte 1)",
		"a\xff=b":                          "'\ufffd' cannot be part of a key or value (byte 1)",
		"(a)":                              `"(" where the key of a label is expected (byte 0)`,
		"a in (b),c in d":                  `"d" where '(' is expected (byte 14)`,
		strings.Repeat("a", MaxSelector+1): "4097 bytes are too long; at most 4096 are allowed (byte 4096)",
	} {
		if s, err := ParseSelector(text); err == nil || err.Error() != want || s.String() != "" {
			t.Errorf("%.30q: got %q, %v\nwant %s", text, s, err, want)
		}
	}
}

// TestSelectorAgainstTwin writes terms whose meaning is known, and compares.
func TestSelectorAgainstTwin(t *testing.T) {
	words := rapid.SampledFrom([]string{"a", "b", "in", "notin", "x-1"})
	rapid.Check(t, func(t *rapid.T) {
		instance := rapid.MapOf(words, words).Draw(t, "instance")
		want := true
		var terms []string
		for range rapid.IntRange(0, 4).Draw(t, "terms") {
			key := words.Draw(t, "key")
			values := rapid.SliceOfN(words, 1, 3).Draw(t, "values")
			value, ok := instance[key]
			negative := rapid.Bool().Draw(t, "negative")
			var text string
			switch rapid.SampledFrom([]string{"exists", "equals", "in"}).Draw(t, "form") {
			case "exists":
				text = map[bool]string{false: key, true: "!" + key}[negative]
			case "equals":
				ok = ok && value == values[0]
				text = key + map[bool]string{false: "=", true: "!="}[negative] + values[0]
			case "in":
				ok = ok && slices.Contains(values, value)
				text = key + map[bool]string{false: " in (", true: " notin ( "}[negative] + strings.Join(values, " ,") + ")"
			}
			want = want && ok != negative
			terms = append(terms, text)
		}
		s, err := ParseSelector(strings.Join(terms, " , "))
		if err != nil || s.Matches(labels(instance)) != want {
			t.Fatalf("%q of %v: %v, %v; want %v", terms, instance, s.Matches(labels(instance)), err, want)
		}
		again, err := ParseSelector(s.String())
		if err != nil || again.String() != s.String() || again.Matches(labels(instance)) != want {
			t.Fatalf("%q became %q, %v", s, again, err)
		}
	})
}

func TestSelectorMatchesWithoutAllocations(t *testing.T) {
	s, err := ParseSelector("service=checkout,zone in (eu-1,eu-2),!canary,cell!=3")
	if err != nil {
		t.Fatal(err)
	}
	get := labels(map[string]string{"service": "checkout", "zone": "eu-1"})
	if n := testing.AllocsPerRun(100, func() {
		if !s.Matches(get) {
			t.Error("does not match")
		}
	}); n != 0 {
		t.Errorf("%v allocations, want none", n)
	}
}

func FuzzParseSelector(f *testing.F) {
	for _, seed := range []string{"service=checkout,zone in (eu-1,eu-2)", "!a , b!=c", "a notin (b", "in in (in)", "a\xff", "é==ß"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		s, err := ParseSelector(text)
		if err != nil {
			var e *SelectorError
			if !errors.As(err, &e) || e.Offset < 0 || e.Offset > len(text) || e.Msg == "" || s.terms != nil {
				t.Fatalf("%q: %v and %#v", text, s, err)
			}
			return
		}
		again, err := ParseSelector(s.String())
		if err != nil || again.String() != s.String() {
			t.Fatalf("%q is %q and then %q, %v", text, s, again, err)
		}
	})
}

func BenchmarkSelectorMatches(b *testing.B) {
	s, err := ParseSelector("service=checkout,zone in (eu-1,eu-2)")
	if err != nil {
		b.Fatal(err)
	}
	get := labels(map[string]string{"service": "checkout", "zone": "eu-1"})
	b.ReportAllocs()
	for b.Loop() {
		s.Matches(get)
	}
}
