package cli

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/holdfast-dev/holdfast/internal/document"
	holdfastv1 "github.com/holdfast-dev/holdfast/proto/holdfast/v1"
)

// normalLevel is the implicit level 0 of every mode.
const normalLevel = "normal"

// modeSpec is the definition of a mode, as far as this program reads it.
type modeSpec struct {
	Description string `json:"description"`
	Levels      []struct {
		Name        string `json:"name"`
		Description string `json:"description"`
	} `json:"levels"`
}

// readMode reads a definition; one that cannot be read has no levels.
func readMode(r *holdfastv1.Resource) modeSpec {
	var m modeSpec
	if err := json.Unmarshal(r.GetSpec(), &m); err != nil {
		return modeSpec{}
	}
	return m
}

// names lists the levels from mild to most degraded, without normal.
func (m modeSpec) names() []string {
	out := make([]string, 0, len(m.Levels))
	for _, l := range m.Levels {
		out = append(out, l.Name)
	}
	return out
}

// rank orders levels: normal is 0; a level that the mode does not have is -1.
func (m modeSpec) rank(level string) int {
	if level == normalLevel {
		return 0
	}
	if i := slices.Index(m.names(), level); i >= 0 {
		return i + 1
	}
	return -1
}

// ladder shows the levels in order.
func (m modeSpec) ladder() string {
	return strings.Join(append([]string{normalLevel}, m.names()...), " < ")
}

// modeCommand is everything about modes.
func (a *app) modeCommand() *cobra.Command {
	return a.group("mode", "Degradation modes: set a level for a while, look, clear, define",
		`holdfast mode set storefront read-only --for 30m --reason "db failover"
holdfast mode list
holdfast mode clear storefront
holdfast mode set storefront -f storefront.yaml`,
		a.modeSet(), a.modeClear(), a.modeList(), a.getCommand(document.Mode), a.deleteCommand(document.Mode))
}

// modeSet is `mode set MODE LEVEL` and `mode set MODE -f FILE`.
func (a *app) modeSet() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "set MODE LEVEL",
		Short: "Set a mode's level for a while, or its definition with -f",
		Long: `Set a mode's level for a while. It replaces the override of the same mode and scope;
other overrides of the mode that still win are named. It ends by itself.

With --dry-run nothing is changed; it says which flags, calls and policies would be different for
an instance in the scope. Overrides of others for a share of the instances are left out of that.

With -f FILE the definition of the mode is replaced instead.`,
		Example: `holdfast mode set storefront read-only --for 30m --reason "db failover"
holdfast mode set storefront cache-only --scope 'zone in (eu-1,eu-2)' --percent 10 --reason "warming caches"
holdfast mode set storefront offline --for 2h --reason "data centre move" --dry-run
holdfast mode set storefront -f storefront.yaml`,
		ValidArgsFunction: a.completeLevels,
	}
	scope, of := a.scopeFlags(cmd), a.overrideFlags(cmd)
	def := a.definitionFlags(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if def.file != "" {
			if err := exactArgs("MODE")(cmd, args); err != nil {
				return err
			}
			if err := refuse(cmd, "belongs to a level, not to a definition", "for", "scope", "percent"); err != nil {
				return err
			}
			return a.setDefinition(cmd.Context(), document.Key{Kind: document.Mode, Name: args[0]}, def, of)
		}
		if err := exactArgs("MODE", "LEVEL")(cmd, args); err != nil {
			return err
		}
		if err := refuse(cmd, "belongs to a definition: give -f FILE with it", "label"); err != nil {
			return err
		}
		s, err := scope.scope(cmd)
		if err != nil {
			return err
		}
		return a.setMode(cmd.Context(), args[0], args[1], s, of)
	}
	return cmd
}

// setMode sets a mode's level.
func (a *app) setMode(ctx context.Context, mode, level string, scope *scopeSpec, of *overrideFlags) error {
	if level == normalLevel {
		f := usage("%q is not set but returned to: end the override", normalLevel)
		clearing := "holdfast mode clear " + shellQuote(mode)
		if scope != nil && scope.Selector != "" {
			clearing += " --scope " + shellQuote(scope.Selector)
		}
		return f.hint("`%s`", clearing)
	}
	if err := a.connect(); err != nil {
		return err
	}
	def, err := a.get(ctx, document.Key{Kind: document.Mode, Name: mode}, nil)
	if err != nil {
		return err
	}
	m := readMode(def)
	rank := m.rank(level)
	if rank < 0 {
		f := fail(exitNotFound, "mode %q has no level %q", mode, level).detail("levels: %s", m.ladder())
		if hint := didYouMean(level, m.names()); hint != "" {
			f.addHint("%s", hint)
		}
		return f
	}
	others, err := a.overrides(ctx)
	if err != nil {
		return err
	}
	spec := &overrideSpec{Mode: mode, Level: level, Scope: scope}
	text := fmt.Sprintf("%s is %s", mode, level)
	if scope != nil {
		text += " on " + scope.instances()
	}
	return a.setOverride(ctx, put{
		spec: spec, others: others, flags: of, text: text,
		wins: func(o override) bool { return o.spec.Mode == mode && m.rank(o.spec.Level) > rank },
		check: func(ctx context.Context) []string {
			key := document.Key{Kind: document.Mode, Name: mode}
			return a.checkLevel(ctx, &manifest{namespace: a.namespace(), key: key, spec: def.GetSpec()}, rank)
		},
	})
}

// modeClear is `mode clear MODE`.
func (a *app) modeClear() *cobra.Command {
	var all, wait, dryRun bool
	var reason string
	cmd := &cobra.Command{
		Use: "clear MODE", Short: "Return a mode to normal",
		Long: "Return a mode to normal: end its override of the given scope, or with --all those of every\nscope. Overrides that remain are named.",
		Example: `holdfast mode clear storefront
holdfast mode clear storefront --scope 'zone in (eu-1,eu-2)'
holdfast mode clear storefront --all --reason "incident over"`,
		Args: exactArgs("MODE"), ValidArgsFunction: a.completeNames(document.Mode),
	}
	scope := a.scopeFlags(cmd)
	cmd.Flags().BoolVar(&all, "all", false, "end the overrides of every scope")
	a.reasonFlag(cmd, &reason)
	a.waitFlag(cmd, &wait)
	cmd.Flags().BoolVar(&dryRun, "dry-run", false, "print the difference and change nothing")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		s, err := scope.scope(cmd)
		if err != nil {
			return err
		}
		if all && s != nil {
			return usage("--all and --scope or --percent exclude each other")
		}
		return a.release(cmd.Context(), release{
			spec: overrideSpec{Mode: args[0], Scope: s}, kind: document.Mode, all: all, reason: reason, wait: wait, dryRun: dryRun,
			command: "holdfast mode clear " + shellQuote(args[0]),
		})
	}
	return cmd
}

// activeView is an override of a mode in `mode list`.
type activeView struct {
	Override         string     `json:"override"`
	Level            string     `json:"level"`
	Scope            *scopeSpec `json:"scope,omitempty"`
	EndTime          time.Time  `json:"end_time"`
	RemainingSeconds int64      `json:"remaining_seconds"`
	Actor            string     `json:"actor"`
	Reason           string     `json:"reason"`
}

// modeView is a mode in `mode list`.
type modeView struct {
	resourceView
	Active []activeView `json:"active"`
}

// modeList is `mode list`.
func (a *app) modeList() *cobra.Command {
	lf := &listFlags{}
	cmd := &cobra.Command{
		Use: "list", Aliases: []string{"ls"}, Short: "List modes with their active levels and the time left",
		Example: "holdfast mode list\nholdfast mode list -o json", Args: exactArgs(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := a.connect(); err != nil {
				return err
			}
			return a.listModes(cmd.Context(), lf)
		},
	}
	lf.declare(cmd)
	return cmd
}

func (a *app) listModes(ctx context.Context, lf *listFlags) error {
	modes, revision, err := a.listOf(ctx, document.Mode, lf)
	if err != nil {
		return err
	}
	overrides, err := a.overrides(ctx)
	if err != nil {
		return err
	}
	active := map[string][]override{}
	for _, o := range overrides {
		if o.spec.Mode != "" {
			active[o.spec.Mode] = append(active[o.spec.Mode], o)
		}
	}
	if a.format == tableFormat {
		return a.modeTable(modes, active, lf)
	}
	list := listView[modeView]{head: newHead(listKind), Revision: revision, Items: []modeView{}}
	for _, r := range modes {
		v := modeView{resourceView: viewOf(r), Active: []activeView{}}
		for _, o := range active[r.GetKey().GetName()] {
			end := o.GetEndTime().AsTime()
			v.Active = append(v.Active, activeView{
				Override: o.name(), Level: o.spec.Level, Scope: o.spec.Scope, EndTime: end,
				RemainingSeconds: max(0, int64(end.Sub(a.stateTime())/time.Second)),
				Actor:            o.GetActor().GetName(), Reason: o.GetReason(),
			})
		}
		list.Items = append(list.Items, v)
	}
	return a.emit(list)
}

// modeTable writes one line per active override, the most degraded first, and
// one per mode that is normal. Without a filter it also tells of overrides of
// modes that nobody has defined.
func (a *app) modeTable(modes []*holdfastv1.Resource, active map[string][]override, lf *listFlags) error {
	t := table{}
	t.row("MODE", "LEVEL", "SCOPE", "LEFT", "BY", "REASON", "LEVELS")
	degraded := map[int]bool{}
	for _, r := range modes {
		name, m := r.GetKey().GetName(), readMode(r)
		list := active[name]
		if len(list) == 0 {
			t.row(name, normalLevel, "-", "-", "-", "-", m.ladder())
		}
		slices.SortStableFunc(list, func(x, y override) int {
			return cmp.Compare(m.rank(y.spec.Level), m.rank(x.spec.Level))
		})
		for _, o := range list {
			degraded[len(t.rows)] = true
			t.row(name, o.spec.Level, o.spec.Scope.String(), a.remaining(o.Resource), actorText(o.GetActor()), o.GetReason(), m.ladder())
		}
	}
	if lf.prefix == "" && len(lf.labels) == 0 {
		for _, r := range modes {
			delete(active, r.GetKey().GetName())
		}
		for _, name := range slices.Sorted(maps.Keys(active)) {
			a.warn("mode %q is overridden but not defined: %s", name, a.describe(active[name][0]))
		}
	}
	t.paint = func(row, column int, text string) string {
		switch {
		case row == 0:
			return a.out.bold(text)
		case column == 1 && degraded[row]:
			return a.out.red(text)
		}
		return text
	}
	if len(modes) == 0 {
		a.notice("there are no modes%s; define one with `holdfast apply -f mode.yaml`", a.inNamespace())
		return nil
	}
	return t.write(a.io.Out)
}

// refuse names a flag that does not go with this form of the command.
func refuse(cmd *cobra.Command, why string, names ...string) error {
	for _, name := range names {
		if cmd.Flags().Changed(name) {
			return usage("--%s %s", name, why)
		}
	}
	return nil
}

// shellQuote quotes an argument where a shell would not take it as it is.
func shellQuote(s string) string {
	plain := func(r rune) bool {
		return r == '-' || r == '_' || r == '.' || r == '/' || r == '=' || r == ',' || r == ':' ||
			'a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' || '0' <= r && r <= '9'
	}
	if s != "" && strings.IndexFunc(s, func(r rune) bool { return !plain(r) }) < 0 {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}
