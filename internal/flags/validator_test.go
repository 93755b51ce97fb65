package flags

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/holdfast-dev/holdfast/internal/document"
	"github.com/holdfast-dev/holdfast/internal/policy"
	"github.com/holdfast-dev/holdfast/internal/schema"
)

func validate(kind document.Kind, spec string) []string {
	var got []string
	for _, v := range (Validator{}).Validate(document.Key{Kind: kind, Name: "x"}, []byte(spec)) {
		got = append(got, v.String())
	}
	return got
}

func TestValidatorAccepts(t *testing.T) {
	for _, c := range []struct {
		kind document.Kind
		spec string
	}{
		{document.Flag, `{"state":"ENABLED","variants":{"on":true,"off":false},"defaultVariant":"off"}`},
		{document.Flag, `{"state":"DISABLED","variants":{"a":{"x":[1]},"b":{}},"defaultVariant":null,"targeting":{"if":[true,"a"]},
			"metadata":{"flagSetId":"shop","n":1,"b":true},"description":"kept","owner":["kept","too"]}`},
		{document.Flag, `{"state":"ENABLED","variants":{"0.5":0.5,"1":1},"defaultVariant":"","targeting":null}`},
		{document.Mode, `{"levels":[{"name":"read-only"}]}`},
		{document.Mode, `{"description":"","levels":[
			{"name":"cache-only","description":"serve what we have","effects":[
				{"action":"cache","methods":["/shop.Catalog/*"],"max_age":"10m","vary":["tenant","x-plan"]},
				{"action":"fallback","operations":["search-index"],"fallback":"static-hits","side":"client"}]},
			{"name":"level 2","effects":[
				{"flag":"new-checkout","variant":"off"},
				{"policy":"payments","patch":{"retry_policy":{"max_attempts":1,"max_delay":null},"bulkhead":null}},
				{"action":"shed","methods":["*"],"percent":12.5},
				{"action":"reject","side_effects":true,"except":["/shop.Orders/Cancel"],"side":"server","code":"UNAVAILABLE","message":"read-only","retry_after":"5s"}]}]}`},
		{document.Policy, `{"circuit_breaker":{"failure_threshold":5},"retry_policy":{},"timeouts":{},"bulkhead":{},"fallback":{},"fleet":"off",
			"fleet_without_traffic":{},"enforcement":"observe","dead_letter_queue":{},"chaos_engineering":{},"description":"d"}`},
		{document.Override, `{"mode":"storefront","level":"read-only"}`},
		{document.Override, `{"flag":"k","variant":"on","scope":{"percent":0}}`},
		{document.Override, `{"breaker":"payments","hold":"open","method":"/shop.Payments/Charge","scope":{"selector":"service=checkout,zone in (eu-1,eu-2)","percent":99.5}}`},
		{document.Override, `{"fault":{"delay":"1s"}}`},
	} {
		if got := validate(c.kind, c.spec); got != nil {
			t.Errorf("%s %s\nrefused: %q", c.kind, c.spec, got)
		}
	}
}

func TestValidatorRefuses(t *testing.T) {
	for _, c := range []struct {
		kind document.Kind
		spec string
		want []string
	}{
		{document.Flag, `{"variants":{"a":1,"a":2}}`, []string{`variants: duplicate key "a" (byte 19)`}},
		{document.Flag, ``, []string{"the document ends where a value is expected (byte 0)"}},
		{document.Flag, `[]`, []string{"is an array, but must be an object"}},
		{document.Flag, `{}`, []string{"state: is missing: ENABLED or DISABLED", "variants: is missing"}},
		{
			document.Flag, `{"$schema":"x","State":"ENABLED","vraiants":{},"default_variant":"a","description":1}`,
			[]string{
				"$schema: keys that begin with $ belong to a whole set of flags, not to one flag",
				`State: unknown key; did you mean "state"?`,
				`default_variant: unknown key; did you mean "defaultVariant"?`,
				`vraiants: unknown key; did you mean "variants"?`,
				"state: is missing: ENABLED or DISABLED", "variants: is missing",
			},
		},
		{
			document.Flag, `{"state":"enabled","variants":{"on":true,"off":"x","n":null,"l":[]},"defaultVariant":"onn","targeting":[],"metadata":{"a":null,"b":{}}}`,
			[]string{
				`state: "enabled" is not known; did you mean "ENABLED"?`,
				"variants.l: is an array, but must be a boolean, a string, a number or an object",
				"variants.n: is null, but must be a boolean, a string, a number or an object",
				`variants.on: is a boolean, but "off" is a string; all variants have one type`,
				`defaultVariant: "onn" is not among the variants; did you mean "on"?`,
				"targeting: is an array, but must be an object",
				"metadata.a: is null, but must be a string, a number or a boolean",
				"metadata.b: is an object, but must be a string, a number or a boolean",
			},
		},
		{document.Flag, `{"state":"","variants":{},"defaultVariant":1}`, []string{
			"state: is empty", "variants: is empty; a flag has at least one variant",
			"defaultVariant: is a number, but must be the name of a variant or null",
		}},
		{document.Flag, `{"state":true,"variants":[]}`, []string{
			"state: is a boolean, but must be a string", "variants: is an array, but must be an object",
		}},

		{document.Mode, `{}`, []string{"levels: is missing"}},
		{document.Mode, `{"levels":[],"levles":1,"owner":"x"}`, []string{
			`levles: unknown key; did you mean "levels"?`, "owner: unknown key; known here: description, levels",
			`levels: is empty; a mode has at least one level besides "normal"`,
		}},
		{
			document.Mode, `{"description":1,"levels":[{"name":"a"},{"name":"Normal"},{"name":"a"},{"name":"7"},{},3,{"name":"b","effects":{}}]}`,
			[]string{
				"description: is a number, but must be a string",
				`levels[1].name: "normal" is level 0 of every mode and is not listed`,
				`levels[2].name: "a" is the name of levels[0] as well`,
				`levels[3].name: "7" is a number; a name has something else as well`,
				"levels[4].name: is missing",
				"levels[5]: is a number, but must be an object",
				"levels[6].effects: is an object, but must be an array",
			},
		},
		{
			document.Mode, `{"levels":[{"name":"a","effects":[{},{"flga":"x"},{"flag":"f","action":"shed"},{"flag":"f"},{"flag":"","variant":"v","side":"client"},
				{"policy":"p"},{"policy":"p","patch":{"retry":{}}},{"policy":"p","patch":{}},{"policy":"p","patch":{"retry_policy":{"max_attempts":0,"jitter":null}}}]}]}`,
			[]string{
				"levels[0].effects[0]: needs one of the keys flag, action, policy",
				`levels[0].effects[1]: needs one of the keys flag, action, policy; did you mean "flag"?`,
				"levels[0].effects[2]: has the keys flag and action, but an effect is about one of them",
				"levels[0].effects[3].variant: is missing",
				"levels[0].effects[4].side: unknown key; known here: flag, variant",
				"levels[0].effects[4].flag: is empty",
				"levels[0].effects[5].patch: is missing",
				"levels[0].effects[6].patch.retry: unknown key; known here: description, enforcement, circuit_breaker, retry_policy, timeouts, bulkhead, fallback, " +
					"fleet, fleet_without_traffic, dead_letter_queue, chaos_engineering",
				"levels[0].effects[7].patch: is empty; it needs at least one key",
				"levels[0].effects[8].patch.retry_policy.max_attempts: is 0, but must be a whole number from 1 to 20",
			},
		},
		{
			document.Mode, `{"levels":[{"name":"a","effects":[
				{"action":"rejct"},
				{"action":"reject","methods":["shop.Orders/Place","/shop.*/Place","/a/b/c","/a b/c","/a/b*",1],"code":"OK","retry_after":"5"},
				{"action":"cache","operations":[],"max_age":"-1s","vary":["Tenant",""],"percent":1},
				{"action":"cache","side_effects":false,"side":"both"},
				{"action":"shed","methods":["*"],"percent":0},
				{"action":"shed","methods":["*"],"percent":"50"},
				{"action":"shed","methods":"*"}]}]}`,
			[]string{
				`levels[0].effects[0].action: "rejct" is not known; did you mean "reject"?`,
				`levels[0].effects[1].code: "OK" is not known; it must be one of ` + strings.Join(policy.ErrorNames(), ", "),
				`levels[0].effects[1].retry_after: "5" is not a duration, such as "500ms" or "1m30s"`,
				`levels[0].effects[1].methods[0]: "shop.Orders/Place" is not a method; write "/package.Service/Method" or "/package.Service/*"`,
				`levels[0].effects[1].methods[1]: "/shop.*/Place" has a * that is not the whole method; write "/package.Service/*"`,
				`levels[0].effects[1].methods[2]: "/a/b/c" is not a method; write "/package.Service/Method" or "/package.Service/*"`,
				`levels[0].effects[1].methods[3]: "/a b/c" holds white space or what cannot be printed`,
				`levels[0].effects[1].methods[4]: "/a/b*" has a * that is not the whole method; write "/package.Service/*"`,
				"levels[0].effects[1].methods[5]: is a number, but must be a string",
				"levels[0].effects[2].percent: unknown key; known here: action, methods, operations, side_effects, except, side, max_age, vary",
				`levels[0].effects[2].max_age: "-1s" must be more than 0`,
				`levels[0].effects[2].vary[0]: "Tenant" is not a name of metadata: 'T' is not a lower-case letter, a digit, '-', '_' or '.'`,
				"levels[0].effects[2].vary[1]: is empty",
				"levels[0].effects[2].operations: is empty; leave it out",
				"levels[0].effects[3].max_age: is missing",
				`levels[0].effects[3].side: "both" is not known; it must be one of client, server`,
				"levels[0].effects[3].side_effects: must be true; leave it out otherwise",
				"levels[0].effects[4].percent: is 0, but must be more than 0 and at most 100",
				"levels[0].effects[5].percent: is a string, but must be a number",
				"levels[0].effects[6].percent: is missing",
				"levels[0].effects[6].methods: is a string, but must be an array",
			},
		},
		{document.Mode, `{"levels":[{"name":"a","effects":[{"action":"shed","percent":1}]}]}`, []string{
			"levels[0].effects[0]: matches no call; it needs one of the keys methods, operations, side_effects",
		}},
		{document.Mode, `{"levels":[` + strings.Repeat("1,", MaxLevels) + `1]}`, []string{"levels: has 65 levels; at most 64 are allowed"}},

		{document.Policy, `{}`, []string{"is empty; it needs at least one key"}},
		{document.Policy, `{"circuit-breaker":{},"bulkhead":4,"fleet":"advice","enforcement":"enforced","retry_policy":{"max_attempts":0}}`, []string{
			`circuit-breaker: unknown key; did you mean "circuit_breaker"?`,
			`enforcement: "enforced" is not known; did you mean "enforce"?`,
			"retry_policy.max_attempts: is 0, but must be a whole number from 1 to 20",
			"bulkhead: is a number, but must be an object",
			`fleet: "advice" is not known; did you mean "advise"?`,
		}},

		{document.Override, `{"scope":{}}`, []string{
			"needs one of the keys mode, flag, breaker, fault", "scope: is empty; leave it out for every instance",
		}},
		{document.Override, `{"mode":"m","level":"NORMAL","end":1}`, []string{
			"end: unknown key; known here: mode, level, scope",
			`level: "normal" changes nothing, as the most degraded level wins; end the mode's override instead`,
		}},
		{document.Override, `{"mode":"m","flag":"f","breaker":"b"}`, []string{"has the keys mode and flag and breaker, but an override is about one of them"}},
		{document.Override, `{"flag":"f","vraiant":"v"}`, []string{`vraiant: unknown key; did you mean "variant"?`, "variant: is missing"}},
		{document.Override, `{"breaker":"a\nb","hold":"ajar","method":"/a/*"}`, []string{
			"breaker: name holds the control character U+000A at byte 1",
			`hold: "ajar" is not known; it must be one of open, closed`,
			`method: "/a/*" is a pattern; a breaker belongs to one method, or to the dependency without one`,
		}},
		{document.Override, `{"breaker":"b","hold":"open","method":"Charge"}`, []string{
			`method: "Charge" is not a method; write "/package.Service/Method" or "/package.Service/*"`,
		}},
		{document.Override, `{"fault":{},"scope":{"selector":"zone in eu","percent":101,"zone":1}}`, []string{
			"fault: is empty", "scope.zone: unknown key; known here: selector, percent",
			`scope.selector: "eu" where '(' is expected (byte 8)`,
			"scope.percent: is 101, but must be from 0 to 100",
		}},
		{document.Mode, `{"levels":[{"name":"a","effects":[{"action":"reject","operations":["search"],"side":"server"},{"action":"cache","side_effects":true,"max_age":"1m"}]}]}`, []string{
			"levels[0].effects[0].side: operations are names that clients give to what they do; leave the side out",
			"levels[0].effects[1].side_effects: no call with side effects is answered from a cache by a pattern; name the methods",
		}},
		{document.Override, `{"mode":"m","level":"x","scope":{"selector":"service=check*"}}`, []string{
			`scope.selector: "service=check*" holds a *, which stands for itself only; list the values: service in (a,b)`,
		}},
		{document.Override, `{"fault":1,"scope":[]}`, []string{
			"fault: is a number, but must be an object", "scope: is an array, but must be an object",
		}},
		{0, `{}`, []string{"there are no definitions of kind(0)"}},
	} {
		if got := validate(c.kind, c.spec); !slices.Equal(got, c.want) {
			t.Errorf("%s %s\ngot  %s\nwant %s", c.kind, c.spec, strings.Join(got, "\n     "), strings.Join(c.want, "\n     "))
		}
	}
}

func TestViolationsAreBounded(t *testing.T) {
	var b strings.Builder
	for i := range 1000 {
		fmt.Fprintf(&b, `"k%d":null,`, i)
	}
	got := (Validator{}).Validate(document.Key{Kind: document.Flag}, []byte(`{"state":"ENABLED","variants":{`+b.String()+`"z":1}}`))
	if len(got) != schema.MaxViolations || got[schema.MaxViolations-1].String() != "and 901 more" {
		t.Errorf("%d violations, the last is %q", len(got), got[len(got)-1])
	}
}

func FuzzValidator(f *testing.F) {
	f.Add(uint8(document.Flag), []byte(`{"state":"ENABLED","variants":{"on":true},"defaultVariant":"on"}`))
	f.Add(uint8(document.Mode), []byte(`{"levels":[{"name":"a","effects":[{"action":"shed","methods":["/a/*"],"percent":5}]}]}`))
	f.Add(uint8(document.Policy), []byte(`{"fleet":{},"circuit_braker":{}}`))
	f.Add(uint8(document.Override), []byte(`{"flag":"k","variant":"on","scope":{"selector":"a in (b),!c","percent":50}}`))
	f.Fuzz(func(t *testing.T, kind uint8, spec []byte) {
		key := document.Key{Kind: document.Kind(kind), Name: "x"}
		got := (Validator{}).Validate(key, spec)
		for _, v := range got {
			if v.Message == "" {
				t.Fatalf("violation of %q without a message", v.Path)
			}
		}
		canonical, err := document.Canonical(spec)
		if err != nil {
			if len(got) != 1 {
				t.Fatalf("%v, but %d violations", err, len(got))
			}
			return
		}
		if again := (Validator{}).Validate(key, canonical); !slices.Equal(got, again) {
			t.Fatalf("%v, but of the canonical form %v", got, again)
		}
	})
}

func BenchmarkValidator(b *testing.B) {
	spec := []byte(`{"defaultVariant":"off","state":"ENABLED","targeting":{"if":[{"ends_with":[{"var":"email"},"@example.com"]},"on","off"]},"variants":{"off":false,"on":true}}`)
	b.ReportAllocs()
	for b.Loop() {
		if v := (Validator{}).Validate(document.Key{Kind: document.Flag}, spec); v != nil {
			b.Fatal(v)
		}
	}
}
