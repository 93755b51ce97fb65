package cli

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"
)

// breakerCommand is everything about breakers that are held by hand.
func (a *app) breakerCommand() *cobra.Command {
	c := a.group("breaker", "Hold the breaker of a dependency open or closed for a while",
		`holdfast breaker hold payments open --for 20m --reason "provider down"
holdfast breaker list
holdfast breaker release payments`,
		a.breakerHold(), a.breakerRelease(), a.breakerList())
	c.RunE = func(cmd *cobra.Command, args []string) error {
		err := a.groupRun(cmd, args)
		if len(args) == 0 {
			return err
		}
		// How a breaker is held is often typed as what to do with it.
		hold, known := map[string]string{"open": "open", "close": "closed", "closed": "closed"}[args[0]]
		if f, ok := errors.AsType[*failure](err); ok && known {
			dependency := "DEPENDENCY"
			if len(args) > 1 {
				dependency = shellQuote(args[1])
			}
			f.hints = []string{fmt.Sprintf("did you mean `holdfast breaker hold %s %s`?", dependency, hold)}
		}
		return err
	}
	return c
}

// breakerHold is `breaker hold DEPENDENCY open|closed`.
func (a *app) breakerHold() *cobra.Command {
	var method string
	cmd := &cobra.Command{
		Use: "hold DEPENDENCY open|closed", Short: "Hold a breaker open or closed",
		Long: "Hold the breaker of a dependency open (no calls) or closed (calls whatever the breaker\nthinks), for a while. Where several hold, open beats closed.",
		Example: `holdfast breaker hold payments open --for 20m --reason "provider down"
holdfast breaker hold payments closed --scope service=checkout --reason "false alarm"
holdfast breaker hold payments open --method /shop.Payments/Refund --reason "refunds run twice"`,
		Args: exactArgs("DEPENDENCY", "open|closed"),
		ValidArgsFunction: func(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
			if len(args) == 1 {
				return []string{"open", "closed"}, cobra.ShellCompDirectiveNoFileComp
			}
			return nil, cobra.ShellCompDirectiveNoFileComp
		},
	}
	scope, of := a.scopeFlags(cmd), a.overrideFlags(cmd)
	cmd.Flags().StringVar(&method, "method", "", "only the breaker of this `method`: /package.Service/Method")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		dependency, hold := args[0], args[1]
		if hold != "open" && hold != "closed" {
			f := usage("a breaker is held open or closed, not %q", hold)
			if hint := didYouMean(hold, []string{"open", "closed"}); hint != "" {
				f.addHint("%s", hint)
			}
			return f
		}
		s, err := scope.scope(cmd)
		if err != nil {
			return err
		}
		if err := a.connect(); err != nil {
			return err
		}
		others, err := a.overrides(cmd.Context())
		if err != nil {
			return err
		}
		text := fmt.Sprintf("the breaker of %s is held %s", dependency+method, hold)
		if s != nil {
			text += " on " + s.instances()
		}
		return a.setOverride(cmd.Context(), put{
			spec:   &overrideSpec{Breaker: dependency, Hold: hold, Method: method, Scope: s},
			others: others, flags: of, text: text,
			wins: func(o override) bool {
				return o.spec.Breaker == dependency && o.spec.Hold == "open" && hold == "closed" &&
					(o.spec.Method == "" || method == "" || o.spec.Method == method)
			},
			check: func(ctx context.Context) []string { return a.checkDependency(ctx, dependency) },
		})
	}
	return cmd
}

// breakerRelease is `breaker release DEPENDENCY`.
func (a *app) breakerRelease() *cobra.Command {
	var all, wait, dryRun bool
	var reason, method string
	cmd := &cobra.Command{
		Use: "release DEPENDENCY", Short: "Let a breaker decide for itself again",
		Example: "holdfast breaker release payments\nholdfast breaker release payments --all",
		Args:    exactArgs("DEPENDENCY"),
	}
	scope := a.scopeFlags(cmd)
	cmd.Flags().StringVar(&method, "method", "", "only the hold of this `method`")
	cmd.Flags().BoolVar(&all, "all", false, "end the holds of every scope and method")
	a.reasonFlag(cmd, &reason)
	a.waitFlag(cmd, &wait)
	cmd.Flags().BoolVar(&dryRun, "dry-run", false, "print the difference and change nothing")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		s, err := scope.scope(cmd)
		if err != nil {
			return err
		}
		if all && (s != nil || method != "") {
			return usage("--all and --scope, --percent or --method exclude each other")
		}
		return a.release(cmd.Context(), release{
			spec: overrideSpec{Breaker: args[0], Method: method, Scope: s}, all: all, reason: reason, wait: wait, dryRun: dryRun,
			command: "holdfast breaker release " + shellQuote(args[0]),
		})
	}
	return cmd
}

// breakerList is `breaker list`.
func (a *app) breakerList() *cobra.Command {
	return &cobra.Command{
		Use: "list", Aliases: []string{"ls"}, Short: "List the breakers that are held by hand",
		Example: "holdfast breaker list", Args: exactArgs(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := a.connect(); err != nil {
				return err
			}
			list, err := a.overrides(cmd.Context())
			if err != nil {
				return err
			}
			list = slices.DeleteFunc(list, func(o override) bool { return o.spec.Breaker == "" })
			slices.SortStableFunc(list, func(x, y override) int { return strings.Compare(x.spec.Breaker, y.spec.Breaker) })
			return a.writeOverrides(list, 0, "no breaker is held by hand")
		},
	}
}
