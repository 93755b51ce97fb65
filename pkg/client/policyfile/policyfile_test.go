package policyfile_test

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/holdfast-dev/holdfast/internal/document"
	"github.com/holdfast-dev/holdfast/internal/policy"
	"github.com/holdfast-dev/holdfast/pkg/client"
	"github.com/holdfast-dev/holdfast/pkg/client/clienttest"
	"github.com/holdfast-dev/holdfast/pkg/client/policyfile"
)

// TestOnePolicyHasTheValuesOfItsFile compares every value of a file with what the
// policy has, and the rest with what is built in.
func TestOnePolicyHasTheValuesOfItsFile(t *testing.T) {
	text, err := policyfile.LoadOne("testdata/one.yaml")
	if err != nil {
		t.Fatal(err)
	}
	got, violations := policy.Parse([]byte(text))
	if len(violations) > 0 {
		t.Fatal(violations)
	}
	want := policy.Default()
	want.CircuitBreaker.FailureThreshold = 7
	want.CircuitBreaker.Timeout = 30 * time.Second
	want.CircuitBreaker.SuccessThreshold = 3
	want.Retry.MaxAttempts = 4
	want.Retry.InitialDelay = 50 * time.Millisecond
	want.Retry.MaxDelay = 5 * time.Second
	want.Retry.Multiplier = 1.5
	want.Retry.Jitter = policy.Jitter{Kind: policy.ShareJitter, Share: 0.1}
	want.Timeouts.Named = map[string]time.Duration{
		"order_processing": 30 * time.Second, "payment": 10 * time.Second, "inventory": 5 * time.Second, "notification": 3 * time.Second,
	}
	want.Bulkhead.MaxConcurrent = 50
	want.Bulkhead.MaxQueue = 20
	want.Bulkhead.MaxWait = 250 * time.Millisecond
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

// TestShapes reads the shapes of files with names; a client takes each.
func TestShapes(t *testing.T) {
	want := map[string]string{
		"payments": `{"circuit_breaker":{"failure_threshold":7}}`,
		"search":   `{"timeouts":{"call":"2s"}}`,
	}
	for name, text := range map[string]string{
		"one.yaml":  "policies:\n  payments:\n    circuit_breaker: {failure_threshold: 7}\n  search: {timeouts: {call: 2s}}\n",
		"one.json":  `{"policies": {"payments": {"circuit_breaker": {"failure_threshold": 7}}, "search": {"timeouts": {"call": "2s"}}}}`,
		"two.yaml":  "---\npolicies: {payments: {circuit_breaker: {failure_threshold: 7}}}\n---\n# nothing\n---\npolicies: {search: {timeouts: {call: 2s}}}\n",
		"kinds.yml": "kind: Policy\nname: payments\nlabels: {team: a}\nspec: {circuit_breaker: {failure_threshold: 7}}\n---\npolicies: {search: {timeouts: {call: 2s}}}\n",
		"list.json": `{"kind":"List","items":[{"kind":"policy","name":"payments","spec":{"circuit_breaker":{"failure_threshold":7}}},{"kind":"Policy","name":"search","spec":{"timeouts":{"call":"2s"}}}]}`,
	} {
		got, err := policyfile.Load(write(t, name, text))
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		for dependency, definition := range got {
			canonical, err := document.Canonical([]byte(definition))
			if err != nil {
				t.Errorf("%s: %v", name, err)
			}
			got[dependency] = string(canonical)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
		clienttest.New(t, clienttest.Config(client.Config{Service: "test", Policies: got}))
	}
}

// TestExampleFilesLoad reads the definitions that the CLI applies.
func TestExampleFilesLoad(t *testing.T) {
	if got, err := policyfile.Load("../../../examples/storefront/policy.yaml"); err != nil || got["payments"] == "" {
		t.Error(got, err)
	}
}

// TestFaultsNameFileLineAndKey has one fault or more in each file.
func TestFaultsNameFileLineAndKey(t *testing.T) {
	for _, test := range []struct {
		name, text string
		want       []string // each with the line before it
	}{
		{"unknown key", "policies:\n  payments:\n    circuit_braker: {timeout: 1s}\n", []string{`:3: payments: circuit_braker`}},
		{"two faults", "policies:\n  a:\n    timeouts:\n      call: soon\n  b:\n    retry_policy:\n\n      max_attempts: 99\n", []string{`:4: a: timeouts.call: "soon"`, `:8: b: retry_policy.max_attempts`}},
		{"second document", "policies: {a: {timeouts: {call: 1s}}}\n---\npolicies:\n  b: {timeouts: {call: 5}}\n", []string{`:4: b: timeouts.call`}},
		{"twice", "policies: {a: {timeouts: {call: 1s}}}\n---\npolicies:\n  a: {timeouts: {call: 5s}}\n", []string{`:4: a: there are two policies of this name, the first one in line 1`}},
		{"key twice", "policies:\n  a: {}\n  a: {}\n", []string{`:3: the key "a" occurs twice`}},
		{"one policy", "circuit_breaker:\n  failure_threshold: 5\n", []string{`:1: "circuit_breaker" is no key`, "LoadOne"}},
		{"flag", "kind: Flag\nname: x\nspec: {}\n", []string{`:1: kind: "Flag" cannot`}},
		{"no name", "kind: Policy\nspec: {}\n", []string{`:1: name: is missing`}},
		{"no spec", "kind: Policy\nname: x\n", []string{`:1: spec: is missing`}},
		{"empty name", "policies:\n  \"\": {timeouts: {call: 1s}}\n", []string{`:2: "": name is empty`}},
		{"list", "- a\n", []string{`:1: a document is a mapping`}},
		{"policies are a list", "policies:\n- a\n", []string{`:1: policies: is a list`}},
		{"not a policy", "policies:\n  a: 3\n", []string{`:2: a: `}},
		{"nothing", "# only a comment\n", []string{`:1: there is no policy`}},
		{"not YAML", "policies: [\n", []string{`:1: not YAML`}},
		{"contradiction", "policies:\n  a:\n    bulkhead: {min_concurrent: 9, max_concurrent: 5}\n", []string{`:3: a: bulkhead`}},
	} {
		t.Run(test.name, func(t *testing.T) {
			path := write(t, "f.yaml", test.text)
			got, err := policyfile.Load(path)
			if err == nil || got != nil {
				t.Fatalf("accepted: %v", got)
			}
			for i, want := range test.want {
				if i == 0 || want[0] == ':' {
					want = path + want
				}
				if !strings.Contains(err.Error(), want) {
					t.Errorf("got\n%v\nwant %s", err, want)
				}
			}
		})
	}
}

// TestFaultsOfOnePolicy are told likewise.
func TestFaultsOfOnePolicy(t *testing.T) {
	for text, want := range map[string]string{
		"timeouts:\n  call: soon\n":                         ":2: timeouts.call",
		"timeouts: {call: 1s}\n---\ntimeouts: {call: 2s}\n": ":1: has 2 documents",
		"":                          ":1: has 0 documents",
		"policies: {a: {}}\n":       ":1: names dependencies; read it with Load",
		"\nkind: Policy\nname: a\n": ":2: names dependencies",
		"- a\n":                     ":1: ",
	} {
		path := write(t, "f.yaml", text)
		if got, err := policyfile.LoadOne(path); err == nil || got != "" || !strings.HasPrefix(err.Error(), path+want) {
			t.Errorf("%q: got %q, %v, want %s", text, got, err, want)
		}
	}
	if _, err := policyfile.LoadOne(filepath.Join(t.TempDir(), "missing.yaml")); !errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
}

// TestLargeFilesAreRefused has files that are too large, or become so.
func TestLargeFilesAreRefused(t *testing.T) {
	large := write(t, "large.yaml", "# "+strings.Repeat("x", 4<<20))
	if _, err := policyfile.Load(large); err == nil || !strings.Contains(err.Error(), "larger than 4194304 bytes") {
		t.Error(err)
	}
	var many strings.Builder
	fmt.Fprintf(&many, "x: &x {description: %q}\npolicies:\n", strings.Repeat("x", 1<<20))
	for i := range 10 {
		fmt.Fprintf(&many, "  d%d: *x\n", i)
	}
	_, err := policyfile.Load(write(t, "many.yaml", many.String()))
	if err == nil || !strings.Contains(err.Error(), "many.yaml:11: d8: the policies of this file take more than 8388608 bytes") &&
		!strings.Contains(err.Error(), "many.yaml:10: d7: the policies of this file take more than 8388608 bytes") {
		t.Errorf("%.500s", err)
	}
}

func write(t *testing.T, name, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}
