package flags

import (
	"strings"
	"testing"

	"github.com/holdfast-dev/holdfast/internal/document"
)

func resource(kind document.Kind, name, spec string, revision uint64) *document.Resource {
	return &document.Resource{Key: document.Key{Kind: kind, Name: name}, Spec: []byte(spec), CreateRevision: revision, ModRevision: revision, Version: 1}
}

func degradedView(t *testing.T) *View {
	t.Helper()
	v := NewView(Instance{ID: "a"}).Update(document.Delta{To: 4, Puts: []*document.Resource{
		resource(document.Flag, "beta", `{"state":"ENABLED","variants":{"on":true,"off":false},"defaultVariant":"off"}`, 1),
		resource(document.Mode, "shop", `{"levels":[{"name":"slow","effects":[{"flag":"beta","variant":"on"},
			{"action":"cache","max_age":"10s","methods":["/s.S/*"],"vary":["b","a"]}]},
			{"name":"off","effects":[{"action":"cache","max_age":"1m","methods":["/s.S/Get"],"vary":["a","b"]},{"action":"cache","max_age":"2m","operations":["find"]}]}]}`, 2),
		resource(document.Override, "x", `{"mode":"shop","level":"off"}`, 3),
		resource(document.Override, "y", `{"breaker":"payments","hold":"open"}`, 4),
	}})
	if p := v.Problems(); len(p) > 0 {
		t.Fatalf("problems: %v", p)
	}
	return v
}

func TestLocalBeatsEverything(t *testing.T) {
	v := degradedView(t)
	l, err := ParseLocal([]byte(`{"flags":{"beta":false,"unknown":"x"},"modes":{"shop":"normal"},"breakers":{"payments":"closed"}}`))
	if err != nil {
		t.Fatal(err)
	}
	here := v.WithLocal(l)
	if d := here.Flag("beta").Evaluate(0); d.Variant == nil || d.Variant.Value != Bool(false) {
		t.Errorf("beta is %+v, false was said locally", d)
	}
	if e := here.Flag("unknown").Explain(0); e.Variant == nil || e.DecidedBy != byLocal {
		t.Errorf("unknown: %+v, want a value by %s", e, byLocal)
	}
	if l := here.Mode("shop"); l.Rank != 0 {
		t.Errorf("mode is at %+v, normal was said locally", l)
	}
	if h, ok := here.Hold("payments", "/p.P/Pay"); !ok || h.Open || h.Override != byLocal {
		t.Errorf("hold is %+v, closed was said locally", h)
	}
	// A change of the namespace does not undo it.
	here = here.Update(document.Delta{From: 4, To: 5, Puts: []*document.Resource{
		resource(document.Override, "z", `{"mode":"shop","level":"slow"}`, 5),
		resource(document.Flag, "beta", `{"state":"ENABLED","variants":{"on":true,"off":false},"defaultVariant":"on"}`, 5),
	}})
	if d := here.Flag("beta").Evaluate(0); here.Mode("shop").Rank != 0 || d.Variant.Value != Bool(false) {
		t.Errorf("after a change: mode %+v, beta %+v", here.Mode("shop"), d)
	}
	back := here.WithLocal(nil)
	if d := back.Flag("beta").Evaluate(0); back.Mode("shop").Name != "off" || d.Variant.Name != "on" || back.Flag("unknown") != nil {
		t.Errorf("taken back: mode %+v, beta %+v", back.Mode("shop"), d)
	}
}

func TestParseLocalRefuses(t *testing.T) {
	for text, want := range map[string]string{
		`{`:                             "read local overrides",
		`{"flag":{}}`:                   `unknown field "flag"`,
		`{"flags":{"a":null}}`:          "flags.a",
		`{"flags":{"a":[1]}}`:           "flags.a",
		`{"breakers":{"p":"ajar"}}`:     "breakers.p",
		`{"modes":{"a":"b"},"modes":1}`: "modes",
	} {
		if l, err := ParseLocal([]byte(text)); err == nil || l != nil || !strings.Contains(err.Error(), want) {
			t.Errorf("ParseLocal(%s) = %v, %v; an error with %q was expected", text, l, err, want)
		}
	}
}

func TestRecordingsAreThoseOfAllLevels(t *testing.T) {
	v := degradedView(t)
	got := v.RecordMethod(ClientSide, "/s.S/Get", true)
	if len(got) != 1 || strings.Join(got[0].Vary, ",") != "a,b" || got[0].MaxAge.String() != "1m0s" {
		t.Errorf("recordings of a read: %+v, want one that varies by a,b for 1m", got)
	}
	if got := v.RecordMethod(ClientSide, "/s.S/Put", false); len(got) != 0 {
		t.Errorf("recordings of a write that no level names: %+v", got)
	}
	if got := v.RecordMethod(ServerSide, "/s.S/Get", true); len(got) != 0 {
		t.Errorf("recordings on the side of the server: %+v", got)
	}
	if got := v.RecordOperation("find"); len(got) != 1 || got[0].Vary != nil {
		t.Errorf("recordings of an operation: %+v", got)
	}
}

// A level that is set locally beats that of another mode, however new.
func TestLocalLevelBeatsOtherModes(t *testing.T) {
	v := degradedView(t).Update(document.Delta{From: 4, To: 6, Puts: []*document.Resource{
		resource(document.Mode, "zoo", `{"levels":[{"name":"slow","effects":[{"flag":"beta","variant":"off"}]}]}`, 5),
		resource(document.Override, "z", `{"mode":"zoo","level":"slow"}`, 6),
	}})
	l, err := ParseLocal([]byte(`{"modes":{"shop":"slow"}}`))
	if err != nil {
		t.Fatal(err)
	}
	if d := v.WithLocal(l).Flag("beta").Evaluate(0); d.Variant.Name != "on" {
		t.Errorf("beta is %s", d.Variant.Name)
	}
}
