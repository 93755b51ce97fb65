package flags

import (
	"bytes"
	"encoding/json"
	"maps"
	"math"
	"math/rand/v2"
	"reflect"
	"slices"
	"sync"
	"testing"

	"pgregory.net/rapid"
)

const (
	oracleKey = "checkout.new"
	oracleNow = 1_800_000_000
)

// attributesOf is a context as [Flag.Evaluate] takes it. A number becomes either
// of the types that can hold it, and some keys come twice, with the value that
// does not count first.
func attributesOf(context map[string]any, random *rand.Rand) []Attribute {
	members, _ := valueFrom(context, random).Members()
	return members
}

func valueFrom(value any, random *rand.Rand) Value {
	switch x := value.(type) {
	case nil:
		return Value{}
	case bool:
		return Bool(x)
	case float64:
		if math.Abs(x) < 1<<53 && x == math.Trunc(x) && random.IntN(2) == 0 {
			return Int(int64(x))
		}
		return Float(x)
	case int64:
		return Int(x)
	case string:
		return String(x)
	case []any:
		var elements []Value
		for _, element := range x {
			elements = append(elements, valueFrom(element, random))
		}
		return List(elements...)
	case map[string]any:
		keys := slices.Sorted(maps.Keys(x))
		random.Shuffle(len(keys), func(i, j int) { keys[i], keys[j] = keys[j], keys[i] })
		var members []Attribute
		for _, key := range keys {
			if random.IntN(8) == 0 {
				members = append([]Attribute{{Key: key, Value: String("does not count")}}, members...)
			}
			members = append(members, Attribute{Key: key, Value: valueFrom(x[key], random)})
		}
		return Object(members...)
	default:
		panic("no value")
	}
}

func decisionOf(d Decision) naiveDecision {
	if d.Variant == nil {
		return naiveDecision{reason: d.Reason, code: d.Code}
	}
	return naiveDecision{variant: d.Variant.Name, named: true, reason: d.Reason, code: d.Code}
}

func jsonOf(value any) string {
	text, err := json.Marshal(value)
	if err != nil {
		panic(err)
	}
	return string(text)
}

// compare has both evaluators decide.
func compare(t fatal, flag *Flag, spec []byte, context map[string]any, attributes []Attribute) {
	want := naiveEvaluate(flag.Key(), spec, oracleNow, context)
	decision := flag.Evaluate(oracleNow, attributes...)
	if got := decisionOf(decision); got != want {
		t.Fatalf("definition %s\ncontext    %s\nattributes %s\nevaluated  %s\nnaive      %s", spec, jsonOf(context), Object(attributes...).AppendJSON(nil), got, want)
	}
	if decision.Variant == nil {
		return
	}
	var definition struct{ Variants map[string]json.RawMessage }
	if err := json.Unmarshal(spec, &definition); err != nil {
		t.Fatalf("%s: %v", spec, err)
	}
	v := decision.Variant
	if want := definition.Variants[v.Name]; !bytes.Equal(v.JSON, want) || !bytes.Equal(v.Value.AppendJSON(nil), want) {
		t.Fatalf("definition %s\nvariant %q is %s and %s", spec, v.Name, v.JSON, v.Value.AppendJSON(nil))
	}
}

// oracleCase is one definition with contexts to decide for.
type oracleCase struct {
	spec     []byte
	contexts []map[string]any
	seed     uint64
}

// GoString shows a case in a report of package rapid.
func (c oracleCase) GoString() string { return string(c.spec) }

func (c oracleCase) random() *rand.Rand { return rand.New(rand.NewPCG(c.seed, 0)) }

// drawCase draws a case whole, so that a report has one line of it.
func drawCase(t *rapid.T) oracleCase {
	return rapid.Custom(func(t *rapid.T) oracleCase {
		d := drawer{t}
		c := oracleCase{seed: rapid.Uint64().Draw(t, "seed")}
		for range 3 {
			c.contexts = append(c.contexts, d.context())
		}
		c.spec = d.definition(oracleKey, oracleNow, c.contexts[0])
		return c
	}).Draw(t, "case")
}

// TestEvaluateAgreesWithTheNaiveEvaluator draws definitions and contexts.
func TestEvaluateAgreesWithTheNaiveEvaluator(t *testing.T) {
	reached := map[string]int{}
	rapid.Check(t, func(t *rapid.T) {
		for range 10 {
			c := drawCase(t)
			random := c.random()
			flag, violations := Compile(oracleKey, c.spec)
			for _, context := range c.contexts {
				compare(t, flag, c.spec, context, attributesOf(context, random))
				want := naiveEvaluate(oracleKey, c.spec, oracleNow, context)
				if want.code == ParseError && len(violations) == 0 {
					t.Fatalf("definition %s\nhas no violation and cannot be evaluated", c.spec)
				}
				reached[want.reason.String()+want.code.String()]++
			}
		}
	})
	t.Logf("decisions: %v", reached)
	for _, decision := range []string{"STATIC", "DEFAULT", "TARGETING_MATCH", "DISABLED", "ERRORPARSE_ERROR", "ERRORGENERAL"} {
		if reached[decision] == 0 {
			t.Errorf("no rule that was drawn decides %s", decision)
		}
	}
}

// TestEvaluateConcurrently decides for one flag in many goroutines.
func TestEvaluateConcurrently(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		c := drawCase(t)
		random := c.random()
		flag, _ := Compile(oracleKey, c.spec)
		got := make([][]naiveDecision, len(c.contexts))
		var group sync.WaitGroup
		for i, context := range c.contexts {
			attributes := attributesOf(context, random)
			group.Go(func() {
				for range 20 {
					got[i] = append(got[i], decisionOf(flag.Evaluate(oracleNow, attributes...)))
				}
			})
		}
		group.Wait()
		for i, context := range c.contexts {
			want := naiveEvaluate(oracleKey, c.spec, oracleNow, context)
			for _, decision := range got[i] {
				if decision != want {
					t.Fatalf("definition %s\ncontext %s\nconcurrently %s\nnaive %s", c.spec, jsonOf(context), decision, want)
				}
			}
		}
	})
}

// TestEvaluateChangesNothing compares what goes in with what it was.
func TestEvaluateChangesNothing(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		c := drawCase(t)
		specWas := bytes.Clone(c.spec)
		flag, _ := Compile(oracleKey, c.spec)
		for _, context := range c.contexts {
			attributes, attributesWere := attributesOf(context, c.random()), attributesOf(context, c.random())
			flag.Evaluate(oracleNow, attributes...)
			if !reflect.DeepEqual(plain(Object(attributes...)), plain(Object(attributesWere...))) {
				t.Fatalf("definition %s\nattributes %s became %s", c.spec, Object(attributesWere...).AppendJSON(nil), Object(attributes...).AppendJSON(nil))
			}
		}
		if !bytes.Equal(c.spec, specWas) {
			t.Fatalf("definition %s became %s", specWas, c.spec)
		}
	})
}

// plain is a value with all members of objects, in their order, and all types.
func plain(v Value) any {
	if elements, ok := v.Elements(); ok {
		list := []any{}
		for _, element := range elements {
			list = append(list, plain(element))
		}
		return list
	}
	if members, ok := v.Members(); ok {
		list := []any{"object"}
		for _, member := range members {
			list = append(list, member.Key, plain(member.Value))
		}
		return list
	}
	return [2]any{v.Type(), string(v.AppendJSON(nil))}
}

// contextOf is what the naive evaluator sees of attributes.
func contextOf(attributes []Attribute) map[string]any {
	context, _ := naiveValue(Object(attributes...)).(map[string]any)
	return context
}

func naiveValue(v Value) any {
	switch v.Type() {
	case NullType:
		return nil
	case BoolType:
		b, _ := v.AsBool()
		return b
	case IntType:
		n, _ := v.AsInt()
		return n
	case FloatType:
		f, _ := v.AsFloat()
		return f
	case StringType:
		s, _ := v.AsString()
		return s
	case ListType:
		elements, _ := v.Elements()
		list := []any{}
		for _, element := range elements {
			list = append(list, naiveValue(element))
		}
		return list
	case ObjectType:
		members, _ := v.Members()
		object := map[string]any{}
		for _, member := range members {
			object[member.Key] = naiveValue(member.Value)
		}
		return object
	default:
		panic("no type")
	}
}
