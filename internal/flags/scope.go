package flags

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/holdfast-dev/holdfast/internal/document"
)

// override is one override as one instance sees it.
type override struct {
	name     string
	revision uint64
	end      int64
	spec     overrideSpec
	// applies tells that the instance is in the scope.
	applies bool
}

// overrideSpec is the definition of an override as JSON.
type overrideSpec struct {
	Mode    string          `json:"mode"`
	Level   string          `json:"level"`
	Flag    string          `json:"flag"`
	Variant string          `json:"variant"`
	Breaker string          `json:"breaker"`
	Method  string          `json:"method"`
	Hold    string          `json:"hold"`
	Fault   json.RawMessage `json:"fault"`
	Scope   *scopeSpec      `json:"scope"`
}

type scopeSpec struct {
	Selector string   `json:"selector"`
	Percent  *float64 `json:"percent"`
}

// target names what the override is about; empty when that is nothing known.
func (o *overrideSpec) target() string {
	switch {
	case o.Mode != "":
		return "mode/" + o.Mode
	case o.Flag != "":
		return "flag/" + o.Flag
	case o.Breaker != "":
		return "breaker/" + o.Breaker + o.Method
	case o.Fault != nil:
		return "fault"
	default:
		return ""
	}
}

// compileOverride reads a definition that Validator accepts, and fails for others.
func compileOverride(r *document.Resource, instance *Instance) (*override, error) {
	o := &override{name: r.Name, revision: r.ModRevision, end: r.End}
	// What this version does not know may narrow what the override is about.
	decoder := json.NewDecoder(bytes.NewReader(r.Spec))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&o.spec); err != nil {
		return nil, fmt.Errorf("read definition: %w", err)
	}
	if o.spec.target() == "" {
		return nil, errors.New("read definition: it is about nothing that this version knows")
	}
	var err error
	o.applies, err = instance.in(o.spec.Scope, o.spec.target())
	if err != nil {
		return nil, err
	}
	return o, nil
}

// in tells whether the instance is in a scope. Of a share of the instances, those
// are in it whose hash is low, so that a share that grows keeps who was in it.
// The hash is another one for each target, or the same instances would always be
// the ones to try things on.
func (i *Instance) in(scope *scopeSpec, target string) (bool, error) {
	if scope == nil {
		return true, nil
	}
	selector, err := ParseSelector(scope.Selector)
	if err != nil {
		return false, fmt.Errorf("scope.selector: %w", err)
	}
	if !selector.Matches(i.label) {
		return false, nil
	}
	return scope.Percent == nil || i.Within(*scope.Percent, target), nil
}

// Within tells whether the instance is among a share of all, from 0 to 100 percent.
// The target is what the share is to be drawn for: "mode/NAME", "flag/NAME",
// "breaker/DEPENDENCY" followed by the method, or "fault".
func (i *Instance) Within(percent float64, target string) bool {
	if percent >= 100 {
		return true
	}
	if i.ID == "" {
		return false
	}
	hash := murmur{}.add(target).add("\x00").add(i.ID).sum()
	return float64(hash) < percent/100*(1<<32)
}

// label returns the value of a label.
func (i *Instance) label(key string) (string, bool) {
	for _, l := range i.Labels {
		if l.Key == key {
			return l.Value, true
		}
	}
	return "", false
}
