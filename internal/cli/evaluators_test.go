package cli

import (
	"fmt"
	"runtime"
	"strings"
	"testing"

	"github.com/holdfast-dev/holdfast/internal/yamlfile"
)

// evaluatorsFile is a flagd file of one flag that refers to the first of several
// evaluators.
func evaluatorsFile(evaluators ...string) []byte {
	var b strings.Builder
	b.WriteString(`{"flags":{"a":{"state":"ENABLED","variants":{"on":true},"targeting":{"$ref":"e0"}}},"$evaluators":{`)
	for i, e := range evaluators {
		if i > 0 {
			b.WriteByte(',')
		}
		fmt.Fprintf(&b, `"e%d":%s`, i, e)
	}
	b.WriteString("}}")
	return []byte(b.String())
}

// refer is an evaluator that refers to another one so many times.
func refer(to, times int) string {
	return `{"or":[` + strings.TrimSuffix(strings.Repeat(fmt.Sprintf(`{"$ref":"e%d"},`, to), times), ",") + `]}`
}

// cost reads a file and returns how many allocations that took.
func cost(src []byte) (problems []problem, allocations uint64) {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	_, problems = readFlagd("f.json", src, "default", nil)
	runtime.ReadMemStats(&after)
	return problems, after.Mallocs - before.Mallocs
}

// TestEvaluatorsCannotExplode reads files that are small and would be enormous
// with every reference written out. The work has to be that of reading them.
func TestEvaluatorsCannotExplode(t *testing.T) {
	deep := make([]string, 0, 40)
	for i := range 39 {
		deep = append(deep, refer(i+1, 2))
	}
	deep = append(deep, `{"==":[1,1]}`)
	wide := []string{refer(1, 9), refer(2, 1_000), refer(3, 1_000), `{"==":[1,1]}`}
	for name, c := range map[string]struct {
		evaluators []string
		want       string
	}{
		"forty doublings":   {deep, `with $evaluators in place of what refers to them, "e0" → "e1" → "e2" → "e3" → … → `},
		"thousandfold":      {wide, `with $evaluators in place of what refers to them, "e0" → "e1" has more than 1048576 values`},
		"a circle":          {[]string{refer(1, 2), refer(2, 2), refer(0, 2)}, `$evaluators refer to each other in a circle: "e0" → "e1" → "e2" → "e0"`},
		"one of itself":     {[]string{refer(0, 2)}, `in a circle: "e0" → "e0"`},
		"missing below":     {[]string{refer(1, 2), refer(7, 2)}, `flag "a" refers by way of "e0" → "e1" to "e7", which $evaluators does not have`},
		"a circle far down": {append(chain(60), refer(58, 2)), `in a circle: "e58" → "e59" → "e60" → "e58"`},
		"a long chain":      {append(chain(20_000), `{"==":[1,1]}`), `more than 64 $evaluators refer to each other in a row: "e0" → `},
	} {
		t.Run(name, func(t *testing.T) {
			src := evaluatorsFile(c.evaluators...)
			problems, allocations := cost(src)
			if len(problems) == 0 || !strings.Contains(problems[0].text, c.want) {
				t.Errorf("problems: %.300v", problems)
			}
			if len(problems) > 2 {
				t.Errorf("%d problems", len(problems))
			}
			if most := uint64(2*len(src) + 1_000); allocations > most {
				t.Errorf("%v allocations for %d bytes", allocations, len(src))
			}
		})
	}
}

// chain is evaluators each of which refers to the next.
func chain(n int) []string {
	out := make([]string, 0, n+1)
	for i := range n {
		out = append(out, refer(i+1, 1))
	}
	return out
}

// TestSharedValuesAreBounded has many flags refer to what is well within bounds
// for each of them.
func TestSharedValuesAreBounded(t *testing.T) {
	const flags = 1_000
	many := "[" + strings.TrimSuffix(strings.Repeat("1,", yamlfile.MaxNodes/flags), ",") + "]"
	for name, c := range map[string]struct{ targeting, shared, want string }{
		"an evaluator": {`"targeting":{"if":[{"$ref":"e"},"on"]}`, `"$evaluators":{"e":{"or":` + many + `}}`, `with the evaluator "e" written out wherever it is meant`},
		"metadata":     {`"metadata":{"own":1}`, `"metadata":` + keys(yamlfile.MaxNodes/flags+1), "with the metadata of the set written out"},
	} {
		t.Run(name, func(t *testing.T) {
			var b strings.Builder
			b.WriteString(`{"flags":{`)
			for i := range flags {
				fmt.Fprintf(&b, `"f%d":{"state":"ENABLED","variants":{"on":true},%s},`, i, c.targeting)
			}
			src := strings.TrimSuffix(b.String(), ",") + "}," + c.shared + "}"
			_, problems := readFlagd("f.json", []byte(src), "default", nil)
			if len(problems) != 1 || !strings.Contains(problems[0].text, c.want) || !strings.Contains(problems[0].text, "more than 1048576 values") {
				t.Errorf("problems: %.300v", problems)
			}
		})
	}
}

// keys is a mapping of n keys.
func keys(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, `,"k%d":1`, i)
	}
	return "{" + b.String()[1:] + "}"
}

// TestEvaluatorsAreShared checks that references are replaced, in evaluators as
// well, and that what is shared stays as it is.
func TestEvaluatorsAreShared(t *testing.T) {
	src := `{"flags":{
	 "a":{"state":"ENABLED","variants":{"on":true},"targeting":{"if":[{"$ref":"staff"},"on"]}},
	 "b":{"state":"ENABLED","variants":{"on":true},"targeting":{"if":[{"!":{"$ref":"staff"}},"on"]}},
	 "c":{"state":"ENABLED","variants":{"on":true},"targeting":{"$ref":"rule"}}},
	 "$evaluators":{"rule":{"if":[{"$ref":"staff"},"on"]},"staff":{"in":["@x",{"var":"email"}]}}}`
	manifests, problems := readFlagd("f.json", []byte(src), "default", nil)
	if len(problems) > 0 {
		t.Fatal(problems)
	}
	const staff = `{"in":["@x",{"var":"email"}]}`
	for i, want := range []string{`{"if":[` + staff + `,"on"]}`, `{"if":[{"!":` + staff + `},"on"]}`, `{"if":[` + staff + `,"on"]}`} {
		if spec := string(manifests[i].spec); !strings.Contains(spec, `"targeting":`+want) {
			t.Errorf("%s: %s, want %s", manifests[i], spec, want)
		}
	}
}

// TestHostileFilesAreRefused reads what is deep, large or both.
func TestHostileFilesAreRefused(t *testing.T) {
	flag := func(targeting string) string {
		return `{"flags":{"a":{"state":"ENABLED","variants":{"on":true},"targeting":` + targeting + `}}}`
	}
	nested := func(open, closed string, n int) string {
		return strings.Repeat(open, n) + "1" + strings.Repeat(closed, n)
	}
	large := strings.Repeat("x", 10<<20)
	for name, c := range map[string]struct{ src, want string }{
		"10,000 levels":          {flag(nested(`{"!":`, "}", 10_000)), "nested deeper than 64 levels"},
		"10,000 lists":           {flag(nested(`[`, "]", 10_000)), "nested deeper than 64 levels"},
		"no end":                 {flag(strings.Repeat(`{"!":[`, 1_000_000)), "nested deeper than 64 levels"},
		"a rule of 10 MiB":       {flag(`{"in":["` + large + `",{"var":"x"}]}`), "the definition has 10.0 MiB; no server takes one over 512.0 KiB"},
		"a name of 10 MiB":       {`{"flags":{"` + large + `":{"state":"ENABLED","variants":{"on":true}}}}`, "at most 253 are allowed"},
		"a key of 10 MiB":        {`{"` + large + `":1}`, "unknown key"},
		"an operator of 10 MiB":  {flag(`{"` + large + `":[1]}`), "the definition has 10.0 MiB"},
		"a reference of 10 MiB":  {flag(`{"$ref":"` + large + `"}`), "$evaluators does not have"},
		"deep by two evaluators": {string(evaluatorsFile(strings.Replace(nested(`{"!":`, "}", 50), "1", `{"$ref":"e1"}`, 1), nested(`{"!":`, "}", 50))), "nested deeper than 64 levels"},
	} {
		t.Run(name, func(t *testing.T) {
			problems, allocations := cost([]byte(c.src))
			if len(problems) == 0 || !strings.Contains(problems[0].text, c.want) {
				t.Errorf("problems: %.300v", problems)
			}
			if allocations > 20_000 {
				t.Errorf("%v allocations", allocations)
			}
		})
	}
	for _, depth := range []int{10_000, 1_000_000} {
		if _, faults := yamlfile.Parse("a.yaml", []byte("a: "+nested("[", "]", depth))); len(faults) != 1 {
			t.Errorf("YAML of depth %d: %v", depth, faults)
		}
	}
}
