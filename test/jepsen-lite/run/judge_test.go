package run

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/holdfast-dev/holdfast/test/jepsen-lite/check"
)

// A run of which the machine can do no fault is skipped; one fault that can be done
// makes it a run that has to show something, and what is wrong is wrong in any.
func TestWhatCannotBeDoneIsSkipped(t *testing.T) {
	t.Parallel()
	const (
		run     = `{"kind":"run","scenario":"disks","began":1,"healed":10,"settled":11,"ended":12}` + "\n"
		skipped = `{"kind":"fault","id":1,"name":"disk-full","event":"skipped","t":2,"proof":"there is no fuse"}` + "\n"
		begun   = `{"kind":"fault","id":2,"name":"kill-leader","event":"begin","t":3}` + "\n"
		dies    = `{"kind":"server","id":"s1","t":4,"event":"exit","code":2}` + "\n"
	)
	for name, test := range map[string]struct {
		history, trouble string
		want             check.Result
	}{
		"nothing can be done":   {run + skipped, "", check.Skipped},
		"something can":         {run + skipped + begun, "", check.Invalid},
		"a process dies anyway": {run + skipped + dies, "", check.Fail},
		"it was cut short":      {run + skipped, "interrupted", check.Invalid},
		"none was asked for":    {run, "", check.Invalid},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			if err := os.Mkdir(filepath.Join(dir, "history"), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(dir, "history", "run.jsonl"), []byte(test.history), 0o600); err != nil {
				t.Fatal(err)
			}
			options := check.Defaults()
			options.Require = []string{"L3"}
			if err := save(filepath.Join(dir, "run.json"), Record{Check: options, Trouble: test.trouble}); err != nil {
				t.Fatal(err)
			}
			page, err := Judge(dir)
			if err != nil {
				t.Fatal(err)
			}
			if page.Result != test.want {
				t.Errorf("%s, want %s: %+v", page.Result, test.want, page.Verdicts)
			}
		})
	}
}
