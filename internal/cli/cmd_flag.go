package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"sort"
	"strings"

	"github.com/spf13/cobra"

	"github.com/holdfast-dev/holdfast/internal/document"
)

// flagCommand is everything about flags.
func (a *app) flagCommand() *cobra.Command {
	return a.group("flag", "Flags: list, look, evaluate, define, and set a variant for a while",
		`holdfast flag list
holdfast flag eval new-checkout --targeting-key ada --explain
holdfast flag set new-checkout -f new-checkout.yaml                                    # the definition, for good
holdfast flag set new-checkout --variant off --for 1h --reason "errors in checkout"    # an override, for a while
holdfast flag clear new-checkout`,
		a.listCommand(document.Flag), a.getCommand(document.Flag), a.flagEval(), a.flagSet(), a.flagClear(), a.deleteCommand(document.Flag))
}

// flagSet is `flag set KEY -f FILE` and `flag set KEY --variant NAME`.
func (a *app) flagSet() *cobra.Command {
	var variant string
	cmd := &cobra.Command{
		Use:   "set KEY",
		Short: "Edit a flag's definition with -f, or set a variant for a while with --variant",
		Long: `Two different things, of which one is chosen:

-f FILE edits the definition: its variants, rules and default, for everybody and for good, until
somebody edits it again. It is what belongs into a repository and is reviewed; ` + "`holdfast apply`" + `
does the same for many. An override in force still wins over it.

--variant NAME sets an override: everybody in the scope gets that variant, whatever the definition
says and also if it is DISABLED, until --for is over or ` + "`holdfast flag clear`" + ` ends it. It needs a reason
and leaves the definition as it is. Among several overrides of a flag the newest wins, and an
override wins over the level of a mode.`,
		Example: `holdfast flag set new-checkout -f new-checkout.yaml
holdfast flag set new-checkout --variant off --for 1h --reason "errors in checkout"
holdfast flag set new-checkout --variant on --percent 10 --for 2h --reason "trial"`,
		Args: exactArgs("KEY"), ValidArgsFunction: a.completeNames(document.Flag),
	}
	cmd.Flags().StringVar(&variant, "variant", "", "`name` of the variant to give for a while: an override, which ends by itself")
	def, scope, of := a.definitionFlags(cmd), a.scopeFlags(cmd), a.overrideFlags(cmd)
	_ = cmd.RegisterFlagCompletionFunc("variant", a.completeVariants)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		switch byVariant := cmd.Flags().Changed("variant"); {
		case byVariant && def.file != "":
			return usage("--variant and -f exclude each other: an override is temporary, a definition stays")
		case byVariant:
			if err := refuse(cmd, "belongs to a definition: give -f FILE with it", "label"); err != nil {
				return err
			}
			s, err := scope.scope(cmd)
			if err != nil {
				return err
			}
			return a.setVariant(cmd.Context(), args[0], variant, s, of)
		case def.file == "":
			return usage("give -f FILE to edit the definition for good, or --variant NAME to set a variant for a while")
		}
		if err := refuse(cmd, "belongs to --variant, not to a definition", "for", "scope", "percent"); err != nil {
			return err
		}
		return a.setDefinition(cmd.Context(), document.Key{Kind: document.Flag, Name: args[0]}, def, of)
	}
	return cmd
}

// setVariant gives everybody in a scope a variant for a while.
func (a *app) setVariant(ctx context.Context, flag, variant string, scope *scopeSpec, of *overrideFlags) error {
	if err := a.connect(); err != nil {
		return err
	}
	def, err := a.get(ctx, document.Key{Kind: document.Flag, Name: flag}, nil)
	if err != nil {
		return err
	}
	variants := variantsOf(def.GetSpec())
	if len(variants) > 0 && !slices.Contains(variants, variant) {
		f := fail(exitNotFound, "flag %q has no variant %q", flag, variant).detail("variants: %s", strings.Join(variants, ", "))
		if hint := didYouMean(variant, variants); hint != "" {
			f.addHint("%s", hint)
		}
		return f
	}
	others, err := a.overrides(ctx)
	if err != nil {
		return err
	}
	text := fmt.Sprintf("%s is %s", flag, variant)
	if scope != nil {
		text += " on " + scope.instances()
	}
	return a.setOverride(ctx, put{
		spec: &overrideSpec{Flag: flag, Variant: variant, Scope: scope}, others: others, flags: of, text: text,
	})
}

// variantsOf lists the variants of a flag's definition in order.
func variantsOf(spec []byte) []string {
	var def struct {
		Variants map[string]json.RawMessage `json:"variants"`
	}
	if json.Unmarshal(spec, &def) != nil {
		return nil
	}
	out := make([]string, 0, len(def.Variants))
	for name := range def.Variants {
		out = append(out, name)
	}
	sort.Strings(out)
	return out
}

// flagClear is `flag clear KEY`.
func (a *app) flagClear() *cobra.Command {
	var all, wait, dryRun bool
	var reason string
	cmd := &cobra.Command{
		Use: "clear KEY", Short: "End the override of a flag's variant",
		Example: "holdfast flag clear new-checkout\nholdfast flag clear new-checkout --all",
		Args:    exactArgs("KEY"), ValidArgsFunction: a.completeNames(document.Flag),
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
			spec: overrideSpec{Flag: args[0], Scope: s}, kind: document.Flag, all: all, reason: reason, wait: wait, dryRun: dryRun,
			command: "holdfast flag clear " + shellQuote(args[0]),
		})
	}
	return cmd
}
