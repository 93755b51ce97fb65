package cli

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/holdfast-dev/holdfast/internal/document"
	"github.com/holdfast-dev/holdfast/internal/flags"
	holdfastv1 "github.com/holdfast-dev/holdfast/proto/holdfast/v1"
)

// minReason is the shortest reason that is accepted; "x" helps nobody later.
const minReason = 3

// overrideSpec is the definition of an override, as far as this program makes
// and reads it.
type overrideSpec struct {
	Mode    string          `json:"mode,omitempty"`
	Level   string          `json:"level,omitempty"`
	Flag    string          `json:"flag,omitempty"`
	Variant string          `json:"variant,omitempty"`
	Breaker string          `json:"breaker,omitempty"`
	Hold    string          `json:"hold,omitempty"`
	Method  string          `json:"method,omitempty"`
	Fault   json.RawMessage `json:"fault,omitempty"`
	Scope   *scopeSpec      `json:"scope,omitempty"`
}

// scopeSpec says for which instances an override holds; nil means for all.
type scopeSpec struct {
	Selector string   `json:"selector,omitempty"`
	Percent  *float64 `json:"percent,omitempty"`
}

// String returns the scope for people.
func (s *scopeSpec) String() string {
	if s == nil {
		return "everywhere"
	}
	var parts []string
	if s.Selector != "" {
		parts = append(parts, s.Selector)
	}
	if s.Percent != nil {
		parts = append(parts, fmt.Sprintf("%g%%", *s.Percent))
	}
	return cmp.Or(strings.Join(parts, " "), "everywhere")
}

// instances names the instances of the scope in a sentence.
func (s *scopeSpec) instances() string {
	which := "the instances"
	switch {
	case s.Percent != nil:
		which = fmt.Sprintf("%g%% of the instances", *s.Percent)
	case s.Selector == "":
		which = "all instances"
	}
	if s.Selector != "" {
		which += " where " + s.Selector
	}
	return which
}

// key is the scope in a form in which equal scopes are equal strings; "" means
// everywhere.
func (s *scopeSpec) key() string {
	if s == nil {
		return ""
	}
	selector := s.Selector
	if parsed, err := flags.ParseSelector(selector); err == nil {
		selector = parsed.String()
	}
	if s.Percent == nil || *s.Percent >= 100 {
		return selector
	}
	return fmt.Sprintf("%s;%g%%", selector, *s.Percent)
}

// target is what the override is about: its kind and name. Two overrides of the
// same target and scope replace each other.
func (s *overrideSpec) target() (kind, name string) {
	switch {
	case s.Mode != "":
		return "mode", s.Mode
	case s.Flag != "":
		return "flag", s.Flag
	case s.Breaker != "":
		return "breaker", s.Breaker
	case s.Fault != nil:
		return "fault", ""
	default:
		return "?", ""
	}
}

// members are the instances in the override's scope.
func (s *overrideSpec) members(namespace string) *holdfastv1.InstanceFilter {
	filter := &holdfastv1.InstanceFilter{Namespace: namespace}
	if s.Scope == nil {
		return filter
	}
	filter.Selector, filter.Percent = s.Scope.Selector, s.Scope.Percent
	if filter.Percent != nil {
		// A share is drawn anew for each target.
		kind, name := s.target()
		filter.Salt = strings.TrimSuffix(kind+"/"+name, "/") + s.Method
	}
	return filter
}

// value is what the override sets its target to.
func (s *overrideSpec) value() string { return cmp.Or(s.Level, s.Variant, s.Hold) }

// same tells whether two overrides have the same target and scope.
func (s *overrideSpec) same(other *overrideSpec) bool {
	k1, n1 := s.target()
	k2, n2 := other.target()
	return k1 == k2 && n1 == n2 && s.Method == other.Method && s.Scope.key() == other.Scope.key()
}

// name is the name under which this program puts the override: readable, the
// same for the same target and scope, and never too long.
func (s *overrideSpec) name() string {
	const hashed, longest = 8, 200
	kind, target := s.target()
	name := kind + "-" + target
	tail := strings.Join([]string{s.Method, s.Scope.key()}, "\x00")
	if len(name) > longest {
		tail += "\x00" + name
		name = name[:longest]
		for !utf8.ValidString(name) {
			name = name[:len(name)-1]
		}
	}
	if tail == "\x00" {
		return name
	}
	sum := sha256.Sum256([]byte(tail))
	return name + "-" + hex.EncodeToString(sum[:])[:hashed]
}

// override is an override that the servers have.
type override struct {
	*holdfastv1.Resource
	spec overrideSpec
}

// readOverride reads the definition of an override; one that this program does
// not understand keeps an empty spec.
func readOverride(r *holdfastv1.Resource) override {
	o := override{Resource: r}
	if err := json.Unmarshal(r.GetSpec(), &o.spec); err != nil {
		o.spec = overrideSpec{}
	}
	return o
}

// name returns the override's name.
func (o override) name() string { return o.GetKey().GetName() }

// describe says in one line what the override does: scope, time left, by whom
// and why.
func (a *app) describe(o override) string {
	return fmt.Sprintf("%s (%s, %s, %s left, by %s: %s)", o.name(), cmp.Or(o.spec.value(), "fault"), o.spec.Scope,
		a.remaining(o.Resource), actorText(o.GetActor()), cmp.Or(o.GetReason(), "no reason"))
}

// remaining is the time that an override has left.
func (a *app) remaining(r *holdfastv1.Resource) string {
	if r.GetEndTime() == nil {
		return ""
	}
	return humanRemaining(r.GetEndTime().AsTime().Sub(a.stateTime()))
}

// actorText names an actor; one that no certificate proved is marked.
func actorText(actor *holdfastv1.Actor) string {
	name := cmp.Or(actor.GetName(), "unknown")
	if actor.GetVerified() {
		return name
	}
	return name + " (claimed)"
}

// overrides lists the overrides of the namespace.
func (a *app) overrides(ctx context.Context) ([]override, error) {
	list, _, err := a.list(ctx, &holdfastv1.ListRequest{Kind: holdfastv1.Kind_KIND_OVERRIDE})
	if err != nil {
		return nil, a.rpcFailure("list overrides", err)
	}
	out := make([]override, 0, len(list))
	for _, r := range list {
		out = append(out, readOverride(r))
	}
	return out, nil
}

// overrideFlags are the flags of commands that put an override.
type overrideFlags struct {
	ttl, reason  string
	wait, dryRun bool
}

// overrideFlags declares the flags on a command.
func (a *app) overrideFlags(cmd *cobra.Command) *overrideFlags {
	f := &overrideFlags{}
	cmd.Flags().StringVar(&f.ttl, "for", "", "`time` until it ends by itself, 1s to 30d: 90s, 30m, 2h, 1d (default 1h)")
	a.reasonFlag(cmd, &f.reason)
	a.waitFlag(cmd, &f.wait)
	cmd.Flags().BoolVar(&f.dryRun, "dry-run", false, "print the difference and change nothing")
	return f
}

// reasonFlag declares --reason.
func (a *app) reasonFlag(cmd *cobra.Command, reason *string) {
	cmd.Flags().StringVar(reason, "reason", "", "`why`; kept in the audit and shown to everybody who looks")
}

// scopeFlags are the flags that say for which instances an override holds.
type scopeFlags struct {
	selector string
	percent  float64
}

// scopeFlags declares the flags on a command.
func (a *app) scopeFlags(cmd *cobra.Command) *scopeFlags {
	f := &scopeFlags{}
	cmd.Flags().StringVar(&f.selector, "scope", "", "label `selector` of the instances: 'service=checkout,zone in (eu-1,eu-2)' (default every instance)")
	cmd.Flags().Float64Var(&f.percent, "percent", 0, "only for this stable share of those instances, 0 to 100")
	return f
}

// scope reads the flags; nil means every instance.
func (f *scopeFlags) scope(cmd *cobra.Command) (*scopeSpec, error) {
	s := &scopeSpec{}
	if strings.TrimSpace(f.selector) != "" {
		parsed, err := flags.ParseSelector(f.selector)
		if err != nil {
			return nil, usage("--scope: %v", err).
				hint("write terms joined by commas: service=checkout, zone in (eu-1,eu-2), tier!=gold, !canary")
		}
		s.Selector = parsed.String()
	} else if cmd.Flags().Changed("scope") {
		return nil, usage("--scope is empty").hint("leave it out to mean every instance")
	}
	if cmd.Flags().Changed("percent") {
		if !(f.percent > 0 && f.percent <= 100) {
			return nil, usage("--percent %g: a share is above 0 and at most 100", f.percent)
		}
		if f.percent < 100 {
			s.Percent = &f.percent
		}
	}
	if s.Selector == "" && s.Percent == nil {
		return nil, nil
	}
	return s, nil
}

// duration reads --for; a missing one is an hour, and is said.
func (a *app) duration(ttl string) (time.Duration, error) {
	if ttl != "" {
		return parseFor(ttl)
	}
	a.notice("--for was not given: it ends in 1h")
	return time.Hour, nil
}

// reason returns why, asking on a terminal when it was not given.
func (a *app) reason(given string) (string, error) {
	given = strings.TrimSpace(given)
	if given == "" && a.asker.enabled {
		for len(given) < minReason {
			answer, ok := a.asker.ask("Reason (for the audit): ")
			if !ok {
				return "", usage("--reason is missing").hint(`--reason "what is going on"`)
			}
			given = answer
		}
	}
	if len(given) < minReason {
		if given != "" {
			return "", usage("--reason %q is too short to help anybody later: write at least %d characters", given, minReason)
		}
		return "", usage("--reason is missing: an override says why it is there").hint(`--reason "what is going on"`)
	}
	return given, nil
}

// put is an override about to be set.
type put struct {
	spec *overrideSpec
	// others are all overrides of the namespace.
	others []override
	flags  *overrideFlags
	// wins tells which of the others still win over the new one where both hold.
	wins func(override) bool
	// text says in the table format what is so now, without the time.
	text string
	// check returns warnings about what the override uses. It runs after the write,
	// which does not wait for it; nil checks nothing.
	check func(context.Context) []string
}

// setOverride creates or replaces the override of a target and scope.
func (a *app) setOverride(ctx context.Context, p put) error {
	ttl, err := a.duration(p.flags.ttl)
	if err != nil {
		return err
	}
	reason, err := a.reason(p.flags.reason)
	if err != nil {
		return err
	}
	name := p.spec.name()
	var replaced *override
	for i, o := range p.others {
		if p.spec.same(&o.spec) {
			replaced = &p.others[i]
			name = o.name()
			break
		}
		if o.name() == name {
			return fail(exitConflict, "the name %s is taken by an override of something else", name).
				hint("look at it with `holdfast override get %s`", name)
		}
	}
	spec, err := json.Marshal(p.spec)
	if err != nil {
		return fmt.Errorf("encode override: %w", err)
	}
	key := document.Key{Kind: document.Override, Name: name}
	req := &holdfastv1.ApplyRequest{
		Reason: reason, ClaimedActor: a.actor(), DryRun: p.flags.dryRun,
		Operations: []*holdfastv1.Operation{{Action: &holdfastv1.Operation_Put{Put: &holdfastv1.Put{
			Key: key.Proto(a.namespace()), Spec: spec, Ttl: durationpb.New(ttl),
		}}}},
	}
	res, err := a.remote.apply(ctx, req)
	if err != nil {
		return a.rpcFailure("set "+key.String(), err)
	}
	a.learnTime(res.GetHeader())
	v := newResult(p.flags.dryRun)
	v.add(req, res)
	v.concerns = p.spec.members(a.namespace())
	a.tellOthers(v, p, name, replaced)
	if v.DryRun && p.spec.Mode != "" {
		if v.Preview, err = a.preview(ctx, name, p.spec); err != nil {
			return err
		}
	}
	if a.format == tableFormat {
		if err := a.tellSet(v, p, ttl); err != nil {
			return err
		}
	}
	if p.check != nil {
		a.addWarnings(v, p.check(ctx))
	}
	return a.finish(ctx, v, p.flags.wait)
}

// tellSet writes what is so now, or would be.
func (a *app) tellSet(v *resultView, p put, ttl time.Duration) error {
	if v.DryRun {
		if err := a.diff(v); err != nil {
			return err
		}
		if v.Preview != nil {
			if err := a.tellPreview(v.Preview); err != nil {
				return err
			}
		}
		a.notice("dry run: nothing was changed; it would end after %s", human(ttl))
		return nil
	}
	item := v.Items[0]
	until := ""
	if item.EndTime != nil {
		until = ", until " + a.clockTime(*item.EndTime)
	}
	return a.say("%s for %s%s (override %s, revision %d)", p.text, human(ttl), until, item.Name, v.Revision)
}

// tellOthers names the override that was replaced and those that still win.
func (a *app) tellOthers(v *resultView, p put, name string, replaced *override) {
	if replaced != nil {
		verb := "replaced"
		if v.DryRun {
			verb = "would replace"
		}
		a.notice("%s %s", verb, a.describe(*replaced))
	}
	if p.wins == nil {
		return
	}
	for _, o := range p.others {
		if o.name() == name || !p.wins(o) {
			continue
		}
		a.addWarnings(v, []string{"still wins where both hold: " + a.describe(o)})
	}
}

// endOverrides deletes overrides as they were seen.
func (a *app) endOverrides(ctx context.Context, list []override, reason string, dryRun bool) (*resultView, error) {
	req := &holdfastv1.ApplyRequest{Reason: strings.TrimSpace(reason), ClaimedActor: a.actor(), DryRun: dryRun}
	for _, o := range list {
		req.Operations = append(req.Operations, deleteOf(o.Resource))
	}
	res, err := a.remote.apply(ctx, req)
	if err != nil {
		return nil, a.rpcFailure("end "+plural(len(list), "override"), err)
	}
	v := newResult(dryRun)
	v.add(req, res)
	v.concerns = list[0].spec.members(a.namespace())
	for _, o := range list[1:] {
		if !proto.Equal(v.concerns, o.spec.members(a.namespace())) {
			v.concerns = nil // several scopes: everybody
			break
		}
	}
	return v, nil
}

// deleteOf deletes a resource as it was seen.
func deleteOf(r *holdfastv1.Resource) *holdfastv1.Operation {
	revision := r.GetModRevision()
	return &holdfastv1.Operation{
		Action:           &holdfastv1.Operation_Delete{Delete: &holdfastv1.Delete{Key: r.GetKey()}},
		ExpectedRevision: &revision,
	}
}
