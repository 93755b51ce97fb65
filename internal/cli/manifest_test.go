package cli

import (
	"encoding/json"
	"regexp"
	"strings"
	"testing"
)

// TestBytesThatAreNoTextAreShown has a definition that is JSON, but not UTF-8.
func TestBytesThatAreNoTextAreShown(t *testing.T) {
	for _, spec := range []string{"{\"a\":\"x\xff\"}", "x\xff"} {
		text, err := jsonToYAML(append(append([]byte(`{"spec":`), rawSpec([]byte(spec))...), '}'))
		if err != nil || !strings.Contains(string(text), "x\uFFFD") {
			t.Errorf("%q is shown as %q, %v", spec, text, err)
		}
	}
}

// FuzzManifest feeds arbitrary text to the reader of documents: it must end, not
// panic, name a line that the file has, and hand on canonical JSON only.
func FuzzManifest(f *testing.F) {
	for _, seed := range []string{
		"kind: Flag\nname: a\nspec: {state: ENABLED, variants: {on: true, off: false}, defaultVariant: off}\n",
		`{"kind":"Policy","name":"p","spec":{"enforcement":"observe"}}`,
		"kind: List\nitems: [{kind: Mode, name: m, spec: {levels: [{name: x}]}}]\n---\nkind: Override\n",
		"a: &a [*a]\n", "<<: &x {<<: *x}\n", "--- |\n...\n%YAML 1.2\n---\n- ? {}\n", `{"a":"\ud800","a":1e999}`, "\t", "&a a: *a",
		`{"$evaluators":{"e":{"!":{"$ref":"f"}},"f":{"$ref":"e"}},"metadata":{"flagSetId":"x"},"flags":{"a":{"state":"ENABLED","variants":{"on":true},"targeting":{"$ref":"e"}}}}`,
		"kind: Mode\nname: m\nspec: {levels: [{name: x, effects: [{flag: a, variant: b}, {policy: p, patch: {enforcement: observe}}]}]}\n---\nkind: Override\nname: o\nspec: {mode: m, level: y}\n",
	} {
		f.Add(stdinName, []byte(seed))
	}
	f.Fuzz(func(t *testing.T, name string, src []byte) {
		r := manifestReader{namespace: "default"}
		r.parse(name, src)
		// YAML has more line breaks than one.
		lines := 1 + len(regexp.MustCompile("\n|\r|\u0085|\u2028|\u2029").FindAll(src, -1))
		for _, p := range r.problems {
			if p.line < 1 || p.line > lines {
				t.Errorf("line %d of %d: %s", p.line, lines, p.text)
			}
		}
		for _, m := range r.manifests {
			if !json.Valid(m.spec) || m.key.Validate() != nil {
				t.Errorf("accepted %s with %s", m, m.spec)
			}
		}
		_, _ = readFlagd(name, src, "default", nil)
		l := manifestReader{namespace: "default", lenient: true}
		l.parse(name, src)
		crossCheck(&l)
		for _, p := range l.problems {
			if p.line < 1 || p.line > lines {
				t.Errorf("line %d of %d: %s", p.line, lines, p.text)
			}
		}
	})
}
