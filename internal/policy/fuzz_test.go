package policy

import (
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/holdfast-dev/holdfast/internal/document"
)

func cmpEmpty() cmp.Option { return cmpopts.EquateEmpty() }

// FuzzParse reads anything: what comes out is usable, and the same for the canonical
// form.
func FuzzParse(f *testing.F) {
	defaults, err := Default().Spec()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(defaults)
	f.Fuzz(func(t *testing.T, spec []byte) {
		policy, violations := Parse(spec)
		text, err := policy.Spec()
		if err != nil {
			t.Fatal(err)
		}
		again, wrongAgain := Parse(text)
		if written, err := again.Spec(); err != nil || wrongAgain != nil || string(written) != string(text) {
			t.Fatalf("means %s\nwhich means %s (%v, %v)", text, written, wrongAgain, err)
		}
		for _, v := range violations {
			if v.Message == "" {
				t.Fatalf("violation of %q without a message", v.Path)
			}
		}
		checked := wrong(spec, Check)
		if !slices.Equal(checked, texts(violations)) {
			t.Fatalf("Check: %q, Parse: %q", checked, violations)
		}
		patched := wrong(spec, CheckPatch)
		canonical, err := document.Canonical(spec)
		if err != nil {
			return
		}
		if again := wrong(canonical, Check); !slices.Equal(checked, again) {
			t.Fatalf("%q, but of the canonical form %q", checked, again)
		}
		if len(checked) == 0 && len(patched) > 0 {
			t.Fatalf("right as a policy, but as a patch %q", patched)
		}
		if got, err := Patch(nil, spec); err == nil && len(patched) == 0 {
			if again := wrong(got, CheckPatch); len(again) > 0 && string(got) != "{}" {
				t.Fatalf("right as a patch, but patched %s: %q", got, again)
			}
		}
	})
}
