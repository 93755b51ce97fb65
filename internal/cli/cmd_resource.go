package cli

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"sort"
	"strings"

	"github.com/spf13/cobra"

	"github.com/holdfast-dev/holdfast/internal/document"
	holdfastv1 "github.com/holdfast-dev/holdfast/proto/holdfast/v1"
)

// listFlags select what a list shows.
type listFlags struct {
	prefix       string
	labels       []string
	linearizable bool
}

// declare declares the flags on a command.
func (f *listFlags) declare(cmd *cobra.Command) {
	cmd.Flags().StringVar(&f.prefix, "prefix", "", "only names that begin with `text`")
	cmd.Flags().StringArrayVarP(&f.labels, "selector", "l", nil, "only resources with the label `key=value`; several are all required")
	f.declareConsistency(cmd)
}

func (f *listFlags) declareConsistency(cmd *cobra.Command) {
	cmd.Flags().BoolVar(&f.linearizable, "linearizable", false, "ask the leader: include every write acknowledged before now")
}

// listOf lists the resources of a kind.
func (a *app) listOf(ctx context.Context, kind document.Kind, f *listFlags) ([]*holdfastv1.Resource, uint64, error) {
	labels, err := parseLabels("-l", f.labels)
	if err != nil {
		return nil, 0, err
	}
	list, revision, err := a.list(ctx, &holdfastv1.ListRequest{
		Kind: holdfastv1.Kind(kind), NamePrefix: f.prefix, Labels: labels, Read: readOptions(f.linearizable),
	})
	if err != nil {
		return nil, 0, a.rpcFailure("list "+pluralKind(kind), err)
	}
	return list, revision, nil
}

// listCommand is `flag list` and `policy list`.
func (a *app) listCommand(kind document.Kind) *cobra.Command {
	lf := &listFlags{}
	cmd := &cobra.Command{
		Use: "list", Aliases: []string{"ls"}, Short: "List " + pluralKind(kind), Args: exactArgs(),
		Example: fmt.Sprintf("holdfast %[1]s list\nholdfast %[1]s list -l team=shop -o yaml", kind),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := a.connect(); err != nil {
				return err
			}
			list, revision, err := a.listOf(cmd.Context(), kind, lf)
			if err != nil {
				return err
			}
			var active map[string][]override
			if kind == document.Flag && a.format == tableFormat && len(list) > 0 {
				if active, err = a.flagOverrides(cmd.Context()); err != nil {
					return err
				}
			}
			return a.writeResources(kind, list, active, revision)
		},
	}
	lf.declare(cmd)
	return cmd
}

// flagOverrides lists the overrides of each flag.
func (a *app) flagOverrides(ctx context.Context) (map[string][]override, error) {
	all, err := a.overrides(ctx)
	if err != nil {
		return nil, err
	}
	out := map[string][]override{}
	for _, o := range all {
		if o.spec.Flag != "" {
			out[o.spec.Flag] = append(out[o.spec.Flag], o)
		}
	}
	return out, nil
}

// overrideCell sums the overrides of one flag up.
func overrideCell(list []override) string {
	var parts []string
	for _, o := range list {
		parts = append(parts, o.spec.Variant+" "+o.spec.Scope.String())
	}
	return dash(strings.Join(parts, "; "))
}

// writeResources writes flags, with the overrides of each, or policies.
func (a *app) writeResources(kind document.Kind, list []*holdfastv1.Resource, active map[string][]override, revision uint64) error {
	if a.format != tableFormat {
		out := listView[resourceView]{head: newHead(listKind), Revision: revision, Items: []resourceView{}}
		for _, r := range list {
			out.Items = append(out.Items, viewOf(r))
		}
		return a.emit(out)
	}
	if len(list) == 0 {
		a.notice("there are no %s%s", pluralKind(kind), a.inNamespace())
		return nil
	}
	t := table{paint: a.headRow}
	if kind == document.Flag {
		t.paint = func(row, column int, text string) string {
			if overridden := 5; row > 0 && column == overridden && t.rows[row][column] != "-" {
				return a.out.red(text)
			}
			return a.headRow(row, column, text)
		}
		t.row("NAME", "STATE", "DEFAULT", "VARIANTS", "TARGETING", "OVERRIDE", "REVISION", "CHANGED", "BY")
	} else {
		t.row("NAME", "SETTINGS", "ENFORCEMENT", "REVISION", "CHANGED", "BY")
	}
	for _, r := range list {
		cells := append([]string{r.GetKey().GetName()}, summary(kind, r.GetSpec())...)
		if kind == document.Flag {
			cells = append(cells, overrideCell(active[r.GetKey().GetName()]))
		}
		t.row(append(cells, fmt.Sprint(r.GetModRevision()), a.ago(r), actorText(r.GetActor()))...)
	}
	return t.write(a.io.Out)
}

// ago is the time since a resource was changed.
func (a *app) ago(r *holdfastv1.Resource) string {
	return human(a.stateTime().Sub(r.GetUpdateTime().AsTime())) + " ago"
}

// summary returns the cells that sum a definition up.
func summary(kind document.Kind, spec []byte) []string {
	var keys map[string]json.RawMessage
	if err := json.Unmarshal(spec, &keys); err != nil {
		return []string{"?", "?", "?", "?"}[:map[bool]int{true: 4, false: 2}[kind == document.Flag]]
	}
	text := func(key string) string {
		var s string
		if json.Unmarshal(keys[key], &s) != nil {
			return "-"
		}
		return cmp.Or(s, "-")
	}
	if kind != document.Flag {
		var names []string
		for k := range keys {
			if k != "enforcement" && k != "description" {
				names = append(names, k)
			}
		}
		sort.Strings(names)
		return []string{strings.Join(names, ", "), text("enforcement")}
	}
	var variants map[string]json.RawMessage
	_ = json.Unmarshal(keys["variants"], &variants)
	names := make([]string, 0, len(variants))
	for name := range variants {
		names = append(names, name)
	}
	sort.Strings(names)
	const shown = 6
	if len(names) > shown {
		names = append(names[:shown-1], fmt.Sprintf("+%d", len(names)-shown+1))
	}
	targeting := "-"
	if t := bytes.TrimSpace(keys["targeting"]); len(t) > 0 && string(t) != "{}" && string(t) != "null" {
		targeting = "yes"
	}
	return []string{text("state"), text("defaultVariant"), strings.Join(names, " "), targeting}
}

// getCommand is `KIND get NAME`.
func (a *app) getCommand(kind document.Kind) *cobra.Command {
	lf := &listFlags{}
	cmd := &cobra.Command{
		Use: "get NAME", Aliases: []string{"show"}, Short: "Show one " + kind.String(),
		Example: fmt.Sprintf("holdfast %[1]s get NAME\nholdfast %[1]s get NAME -o yaml", kind),
		Args:    exactArgs("NAME"), ValidArgsFunction: a.completeNames(kind),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := a.connect(); err != nil {
				return err
			}
			r, err := a.get(cmd.Context(), document.Key{Kind: kind, Name: args[0]}, readOptions(lf.linearizable))
			if err != nil {
				return err
			}
			if a.format != tableFormat {
				return a.emit(viewOf(r))
			}
			var buf bytes.Buffer
			a.show(&buf, r)
			return a.flush(buf.Bytes())
		},
	}
	lf.declareConsistency(cmd)
	return cmd
}

// show writes everything about one resource for people.
func (a *app) show(w io.Writer, r *holdfastv1.Resource) {
	t := table{paint: func(_, column int, text string) string {
		if column == 0 {
			return a.out.bold(text)
		}
		return text
	}}
	t.row(kindTitle(kindOf(r.GetKey())), r.GetKey().GetName())
	t.row("Namespace", namespaceOf(r.GetKey()))
	t.row("Revision", fmt.Sprintf("%d (version %d, created at %d)", r.GetModRevision(), r.GetVersion(), r.GetCreateRevision()))
	t.row("Changed", fmt.Sprintf("%s by %s", a.ago(r), actorText(r.GetActor())))
	if r.GetReason() != "" {
		t.row("Reason", r.GetReason())
	}
	if r.GetEndTime() != nil {
		t.row("Ends", fmt.Sprintf("in %s, at %s", a.remaining(r), a.clockTime(r.GetEndTime().AsTime())))
	}
	_ = t.write(w)
	plain := &holdfastv1.Resource{Labels: r.GetLabels(), Spec: r.GetSpec()}
	for _, line := range definitionLines(plain) {
		writef(w, "%s\n", printable(line))
	}
}

// deleteCommand is `KIND delete NAME...` for declared kinds.
func (a *app) deleteCommand(kind document.Kind) *cobra.Command {
	var yes, dryRun, wait bool
	var reason string
	cmd := &cobra.Command{
		Use: "delete NAME...", Aliases: []string{"rm"}, Short: "Delete " + pluralKind(kind),
		Example: fmt.Sprintf("holdfast %s delete NAME --yes", kind),
		Args:    atLeastArgs("NAME"), ValidArgsFunction: a.completeNames(kind),
	}
	cmd.Flags().BoolVarP(&yes, "yes", "y", false, "do not ask")
	cmd.Flags().BoolVar(&dryRun, "dry-run", false, "print the difference and change nothing")
	a.reasonFlag(cmd, &reason)
	a.waitFlag(cmd, &wait)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		ctx := cmd.Context()
		if err := a.connect(); err != nil {
			return err
		}
		req := &holdfastv1.ApplyRequest{Reason: strings.TrimSpace(reason), ClaimedActor: a.actor(), DryRun: dryRun}
		names := distinct(args)
		for _, name := range names {
			r, err := a.get(ctx, document.Key{Kind: kind, Name: name}, nil)
			if err != nil {
				return err
			}
			req.Operations = append(req.Operations, deleteOf(r))
		}
		what := fmt.Sprintf("delete %s %s%s", kind, strings.Join(names, ", "), a.inNamespace())
		if err := a.asker.confirm(yes || dryRun, what); err != nil {
			return err
		}
		return a.putOne(ctx, document.Key{Kind: kind, Name: strings.Join(names, ", ")}, req, nil, wait, func(v *resultView) error {
			for _, item := range v.Items {
				if err := a.say("%s/%s %s (revision %d)", kind, item.Name, item.Change, v.Revision); err != nil {
					return err
				}
			}
			return nil
		})
	}
	return cmd
}
