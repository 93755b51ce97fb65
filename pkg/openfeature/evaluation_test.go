package openfeature_test

import (
	"context"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	of "github.com/open-feature/go-sdk/openfeature"
	"github.com/open-feature/go-sdk/openfeature/isolated"
	"github.com/open-feature/go-sdk/openfeature/telemetry"

	"github.com/holdfast-dev/holdfast/pkg/client"
	"github.com/holdfast-dev/holdfast/pkg/client/clienttest"
	"github.com/holdfast-dev/holdfast/pkg/openfeature"
)

// define puts the flags that the tests of the evaluation use: of each type one
// without rules, one whose value is the zero value, and one with a rule.
func define(plane *clienttest.Plane) {
	rule := `{"if":[{"==":[{"var":"email"},"boss@shop.example"]},"zero",null]}`
	for kind, values := range map[string][2]string{
		"boolean": {`false`, `true`}, "string": {`""`, `"text"`}, "integer": {`0`, `42`}, "float": {`0.0`, `0.25`},
		"object": {`{}`, `{"images":true,"title":"A title","perPage":100,"nested":{"list":[1,"a",null]}}`},
	} {
		variants := fmt.Sprintf(`"variants":{"zero":%s,"other":%s}`, values[0], values[1])
		plane.Define("flag", kind+"-flag", `{"state":"ENABLED",`+variants+`,"defaultVariant":"other"}`)
		plane.Define("flag", kind+"-zero", `{"state":"ENABLED",`+variants+`,"defaultVariant":"zero"}`)
		plane.Define("flag", kind+"-ruled", `{"state":"ENABLED",`+variants+`,"defaultVariant":"other","targeting":`+rule+`}`)
		plane.Define("flag", kind+"-off", `{"state":"DISABLED",`+variants+`,"defaultVariant":"other"}`)
		plane.Define("flag", kind+"-open", `{"state":"ENABLED",`+variants+`,"defaultVariant":null}`)
		plane.Define("flag", kind+"-wrong", `{"state":"ENABLED",`+variants+`,"defaultVariant":"other","targeting":{"cat":["miss","ing"]}}`)
	}
	plane.Define("flag", "described", `{"state":"ENABLED","variants":{"on":true},"defaultVariant":"on",
		"metadata":{"text":"1.0.2","whole":2,"part":0.5,"bool":true,"flagSetId":"checkout"}}`)
	plane.Define("flag", "versioned", `{"state":"ENABLED","variants":{"on":true},"defaultVariant":"on","metadata":{"version":"own"}}`)
	plane.Define("flag", "many", `{"state":"ENABLED","variants":{"in":"INSIDE","out":"OUTSIDE"},"defaultVariant":"out","targeting":
		{"if":[{"and":[{"==":[{"var":"fn"},"Zoë"]},{"==":[{"var":"role"},"admin"]},{">":[{"var":"age"},64]},{"!":[{"var":"customer"}]}]},"in",null]}}`)
	plane.Define("flag", "shared", `{"state":"ENABLED","variants":{"a":"A","b":"B"},"defaultVariant":"a","targeting":{"fractional":[["a",50],["b",50]]}}`)
}

// connected returns an OpenFeature client over the real provider, and what it is fed
// by.
func connected(t *testing.T) (*of.Client, *clienttest.Plane) {
	t.Helper()
	plane := clienttest.New(t)
	define(plane)
	api := isolated.NewAPI()
	if err := api.SetProviderAndWait(t.Context(), openfeature.NewProvider(plane.Client())); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = api.Shutdown(context.Background()) })
	return api.NewClient(), plane
}

// result is what an evaluation of any type says.
type result struct {
	Value   any
	Variant string
	Reason  of.Reason
	Code    of.ErrorCode
}

// ask evaluates a flag as a type of the specification, with a default of that type.
func ask(t *testing.T, c *of.Client, kind, flag string, otherwise any, about of.EvaluationContext) result {
	t.Helper()
	take := func(value any, d of.EvaluationDetails, err error) result {
		if (err != nil) != (d.ErrorCode != "") {
			t.Errorf("%s as %s: error %v, but code %q", flag, kind, err, d.ErrorCode)
		}
		if d.FlagKey != flag {
			t.Errorf("%s: flag key is %q", flag, d.FlagKey)
		}
		return result{value, d.Variant, d.Reason, d.ErrorCode}
	}
	switch kind {
	case "boolean":
		d, err := c.BooleanValueDetails(t.Context(), flag, otherwise.(bool), about)
		return take(d.Value, d.EvaluationDetails, err)
	case "string":
		d, err := c.StringValueDetails(t.Context(), flag, otherwise.(string), about)
		return take(d.Value, d.EvaluationDetails, err)
	case "integer":
		d, err := c.IntValueDetails(t.Context(), flag, otherwise.(int64), about)
		return take(d.Value, d.EvaluationDetails, err)
	case "float":
		d, err := c.FloatValueDetails(t.Context(), flag, otherwise.(float64), about)
		return take(d.Value, d.EvaluationDetails, err)
	default:
		d, err := c.ObjectValueDetails(t.Context(), flag, otherwise, about)
		return take(d.Value, d.EvaluationDetails, err)
	}
}

// types are those of the specification with values as the flags have them, and a
// default that no flag has.
func types() map[string]struct{ zero, other, otherwise any } {
	return map[string]struct{ zero, other, otherwise any }{
		"boolean": {false, true, true}, "string": {"", "text", "code"}, "integer": {int64(0), int64(42), int64(7)}, "float": {0.0, 0.25, 0.5},
		"object": {
			map[string]any{},
			map[string]any{"images": true, "title": "A title", "perPage": 100.0, "nested": map[string]any{"list": []any{1.0, "a", nil}}},
			map[string]any{"a": 1},
		},
	}
}

// TestEveryTypeIsResolved goes through what the specification's scenarios of
// evaluation ask for, for each type: values, zero values, rules that match and that
// do not, contexts that are empty or null, disabled flags and those without a default,
// missing flags, and rules that fail.
func TestEveryTypeIsResolved(t *testing.T) {
	c, _ := connected(t)
	nobody := of.NewTargetlessEvaluationContext(nil)
	boss := of.NewTargetlessEvaluationContext(map[string]any{"email": "boss@shop.example"})
	other := of.NewTargetlessEvaluationContext(map[string]any{"email": "other@shop.example"})
	null := of.NewTargetlessEvaluationContext(map[string]any{"email": nil})
	for kind, v := range types() {
		for _, test := range []struct {
			flag  string
			about of.EvaluationContext
			want  result
		}{
			{"flag", nobody, result{v.other, "other", of.StaticReason, ""}},
			{"zero", nobody, result{v.zero, "zero", of.StaticReason, ""}},
			{"ruled", boss, result{v.zero, "zero", of.TargetingMatchReason, ""}},
			{"ruled", other, result{v.other, "other", of.DefaultReason, ""}},
			{"ruled", nobody, result{v.other, "other", of.DefaultReason, ""}},
			{"ruled", null, result{v.other, "other", of.DefaultReason, ""}},
			{"off", nobody, result{v.otherwise, "", of.DisabledReason, ""}},
			{"open", nobody, result{v.otherwise, "", of.DefaultReason, ""}},
			{"missing", nobody, result{v.otherwise, "", of.ErrorReason, of.FlagNotFoundCode}},
			{"wrong", nobody, result{v.otherwise, "", of.ErrorReason, of.GeneralCode}},
		} {
			flag := kind + "-" + test.flag
			if diff := cmp.Diff(test.want, ask(t, c, kind, flag, v.otherwise, test.about)); diff != "" {
				t.Errorf("%s: %s", flag, diff)
			}
		}
	}
}

// TestTypesThatDoNotFit asks for every flag as every other type.
func TestTypesThatDoNotFit(t *testing.T) {
	c, _ := connected(t)
	fits := map[string][]string{"integer": {"integer", "float"}, "float": {"float"}}
	for kind := range types() {
		for as, v := range types() {
			if kind == as || slices.Contains(fits[kind], as) {
				continue
			}
			want := result{v.otherwise, "", of.ErrorReason, of.TypeMismatchCode}
			if diff := cmp.Diff(want, ask(t, c, as, kind+"-flag", v.otherwise, of.EvaluationContext{})); diff != "" {
				t.Errorf("%s as %s: %s", kind, as, diff)
			}
		}
	}
	if got := ask(t, c, "float", "integer-flag", 0.5, of.EvaluationContext{}); got.Value != 42.0 || got.Code != "" {
		t.Errorf("an integer is a number: %+v", got)
	}
	if got := ask(t, c, "integer", "float-zero", int64(7), of.EvaluationContext{}); got.Value != int64(0) || got.Code != "" {
		t.Errorf("a number without a fraction is an integer: %+v", got)
	}
}

// TestErrorsSayWhatIsWrong looks at the messages.
func TestErrorsSayWhatIsWrong(t *testing.T) {
	c, _ := connected(t)
	for flag, want := range map[string]string{
		"nowhere":       "flag nowhere not found",
		"string-flag":   "flag string-flag is of type string, not boolean",
		"boolean-wrong": `"missing", which is not among the variants`,
	} {
		d, err := c.BooleanValueDetails(t.Context(), flag, false, of.NewEvaluationContext("u", nil))
		if err == nil || !strings.Contains(d.ErrorMessage, want) {
			t.Errorf("%s: %q, want %q", flag, d.ErrorMessage, want)
		}
	}
}

// TestContexts has several attributes of different types, and a targeting key.
func TestContexts(t *testing.T) {
	c, plane := connected(t)
	given := map[string]any{"fn": "Zoë", "role": "admin", "age": 65, "customer": false}
	before := maps.Clone(given)
	about := of.NewEvaluationContext("user-1", given)
	if got := ask(t, c, "string", "many", "", about); got != (result{"INSIDE", "in", of.TargetingMatchReason, ""}) {
		t.Errorf("%+v", got)
	}
	if !reflect.DeepEqual(given, before) {
		t.Errorf("the context became %v", given)
	}
	if got := ask(t, c, "string", "many", "", of.EvaluationContext{}); got.Value != "OUTSIDE" {
		t.Errorf("%+v", got)
	}
	seen := map[any]int{}
	for i := range 100 {
		user := fmt.Sprint("user-", i)
		got := ask(t, c, "string", "shared", "", of.NewEvaluationContext(user, nil))
		if want := plane.Client().String("shared", "").Get(client.Targeting(user)); got.Value != want {
			t.Errorf("%s: %v, but the SDK itself says %v", user, got.Value, want)
		}
		seen[got.Value]++
	}
	if seen["A"] < 20 || seen["B"] < 20 {
		t.Errorf("shares by targeting key: %v", seen)
	}
}

// TestMetadata has the definition's own, what forces a flag, and the revision.
func TestMetadata(t *testing.T) {
	c, plane := connected(t)
	d, err := c.BooleanValueDetails(t.Context(), "described", false, of.EvaluationContext{})
	if err != nil {
		t.Fatal(err)
	}
	revision, err := d.FlagMetadata.GetInt(openfeature.RevisionKey)
	if err != nil || revision <= 0 {
		t.Error(revision, err)
	}
	want := of.FlagMetadata{
		"text": "1.0.2", "whole": int64(2), "part": 0.5, "bool": true, "flagSetId": "checkout",
		openfeature.RevisionKey: revision, openfeature.VersionKey: fmt.Sprint(revision),
	}
	if diff := cmp.Diff(want, d.FlagMetadata); diff != "" {
		t.Error(diff)
	}
	if d, _ = c.BooleanValueDetails(t.Context(), "versioned", false, of.EvaluationContext{}); d.FlagMetadata[openfeature.VersionKey] != "own" {
		t.Error(d.FlagMetadata)
	}
	if d, _ = c.BooleanValueDetails(t.Context(), "missing", false, of.EvaluationContext{}); len(d.FlagMetadata) > 0 {
		t.Error(d.FlagMetadata)
	}
	plane.Define("override", "incident-7", `{"flag":"boolean-flag","variant":"zero"}`)
	d, _ = c.BooleanValueDetails(t.Context(), "boolean-flag", true, of.EvaluationContext{})
	if now, _ := d.FlagMetadata.GetInt(openfeature.RevisionKey); d.Value || d.FlagMetadata["holdfast.forcedBy"] != "override/incident-7" || now <= revision {
		t.Error(d.Value, d.FlagMetadata)
	}
}

// TestMetadataBelongsToTheCaller changes what an evaluation returned.
func TestMetadataBelongsToTheCaller(t *testing.T) {
	plane := clienttest.New(t)
	define(plane)
	p := openfeature.NewProvider(plane.Client())
	first := p.ObjectEvaluation(t.Context(), "object-flag", nil, nil)
	clear(first.FlagMetadata)
	clear(first.Value.(map[string]any))
	if again := p.ObjectEvaluation(t.Context(), "object-flag", nil, nil); len(again.FlagMetadata) == 0 || len(again.Value.(map[string]any)) != 4 {
		t.Errorf("%+v", again)
	}
}

// hook notes that it ran, and makes an event as telemetry hooks do.
type hook struct {
	of.UnimplementedHook
	name  string
	ran   *[]string
	event *telemetry.EvaluationEvent
}

func (h hook) Before(context.Context, of.HookContext, of.HookHints) (*of.EvaluationContext, error) {
	*h.ran = append(*h.ran, h.name+" before")
	about := of.NewTargetlessEvaluationContext(map[string]any{"email": "boss@shop.example"})
	return &about, nil
}

func (h hook) Finally(_ context.Context, about of.HookContext, d of.InterfaceEvaluationDetails, _ of.HookHints) {
	*h.ran = append(*h.ran, h.name+" finally")
	*h.event = telemetry.CreateEvaluationEvent(about, d)
}

// TestHooks lets hooks change the context and report what was decided.
func TestHooks(t *testing.T) {
	c, _ := connected(t)
	var ran []string
	var event telemetry.EvaluationEvent
	one, two := hook{name: "one", ran: &ran, event: &event}, hook{name: "two", ran: &ran, event: &event}
	got, err := c.StringValue(t.Context(), "string-ruled", "", of.NewEvaluationContext("user-1", nil), of.WithHooks(one, two))
	if err != nil || got != "" {
		t.Error(got, err)
	}
	if want := []string{"one before", "two before", "two finally", "one finally"}; !slices.Equal(ran, want) {
		t.Errorf("got %v, want %v", ran, want)
	}
	version, _ := event.Attributes[telemetry.VersionKey].(string)
	want := map[string]any{
		telemetry.FlagKey: "string-ruled", telemetry.ProviderNameKey: "Holdfast", telemetry.ResultReasonKey: "targeting_match",
		telemetry.ResultVariantKey: "zero", telemetry.ContextIDKey: "user-1", telemetry.VersionKey: version,
	}
	if diff := cmp.Diff(want, event.Attributes); diff != "" || version == "" {
		t.Error(diff, version)
	}
}

// TestDisabledSDK has every flag disabled, and no error.
func TestDisabledSDK(t *testing.T) {
	t.Setenv("HOLDFAST_DISABLE", "1")
	cp, err := client.Open(t.Context(), client.Config{Service: "test"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cp.Close(context.Background()) })
	p := openfeature.NewProvider(cp)
	if err := p.Init(of.EvaluationContext{}); err != nil {
		t.Error(err)
	}
	p.Shutdown()
	if d := p.BooleanEvaluation(t.Context(), "any", true, nil); !d.Value || d.Reason != of.DisabledReason || d.Error() != nil {
		t.Errorf("%+v", d)
	}
}

// TestWithoutAView has no answer until there is one, and then is ready by itself.
func TestWithoutAView(t *testing.T) {
	file := filepath.Join(t.TempDir(), "local.json")
	cp, err := client.Open(t.Context(), client.Config{Service: "test", LocalOverrides: file})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cp.Close(context.Background()) })
	api := isolated.NewAPI()
	t.Cleanup(func() { _ = api.Shutdown(context.Background()) })
	ready := make(chan of.EventDetails, 1)
	told := func(d of.EventDetails) { ready <- d }
	api.AddHandler(of.ProviderReady, &told)
	if err := api.SetProviderAndWait(t.Context(), openfeature.NewProvider(cp)); err == nil || !strings.Contains(err.Error(), "no server has told") {
		t.Error(err)
	}
	c := api.NewClient()
	if c.State() != of.ErrorState {
		t.Error(c.State())
	}
	for kind, v := range types() {
		want := result{v.otherwise, "", of.ErrorReason, of.ProviderNotReadyCode}
		if diff := cmp.Diff(want, ask(t, c, kind, kind+"-flag", v.otherwise, of.EvaluationContext{})); diff != "" {
			t.Errorf("%s: %s", kind, diff)
		}
	}
	if err := os.WriteFile(file, []byte(`{"flags": {"local": true}}`), 0o600); err != nil {
		t.Fatal(err)
	}
	if d := <-ready; d.ProviderName != "Holdfast" {
		t.Error(d)
	}
	if c.State() != of.ReadyState {
		t.Error(c.State())
	}
}
