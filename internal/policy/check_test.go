package policy

import (
	"encoding/json"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.yaml.in/yaml/v3"
	grpccodes "google.golang.org/grpc/codes"

	"github.com/holdfast-dev/holdfast/internal/schema"
)

func readYAML(t *testing.T, src []byte, into any) {
	t.Helper()
	if err := yaml.Unmarshal(src, into); err != nil {
		t.Fatal(err)
	}
}

func toJSON(t *testing.T, value any) []byte {
	t.Helper()
	text, err := json.Marshal(value)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// wrong returns what check reports of a definition.
func wrong(spec []byte, check func(schema.Fields)) []string {
	var r schema.Report
	if f, ok := r.Read(spec); ok {
		check(f)
	}
	return texts(r.List())
}

func texts(violations []schema.Violation) []string {
	var all []string
	for _, v := range violations {
		all = append(all, v.String())
	}
	return all
}

// TestFileOfOperations loads a file in the shape that services of other systems
// have: timeouts by operation, a word or a boolean for jitter.
func TestFileOfOperations(t *testing.T) {
	data, err := os.ReadFile("testdata/orders.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var file any
	readYAML(t, data, &file)
	got, violations := Parse(toJSON(t, file))
	if violations != nil {
		t.Fatal(violations)
	}
	want := Default()
	want.CircuitBreaker.Timeout, want.CircuitBreaker.SuccessThreshold = time.Minute, 3
	want.Retry.MaxAttempts, want.Retry.MaxDelay = 4, 5*time.Second
	want.Timeouts.Named = map[string]time.Duration{
		"order_processing": 30 * time.Second, "payment": 10 * time.Second, "inventory": 5 * time.Second, "notification": 3 * time.Second,
	}
	want.Bulkhead.MaxConcurrent, want.Bulkhead.MaxQueue, want.Bulkhead.MaxWait = 20, 50, time.Second
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if got := got.Timeouts.For("payment"); got != 10*time.Second {
		t.Errorf("a payment has %s", got)
	}
}

func TestCheckRefuses(t *testing.T) {
	codes := strings.Join(ErrorNames(), ", ")
	for spec, want := range map[string][]string{
		`{}`: {"is empty; it needs at least one key"},
		`{"circuit-breaker":{},"retry":{},"enforcement":"enforced","description":1}`: {
			`circuit-breaker: unknown key; did you mean "circuit_breaker"?`,
			"retry: unknown key; known here: description, enforcement, circuit_breaker, retry_policy, timeouts, bulkhead, fallback, " +
				"fleet, fleet_without_traffic, dead_letter_queue, chaos_engineering",
			"description: is a number, but must be a string",
			`enforcement: "enforced" is not known; did you mean "enforce"?`,
		},
		`{"circuit_breaker":[],"bulkhead":null,"dead_letter_queue":1,"chaos_engineering":"on"}`: {
			"circuit_breaker: is an array, but must be an object",
			"bulkhead: is null, but must be an object",
			"dead_letter_queue: is a number, but must be an object",
			"chaos_engineering: is a string, but must be an object",
		},
		`{"circuit_breaker":{"failure_treshold":5,"failure_ratio":50,"volume_threshold":0,"probes":1.5,"success_threshold":"2","window":"1ms",
			"timeout":30,"max_timeout":"soon","jitter":"full","failure_codes":["unavailable",14,"TEAPOT"],"ramp_step":null}}`: {
			`circuit_breaker.failure_treshold: unknown key; did you mean "failure_threshold"?`,
			"circuit_breaker.failure_ratio: is 50, but must be from 0 to 1",
			"circuit_breaker.volume_threshold: is 0, but must be a whole number from 1 to 1000000",
			`circuit_breaker.window: "1ms" must be from 100ms to 10m`,
			`circuit_breaker.failure_codes[0]: "unavailable" is not known; did you mean "UNAVAILABLE"?`,
			"circuit_breaker.failure_codes[1]: is a number, but must be a string",
			`circuit_breaker.failure_codes[2]: "TEAPOT" is not known; it must be one of ` + codes,
			`circuit_breaker.timeout: is the number 30, but must be a duration with its unit, such as "500ms" or "1m30s"`,
			`circuit_breaker.max_timeout: "soon" is not a duration, such as "500ms" or "1m30s"`,
			"circuit_breaker.jitter: is a string, but must be a number",
			"circuit_breaker.probes: is 1.5, but must be a whole number from 1 to 100",
			"circuit_breaker.success_threshold: is a string, but must be a number",
			"circuit_breaker.ramp_step: is null, but must be a string",
		},
		`{"circuit_breaker":{"ramp":[0.5,0.5]}}`:                  {"circuit_breaker.ramp[1]: is 0.5, but must be more than 0.5 and less than 1"},
		`{"circuit_breaker":{"ramp":[0]}}`:                        {"circuit_breaker.ramp[0]: is 0, but must be more than 0 and less than 1"},
		`{"circuit_breaker":{"ramp":[0.2,1]}}`:                    {"circuit_breaker.ramp[1]: is 1, but must be more than 0.2 and less than 1"},
		`{"circuit_breaker":{"ramp":["1 %"]}}`:                    {"circuit_breaker.ramp[0]: is a string, but must be a number"},
		`{"circuit_breaker":{"ramp":{}}}`:                         {"circuit_breaker.ramp: is an object, but must be an array"},
		`{"circuit_breaker":{"timeout":"2m","max_timeout":"1m"}}`: {"circuit_breaker.timeout: is 2m, but max_timeout is 1m, which is less"},
		`{"circuit_breaker":{"slow_ratio":0.5}}`: {
			"circuit_breaker.slow_ratio: has no effect, as slow_after does not say from when on a call is slow",
		},
		`{"circuit_breaker":{"ramp":[0.1,0.2,0.3,0.4,0.5,0.6,0.7,0.8,0.9]}}`: {"circuit_breaker.ramp: has 9 steps; at most 8 are allowed"},
		`{"retry_policy":{"max_attempts":0,"backoff":"linear","jitter":"ful","retryable":["OK"],"idempotent":["/shop.*/Get","","*","/a/b"],
			"budget":{"ratio":1.1,"percent":20},"max_hedges":1e3}}`: {
			"retry_policy.max_attempts: is 0, but must be a whole number from 1 to 20",
			`retry_policy.backoff: "linear" is not known; it must be one of exponential, fibonacci`,
			`retry_policy.jitter: "ful" is not known; did you mean "full"?`,
			`retry_policy.retryable[0]: "OK" is not known; it must be one of ` + codes,
			`retry_policy.idempotent[0]: "/shop.*/Get" has a * that is not the whole method; write "/package.Service/*"`,
			"retry_policy.idempotent[1]: name is empty",
			"retry_policy.budget.percent: unknown key; known here: ratio, min_per_second, window",
			"retry_policy.budget.ratio: is 1.1, but must be from 0 to 1",
			"retry_policy.max_hedges: is 1000, but must be a whole number from 1 to 5",
		},
		`{"retry_policy":{"jitter":1.5}}`:                           {"retry_policy.jitter: is 1.5, but must be from 0 to 1"},
		`{"retry_policy":{"jitter":[]}}`:                            {"retry_policy.jitter: is an array, but must be one of none, full, equal, decorrelated, or a number from 0 to 1"},
		`{"retry_policy":{"initial_delay":"10s","max_delay":"1s"}}`: {"retry_policy.initial_delay: is 10s, but max_delay is 1s, which is less"},
		`{"retry_policy":{"initial_delay":"10s","max_delay":"1"}}`:  {`retry_policy.max_delay: "1" is not a duration, such as "500ms" or "1m30s"`},
		`{"retry_policy":{"retryable":["ABORTED","UNAVAILABLE","INTERNAL"],"non_retryable":["INTERNAL","ABORTED"]}}`: {
			"retry_policy.non_retryable: has ABORTED and INTERNAL in common with retryable",
		},
		`{"retry_policy":{"jitter":"decorrelated","backoff":"fibonacci"}}`: {
			"retry_policy.backoff: has no effect, as jitter is decorrelated, which grows in its own way",
		},
		`{"timeouts":{"default":"5s","conect":"1s","PER-ATTEMPT":"1s","Call":"1s","/shop.Orders":"1s","/shop.Orders/*":"48h","pay\u0000":"1s","refund":5}}`: {
			`timeouts["/shop.Orders"]: "/shop.Orders" is not a method; write "/package.Service/Method" or "/package.Service/*"`,
			`timeouts["/shop.Orders/*"]: "48h" must be from 0s to 24h`,
			`timeouts.Call: is nearly the key "call"; did you mean that? An operation needs another name`,
			`timeouts.PER-ATTEMPT: is nearly the key "per_attempt"; did you mean that? An operation needs another name`,
			`timeouts.conect: is nearly the key "connect"; did you mean that? An operation needs another name`,
			`timeouts.default: is the name of no operation; the timeout of calls without one of their own is "call"`,
			`timeouts["pay\x00"]: name holds the control character U+0000 at byte 3`,
			`timeouts.refund: is the number 5, but must be a duration with its unit, such as "500ms" or "1m30s"`,
		},
		`{"timeouts":{"call":"1s","per_attempt":"2s","margin":"1s","minimum":"3s"}}`: {
			"timeouts.per_attempt: is 2s, but call is 1s, which is less",
			"timeouts.minimum: is 3s, but call is 1s, which is less",
			"timeouts.margin: is 1s, which leaves nothing of call, 1s",
		},
		`{"bulkhead":{"max_concurrent":0,"adaptive":"yes","methods":{"*":1,"/a.B/*":0,"a/*":"1"},"weights":[]}}`: {
			"bulkhead.max_concurrent: is 0, but must be a whole number from 1 to 1000000",
			"bulkhead.adaptive: is a string, but must be true or false",
			`bulkhead.methods["*"]: "*" is no operation: the only patterns are those of methods, "/package.Service/*"`,
			`bulkhead.methods["/a.B/*"]: is 0, but must be a whole number from 1 to 1000000`,
			`bulkhead.methods["a/*"]: "a/*" is no operation: the only patterns are those of methods, "/package.Service/*"`,
			"bulkhead.weights: is an array, but must be an object",
		},
		`{"bulkhead":{"min_concurrent":9,"max_concurrent":4}}`: {"bulkhead.min_concurrent: is 9, but max_concurrent is 4, which is less"},
		`{"bulkhead":{"max_wait":"1s"}}`:                       {"bulkhead.max_wait: has no effect, as max_queue does not say how many calls may wait"},
		`{"fallback":{"chain":7,"chains":{"/a.B/C":"","x":"a\nb"},"on":["timeout","reject"],"timeout":"0s"}}`: {
			"fallback.chain: is a number, but must be a string",
			"fallback.chains.x: name holds the control character U+000A at byte 1",
			`fallback.on[1]: "reject" is not known; did you mean "rejected"?`,
			`fallback.timeout: "0s" must be from 1ms to 10m`,
		},
		`{"fleet":"advice","fleet_without_traffic":true}`: {
			`fleet: "advice" is not known; did you mean "advise"?`,
			"fleet_without_traffic: is a boolean, but must be an object or one of enforce, advise, off",
		},
		`{"fleet":{"open_ratio":0.2,"close_ratio":0.5,"dwell":"5m","max_dwell":"1m","quorum":0,"probe":1},"fleet_without_traffic":{"zones":2}}`: {
			`fleet.probe: unknown key; did you mean "probes"?`,
			"fleet.quorum: is 0, but must be a whole number from 1 to 1000",
			"fleet_without_traffic.zones: unknown key; known here: mode, quorum, open_ratio",
			"fleet.dwell: is 5m, but max_dwell is 1m, which is less",
			"fleet.close_ratio: is 0.5, but open_ratio is 0.2, which is less",
		},
	} {
		if got := wrong([]byte(spec), Check); !slices.Equal(got, want) {
			t.Errorf("%s\ngot  %s\nwant %s", spec, strings.Join(got, "\n     "), strings.Join(want, "\n     "))
		}
	}
}

// TestCheckAccepts are definitions that are easily refused by mistake.
func TestCheckAccepts(t *testing.T) {
	for _, spec := range []string{
		`{"description":""}`,
		`{"circuit_breaker":{},"retry_policy":{},"timeouts":{},"bulkhead":{},"fallback":{},"fleet":{},"fleet_without_traffic":{},
			"enforcement":"observe","dead_letter_queue":{"x":null},"chaos_engineering":{"any":[1]}}`,
		`{"fleet":"off","fleet_without_traffic":"enforce"}`,
		`{"circuit_breaker":{"timeout":"30m","ramp":[],"failure_codes":[]}}`,
		`{"retry_policy":{"initial_delay":"1m"}}`, `{"retry_policy":{"max_delay":"1ms"}}`,
		`{"retry_policy":{"non_retryable":["UNAVAILABLE"]}}`, `{"retry_policy":{"jitter":false}}`, `{"retry_policy":{"jitter":0.1}}`,
		`{"retry_policy":{"idempotent":["*","/shop.Orders/*","/shop.Orders/Get","search-index"]}}`,
		`{"timeouts":{"call":"0s","per_attempt":"1h","all":"1s","query-all":"1s","queue":"1s"}}`,
		`{"timeouts":{"call":"1ms"}}`,
		`{"bulkhead":{"max_concurrent":1}}`, `{"bulkhead":{"max_wait":"0s"}}`, `{"bulkhead":{"max_queue":0,"max_wait":"1s"}}`,
		`{"circuit_breaker":{"slow_after":"0s","slow_ratio":0.5}}`,
		`{"fallback":{"chain":"","on":[]}}`,
	} {
		if got := wrong([]byte(spec), Check); got != nil {
			t.Errorf("%s\nrefused: %q", spec, got)
		}
	}
}

func TestCheckPatch(t *testing.T) {
	for spec, want := range map[string][]string{
		`{}`:                                 {"is empty; it needs at least one key"},
		`{"retry_policy":null,"fleet":null}`: nil,
		`{"retry_policy":{"max_attempts":null,"budget":{"ratio":null}},"timeouts":{"payment":null,"call":null}}`: nil,
		`{"retry_policy":{"initial_delay":"10s","max_delay":"1s"},"bulkhead":{"max_wait":"1s"}}`:                 nil,
		`{"retry":null,"timeouts":{"conect":null},"bulkhead":{"methods":{"/a":null}}}`: {
			"retry: unknown key; known here: description, enforcement, circuit_breaker, retry_policy, timeouts, bulkhead, fallback, " +
				"fleet, fleet_without_traffic, dead_letter_queue, chaos_engineering",
			`timeouts.conect: is nearly the key "connect"; did you mean that? An operation needs another name`,
			`bulkhead.methods["/a"]: "/a" is not a method; write "/package.Service/Method" or "/package.Service/*"`,
		},
		`{"retry_policy":{"max_attempts":50,"retryable":[null]}}`: {
			"retry_policy.max_attempts: is 50, but must be a whole number from 1 to 20",
			"retry_policy.retryable[0]: is null, but must be a string",
		},
	} {
		if got := wrong([]byte(spec), CheckPatch); !slices.Equal(got, want) {
			t.Errorf("%s\ngot  %s\nwant %s", spec, strings.Join(got, "\n     "), strings.Join(want, "\n     "))
		}
	}
}

// TestParse shows what holds where a definition says nothing, or something wrong.
func TestParse(t *testing.T) {
	for _, c := range []struct {
		name, spec string
		wrong      int
		change     func(*Policy)
	}{
		{"nothing", `{}`, 1, func(*Policy) {}},
		{"no JSON", `{`, 1, func(*Policy) {}},
		{"no object", `[]`, 1, func(*Policy) {}},
		{"one key", `{"retry_policy":{"budget":{"ratio":0.1}}}`, 0, func(p *Policy) { p.Retry.Budget.Ratio = 0.1 }},
		{
			"wrong keys beside right ones", `{"circuit_breaker":{"failure_threshold":7,"probes":"many","color":"red"},"bulkhead":4,"fleet":true,"hedging":{}}`, 5,
			func(p *Policy) { p.CircuitBreaker.FailureThreshold = 7 },
		},
		{"words for objects", `{"fleet":"off","fleet_without_traffic":"off"}`, 0, func(p *Policy) { p.Fleet.Mode, p.FleetWithoutTraffic.Mode = FleetOff, FleetOff }},
		{"a share for jitter", `{"retry_policy":{"jitter":0.1}}`, 0, func(p *Policy) { p.Retry.Jitter = Jitter{ShareJitter, 0.1} }},
		{"no jitter", `{"retry_policy":{"jitter":0}}`, 0, func(p *Policy) { p.Retry.Jitter = Jitter{Kind: NoJitter} }},
		{"lists replace defaults", `{"retry_policy":{"retryable":[]},"circuit_breaker":{"ramp":[0.5],"failure_codes":["NOT_FOUND"]}}`, 0, func(p *Policy) {
			p.Retry.Retryable, p.CircuitBreaker.Ramp, p.CircuitBreaker.FailureCodes = 0, []float64{0.5}, 1<<5
		}},
		{"a bound follows", `{"circuit_breaker":{"timeout":"5m"}}`, 0, func(p *Policy) { p.CircuitBreaker.Timeout, p.CircuitBreaker.MaxTimeout = 5*time.Minute, 5*time.Minute }},
		{"what is bounded follows", `{"circuit_breaker":{"max_timeout":"1s"}}`, 0, func(p *Policy) { p.CircuitBreaker.Timeout, p.CircuitBreaker.MaxTimeout = time.Second, time.Second }},
		{"the bound wins", `{"circuit_breaker":{"timeout":"5m","max_timeout":"1s"}}`, 1, func(p *Policy) {
			p.CircuitBreaker.Timeout, p.CircuitBreaker.MaxTimeout = time.Second, time.Second
		}},
		{"never retried wins", `{"retry_policy":{"retryable":["ABORTED","UNAVAILABLE"],"non_retryable":["ABORTED"]}}`, 1, func(p *Policy) { p.Retry.NonRetryable = 1 << 10 }},
		{"never retried leaves the default", `{"retry_policy":{"non_retryable":["UNAVAILABLE"]}}`, 0, func(p *Policy) { p.Retry.Retryable, p.Retry.NonRetryable = 0, 1<<14 }},
		{"decorrelated wins", `{"retry_policy":{"jitter":"decorrelated","backoff":"fibonacci"}}`, 1, func(p *Policy) { p.Retry.Jitter.Kind = DecorrelatedJitter }},
		{"margin of a short call", `{"timeouts":{"call":"2ms"}}`, 0, func(p *Policy) { p.Timeouts.Call, p.Timeouts.Margin = 2*time.Millisecond, time.Millisecond }},
		{"no deadline bounds nothing", `{"timeouts":{"call":"0s","per_attempt":"1h"}}`, 0, func(p *Policy) { p.Timeouts.Call, p.Timeouts.PerAttempt = 0, time.Hour }},
		{"an attempt longer than the default call", `{"timeouts":{"per_attempt":"20s"}}`, 0, func(p *Policy) {
			p.Timeouts.Call, p.Timeouts.PerAttempt = 20*time.Second, 20*time.Second
		}},
		{"adaptive below the default", `{"bulkhead":{"max_concurrent":2}}`, 0, func(p *Policy) { p.Bulkhead.MaxConcurrent, p.Bulkhead.MinConcurrent = 2, 2 }},
	} {
		want := Default()
		c.change(&want)
		got, violations := Parse([]byte(c.spec))
		if diff := cmp.Diff(want, got, cmpEmpty()); diff != "" || len(violations) != c.wrong {
			t.Errorf("%s: %v\n%s", c.name, texts(violations), diff)
		}
	}
}

// TestResolve shows that a policy wins over code, key by key, and leaves what code
// gave alone.
func TestResolve(t *testing.T) {
	base := Default()
	base.Enforcement = Observe
	base.Retry.NonRetryable = codesOf("ABORTED")
	base.Retry.Jitter.Kind = DecorrelatedJitter
	base.Timeouts.Named = map[string]time.Duration{"a": time.Second, "b": time.Second}
	base.CircuitBreaker.Ramp = []float64{0.1, 0.2}
	got, violations := Resolve(base, []byte(`{"retry_policy":{"retryable":["ABORTED"],"backoff":"fibonacci"},"timeouts":{"b":"2s"},"circuit_breaker":{"ramp":[0.3]}}`))
	if violations != nil {
		t.Fatal(violations)
	}
	want := base
	want.Retry.Retryable, want.Retry.NonRetryable = codesOf("ABORTED"), 0
	want.Retry.Backoff, want.Retry.Jitter.Kind = Fibonacci, FullJitter
	want.Timeouts.Named = map[string]time.Duration{"a": time.Second, "b": 2 * time.Second}
	want.CircuitBreaker.Ramp = []float64{0.3}
	if diff := cmp.Diff(want, got, cmpEmpty()); diff != "" {
		t.Error(diff)
	}
	if base.Timeouts.Named["b"] != time.Second || base.CircuitBreaker.Ramp[0] != 0.1 {
		t.Error("the settings of code have changed")
	}
}

// TestCalls looks calls up by their names, most precise first.
func TestCalls(t *testing.T) {
	p, violations := Parse([]byte(`{
		"timeouts":{"call":"1s","/a.B/C":"2s","/a.B/*":"3s","op":"4s"},
		"bulkhead":{"max_concurrent":10,"methods":{"/a.B/*":5,"op":50},"weights":{"op":2,"heavy":99}},
		"fallback":{"chain":"x","chains":{"/a.B/C":"y","op":""}}}`))
	if violations != nil {
		t.Fatal(violations)
	}
	type answer struct {
		Timeout       time.Duration
		Limit, Weight int
		Chain         string
	}
	for call, want := range map[string]answer{
		"/a.B/C": {2 * time.Second, 5, 1, "y"},
		"/a.B/D": {3 * time.Second, 5, 1, "x"},
		"/a.C/C": {time.Second, 10, 1, "x"},
		"op":     {4 * time.Second, 10, 2, ""},
		"heavy":  {time.Second, 10, 10, "x"},
		"a.B/C":  {time.Second, 10, 1, "x"},
		"":       {time.Second, 10, 1, "x"},
		"/":      {time.Second, 10, 1, "x"},
	} {
		got := answer{p.Timeouts.For(call), p.Bulkhead.Limit(call), p.Bulkhead.Weight(call), p.Fallback.ChainOf(call)}
		if got != want {
			t.Errorf("%q: %v, want %v", call, got, want)
		}
	}
}

func TestCodes(t *testing.T) {
	c := codesOf("UNAVAILABLE", "CANCELLED", "NO_CODE")
	if !c.Has(14) || !c.Has(1) || c.Has(0) || c.Has(13) || c.Has(32) || c.Has(46) {
		t.Errorf("%v (%b)", c, c)
	}
	if got := c.String(); got != "[CANCELLED UNAVAILABLE]" {
		t.Error(got)
	}
	for i, name := range codeNames {
		var code grpccodes.Code
		if err := code.UnmarshalJSON([]byte(`"` + name + `"`)); err != nil || int(code) != i {
			t.Errorf("%s is %d of gRPC, %d here (%v)", name, code, i, err)
		}
	}
}
