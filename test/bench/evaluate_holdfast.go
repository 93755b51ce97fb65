package main

import (
	"fmt"

	"github.com/holdfast-dev/holdfast/internal/document"
	"github.com/holdfast-dev/holdfast/internal/flags"
)

// attribute names.
const (
	emailKey   = "email"
	countryKey = "country"
	planKey    = "plan"
	versionKey = "version"
	ageKey     = "age"
	betaKey    = "beta"
)

// holdfastContenders evaluate a flag that is at hand, one that is looked up first, as
// the peers do, and one that is at hand with attributes that are made once.
func holdfastContenders(c *evaluateCase, view *flags.View) ([]contender, error) {
	resolved := view.Flag(c.flag)
	if resolved == nil {
		return nil, fmt.Errorf("no flag %s", c.flag)
	}
	flag := resolved.Flag
	if flag.Timed() {
		return nil, fmt.Errorf("%s looks at the time, which is not measured", c.flag)
	}
	return []contender{
		{name: "Holdfast Flag.Evaluate", decide: func(n int, u *user) (last string) {
			for range n {
				d := flag.Evaluate(
					0,
					flags.Attribute{Key: flags.TargetingKey, Value: flags.String(u.ID)},
					flags.Attribute{Key: emailKey, Value: flags.String(u.Email)},
					flags.Attribute{Key: countryKey, Value: flags.String(u.Country)},
					flags.Attribute{Key: planKey, Value: flags.String(u.Plan)},
					flags.Attribute{Key: versionKey, Value: flags.String(u.Version)},
					flags.Attribute{Key: ageKey, Value: flags.Int(u.Age)},
					flags.Attribute{Key: betaKey, Value: flags.Bool(u.Beta)},
				)
				last = stringOf(d)
			}
			return last
		}},
		{name: "Holdfast View.Flag and Evaluate", decide: func(n int, u *user) (last string) {
			for range n {
				d := view.Flag(c.flag).Evaluate(
					0,
					flags.Attribute{Key: flags.TargetingKey, Value: flags.String(u.ID)},
					flags.Attribute{Key: emailKey, Value: flags.String(u.Email)},
					flags.Attribute{Key: countryKey, Value: flags.String(u.Country)},
					flags.Attribute{Key: planKey, Value: flags.String(u.Plan)},
					flags.Attribute{Key: versionKey, Value: flags.String(u.Version)},
					flags.Attribute{Key: ageKey, Value: flags.Int(u.Age)},
					flags.Attribute{Key: betaKey, Value: flags.Bool(u.Beta)},
				)
				last = stringOf(d)
			}
			return last
		}},
		{name: "Flag.Evaluate, attributes made once", decide: func(n int, u *user) (last string) {
			attributes := []flags.Attribute{
				{Key: flags.TargetingKey, Value: flags.String(u.ID)},
				{Key: emailKey, Value: flags.String(u.Email)},
				{Key: countryKey, Value: flags.String(u.Country)},
				{Key: planKey, Value: flags.String(u.Plan)},
				{Key: versionKey, Value: flags.String(u.Version)},
				{Key: ageKey, Value: flags.Int(u.Age)},
				{Key: betaKey, Value: flags.Bool(u.Beta)},
			}
			for range n {
				last = stringOf(flag.Evaluate(0, attributes...))
			}
			return last
		}},
	}, nil
}

func stringOf(d flags.Decision) string {
	if d.Variant == nil {
		return d.Code.String()
	}
	s, _ := d.Variant.Value.AsString()
	return s
}

// holdfastView returns a view with the flags of the cases and n more.
func holdfastView(cases []evaluateCase, n int) (*flags.View, error) {
	delta := document.Delta{To: uint64(len(cases) + n)}
	add := func(key, spec string) error {
		r, err := flagResource(key, spec, uint64(len(delta.Puts)+1))
		delta.Puts = append(delta.Puts, r)
		return err
	}
	for i := range cases {
		if err := add(cases[i].flag, cases[i].definition()); err != nil {
			return nil, err
		}
	}
	for i := range n {
		if err := add(fillerKey(i), fillerDefinition(i)); err != nil {
			return nil, err
		}
	}
	view := flags.NewView(flags.Instance{ID: "bench"}).Update(delta)
	if problems := view.Problems(); len(problems) > 0 {
		return nil, fmt.Errorf("view: %v", problems[0])
	}
	return view, nil
}

func flagResource(key, spec string, revision uint64) (*document.Resource, error) {
	canonical, err := document.Canonical([]byte(spec))
	if err != nil {
		return nil, fmt.Errorf("flag %s: %w", key, err)
	}
	return &document.Resource{
		Key: document.Key{Kind: document.Flag, Name: key}, Spec: canonical,
		CreateRevision: revision, ModRevision: revision, Version: 1,
		Actor: "bench", Reason: "measure",
	}, nil
}
