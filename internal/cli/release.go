package cli

import (
	"context"

	"github.com/holdfast-dev/holdfast/internal/document"
)

// release is the end of the override of a target and scope.
type release struct {
	// spec holds the target and the scope.
	spec overrideSpec
	// kind is that of the target where it is a resource, for suggestions; 0 for a
	// breaker.
	kind document.Kind
	// all ends the overrides of every scope.
	all, wait, dryRun bool
	reason            string
	// command is what was typed, without flags, for hints.
	command string
}

// release ends the overrides and names those of the target that remain.
func (a *app) release(ctx context.Context, r release) error {
	if err := a.connect(); err != nil {
		return err
	}
	list, err := a.overrides(ctx)
	if err != nil {
		return err
	}
	kind, target := r.spec.target()
	var ending, remaining []override
	for _, o := range list {
		k, n := o.spec.target()
		switch {
		case k != kind || n != target:
		case r.all || r.spec.same(&o.spec):
			ending = append(ending, o)
		default:
			remaining = append(remaining, o)
		}
	}
	if len(ending) == 0 {
		return a.nothingToRelease(ctx, r, target, remaining)
	}
	v, err := a.endOverrides(ctx, ending, r.reason, r.dryRun)
	if err != nil {
		return err
	}
	for _, o := range remaining {
		text := "still active: " + a.describe(o)
		v.Warnings = append(v.Warnings, text)
		a.warn("%s", text)
	}
	if a.format == tableFormat {
		if err := a.tellReleased(v, target, ending); err != nil {
			return err
		}
	}
	return a.finish(ctx, v, r.wait)
}

// tellReleased writes what ended, or would end.
func (a *app) tellReleased(v *resultView, target string, ending []override) error {
	for _, o := range ending {
		verb := "ended"
		if v.DryRun {
			verb = "would end"
		}
		if err := a.say("%s: %s %s", target, verb, a.describe(o)); err != nil {
			return err
		}
	}
	if v.DryRun {
		a.notice("dry run: nothing was changed")
	}
	return nil
}

// nothingToRelease says why there is nothing to end, and what there is instead.
func (a *app) nothingToRelease(ctx context.Context, r release, target string, remaining []override) error {
	kind, _ := r.spec.target()
	if len(remaining) > 0 {
		f := fail(exitNotFound, "%s %q has no override for this scope (%s)", kind, target, r.spec.Scope)
		for _, o := range remaining {
			f.addDetail("%s", a.describe(o))
		}
		return f.hint("give its --scope and --percent, or end all of them: `%s --all`", r.command)
	}
	if r.kind != 0 {
		if _, err := a.get(ctx, document.Key{Kind: r.kind, Name: target}, nil); err != nil {
			return err
		}
	}
	return fail(exitNotFound, "%s %q has no override; there is nothing to end", kind, target)
}
