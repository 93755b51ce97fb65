package flags_test

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"testing"

	"github.com/holdfast-dev/holdfast/internal/document"
	"github.com/holdfast-dev/holdfast/internal/flags"
)

// The vectors are flags, contexts and what flagd's evaluator for JavaScript made
// of them. test/conformance/oracle generates them; `make conformance` replays
// fresh ones, whose file it names in this variable.
const vectorsVariable = "HOLDFAST_VECTORS"

// committedVectors is compressed by gzip -9 -n, and made by
//
//	node generate.mjs --seed 20261123 --cases 2900 --rare 5 --out FILE
const committedVectors = "testdata/vectors/vectors.jsonl.gz"

// vector is one line of the file.
type vector struct {
	Flag       string          `json:"flag"`
	Definition json.RawMessage `json:"definition"`
	Context    json.RawMessage `json:"context"`
	Now        int64           `json:"now"`
	// Want is what flagd's evaluator decided.
	Want outcome `json:"want"`
	// Amended is what it decides with the operators that are meant to differ
	// replaced, where that is not Want; Because are the classes of those.
	Amended *outcome `json:"amended"`
	Because []string `json:"because"`
}

// outcome is a decision with the names of what it consists of.
type outcome struct {
	Value   json.RawMessage `json:"value"`
	Variant *string         `json:"variant"`
	Reason  string          `json:"reason"`
	Code    string          `json:"code"`
}

// String is all that is compared.
func (o outcome) String() string {
	variant := "none"
	if o.Variant != nil {
		variant = fmt.Sprintf("%q = %s", *o.Variant, o.Value)
	}
	return strings.TrimSpace(fmt.Sprintf("variant %s, %s %s", variant, o.Reason, o.Code))
}

// canonical has the value as variants have it.
func (o outcome) canonical(t *testing.T) outcome {
	t.Helper()
	value, err := document.Canonical(o.Value)
	if err != nil {
		t.Fatalf("value %s: %v", o.Value, err)
	}
	o.Value = value
	return o
}

func outcomeOf(d flags.Decision) outcome {
	o := outcome{Reason: d.Reason.String(), Code: d.Code.String()}
	if d.Variant != nil {
		o.Variant, o.Value = &d.Variant.Name, d.Variant.JSON
	}
	return o
}

// TestVectors compares with flagd's evaluator for JavaScript. A difference is
// explained when that evaluator, with the classes in testdata/vectors/explained.json
// put into it, comes to what this one does; it must come to it, too.
func TestVectors(t *testing.T) {
	name, fresh := os.LookupEnv(vectorsVariable)
	if !fresh {
		name = committedVectors
	}
	const shown = 20
	explained, counts, total, different, unexplained := classes(t), map[string]int{}, 0, 0, 0
	for v := range vectors(t, name) {
		total++
		want := v.Want
		if v.Amended != nil {
			want = *v.Amended
			different++
		}
		for _, class := range v.Because {
			counts[class]++
			if explained[class] == "" {
				t.Errorf("class %q is not in explained.json", class)
				explained[class] = "missing"
			}
		}
		got := v.replay(t)
		if got.String() == want.canonical(t).String() {
			continue
		}
		if unexplained++; unexplained <= shown {
			t.Errorf("flag %q\n  definition %s\n  context    %s\n  now        %d\n  flagd      %s\n  amended    %v %q\n  Holdfast   %s",
				v.Flag, v.Definition, v.Context, v.Now, v.Want, v.Amended, v.Because, got)
		}
	}
	for class := range explained {
		t.Logf("%-16s %d", class, counts[class])
		if !fresh && counts[class] == 0 {
			t.Errorf("no vector is in the class %q; is it still one?", class)
		}
	}
	t.Logf("%d cases, %d of them decided otherwise than by flagd, %d without an explanation", total, different, unexplained)
	if unexplained > 0 {
		t.Errorf("%d of %d cases differ without an explanation", unexplained, total)
	}
	if total < 1000 {
		t.Errorf("%s has %d cases only", name, total)
	}
}

func (v *vector) replay(t *testing.T) outcome {
	t.Helper()
	definition, err := document.Canonical(v.Definition)
	if err != nil {
		t.Fatalf("definition %s: %v", v.Definition, err)
	}
	attributes, err := flags.ParseAttributes(v.Context)
	if err != nil {
		t.Fatalf("context %s: %v", v.Context, err)
	}
	f, _ := flags.Compile(v.Flag, definition)
	return outcomeOf(f.Evaluate(v.Now, attributes...))
}

// vectors yields the lines of a file.
func vectors(t *testing.T, name string) func(yield func(*vector) bool) {
	t.Helper()
	f, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	var r io.Reader = f
	if strings.HasSuffix(name, ".gz") {
		if r, err = gzip.NewReader(f); err != nil {
			t.Fatal(err)
		}
	}
	lines := bufio.NewReader(r)
	return func(yield func(*vector) bool) {
		for {
			line, err := lines.ReadBytes('\n')
			if len(line) > 0 {
				v := new(vector)
				if err := json.Unmarshal(line, v); err != nil {
					t.Fatalf("%s: %v", line, err)
				}
				if !yield(v) {
					return
				}
			}
			if errors.Is(err, io.EOF) {
				return
			}
			if err != nil {
				t.Fatal(err)
			}
		}
	}
}

// classes returns the reason of every class of differences that are meant.
func classes(t *testing.T) map[string]string {
	t.Helper()
	text, err := os.ReadFile("testdata/vectors/explained.json")
	if err != nil {
		t.Fatal(err)
	}
	var list []struct {
		Class  string `json:"class"`
		Reason string `json:"reason"`
	}
	decoder := json.NewDecoder(bytes.NewReader(text))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&list); err != nil {
		t.Fatal(err)
	}
	reasons := map[string]string{}
	for _, c := range list {
		if c.Reason == "" || reasons[c.Class] != "" {
			t.Errorf("class %q has no reason, or is there twice", c.Class)
		}
		reasons[c.Class] = c.Reason
	}
	return reasons
}
