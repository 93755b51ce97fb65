package cli

import (
	"context"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/holdfast-dev/holdfast/internal/document"
	holdfastv1 "github.com/holdfast-dev/holdfast/proto/holdfast/v1"
)

// applyFlags are the flags of apply and import.
type applyFlags struct {
	files                              []string
	prune, yes, dryRun, wait, exitCode bool
	labels                             []string
	reason                             string
}

// applyFlags declares the flags that apply and import share.
func (a *app) applyFlags(cmd *cobra.Command, f *applyFlags) {
	cmd.Flags().BoolVar(&f.dryRun, "dry-run", false, "print the difference and change nothing")
	cmd.Flags().BoolVar(&f.exitCode, "exit-code", false, "with --dry-run: exit with 1 when there are changes")
	a.reasonFlag(cmd, &f.reason)
	cmd.Flags().BoolVar(&f.wait, "wait", false, "wait until every server has applied the changes and every connected instance obeys them, at most --timeout")
}

// check refuses flags that do not go together.
func (f *applyFlags) check() error {
	switch {
	case f.exitCode && !f.dryRun:
		return usage("--exit-code goes with --dry-run only")
	case f.prune && len(f.labels) == 0:
		return usage("--prune needs -l key=value: it deletes what carries the label and is not in the files")
	case !f.prune && len(f.labels) > 0:
		return usage("-l goes with --prune only")
	}
	return nil
}

// applyCommand is `apply`.
func (a *app) applyCommand() *cobra.Command {
	f := &applyFlags{}
	cmd := &cobra.Command{
		Use: "apply -f FILE|DIR|-", Short: "Create or change what files declare",
		Long: `Create or change the flags, modes and policies that files declare. All files are checked before
anything is sent, and every fault of every file is told. What fits is one transaction, all or
nothing; more is committed in several of at most 500 changes and 400 KiB, which are not atomic
together: they are planned first, and running the command again continues.

--prune also deletes the declared resources that carry the labels of -l and are not in the files.
Overrides are never touched. See ` + "`holdfast help documents`.",
		Example: `holdfast apply -f definitions/ --dry-run
holdfast apply -f definitions/ --reason "release 42"
holdfast apply -f definitions/ --prune -l team=shop --yes
cat flag.yaml | holdfast apply -f -`,
		Args: exactArgs(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if len(f.files) == 0 {
				return usage("-f is missing: a file, a directory, or - for standard input")
			}
			if err := f.check(); err != nil {
				return err
			}
			if err := a.connect(); err != nil {
				return err
			}
			manifests, err := a.readManifests(f.files, a.namespace())
			if err != nil {
				return err
			}
			return a.applyManifests(cmd.Context(), manifests, f)
		},
	}
	cmd.Flags().StringArrayVarP(&f.files, "file", "f", nil, "`file`, directory with .yaml, .yml and .json files, or - for standard input; may be repeated")
	cmd.Flags().BoolVar(&f.prune, "prune", false, "delete declared resources with the labels of -l that are not in the files")
	cmd.Flags().StringArrayVarP(&f.labels, "selector", "l", nil, "label `key=value` that --prune goes by; several are all required")
	cmd.Flags().BoolVarP(&f.yes, "yes", "y", false, "do not ask before --prune deletes")
	a.applyFlags(cmd, f)
	return cmd
}

// applyManifests makes the servers hold what the manifests declare.
func (a *app) applyManifests(ctx context.Context, manifests []*manifest, f *applyFlags) error {
	labels, err := parseLabels("-l", f.labels)
	if err != nil {
		return err
	}
	var prune []*holdfastv1.Resource
	if f.prune {
		if prune, err = a.pruned(ctx, manifests, labels); err != nil {
			return err
		}
	}
	v := newResult(f.dryRun)
	if len(manifests)+len(prune) == 0 {
		a.notice("the files declare nothing")
		return a.finish(ctx, v, false)
	}
	if len(prune) > 0 && !f.dryRun {
		if err := a.confirmPrune(prune, f.yes); err != nil {
			return err
		}
	}
	p := newPlan(manifests, prune, f.reason, f.dryRun)
	if err := a.execute(ctx, p, v); err != nil {
		return err
	}
	if a.format == tableFormat {
		if err := a.tellApplied(v); err != nil {
			return err
		}
	}
	a.addWarnings(v, a.checkApplied(ctx, manifests, p))
	if err := a.finish(ctx, v, f.wait && v.changed() > 0); err != nil {
		return err
	}
	if f.dryRun && f.exitCode && v.changed() > 0 {
		return errSilent
	}
	return nil
}

// confirmPrune names what would be deleted and asks.
func (a *app) confirmPrune(prune []*holdfastv1.Resource, yes bool) error {
	const named = 20
	var names []string
	for _, r := range prune[:min(len(prune), named)] {
		names = append(names, keyText(r.GetKey()))
	}
	if rest := len(prune) - named; rest > 0 {
		names = append(names, fmt.Sprintf("and %s more", humanCount(rest)))
	}
	return a.asker.confirm(yes, fmt.Sprintf("delete %s that the files do not declare (%s)", plural(len(prune), "resource"), strings.Join(names, ", ")))
}

// tellApplied writes what changed, or would change, and the sum.
func (a *app) tellApplied(v *resultView) error {
	if v.DryRun {
		if err := a.diff(v); err != nil {
			return err
		}
		return a.say("dry run: %d to create, %d to update, %d unchanged, %d to delete", v.Created, v.Updated, v.Unchanged, v.Deleted)
	}
	for _, item := range v.Items {
		if item.Change == document.Unchanged.String() {
			continue
		}
		where := ""
		if item.Namespace != a.namespace() {
			where = " in " + item.Namespace
		}
		if err := a.say("%s/%s %s%s", strings.ToLower(item.Kind), item.Name, item.Change, where); err != nil {
			return err
		}
	}
	return a.say("%d created, %d updated, %d unchanged, %d deleted (%s, revision %d)",
		v.Created, v.Updated, v.Unchanged, v.Deleted, plural(v.Transactions, "transaction"), v.Revision)
}
