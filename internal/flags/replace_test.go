package flags

import (
	"slices"
	"testing"

	"github.com/holdfast-dev/holdfast/internal/document"
)

// A whole namespace has the content of that and nothing else.
func TestReplace(t *testing.T) {
	v := degradedView(t)
	whole := document.Delta{To: 9, Root: document.Root{9}, Puts: []*document.Resource{
		resource(document.Flag, "beta", `{"state":"ENABLED","variants":{"on":true,"off":false},"defaultVariant":"off"}`, 1),
		resource(document.Flag, "gamma", `{"state":"ENABLED","variants":{"on":true},"defaultVariant":"on"}`, 8),
		resource(document.Override, "y", `{"breaker":"payments","hold":"closed"}`, 9),
	}}
	got, want := v.Replace(whole), NewView(Instance{ID: "a"}).Update(whole)
	if got.Revision() != 9 || got.Root() != want.Root() || got.Len() != 2 || len(got.Levels()) != 0 || len(got.Problems()) != 0 || len(whole.Deletes) != 0 {
		t.Errorf("at %d: %d flags, levels %v, problems %v", got.Revision(), got.Len(), got.Levels(), got.Problems())
	}
	for _, key := range []string{"beta", "gamma"} {
		if a, b := got.Flag(key).Evaluate(0), want.Flag(key).Evaluate(0); a.Variant.Name != b.Variant.Name {
			t.Errorf("%s is %v, want %v", key, a, b)
		}
	}
	if h, ok := got.Hold("payments", ""); !ok || h.Open || !slices.Equal(got.Patched(), want.Patched()) {
		t.Errorf("hold %+v", h)
	}
	if empty := got.Replace(document.Delta{To: 10}); empty.Len() != 0 || empty.Flag("beta") != nil {
		t.Error("something is left of what is gone")
	}
}

// What a later version has defined is left as it was before, also where all of the
// namespace was told anew.
func TestReplaceKeepsTheLastGood(t *testing.T) {
	v := degradedView(t).Update(document.Delta{From: 4, To: 5, Puts: []*document.Resource{
		resource(document.Policy, "payments", `{"circuit_breaker":{"failure_threshold":77}}`, 5),
	}})
	got := v.Replace(document.Delta{To: 9, Puts: []*document.Resource{
		resource(document.Flag, "beta", `{"state":"ENABLED","variants":{"on":true,"off":false},"defaultVariant":"off","targeting":{"later":[]}}`, 6),
		resource(document.Mode, "shop", `{"levels":[{"name":"slow","effects":[{"action":"later"}]},{"name":"off","effects":[]}]}`, 7),
		resource(document.Policy, "payments", `{"circuit_breaker":{"later":1}}`, 8),
		resource(document.Override, "x", `{"mode":"shop","level":"off"}`, 3),
	}})
	if l := got.Mode("shop"); l.Name != "off" || len(got.Effects()) == 0 {
		t.Errorf("the mode is at %+v", l)
	}
	if d := got.Flag("beta").Evaluate(0); d.Variant == nil || d.Variant.Name != "on" {
		t.Errorf("the flag is %+v", d)
	}
	if p, _ := got.Policy("payments"); p.CircuitBreaker.FailureThreshold != 77 {
		t.Errorf("the policy is %+v", p.CircuitBreaker)
	}
	if p := got.Problems(); len(p) != 3 {
		t.Errorf("problems: %v", p)
	}
	got = got.Update(document.Delta{From: 9, To: 9, Puts: []*document.Resource{resource(document.Override, "later", `{"later":1}`, 9)}})
	if p := got.Problems(); len(p) != 4 {
		t.Errorf("problems: %v", p)
	}
	mended := got.Replace(document.Delta{To: 10, Puts: []*document.Resource{resource(document.Override, "x", `{"mode":"shop","level":"off"}`, 3)}})
	if p := mended.Problems(); len(p) != 1 || mended.Flag("beta") != nil {
		t.Errorf("problems: %v", p)
	}
}
