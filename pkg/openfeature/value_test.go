package openfeature

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"math/big"
	"testing"
	"time"

	of "github.com/open-feature/go-sdk/openfeature"
	"github.com/open-feature/go-sdk/openfeature/memprovider"

	"github.com/holdfast-dev/holdfast/internal/document"
	"github.com/holdfast-dev/holdfast/pkg/client"
	"github.com/holdfast-dev/holdfast/pkg/client/clienttest"
)

type (
	word   string
	person struct {
		Name string `json:"name"`
		Age  int    `json:"age,omitempty"`
	}
	textual  struct{}
	panicked struct{}
	broken   struct{}
)

func (textual) MarshalText() ([]byte, error)  { return []byte("as text"), nil }
func (panicked) MarshalJSON() ([]byte, error) { panic("no") }
func (broken) MarshalJSON() ([]byte, error)   { return nil, errors.New("no") }

// TestValues converts values of every kind to what they are as JSON.
func TestValues(t *testing.T) {
	at := time.Date(2026, 1, 2, 3, 4, 5, 600, time.FixedZone("x", 3600))
	name := "pointed"
	loop := map[string]any{"a": 1}
	loop["self"] = loop
	var deep any = 1
	for range document.MaxDepth {
		deep = []any{deep}
	}
	for _, test := range []struct {
		give any
		want string // empty for what is left out
	}{
		{nil, `null`},
		{"text", `"text"`},
		{true, `true`},
		{int(-1), `-1`},
		{int8(-8), `-8`},
		{int16(-16), `-16`},
		{int32(-32), `-32`},
		{int64(math.MinInt64), `-9223372036854775808`},
		{uint(1), `1`},
		{uint8(8), `8`},
		{uint16(16), `16`},
		{uint32(math.MaxUint32), `4294967295`},
		{uint64(math.MaxInt64), `9223372036854775807`},
		{uint64(math.MaxUint64), `18446744073709552000`},
		{0.25, `0.25`},
		{float32(0.1), `0.1`},
		{json.Number("12"), `12`},
		{at, `"2026-01-02T03:04:05.0000006+01:00"`},
		{&at, `"2026-01-02T03:04:05.0000006+01:00"`},
		{time.Second, `1000000000`},
		{[]any{1, "a", nil, []any{true}}, `[1,"a",null,[true]]`},
		{[]string{"a", "b"}, `["a","b"]`},
		{[]int{1, 2}, `[1,2]`},
		{[2]bool{true}, `[true,false]`},
		{map[string]any{"b": 1, "a": map[string]any{"c": "d"}}, `{"a":{"c":"d"},"b":1}`},
		{map[string]string{"a": "b"}, `{"a":"b"}`},
		{map[string]int{"a": 1}, `{"a":1}`},
		{map[int]string{1: "b"}, `{"1":"b"}`},
		{word("named"), `"named"`},
		{&name, `"pointed"`},
		{(*string)(nil), `null`},
		{person{Name: "Zoë"}, `{"name":"Zoë"}`},
		{[]person{{"A", 1}}, `[{"age":1,"name":"A"}]`},
		{of.NewEvaluationContext("u", nil), `{}`},
		{textual{}, `"as text"`},
		{big.NewInt(7), `7`},
		{[]any{1, make(chan int), 3}, `[1,null,3]`},
		{map[string]any{"a": 1, "f": func() {}}, `{"a":1}`},
		{deep, encoding(t, deep)},
		{[]any{deep}, encoding(t, []any{deepNull(document.MaxDepth)})},
		{math.NaN(), ``},
		{math.Inf(1), ``},
		{make(chan int), ``},
		{func() {}, ``},
		{complex(1, 2), ``},
		{panicked{}, ``},
		{broken{}, ``},
		{[]float64{math.NaN()}, ``},
	} {
		v, ok := valueOf(test.give, 1)
		if got := string(v.AppendJSON(nil)); ok != (test.want != "") || ok && got != test.want {
			t.Errorf("%T %v: got %s, %v, want %s", test.give, test.give, got, ok, test.want)
		}
	}
	if _, ok := valueOf(loop, 1); !ok {
		t.Error("a map that holds itself is cut off, not left out")
	}
}

func encoding(t *testing.T, v any) string {
	t.Helper()
	text, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// deepNull is null within so many lists.
func deepNull(depth int) any {
	var v any
	for range depth - 1 {
		v = []any{v}
	}
	return v
}

// TestFloatsOfJSON converts a value with numbers back, as package json would.
func TestFloatsOfJSON(t *testing.T) {
	plane := clienttest.New(t)
	plane.Define("flag", "o", `{"state":"ENABLED","variants":{"x":{"n":1,"f":0.5,"l":[1,{}],"s":"t","b":true,"z":null}},"defaultVariant":"x"}`)
	got := NewProvider(plane.Client()).ObjectEvaluation(t.Context(), "o", nil, nil).Value
	var want any
	if err := json.Unmarshal([]byte(`{"n":1,"f":0.5,"l":[1,{}],"s":"t","b":true,"z":null}`), &want); err != nil {
		t.Fatal(err)
	}
	if fmt.Sprintf("%#v", got) != fmt.Sprintf("%#v", want) {
		t.Errorf("got %#v, want %#v", got, want)
	}
}

// flat is a context as a service has it.
func flat() of.FlattenedContext {
	return of.FlattenedContext{
		"targetingKey": "user-4711", "plan": "gold", "age": 42, "zone": "eu-1", "beta": true, "email": "somebody@shop.example",
	}
}

const ruled = `{"state":"ENABLED","variants":{"on":true,"off":false},"defaultVariant":"off","targeting":{"if":[{"==":[{"var":"plan"},"gold"]},"on","off"]}}`

// TestAllocations holds an evaluation to what its metadata takes.
func TestAllocations(t *testing.T) {
	plane := clienttest.New(t)
	plane.Define("flag", "ruled", ruled)
	p, about := NewProvider(plane.Client()), flat()
	got := testing.AllocsPerRun(100, func() { p.BooleanEvaluation(t.Context(), "ruled", false, about) })
	if got > 4 {
		t.Errorf("%v allocations", got)
	}
	if n := testing.AllocsPerRun(100, func() { var few [fewAttributes]client.Attribute; sink = len(appendAttributes(few[:0], about)) }); n > 0 {
		t.Errorf("the context takes %v allocations", n)
	}
}

var sink int

func BenchmarkEvaluation(b *testing.B) {
	plane := clienttest.New(b)
	plane.Define("flag", "ruled", ruled)
	plane.Define("flag", "plain", `{"state":"ENABLED","variants":{"on":true,"off":false},"defaultVariant":"on"}`)
	gold := func(this memprovider.InMemoryFlag, about of.FlattenedContext) (any, of.ProviderResolutionDetail) {
		if about["plan"] == "gold" {
			return this.Variants["on"], of.ProviderResolutionDetail{Variant: "on", Reason: of.TargetingMatchReason}
		}
		return this.Variants["off"], of.ProviderResolutionDetail{Variant: "off", Reason: of.TargetingMatchReason}
	}
	variants := map[string]any{"on": true, "off": false}
	mem := memprovider.NewInMemoryProvider(map[string]memprovider.InMemoryFlag{
		"plain": {Key: "plain", State: memprovider.Enabled, DefaultVariant: "on", Variants: variants},
		"ruled": {Key: "ruled", State: memprovider.Enabled, DefaultVariant: "off", Variants: variants, ContextEvaluator: &gold},
	})
	about := flat()
	for name, p := range map[string]of.FeatureProvider{"holdfast": NewProvider(plane.Client()), "memprovider": mem} {
		for _, flag := range []string{"plain", "ruled"} {
			b.Run(name+"/"+flag, func(b *testing.B) {
				b.ReportAllocs()
				for b.Loop() {
					if !p.BooleanEvaluation(b.Context(), flag, false, about).Value {
						b.Fatal("off")
					}
				}
			})
		}
	}
}
