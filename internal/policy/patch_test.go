package policy

import (
	"encoding/json"
	"maps"
	"reflect"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/holdfast-dev/holdfast/internal/document"
)

func mustPatch(t rapid.TB, spec, patch []byte) []byte {
	t.Helper()
	got, err := Patch(spec, patch)
	if err != nil {
		t.Fatalf("%s patched by %s: %v", spec, patch, err)
	}
	return got
}

func canonical(t rapid.TB, value any) []byte {
	t.Helper()
	text, err := json.Marshal(value)
	if err != nil {
		t.Fatal(err)
	}
	if text, err = document.Canonical(text); err != nil {
		t.Fatal(err)
	}
	return text
}

func TestPatch(t *testing.T) {
	for _, c := range []struct{ spec, patch, want string }{
		// The examples of RFC 7396, appendix A, that patch objects with objects.
		{`{"a":"b"}`, `{"a":"c"}`, `{"a":"c"}`},
		{`{"a":"b"}`, `{"b":"c"}`, `{"a":"b","b":"c"}`},
		{`{"a":"b"}`, `{"a":null}`, `{}`},
		{`{"a":"b","b":"c"}`, `{"a":null}`, `{"b":"c"}`},
		{`{"a":["b"]}`, `{"a":"c"}`, `{"a":"c"}`},
		{`{"a":"c"}`, `{"a":["b"]}`, `{"a":["b"]}`},
		{`{"a":{"b":"c"}}`, `{"a":{"b":"d","c":null}}`, `{"a":{"b":"d"}}`},
		{`{"a":[{"b":"c"}]}`, `{"a":[1]}`, `{"a":[1]}`},
		{`{"e":null}`, `{"a":1}`, `{"a":1,"e":null}`},
		{`{}`, `{"a":{"bb":{"ccc":null}}}`, `{"a":{"bb":{}}}`},

		{``, `{"retry_policy":{"max_attempts":1,"jitter":null}}`, `{"retry_policy":{"max_attempts":1}}`},
		{`{}`, `{}`, `{}`},
		{`{"fleet":"off"}`, `{"fleet":{"quorum":5,"mode":null}}`, `{"fleet":{"quorum":5}}`},
		{`{"fleet":{"quorum":5}}`, `{"fleet":"off"}`, `{"fleet":"off"}`},
		{`{"n":1.50,"z":[null]}`, `{"m":1e3,"t":"é<>&\u2028"}`, "{\"m\":1000,\"n\":1.5,\"t\":\"é<>&\u2028\",\"z\":[null]}"},
	} {
		if got := string(mustPatch(t, []byte(c.spec), []byte(c.patch))); got != c.want {
			t.Errorf("%s patched by %s\ngot  %s\nwant %s", c.spec, c.patch, got, c.want)
		}
	}
	for _, c := range []struct{ spec, patch, want string }{
		{`[]`, `{}`, "read the policy: it must be a JSON object"},
		{`{}`, `null`, "read the patch: it must be a JSON object"},
		{`{}`, ``, "read the patch: the document ends where a value is expected (byte 0)"},
		{`{"a":1,"a":2}`, `{}`, `read the policy: duplicate key "a" (byte 7)`},
		{`{}`, `{"a":9007199254740993}`, "read the patch: a: number 9007199254740993 is beyond ±9007199254740991 (byte 5)"},
	} {
		if got, err := Patch([]byte(c.spec), []byte(c.patch)); err == nil || err.Error() != c.want {
			t.Errorf("%s patched by %s gives %s, %v", c.spec, c.patch, got, err)
		}
	}
}

// TestPatchLaws holds Patch to the laws of merge patches, over definitions and
// patches that Check and CheckPatch accept.
func TestPatchLaws(t *testing.T) {
	p := Default()
	keys := p.settings()
	rapid.Check(t, func(t *rapid.T) {
		spec := canonical(t, draw(t, keys, false))
		change := draw(t, keys, true)
		change["description"] = "patched" // so that there is something
		patch := canonical(t, change)
		if got := wrong(patch, CheckPatch); got != nil {
			t.Fatalf("%s: %v", patch, got)
		}
		patched := mustPatch(t, spec, patch)
		if got := wrong(patched, CheckPatch); got != nil {
			t.Fatalf("%s patched by %s is %s: %v", spec, patch, patched, got)
		}
		if again := mustPatch(t, patched, patch); string(again) != string(patched) {
			t.Fatalf("patched by %s: %s, twice %s", patch, patched, again)
		}
		if got := mustPatch(t, spec, []byte("{}")); string(got) != string(spec) {
			t.Fatalf("%s patched by {} is %s", spec, got)
		}
		if got := mustPatch(t, nil, patch); string(got) != string(mustPatch(t, []byte("{}"), patch)) {
			t.Fatalf("%s of nothing is %s", patch, got)
		}
		other := canonical(t, draw(t, keys, false))
		if got := mustPatch(t, spec, difference(t, spec, other)); string(got) != string(other) {
			t.Fatalf("%s, by its difference to %s, is %s", spec, other, got)
		}
	})
}

// TestPatchOfAPatch patches one part after the other, in either order, and both at
// once.
func TestPatchOfAPatch(t *testing.T) {
	p := Default()
	keys := p.settings()
	rapid.Check(t, func(t *rapid.T) {
		spec := canonical(t, draw(t, keys, false))
		cut := rapid.IntRange(0, len(keys)).Draw(t, "cut")
		one, two := draw(t, keys[:cut], true), draw(t, keys[cut:], true)
		first, second := canonical(t, one), canonical(t, two)
		maps.Copy(one, two)
		got := mustPatch(t, mustPatch(t, spec, first), second)
		if other := mustPatch(t, mustPatch(t, spec, second), first); string(got) != string(other) {
			t.Fatalf("%s then %s: %s, the other way round %s", first, second, got, other)
		}
		if once := mustPatch(t, spec, canonical(t, one)); string(got) != string(once) {
			t.Fatalf("%s then %s: %s, at once %s", first, second, got, once)
		}
	})
}

// difference returns the patch that makes one definition the other; neither holds
// null outside of arrays.
func difference(t rapid.TB, from, to []byte) []byte {
	t.Helper()
	var a, b map[string]any
	for text, into := range map[*[]byte]*map[string]any{&from: &a, &to: &b} {
		if err := json.Unmarshal(*text, into); err != nil {
			t.Fatal(err)
		}
	}
	return canonical(t, differ(a, b))
}

func differ(a, b map[string]any) map[string]any {
	patch := map[string]any{}
	for name := range a {
		if _, ok := b[name]; !ok {
			patch[name] = nil
		}
	}
	for name, to := range b {
		from, fromObject := a[name].(map[string]any)
		child, toObject := to.(map[string]any)
		switch {
		case fromObject && toObject:
			patch[name] = differ(from, child)
		case !reflect.DeepEqual(a[name], to):
			patch[name] = to
		}
	}
	return patch
}

// TestRoundTrip reads definitions, writes what holds, and reads that again.
func TestRoundTrip(t *testing.T) {
	p := Default()
	keys := p.settings()
	rapid.Check(t, func(t *rapid.T) {
		spec := canonical(t, draw(t, keys, false))
		policy, _ := Parse(spec)
		roundTrip(t, spec, policy)
	})
}

// roundTrip checks that the settings read from a definition are consistent: as a
// definition they have nothing wrong with them and mean the same.
func roundTrip(t rapid.TB, spec []byte, policy Policy) {
	t.Helper()
	text, err := policy.Spec()
	if err != nil {
		t.Fatalf("%s: %v", spec, err)
	}
	again, violations := Parse(text)
	if violations != nil {
		t.Fatalf("%s\nmeans %s\nwrong with which is %v", spec, text, violations)
	}
	if diff := cmp.Diff(policy, again, cmpEmpty()); diff != "" {
		t.Fatalf("%s\nmeans %s\n%s", spec, text, diff)
	}
}
