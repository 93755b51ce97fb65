package cli

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/holdfast-dev/holdfast/internal/document"
	"github.com/holdfast-dev/holdfast/internal/flags"
	holdfastv1 "github.com/holdfast-dev/holdfast/proto/holdfast/v1"
)

// previewView is what an override would change for an instance in its scope, in
// JSON and YAML.
type previewView struct {
	// InstanceLabels are those of an instance in the scope, for which it was worked
	// out.
	InstanceLabels map[string]string `json:"instance_labels"`
	Levels         []changedView     `json:"levels"`
	Flags          []changedView     `json:"flags"`
	Calls          []callView        `json:"calls"`
	Policies       []changedView     `json:"policies"`
	// Instances is how many connected instances are in the scope; nil where the
	// servers do not know their instances. Those of Unreachable are not counted.
	Instances   *int              `json:"instances"`
	Unreachable []unreachableView `json:"unreachable,omitempty"`
	// scoped tells that the override is not for everybody.
	scoped bool
}

// changedView is something that would be another thing than before.
type changedView struct {
	Name   string `json:"name"`
	Before string `json:"before"`
	After  string `json:"after"`
	By     string `json:"by,omitempty"`
}

// callView is an effect on calls that would begin or end.
type callView struct {
	Change string `json:"change"` // begins or ends
	Action string `json:"action"`
	Side   string `json:"side"`
	Calls  string `json:"calls"`
	With   string `json:"with,omitempty"`
	By     string `json:"by"`
}

// preview works out what an override would change for an instance in its scope.
// Of the other overrides, those hold that hold for all instances with its labels.
func (a *app) preview(ctx context.Context, name string, spec *overrideSpec) (*previewView, error) {
	content, err := a.snapshot(ctx)
	if err != nil {
		return nil, err
	}
	v := &previewView{InstanceLabels: map[string]string{}, scoped: spec.Scope != nil}
	whole := *spec
	if spec.Scope != nil {
		var ok bool
		if v.InstanceLabels, ok = member(spec.Scope.Selector); !ok {
			a.warn("no instance can be in the scope %s", spec.Scope.Selector)
		}
		whole.Scope = &scopeSpec{Selector: spec.Scope.Selector} // who is within the share
		if whole.Scope.Selector == "" {
			whole.Scope = nil
		}
	}
	text, err := json.Marshal(&whole)
	if err != nil {
		return nil, fmt.Errorf("encode override: %w", err)
	}
	before := flags.NewView(flags.Instance{Labels: document.LabelsOf(v.InstanceLabels)}).Update(content)
	next := content.To + 1
	after := before.Update(document.Delta{Namespace: content.Namespace, From: content.To, To: next, Puts: []*document.Resource{{
		Key: document.Key{Kind: document.Override, Name: name}, Spec: text, CreateRevision: next, ModRevision: next, Version: 1,
	}}})
	v.Levels = levelChanges(before, after)
	v.Flags = flagChanges(before, after)
	v.Calls = callChanges(before.Effects(), after.Effects())
	if v.Policies, err = policyChanges(before, after); err != nil {
		return nil, err
	}
	return v, a.countMembers(ctx, v, spec)
}

// countMembers counts the connected instances in the scope.
func (a *app) countMembers(ctx context.Context, v *previewView, spec *overrideSpec) error {
	res, err := a.instancePage(ctx, &holdfastv1.ListInstancesRequest{Filter: spec.members(a.namespace()), PageSize: 1})
	switch {
	case status.Code(err) == codes.Unimplemented:
		return nil
	case err != nil:
		return a.rpcFailure("count the instances in the scope", err)
	}
	total := int(res.GetTotal())
	v.Instances, v.Unreachable = &total, unreachableViews(res.GetUnreachable())
	return nil
}

// levelChanges lists the modes whose level changes.
func levelChanges(before, after *flags.View) []changedView {
	out := []changedView{}
	names := map[string]bool{}
	for _, l := range slices.Concat(before.Levels(), after.Levels()) {
		names[l.Mode] = true
	}
	for _, name := range slices.Sorted(maps.Keys(names)) {
		was, is := before.Mode(name), after.Mode(name)
		if was.Rank != is.Rank {
			out = append(out, changedView{Name: name, Before: cmp.Or(was.Name, normalLevel), After: cmp.Or(is.Name, normalLevel)})
		}
	}
	return out
}

// byDefinition is what a flag is that nothing forces.
const byDefinition = "as defined"

// flagChanges lists the flags that are forced to another variant, or no longer.
func flagChanges(before, after *flags.View) []changedView {
	out := []changedView{}
	for was, is := range after.Changes(before) {
		c := changedView{Name: is.Key(), Before: byDefinition, After: byDefinition}
		if variant, _ := was.Forced(); variant != nil {
			c.Before = variant.Name
		}
		if variant, by := is.Forced(); variant != nil {
			c.After, c.By = variant.Name, by
		}
		if c.Before != c.After {
			out = append(out, c)
		}
	}
	return out
}

// callChanges lists the effects on calls that begin or end.
func callChanges(before, after []flags.MethodEffect) []callView {
	out := []callView{}
	views := func(change string, effects []flags.MethodEffect) []callView {
		all := make([]callView, 0, len(effects))
		for i := range effects {
			e := &effects[i]
			all = append(all, callView{change, e.Action.String(), e.Side.String(), callsOf(e), settingsOf(e), e.By})
		}
		return all
	}
	old, now := views("ends", before), views("begins", after)
	same := func(c callView) func(callView) bool {
		return func(other callView) bool {
			other.Change = c.Change
			return other == c
		}
	}
	for _, c := range old {
		if !slices.ContainsFunc(now, same(c)) {
			out = append(out, c)
		}
	}
	for _, c := range now {
		if !slices.ContainsFunc(old, same(c)) {
			out = append(out, c)
		}
	}
	return out
}

// callsOf says which calls an effect is about.
func callsOf(e *flags.MethodEffect) string {
	var parts []string
	if e.SideEffects {
		parts = append(parts, "methods not declared NO_SIDE_EFFECTS")
	}
	methods, patterns := e.Methods, []string(nil)
	if e.Action == flags.Cache { // of which a pattern never means a write
		methods = nil
		for _, m := range e.Methods {
			if strings.HasSuffix(m, "*") {
				patterns = append(patterns, m)
			} else {
				methods = append(methods, m)
			}
		}
	}
	parts = append(parts, methods...)
	if len(patterns) > 0 {
		parts = append(parts, "methods declared NO_SIDE_EFFECTS of "+strings.Join(patterns, ", "))
	}
	for _, name := range e.Operations {
		parts = append(parts, "operation "+name)
	}
	text := strings.Join(parts, ", ")
	if len(e.Except) > 0 {
		text += " except " + strings.Join(e.Except, ", ")
	}
	return text
}

// settingsOf says how an effect is set.
func settingsOf(e *flags.MethodEffect) string {
	var parts []string
	add := func(there bool, format string, args ...any) {
		if there {
			parts = append(parts, fmt.Sprintf(format, args...))
		}
	}
	add(e.Code != "", "%s", e.Code)
	add(e.Message != "", "%q", e.Message)
	add(e.RetryAfter > 0, "retry after %s", human(e.RetryAfter))
	add(e.Chain != "", "chain %q", e.Chain)
	add(e.MaxAge > 0, "at most %s old", human(e.MaxAge))
	add(len(e.Vary) > 0, "varying by %s", strings.Join(e.Vary, ", "))
	add(e.Action == flags.Shed, "%g%%", e.Percent)
	return strings.Join(parts, ", ")
}

// policyChanges lists the settings of policies that change.
func policyChanges(before, after *flags.View) ([]changedView, error) {
	out := []changedView{}
	names := slices.Concat(before.Patched(), after.Patched())
	slices.Sort(names)
	for _, name := range slices.Compact(names) {
		old, err := settingsOfPolicy(before, name)
		if err != nil {
			return nil, err
		}
		now, err := settingsOfPolicy(after, name)
		if err != nil {
			return nil, err
		}
		keys := slices.Concat(slices.Collect(maps.Keys(old)), slices.Collect(maps.Keys(now)))
		slices.Sort(keys)
		for _, key := range slices.Compact(keys) {
			if old[key] != now[key] {
				out = append(out, changedView{Name: name + " " + key, Before: cmp.Or(old[key], "-"), After: cmp.Or(now[key], "-")})
			}
		}
	}
	return out, nil
}

// settingsOfPolicy returns the settings of a policy as it is for the instance of a
// view, by path.
func settingsOfPolicy(view *flags.View, name string) (map[string]string, error) {
	p, _ := view.Policy(name)
	spec, err := p.Spec()
	if err != nil {
		return nil, fmt.Errorf("read policy %s: %w", name, err)
	}
	out := map[string]string{}
	var walk func(value json.RawMessage, path document.Path)
	walk = func(value json.RawMessage, path document.Path) {
		var fields map[string]json.RawMessage
		if json.Unmarshal(value, &fields) != nil || len(fields) == 0 { // no object, or none with settings
			out[string(path)] = strings.Trim(string(value), `"`)
		}
		for key, field := range fields {
			walk(field, path.Key(key))
		}
	}
	walk(spec, "")
	return out, nil
}

// tellPreview writes what an override would change.
func (a *app) tellPreview(v *previewView) error {
	who, nobody := "every instance", "any instance"
	if v.scoped {
		var labels []string
		for _, k := range slices.Sorted(maps.Keys(v.InstanceLabels)) {
			labels = append(labels, k+"="+v.InstanceLabels[k])
		}
		who = "an instance in the scope" + parenthesized(strings.Join(labels, ", "))
		nobody = who
	}
	var buf bytes.Buffer
	if len(v.Levels)+len(v.Flags)+len(v.Calls)+len(v.Policies) == 0 {
		fmt.Fprintf(&buf, "nothing would change for %s\n", printable(nobody))
	} else {
		fmt.Fprintln(&buf, a.out.bold(printable("what would change for "+who)))
	}
	settings, calls := table{}, table{}
	for _, l := range v.Levels {
		settings.row("  mode", l.Name, l.Before+" -> "+l.After)
	}
	for _, f := range v.Flags {
		settings.row("  flag", f.Name, f.Before+" -> "+f.After, f.By)
	}
	for _, p := range v.Policies {
		settings.row("  policy", p.Name, p.Before+" -> "+p.After)
	}
	for _, c := range v.Calls {
		calls.row("  calls", c.Change+": "+c.Action+" by the "+c.Side, c.By, c.Calls+parenthesized(c.With))
	}
	if err := errors.Join(settings.write(&buf), calls.write(&buf)); err != nil {
		return err
	}
	fmt.Fprintln(&buf, v.members())
	if err := a.flush(buf.Bytes()); err != nil {
		return err
	}
	for _, s := range v.Unreachable {
		a.warn("%s", s)
	}
	return nil
}

// members says how many instances are in the scope.
func (v *previewView) members() string {
	where := ""
	if v.scoped {
		where = " in the scope"
	}
	switch {
	case v.Instances == nil:
		return "instances: not counted; the servers are of a version that does not know them"
	case len(v.Unreachable) > 0:
		return fmt.Sprintf("instances: %s connected%s, and those of servers that could not be asked", humanCount(*v.Instances), where)
	default:
		return fmt.Sprintf("instances: %s connected%s", humanCount(*v.Instances), where)
	}
}

func parenthesized(s string) string {
	if s == "" {
		return ""
	}
	return " (" + s + ")"
}
