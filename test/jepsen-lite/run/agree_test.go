package run

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
)

// The last decision that is there whole counts, whatever stands around it.
func TestLastDecision(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path := filepath.Join(dir, "history", "i1.2.jsonl")
	if err := os.Mkdir(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	m := &member{id: "i1", lives: 2, stage: &stage{o: Options{Dir: dir}}}
	const one, two, other = `{"kind":"decision","revision":1}` + "\n", `{"kind":"decision","revision":2,"connected":true}` + "\n", `{"kind":"usage"}` + "\n"
	for text, want := range map[string]uint64{one + two: 2, one + two + other: 2, one + two[:20]: 1, other: 0, "": 0} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		d, err := m.lastDecision()
		if d.Revision != want || errors.Is(err, errNoDecision) != (want == 0) {
			t.Errorf("%q: revision %d, %v; want %d", text, d.Revision, err, want)
		}
	}
}
