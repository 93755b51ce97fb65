package facade

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"

	"google.golang.org/protobuf/types/known/structpb"

	"github.com/holdfast-dev/holdfast/internal/flags"
)

func TestAttributes(t *testing.T) {
	s := contextOf(t, `{"b":true,"i":3,"z":-0,"big":9007199254740992,"huge":1e300,"f":0.5,"s":"x","n":null,"l":[1,"a",[]],"o":{"p":{"q":1}}}`)
	attributes, err := attributesOf(s)
	if err != nil {
		t.Fatal(err)
	}
	slices.SortFunc(attributes, func(a, b flags.Attribute) int { return strings.Compare(a.Key, b.Key) })
	got := string(flags.Object(attributes...).AppendJSON(nil))
	if want := `{"b":true,"big":9007199254740992,"f":0.5,"huge":1e+300,"i":3,"l":[1,"a",[]],"n":null,"o":{"p":{"q":1}},"s":"x","z":0}`; got != want {
		t.Errorf("%s, want %s", got, want)
	}
	for _, a := range attributes {
		want := map[string]flags.Type{"i": flags.IntType, "z": flags.IntType, "big": flags.IntType, "huge": flags.FloatType, "f": flags.FloatType}[a.Key]
		if want != flags.NullType && a.Value.Type() != want {
			t.Errorf("%s is %s", a.Key, a.Value.Type())
		}
	}
	odd := map[string]*structpb.Value{
		"nan": structpb.NewNumberValue(math.NaN()), "inf": structpb.NewNumberValue(math.Inf(1)), "unset": {}, "nil": nil,
	}
	attributes, err = attributesOf(&structpb.Struct{Fields: odd})
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range attributes {
		if a.Value.Type() != flags.NullType {
			t.Errorf("%s is %s", a.Key, a.Value.Type())
		}
	}
	if none, err := attributesOf(nil); err != nil || len(none) != 0 {
		t.Errorf("%v %v", none, err)
	}
}

func TestParseSelector(t *testing.T) {
	for text, want := range map[string]string{
		"": "{default false  false}", " ": "{default false  false}", "shop": "{shop true  false}", "source=shop": "{shop true  false}",
		"source=": "{default true  false}", "flagSetId=a": "{default false a true}", "flagSetId=": "{default false  true}",
		" source = shop , flagSetId = a ": "{shop true a true}", "flagSetId=a=b": "{default false a=b true}", "a,b": "{a,b true  false}",
		"x=y": `unknown key "x"`, "=": `unknown key ""`, "source=a,source=b": "given twice", "flagSetId=a,flagSetId=a": "given twice",
		"flagSetId=a,b": `"b" is not KEY=VALUE`, "source=a\nb": "control character", "source=" + strings.Repeat("n", 300): "at most 253",
	} {
		got, err := parseSelector(text)
		if err != nil {
			if !strings.Contains(err.Error(), want) {
				t.Errorf("%q: %v, want %s", text, err, want)
			}
			continue
		}
		if fields := fmt.Sprintf("{%s %v %s %v}", got.namespace, got.named, got.set, got.bySet); fields != want {
			t.Errorf("%q: %s, want %s", text, fields, want)
		}
		if again, err := parseSelector(got.String()); err != nil || again != got && got.named == strings.ContainsAny(got.namespace, ",") {
			t.Errorf("%q: %q means %+v, %v", text, got.String(), again, err)
		}
	}
}

// FuzzContext reads contexts of any shape, once as protobuf and once as JSON: both
// are the same, whatever becomes of them.
func FuzzContext(f *testing.F) {
	for _, seed := range []string{
		`{}`, exampleContext, `{"a":[1,2.5,-0,1e400,{"b":null}],"":true}`, `{"a":` + strings.Repeat("[", 80) + strings.Repeat("]", 80) + `}`,
		`{"n":9007199254740993,"m":-9223372036854775808}`, `{"targetingKey":"\ud83d\ude00"}`, `{"a":1,"a":2}`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		fromBody, bodyErr := attributesOfBody(append(append([]byte(`{"context":`), text...), '}'))
		s := &structpb.Struct{}
		if s.UnmarshalJSON(text) != nil {
			return
		}
		fromProto, err := attributesOf(s)
		if err != nil {
			if depth(s) <= maxContextDepth && len(text) < maxRequestBytes/2 {
				t.Fatalf("%q: %v", text, err)
			}
			return
		}
		// And back.
		if again := structOf(fromProto); !sameStruct(s, again) {
			t.Fatalf("%q: %v, after a round trip %v", text, s, again)
		}
		if bodyErr != nil {
			return // JSON is read more strictly here than by protobuf
		}
		if !sameStruct(s, structOf(fromBody)) {
			t.Fatalf("%q: %v as protobuf, %v as JSON", text, s, structOf(fromBody))
		}
	})
}

func sameStruct(a, b *structpb.Struct) bool { return jsonOf(a) == jsonOf(b) }

// depth is how deep a struct nests.
func depth(s *structpb.Struct) int {
	var of func(v *structpb.Value) int
	of = func(v *structpb.Value) int {
		deepest := 0
		switch k := v.GetKind().(type) {
		case *structpb.Value_StructValue:
			return depth(k.StructValue)
		case *structpb.Value_ListValue:
			for _, e := range k.ListValue.GetValues() {
				deepest = max(deepest, of(e))
			}
			return deepest + 1
		}
		return 0
	}
	deepest := 0
	for _, v := range s.GetFields() {
		deepest = max(deepest, of(v))
	}
	return deepest + 1
}
