package cli

import (
	"cmp"
	"context"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/holdfast-dev/holdfast/internal/document"
	holdfastv1 "github.com/holdfast-dev/holdfast/proto/holdfast/v1"
)

// overrideCommand is everything about overrides of any kind.
func (a *app) overrideCommand() *cobra.Command {
	end := a.overrideEnd()
	end.Aliases = []string{"delete", "rm"}
	return a.group("override", "Overrides: everything temporary that is in force now",
		`holdfast override list
holdfast override extend mode-storefront --for 30m
holdfast override end mode-storefront`,
		a.overrideList(), a.getCommand(document.Override), end, a.overrideExtend(), a.overrideSet())
}

// overrideList is `override list`.
func (a *app) overrideList() *cobra.Command {
	lf := &listFlags{}
	cmd := &cobra.Command{
		Use: "list", Aliases: []string{"ls"}, Short: "List the overrides in force, the next to end first",
		Example: "holdfast override list\nholdfast override list -o json", Args: exactArgs(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := a.connect(); err != nil {
				return err
			}
			resources, revision, err := a.listOf(cmd.Context(), document.Override, lf)
			if err != nil {
				return err
			}
			list := make([]override, 0, len(resources))
			for _, r := range resources {
				list = append(list, readOverride(r))
			}
			slices.SortStableFunc(list, func(x, y override) int {
				return x.GetEndTime().AsTime().Compare(y.GetEndTime().AsTime())
			})
			return a.writeOverrides(list, revision, "nothing is overridden"+a.inNamespace())
		},
	}
	lf.declare(cmd)
	return cmd
}

// writeOverrides writes overrides; empty says that there are none.
func (a *app) writeOverrides(list []override, revision uint64, empty string) error {
	if a.format != tableFormat {
		out := listView[resourceView]{head: newHead(listKind), Revision: revision, Items: []resourceView{}}
		for _, o := range list {
			out.Items = append(out.Items, viewOf(o.Resource))
		}
		return a.emit(out)
	}
	if len(list) == 0 {
		a.notice("%s", empty)
		return nil
	}
	t := table{paint: a.headRow}
	t.row("NAME", "TARGET", "VALUE", "SCOPE", "LEFT", "BY", "REASON")
	for _, o := range list {
		kind, target := o.spec.target()
		t.row(o.name(), strings.TrimSuffix(kind+"/"+target, "/")+o.spec.Method, cmp.Or(o.spec.value(), "-"), o.spec.Scope.String(),
			a.remaining(o.Resource), actorText(o.GetActor()), cmp.Or(o.GetReason(), "-"))
	}
	return t.write(a.io.Out)
}

// headRow paints the first row of a table.
func (a *app) headRow(row, _ int, text string) string {
	if row == 0 {
		return a.out.bold(text)
	}
	return text
}

// overrideEnd is `override end NAME...`.
func (a *app) overrideEnd() *cobra.Command {
	var reason string
	var wait, dryRun bool
	cmd := &cobra.Command{
		Use: "end NAME...", Short: "End overrides now",
		Example: "holdfast override end mode-storefront --reason \"incident over\"",
		Args:    atLeastArgs("NAME"), ValidArgsFunction: a.completeNames(document.Override),
	}
	a.reasonFlag(cmd, &reason)
	a.waitFlag(cmd, &wait)
	cmd.Flags().BoolVar(&dryRun, "dry-run", false, "print the difference and change nothing")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		ctx := cmd.Context()
		if err := a.connect(); err != nil {
			return err
		}
		list := make([]override, 0, len(args))
		for _, name := range distinct(args) {
			r, err := a.get(ctx, document.Key{Kind: document.Override, Name: name}, nil)
			if err != nil {
				return err
			}
			list = append(list, readOverride(r))
		}
		v, err := a.endOverrides(ctx, list, reason, dryRun)
		if err != nil {
			return err
		}
		if a.format == tableFormat {
			for _, o := range list {
				_, target := o.spec.target()
				if err := a.tellReleased(v, cmp.Or(target, o.name()), []override{o}); err != nil {
					return err
				}
			}
		}
		return a.finish(ctx, v, wait)
	}
	return cmd
}

// overrideExtend is `override extend NAME --for TIME`.
func (a *app) overrideExtend() *cobra.Command {
	cmd := &cobra.Command{
		Use: "extend NAME", Short: "Let an override end later",
		Long:    "Let an override end later: --for counts from now. The reason stays unless another one is given.",
		Example: "holdfast override extend mode-storefront --for 30m",
		Args:    exactArgs("NAME"), ValidArgsFunction: a.completeNames(document.Override),
	}
	of := a.overrideFlags(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if err := a.connect(); err != nil {
			return err
		}
		return a.extend(cmd.Context(), args[0], of)
	}
	return cmd
}

// extend puts an override as it is with a later end.
func (a *app) extend(ctx context.Context, name string, of *overrideFlags) error {
	key := document.Key{Kind: document.Override, Name: name}
	r, err := a.get(ctx, key, nil)
	if err != nil {
		return err
	}
	ttl, err := a.duration(of.ttl)
	if err != nil {
		return err
	}
	if left := r.GetEndTime().AsTime().Sub(a.stateTime()); ttl < left {
		return fail(exitRefused, "%s has %s left; ending it %s from now would shorten it", name, humanRemaining(left), human(ttl)).
			hint("give a longer --for, or end it with `holdfast override end %s`", shellQuote(name))
	}
	revision := r.GetModRevision()
	req := &holdfastv1.ApplyRequest{
		Reason: cmp.Or(strings.TrimSpace(of.reason), r.GetReason(), "extended"), ClaimedActor: a.actor(), DryRun: of.dryRun,
		Operations: []*holdfastv1.Operation{{
			Action: &holdfastv1.Operation_Put{Put: &holdfastv1.Put{
				Key: r.GetKey(), Spec: r.GetSpec(), Labels: r.GetLabels(), Ttl: durationpb.New(ttl),
			}},
			ExpectedRevision: &revision,
		}},
	}
	o := readOverride(r)
	return a.putOne(ctx, key, req, o.spec.members(a.namespace()), of.wait, func(v *resultView) error {
		return a.say("%s ends in %s, at %s (revision %d)", name, human(ttl), a.clockTime(*v.Items[0].EndTime), v.Revision)
	})
}

// putOne commits a transaction of one step and tells its outcome. It concerns the
// given instances; nil means all.
func (a *app) putOne(
	ctx context.Context, key document.Key, req *holdfastv1.ApplyRequest, concerns *holdfastv1.InstanceFilter, wait bool, tell func(*resultView) error,
) error {
	res, err := a.remote.apply(ctx, req)
	if err != nil {
		return a.rpcFailure("set "+key.String(), err)
	}
	a.learnTime(res.GetHeader())
	v := newResult(req.GetDryRun())
	v.add(req, res)
	v.concerns = concerns
	if a.format == tableFormat {
		if v.DryRun {
			if err := a.diff(v); err != nil {
				return err
			}
			a.notice("dry run: nothing was changed")
		} else if err := tell(v); err != nil {
			return err
		}
	}
	return a.finish(ctx, v, wait)
}

// overrideSet is `override set NAME -f FILE`.
func (a *app) overrideSet() *cobra.Command {
	cmd := &cobra.Command{
		Use: "set NAME", Short: "Create or replace an override from its definition",
		Example: `holdfast override set checkout-off -f override.yaml --for 1h --reason "fraud wave"`,
		Args:    exactArgs("NAME"), ValidArgsFunction: a.completeNames(document.Override),
	}
	def, of := a.definitionFlags(cmd), a.overrideFlags(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		key := document.Key{Kind: document.Override, Name: args[0]}
		spec, labels, err := a.readDefinition(key, def)
		if err != nil {
			return err
		}
		ttl, err := a.duration(of.ttl)
		if err != nil {
			return err
		}
		reason, err := a.reason(of.reason)
		if err != nil {
			return err
		}
		if err := a.connect(); err != nil {
			return err
		}
		req := &holdfastv1.ApplyRequest{
			Reason: reason, ClaimedActor: a.actor(), DryRun: of.dryRun,
			Operations: []*holdfastv1.Operation{{Action: &holdfastv1.Operation_Put{Put: &holdfastv1.Put{
				Key: key.Proto(a.namespace()), Spec: spec, Labels: labels, Ttl: durationpb.New(ttl),
			}}}},
		}
		// The scope may have been another one before: everybody is concerned.
		return a.putOne(cmd.Context(), key, req, nil, of.wait, func(v *resultView) error {
			return a.say("%s %s for %s, until %s (revision %d)", key, v.Items[0].Change, human(ttl), a.clockTime(*v.Items[0].EndTime), v.Revision)
		})
	}
	return cmd
}

// distinct returns the arguments without repetitions.
func distinct(args []string) []string {
	var out []string
	for _, s := range args {
		if !slices.Contains(out, s) {
			out = append(out, s)
		}
	}
	return out
}
