package flags

import (
	"slices"
	"strings"
	"testing"
)

// TestCompileRefuses checks what is said about rules that no one should store, and
// where.
func TestCompileRefuses(t *testing.T) {
	for rule, want := range map[string][]string{
		`{"inn":[1,[1]]}`:               {`targeting: unknown operator "inn"; did you mean "in"?`},
		`{"if":[{"inn":[1,[1]]},"on"]}`: {`targeting.if[0]: unknown operator "inn"; did you mean "in"?`},
		`{"if":[true,"onn",{"+":[1],"-":[1]}]}`: {
			`targeting.if[1]: "onn" is not among the variants; did you mean "on"?`,
			`targeting.if[2]: has 2 keys (+, -); a rule has one operator`,
		},
		`{"if":[{"==":[1]},"on","off"]}`:                {`targeting.if[0]["=="]: "==" takes 2 operands, but has 1`},
		`{"if":[{"<":[1,2,3,4]},"on"]}`:                 {`targeting.if[0]["<"]: "<" takes 2 to 3 operands, but has 4`},
		`{"if":[{"and":[]},true]}`:                      {`targeting.if[0].and: "and" takes 1 or more operands, but has 0`, `targeting.if[1]: "true" is not among the variants`},
		`{"if":[{"!":[1,2]},"on",["on"]]}`:              {`targeting.if[0]["!"]: "!" takes 1 operand, but has 2`, `targeting.if[2]: is an array; a rule results in the name of a variant, or null`},
		`{"if":[{},"on"]}`:                              {`targeting.if[0]: is empty; a rule has one operator`},
		`{"$ref":"x"}`:                                  {"targeting.$ref: a flag cannot refer to shared evaluators; put the rule in its place, as `holdfast import flagd` does"},
		`{"if":[{"var":"$flagd.key"},"on"]}`:            {`targeting.if[0].var: "$flagd.key" does not exist; there are $flagd.flagKey and $flagd.timestamp`},
		`{"if":[{"starts_with":[{"var":"a"},1]},"on"]}`: {`targeting.if[0].starts_with[1]: is of type integer, but "starts_with" compares strings`},
		`{"if":[{"sem_ver":[{"var":"v"},"=>","1.x"]},"on"]}`: {
			`targeting.if[0].sem_ver[1]: is not an operator of sem_ver; there are = != < <= > >= ^ ~`,
			`targeting.if[0].sem_ver[2]: "1.x" is not a semantic version, such as "1.2.3"`,
		},
		`{"fractional":[{"var":"email"}]}`: {`targeting.fractional: has no buckets; each is [variant] or [variant, weight]`},
		`{"fractional":[5,["on"],"off",["blue",1],["on",0.5],["off",-1],["on",1,1],[]]}`: {
			`targeting.fractional[3][0]: "blue" is not among the variants`,
			`targeting.fractional[0]: is of type integer; the value to bucket by is a string`,
			`targeting.fractional[2]: is no bucket; each is [variant] or [variant, weight]`,
			`targeting.fractional[4][1]: is 0.5; a weight is an integer`,
			`targeting.fractional[5][1]: is -1; a constant weight is not negative`,
			`targeting.fractional[6]: has 3 elements; a bucket is [variant] or [variant, weight]`,
			`targeting.fractional[7]: has 0 elements; a bucket is [variant] or [variant, weight]`,
		},
		`{"fractional":[["on",2147483647],["off",1]]}`: {`targeting.fractional: the weights add up to 2147483648; at most 2147483647 is allowed`},
		`{"==":[{"var":"x"},"y"]}`:                     {`targeting["=="]: results in true or false, but neither is among the variants; choose with "if"`},
		`{"or":[{"var":"x"},"onn",{"!":1}]}`: {
			`targeting.or[1]: "onn" is not among the variants; did you mean "on"?`,
			`targeting.or[2]["!"]: results in true or false, but neither is among the variants; choose with "if"`,
		},
		`{"fractional":[["on",0],["off",0]]}`: {`targeting.fractional: all weights are 0, so that there is no bucket to choose`},
		`["on"]`:                              {`targeting: is an array, but must be an object`},
		`"on"`:                                {`targeting: is a string, but must be an object`},
	} {
		_, violations := Compile("f", []byte(`{"state":"ENABLED","variants":{"on":true,"off":false},"targeting":`+rule+`}`))
		var got []string
		for _, v := range violations {
			got = append(got, v.String())
		}
		if !slices.Equal(got, want) {
			t.Errorf("%s\ngot  %s\nwant %s", rule, strings.Join(got, "\n     "), strings.Join(want, "\n     "))
		}
	}
}

// TestCompileAccepts checks rules that are unusual and right.
func TestCompileAccepts(t *testing.T) {
	for _, rule := range []string{
		`{}`, `null`, `{"if":[true,"on"]}`, `{"if":[{"var":"x"},null,"off"]}`, `{"var":"variant"}`, `{"var":["variant","on"]}`,
		`{"fractional":["seed",["on"],["off"]]}`, `{"fractional":[["on",0],["off",5]]}`, `{"fractional":[["on",{"-":[{"var":"$flagd.timestamp"},5]}],["off",1]]}`,
		`{"fractional":[{"merge":[["a"],["b"]]},["on"]]}`, `{"if":[{"fractional":[["yes"],["no"]]},"on"]}`, `{"fractional":[[{"if":[true,"on",null]},1],["off",1]]}`,
		`{"if":[{"in":["a",{"var":"l"}]},"on"]}`, `{"if":[{"!!":{"var":"x"}},"on"]}`, `{"if":[{"<":[1,{"var":"x"},5]},"on"]}`,
		`{"if":[{"reduce":[{"var":"l"},{"+":[{"var":"current"},{"var":"accumulator"}]},0]},"on"]}`, `{"if":[{"max":{"var":"l"}},"on"]}`,
		`{"cat":["o","n"]}`, `{"if":[{"missing":["a","b"]},"on"]}`, `{"if":[{"missing_some":[1,["a","b"]]},"on"]}`,
		`{"if":[{"sem_ver":[{"var":"v"},"^","v1.2"]},"on"]}`, `{"if":[{"var":"$flagd"},"on"]}`,
	} {
		if _, violations := Compile("f", []byte(`{"state":"ENABLED","variants":{"on":true,"off":false},"targeting":`+rule+`}`)); violations != nil {
			t.Errorf("%s: %v", rule, violations)
		}
	}
}

// TestExplain checks that what decided is named by its place.
func TestExplain(t *testing.T) {
	v := storefront(t)
	for rule, want := range map[string]string{
		`{"if":[{"==":[{"var":"plan"},"gold"]},"on",{"var":"x"},"off",null]}`:                    `targeting.if[1]: on, the rule results in "on"`,
		`{"if":[{"var":"x"},"off",{"if":[{"var":"plan"},{"fractional":[["off",0],["on",1]]}]}]}`: `targeting.if[2].if[1].fractional[1][0]: on, the rule results in "on"`,
		`{"if":[{"var":"x"},"off"]}`:                 `targeting.if: on, the rule results in null; the default variant applies`,
		`{"if":[{"var":"x"},"off",null]}`:            `targeting.if[2]: on, the rule results in null; the default variant applies`,
		`{"cat":["bl",{"var":"ue"}]}`:                `targeting: none, the rule results in "bl", which is not among the variants`,
		`{"fractional":["seed",["off",0],["on",1]]}`: `targeting.fractional[2][0]: on, the rule results in "on"`,
		`{"fractional":[["off"],["on"]]}`:            `targeting.fractional: on, there is no targetingKey to choose a bucket by; the default variant applies`,
		`{"what":1}`:                                 `targeting: none, targeting: unknown operator "what"`,
		`{}`:                                         `defaultVariant: on, there is no targeting`,
	} {
		f, _ := compile("f", []byte(`{"state":"ENABLED","variants":{"on":true,"off":false},"defaultVariant":"on","targeting":`+rule+`}`), v.pool)
		who := []Attribute{{"plan", String("gold")}, {TargetingKey, String("u")}}
		if rule == `{"fractional":[["off"],["on"]]}` {
			who = who[:1]
		}
		e := (&Resolved{Flag: f}).Explain(0, who...)
		name := "none"
		if e.Variant != nil {
			name = e.Variant.Name
		}
		if got := e.DecidedBy + ": " + name + ", " + e.Detail; got != want {
			t.Errorf("%s\ngot  %s\nwant %s", rule, got, want)
		}
	}
}

// TestExplainIsBrief has a rule result in much more than there is of it.
func TestExplainIsBrief(t *testing.T) {
	const doubling = `{"reduce":[[1],{"var":""},{"reduce":[[1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20],[{"var":"accumulator"},{"var":"accumulator"}],1]}]}`
	f, _ := compile("f", []byte(`{"state":"ENABLED","variants":{"on":true},"targeting":`+doubling+`}`), newScratchPool())
	if e := (&Resolved{Flag: f}).Explain(0); e.Code != General || len(e.Detail) > 1000 {
		t.Errorf("%v with a detail of %d bytes", e.Code, len(e.Detail))
	}
	text := strings.Repeat("x", 1000)
	if b := List(String(text), Object(Attribute{text, Int(1)}), List(make([]Value, 1000)...)).appendBrief(nil); len(b) > 1000 {
		t.Errorf("%d bytes are not brief", len(b))
	}
}
