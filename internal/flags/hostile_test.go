package flags

import (
	"fmt"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/holdfast-dev/holdfast/internal/document"
	"github.com/holdfast-dev/holdfast/internal/schema"
)

func canonicalText(t *testing.T, text string) []byte {
	t.Helper()
	canonical, err := document.Canonical([]byte(text))
	if err != nil {
		t.Fatalf("%.200s: %v", text, err)
	}
	return canonical
}

// repeated is n texts with commas between them; %d in the text is which.
func repeated(text string, n int) string {
	parts := strings.Split(text, "%d")
	var b strings.Builder
	for i := range n {
		if i > 0 {
			b.WriteByte(',')
		}
		b.WriteString(strings.Join(parts, strconv.Itoa(i)))
	}
	return b.String()
}

func ruleOf(targeting string) string {
	return `{"state":"ENABLED","variants":{"a":"A","b":"B"},"defaultVariant":"a","targeting":` + targeting + `}`
}

// costs runs f and returns how long that took and how many bytes it allocated.
func costs(f func()) (time.Duration, uint64) {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	start := time.Now()
	f()
	took := time.Since(start)
	runtime.ReadMemStats(&after)
	return took, after.TotalAlloc - before.TotalAlloc
}

// TestHostileDefinitionsAreBounded compiles definitions that are large, deep or
// meant to explode, and decides for them: in time and memory that grow with the
// text alone. The bounds are generous; what they catch grows faster.
func TestHostileDefinitionsAreBounded(t *testing.T) {
	const deep = document.MaxDepth - 3
	for name, c := range map[string]struct {
		spec    string
		refused bool
	}{
		"10,000 levels":           {ruleOf(strings.Repeat(`{"!":[`, 10_000) + `1` + strings.Repeat(`]}`, 10_000)), true},
		"an endless level":        {ruleOf(strings.Repeat(`[`, 5<<20)), true},
		"as deep as may be":       {ruleOf(`{"if":[` + strings.Repeat(`{"!":`, deep) + `1` + strings.Repeat(`}`, deep) + `,"b"]}`), false},
		"10 MB of text":           {ruleOf(`{"if":[{"in":["x","` + strings.Repeat("ß", 5<<20) + `"]},"b"]}`), false},
		"10 MB of list":           {ruleOf(`{"if":[{"in":["x",[` + repeated(`"abcdefgh%d"`, 600_000) + `]]},"b"]}`), false},
		"10,000 variants":         {`{"state":"ENABLED","variants":{` + repeated(`"v%d":%d`, 10_000) + `},"defaultVariant":"v9999","targeting":{"var":"v"}}`, false},
		"100,000 branches":        {ruleOf(`{"if":[` + repeated(`{"==":[{"var":"n"},%d]},"b"`, 100_000) + `]}`), false},
		"100,000 unknown":         {ruleOf(`{"if":[` + repeated(`{"inn%d":[]}`, 100_000) + `]}`), true},
		"100,000 references":      {ruleOf(`{"and":[` + repeated(`{"$ref":"r%d"}`, 100_000) + `]}`), true},
		"a reference to itself":   {ruleOf(`{"$ref":"k"}`), true},
		"100,000 buckets":         {ruleOf(`{"fractional":[` + repeated(`["a",1]`, 100_000) + `]}`), false},
		"huge weights":            {ruleOf(`{"fractional":[["a",9007199254740991],["b",9007199254740991]]}`), true},
		"weights that overflow":   {ruleOf(`{"fractional":[` + repeated(`["a",2147483647]`, 10_000) + `]}`), true},
		"a text of digits":        {ruleOf(`{"if":[{"==":[1,"` + strings.Repeat("9", 5<<20) + `"]},"b"]}`), false},
		"a version of digits":     {ruleOf(`{"if":[{"sem_ver":["` + strings.Repeat("9", 5<<20) + `",">","1.0.0"]},"b"]}`), false},
		"many operands":           {ruleOf(`{"if":[{"+":[` + repeated(`%d`, 100_000) + `]},"b"]}`), false},
		"a path of 1,000,000":     {ruleOf(`{"var":"` + strings.Repeat("a.", 1_000_000) + `"}`), false},
		"everything that cats":    {ruleOf(`{"cat":[` + repeated(`{"var":""}`, 100_000) + `]}`), false},
		"lists that are constant": {ruleOf(`{"if":[{"map":[[` + repeated(`%d`, 1_000) + `],{"map":[[` + repeated(`%d`, 1_000) + `],{"map":[[` + repeated(`%d`, 1_000) + `],{"+":[{"var":""},1]}]}]}]},"b"]}`), false},
	} {
		t.Run(name, func(t *testing.T) {
			var flag *Flag
			var violations []schema.Violation
			took, bytes := costs(func() { flag, violations = Compile("k", []byte(c.spec)) })
			t.Logf("%d bytes: compiled in %v with %d bytes", len(c.spec), took.Round(time.Millisecond), bytes)
			if took > 10*time.Second || bytes > 16<<20+256*uint64(len(c.spec)) {
				t.Errorf("compiling %d bytes took %v and %d bytes", len(c.spec), took, bytes)
			}
			if refused := len(violations) > 0; refused != c.refused {
				t.Errorf("refused: %t, want %t: %.200s", refused, c.refused, violations)
			}
			if size := len(fmt.Sprint(violations)); size > 64<<10 {
				t.Errorf("%d bytes of violations", size)
			}
			var decision Decision
			took, bytes = costs(func() {
				decision = flag.Evaluate(0, Attribute{TargetingKey, String("u")}, Attribute{"n", Int(99_999)}, Attribute{"v", String("v9998")})
			})
			t.Logf("decided %s in %v with %d bytes", decisionOf(decision), took.Round(time.Microsecond), bytes)
			if took > 5*time.Second || bytes > 128<<20 {
				t.Errorf("the decision took %v and %d bytes", took, bytes)
			}
		})
	}
}

// TestEvaluateIsBounded decides for rules whose work explodes with the context,
// or with what the rules have already made. Without a bound they would not end.
func TestEvaluateIsBounded(t *testing.T) {
	var numbers []Value
	for i := range 2_000 {
		numbers = append(numbers, Int(int64(i)))
	}
	long := String(strings.Repeat("0123456789abcdef", 1<<16))
	nested := List(long)
	for range 28 { // what looks at all of it takes seconds
		nested = List(nested, nested)
	}
	attributes := []Attribute{
		{TargetingKey, String("u")},
		{"l", List(numbers...)},
		{"ls", List(List(numbers...), List(numbers...), List(numbers...))},
		{"long", long},
		{"nested", nested},
		{"object", Object(Attribute{"nested", nested})},
	}
	// Inside of map only the element is seen, so the inner lists are literals.
	all := `[` + repeated(`%d`, 200) + `]`
	accumulator := `{"var":"accumulator"}`
	digits := strings.Repeat("1234567890", 40_000)
	for name, rule := range map[string]string{
		"map in map in map":       `{"map":[` + all + `,{"map":[` + all + `,{"map":[` + all + `,{"map":[` + all + `,1]}]}]}]}`,
		"some in some in some":    `{"some":[{"var":"l"},{"some":[` + all + `,{"some":[` + all + `,{"some":[` + all + `,{"==":[{"var":""},-1]}]}]}]}]}`,
		"all in all in all":       `{"all":[{"var":"l"},{"all":[` + all + `,{"all":[` + all + `,{"all":[` + all + `,{">":[{"var":""},-1]}]}]}]}]}`,
		"filter of filter":        `{"filter":[{"var":"l"},{"filter":[` + all + `,{"filter":[` + all + `,{"filter":[` + all + `,1]}]}]}]}`,
		"a list in a list":        `{"reduce":[{"var":"ls"},{"merge":[{"map":[{"var":"current"},{"map":[` + all + `,{"var":""}]}]},` + accumulator + `]},[]]}`,
		"a text that doubles":     `{"reduce":[{"var":"l"},{"cat":[` + accumulator + `,` + accumulator + `]},"x"]}`,
		"a list that doubles":     `{"reduce":[{"var":"l"},{"merge":[` + accumulator + `,` + accumulator + `]},[1]]}`,
		"the text of a pair":      `{"cat":[{"reduce":[{"var":"l"},[` + accumulator + `,` + accumulator + `],1]}]}`,
		"the text of a tree":      `{"cat":[{"var":"nested"}]}`,
		"a tree in a text":        `{"in":[{"cat":[{"var":"nested"}]},{"var":"long"}]}`,
		"a tree as path":          `{"var":[{"var":"nested"}]}`,
		"a tree is missing":       `{"missing":[{"var":"nested"}]}`,
		"a pair of pairs as seed": `{"reduce":[[1],{"fractional":[{"var":""},["a"],["b"]]},{"reduce":[[` + repeated(`%d`, 28) + `],[` + accumulator + `,` + accumulator + `],1]}]}`,
		"a tree as seed":          `{"fractional":[{"var":"object"},["a"],["b"]]}`,
		"search":                  `{"some":[{"var":"l"},{"in":[{"cat":[{"var":""},"x"]},"` + digits + `"]}]}`,
		"search of a list":        `{"some":[{"var":"l"},{"in":[{"cat":[{"var":""},"x"]},[` + repeated(`"%d"`, 50_000) + `]]}]}`,
		"cat":                     `{"none":[{"var":"l"},{"===":[{"cat":["` + digits + `",{"var":""}]},""]}]}`,
		"text to number":          `{"none":[{"var":"l"},{"==":["` + digits + `",{"var":""}]}]}`,
		"sum of a text":           `{"none":[{"var":"l"},{"===":[{"+":["` + digits + `",{"var":""}]},1]}]}`,
		"sum":                     `{"none":[{"var":"l"},{"===":[{"+":[{"var":""},` + repeated(`%d`, 50_000) + `]},1]}]}`,
		"substr":                  `{"none":[{"var":"l"},{"===":[{"substr":["` + digits + `",{"-":[1,{"var":""}]}]},"x"]}]}`,
		"version":                 `{"none":[{"var":"l"},{"sem_ver":["` + digits + `.0.0","=",{"var":""}]}]}`,
		"version made":            `{"none":[{"var":"l"},{"sem_ver":[{"cat":["` + digits + `.0.",{"var":""}]},"=","1.0.0"]}]}`,
		"missing":                 `{"none":[{"var":"l"},{"===":[{"missing":[` + repeated(`"a%d"`, 50_000) + `,{"var":""}]},1]}]}`,
		"seed":                    `{"none":[{"var":"l"},{"fractional":[{"cat":[{"var":""},"` + digits + `"]},[0],[0]]}]}`,
		"buckets":                 `{"none":[{"var":"l"},{"fractional":[{"cat":[{"var":""}]},` + repeated(`[0,{"var":""}]`, 20_000) + `]}]}`,
		"literal buckets":         `{"none":[{"var":"l"},{"fractional":[{"cat":[{"var":""}]},` + repeated(`[0,1]`, 50_000) + `]}]}`,
		"comparisons":             `{"none":[{"var":"l"},{"<":[-1,` + repeated(`%d`, 50_000) + `,{"var":""}]}]}`,
		"branches":                `{"none":[{"var":"l"},{"if":[` + repeated(`{"<":[{"var":""},-%d]},1`, 20_000) + `]}]}`,
		"and":                     `{"none":[{"var":"l"},{"or":[` + repeated(`{"<":[{"var":""},-%d]}`, 20_000) + `]}]}`,
		"computed path":           `{"none":[{"var":"l"},{"var":[{"cat":["` + strings.Repeat("a.", 200_000) + `",{"var":""}]}]}]}`,
		"merge":                   `{"none":[{"var":"l"},{"===":[{"merge":[[` + repeated(`%d`, 50_000) + `],{"var":""}]},1]}]}`,
		"the text of a list":      `{"none":[{"var":"l"},{"===":[{"cat":[[` + repeated(`%d`, 50_000) + `,{"var":""}]]},1]}]}`,
		"a list that is made":     `{"none":[{"var":"l"},{"===":[[` + repeated(`%d`, 50_000) + `,{"var":""}],1]}]}`,
		"max":                     `{"none":[{"var":"l"},{"===":[{"max":[` + repeated(`%d`, 50_000) + `,{"var":""}]},-1]}]}`,
		"starts_with":             `{"none":[{"var":"l"},{"starts_with":[{"cat":["` + digits + `",{"var":""}]},"` + digits + `x"]}]}`,
		"texts that are compared": `{"none":[{"var":"l"},{"<":[{"cat":["` + digits + `",{"var":""}]},"` + digits + `"]}]}`,
	} {
		for _, version := range []string{"v2", "v3"} {
			if version == "v3" && !strings.Contains(rule, "fractional") {
				continue
			}
			t.Run(name+" "+version, func(t *testing.T) {
				spec := ruleOf(`{"if":[` + rule + `,"b","b"]}`)
				spec = spec[:len(spec)-1] + `,"metadata":{"fractional":"` + version + `"}}`
				flag, violations := Compile("k", canonicalText(t, spec))
				var decision Decision
				took, bytes := costs(func() { decision = flag.Evaluate(0, attributes...) })
				t.Logf("%s in %v with %d bytes, violations: %v", decisionOf(decision), took.Round(time.Microsecond), bytes, violations)
				// maxSteps steps take some 20 ms without the race detector.
				if took > 2*time.Second || bytes > 128<<20 {
					t.Errorf("the decision took %v and %d bytes", took, bytes)
				}
				// Version 2 hashes texts alone.
				small := version == "v2" && (name == "a tree as seed" || name == "a pair of pairs as seed")
				if got := decision.Code == General; got == small {
					t.Errorf("the work was too much: %t, want %t", got, !small)
				}
			})
		}
	}
}
