package flags

import (
	"testing"
)

// TestEvaluateAllocatesNothing decides for flags of every form.
func TestEvaluateAllocatesNothing(t *testing.T) {
	attributes := []Attribute{
		{TargetingKey, String("user-4711")},
		{"email", String("fish@holdfast.dev")},
		{"age", Int(42)},
		{"score", Float(17.25)},
		{"version", String("v2.14.1-rc.2")},
		{"beta", Bool(true)},
		{"nothing", Value{}},
		{"tags", List(String("gold"), String("eu"), String("ß"))},
		{"orders", List(Int(3), Float(4.5), Int(12))},
		{"user", Object(Attribute{"id", Int(7)}, Attribute{"home", Object(Attribute{"city", String("Köln")}, Attribute{"zip", String("50667")})})},
	}
	const booleans = `"variants":{"off":false,"on":true,"true":true,"false":false},"defaultVariant":"off"`
	for name, c := range map[string]struct{ spec, want string }{
		"bool":               {`"state":"ENABLED",` + booleans, "off"},
		"disabled":           {`"state":"DISABLED",` + booleans, ""},
		"string":             {`"state":"ENABLED","variants":{"a":"A","b":"B"},"defaultVariant":"b"`, "b"},
		"int":                {`"state":"ENABLED","variants":{"few":1,"many":100},"defaultVariant":"many"`, "many"},
		"float":              {`"state":"ENABLED","variants":{"half":0.5},"defaultVariant":"half"`, "half"},
		"object":             {`"state":"ENABLED","variants":{"o":{"a":[1,{"b":"c"}]}},"defaultVariant":"o"`, "o"},
		"no default":         {`"state":"ENABLED","variants":{"on":true}`, ""},
		"ends_with":          {`"targeting":{"if":[{"ends_with":[{"var":"email"},"@holdfast.dev"]},"on"]}`, "on"},
		"bare ends_with":     {`"targeting":{"ends_with":[{"var":"email"},"@holdfast.dev"]}`, "true"},
		"starts_with":        {`"targeting":{"starts_with":[{"var":"email"},"fish@"]}`, "true"},
		"nested if":          {`"targeting":{"if":[{"==":[{"var":"age"},1]},"off",{"<":[18,{"var":"age"},65]},{"if":[{"!":{"var":"beta"}},"off",{"in":["gold",{"var":"tags"}]},"on"]},"off"]}`, "on"},
		"and or":             {`"targeting":{"if":[{"and":[{"var":"beta"},{"or":[{"==":[{"var":"age"},41]},{">=":[{"var":"score"},17.25]}]},{"!=":[{"var":"email"},null]}]},"on"]}`, "on"},
		"fractional 2":       {`"targeting":{"fractional":[["on",50],["off",50]]}`, "*"},
		"fractional 3, seed": {`"targeting":{"fractional":[{"cat":[{"var":"$flagd.flagKey"},{"var":"user.id"},{"var":"email"}]},["on",1],["off",1],["true",1]]}`, "*"},
		"fractional by rule": {`"targeting":{"fractional":[{"var":"email"},["on",{"-":[{"var":"$flagd.timestamp"},1]}],[{"if":[{"var":"beta"},"off","true"]},{"var":"age"}]]}`, "*"},
		"fractional v3":      {`"metadata":{"fractional":"v3"},"targeting":{"fractional":[["on",50],["off",50]]}`, "*"},
		"sem_ver":            {`"targeting":{"sem_ver":[{"var":"version"},">=","2.14.1-rc.1"]}`, "true"},
		"sem_ver of number":  {`"targeting":{"sem_ver":[{"var":"score"},"~","17.25"]}`, "true"},
		"in list":            {`"targeting":{"in":[{"var":"user.home.city"},["Bonn","Köln","Berlin"]]}`, "true"},
		"in text":            {`"targeting":{"in":["hold",{"var":"email"}]}`, "true"},
		"var of nested":      {`"targeting":{"==":[{"var":"user.home.zip"},50667]}`, "true"},
		"var of list":        {`"targeting":{"===":[{"var":"tags.1"},"eu"]}`, "true"},
		"var of everything":  {`"targeting":{"!!":[{"var":""}]}`, "true"},
		"var with default":   {`"targeting":{"var":["nobody",{"var":["nothing","on"]}]}`, "on"},
		"missing":            {`"targeting":{"if":[{"missing":["email","user.phone"]},"on","off"]}`, "on"},
		"missing_some":       {`"targeting":{"if":[{"missing_some":[1,["phone","email"]]},"on","off"]}`, "off"},
		"arithmetic":         {`"targeting":{"==":[{"+":[{"*":[{"var":"age"},2]},{"-":[{"var":"score"}]},{"%":[{"var":"age"},5]},{"/":[1,4]},{"max":[1,{"var":"age"}]},{"min":[1,2]}]},112]}`, "true"},
		"cat":                {`"targeting":{"==":[{"cat":[{"var":"email"},"-",{"var":"score"}]},"fish@holdfast.dev-17.25"]}`, "true"},
		"substr":             {`"targeting":{"==":[{"substr":[{"var":"email"},-3]},"dev"]}`, "true"},
		"map":                {`"targeting":{"in":[24,{"map":[{"var":"orders"},{"*":[{"var":""},2]}]}]}`, "true"},
		"filter":             {`"targeting":{"!!":[{"filter":[{"var":"orders"},{">":[{"var":""},10]}]}]}`, "true"},
		"reduce":             {`"targeting":{">":[{"reduce":[{"var":"orders"},{"+":[{"var":"current"},{"var":"accumulator"}]},0]},19]}`, "true"},
		"all none some":      {`"targeting":{"and":[{"all":[{"var":"orders"},{">":[{"var":""},0]}]},{"none":[{"var":"orders"},{">":[{"var":""},12]}]},{"some":[{"var":"tags"},{"==":[{"var":""},"ß"]}]}]}`, "true"},
		"merge":              {`"targeting":{"in":["eu",{"merge":[{"var":"tags"},["x"]]}]}`, "true"},
		"no such variant":    {`"targeting":{"var":"email"}`, ""},
		"cannot be parsed":   {`"targeting":{"inn":[]}`, ""},
	} {
		t.Run(name, func(t *testing.T) {
			spec := `{` + c.spec + `}`
			if c.spec[1:6] != "state" {
				spec = `{"state":"ENABLED",` + booleans + `,` + c.spec + `}`
			}
			flag, _ := Compile("key", canonicalText(t, spec))
			var decision Decision
			if n := testing.AllocsPerRun(200, func() { decision = flag.Evaluate(1_800_000_000, attributes...) }); n != 0 {
				t.Errorf("%v allocations, want none", n)
			}
			if got := decisionOf(decision); got.named != (c.want != "") || c.want != "*" && got.variant != c.want {
				t.Errorf("decides %s, want %q", got, c.want)
			}
		})
	}
}

// TestEvaluateOfAnObjectAsSeed bounds the one form that may allocate: fractional
// of version 3 puts the members of an object in order.
func TestEvaluateOfAnObjectAsSeed(t *testing.T) {
	flag, _ := Compile("key", canonicalText(t, `{"state":"ENABLED","variants":{"off":false,"on":true},"metadata":{"fractional":"v3"},
		"targeting":{"fractional":[{"var":"user"},["on",50],["off",50]]}}`))
	user := Attribute{"user", Object(Attribute{"id", Int(7)}, Attribute{"home", Object(Attribute{"city", String("Köln")}, Attribute{"zip", String("50667")})})}
	if n := testing.AllocsPerRun(200, func() { flag.Evaluate(1_800_000_000, user) }); n > 8 {
		t.Errorf("%v allocations, want 8 at most", n)
	}
}
