package policy

import (
	"encoding/json"
	"fmt"

	"github.com/holdfast-dev/holdfast/internal/document"
	"github.com/holdfast-dev/holdfast/internal/schema"
)

// Check reports everything that is wrong with a policy: unknown keys, types and
// ranges of values, and settings that contradict each other.
func Check(f schema.Fields) {
	p := Default()
	p.read(f)
}

// CheckPatch reports everything that is wrong with a patch of a policy (see
// Patch): as Check, but null is allowed for every key, and whether settings
// contradict each other depends on what is patched.
func CheckPatch(f schema.Fields) {
	checkNotEmpty(f)
	p := Default()
	r := reader{patch: true, right: map[string]bool{}}
	r.members(f, "", p.settings())
}

// Parse returns the settings of a definition, defaults filled in, and everything
// that is wrong with it. The settings are usable whatever the definition is: one
// that is wrong keeps its default, and where two contradict each other the bound
// wins.
func Parse(spec []byte) (Policy, []schema.Violation) { return Resolve(Default(), spec) }

// Resolve is Parse over other defaults, such as the ones given in code. Names in
// the maps of base stay unless the definition has them too.
func Resolve(base Policy, spec []byte) (Policy, []schema.Violation) {
	var report schema.Report
	if f, ok := report.Read(spec); ok {
		base.read(f)
	}
	return base, report.List()
}

// Spec returns the settings as a definition in canonical form that has every key:
// Parse of it returns them again.
func (p Policy) Spec() ([]byte, error) {
	text, err := json.Marshal(values(p.settings()))
	if err != nil {
		return nil, fmt.Errorf("encode the settings: %w", err)
	}
	return document.Canonical(text)
}

func checkNotEmpty(f schema.Fields) {
	if len(f.Members) == 0 {
		f.Add(f.Path, "is empty; it needs at least one key")
	}
}

// read puts a definition's settings over those of p.
func (p *Policy) read(f schema.Fields) {
	checkNotEmpty(f)
	r := reader{right: map[string]bool{}}
	r.members(f, "", p.settings())
	s := settler{Fields: f, right: r.right}
	s.breaker(&p.CircuitBreaker)
	s.retry(&p.Retry)
	s.timeouts(&p.Timeouts)
	s.bulkhead(&p.Bulkhead)
	ordered(s, "fleet.dwell", &p.Fleet.Dwell, "fleet.max_dwell", &p.Fleet.MaxDwell)
	ordered(s, "fleet.close_ratio", &p.Fleet.CloseRatio, "fleet.open_ratio", &p.Fleet.OpenRatio)
}
