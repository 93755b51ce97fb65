package cli

import (
	"context"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/holdfast-dev/holdfast/internal/document"
)

// completionTime is how long the shell waits for names at most.
const completionTime = 300 * time.Millisecond

// quickly connects for a completion: no notes, one short try.
func (a *app) quickly(cmd *cobra.Command) bool {
	if err := a.prepare(cmd, nil); err != nil {
		return false
	}
	a.opt.quiet, a.timeout = true, completionTime
	return a.connect() == nil
}

// completeNames completes the names of a kind.
func (a *app) completeNames(kind document.Kind) func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
	return func(cmd *cobra.Command, args []string, typed string) ([]string, cobra.ShellCompDirective) {
		var out []string
		if a.quickly(cmd) {
			ctx, cancel := context.WithTimeout(cmd.Context(), completionTime)
			defer cancel()
			names, _ := a.names(ctx, a.namespace(), kind, typed, 1)
			for _, name := range names {
				if !slices.Contains(args, name) {
					out = append(out, name)
				}
			}
		}
		return out, cobra.ShellCompDirectiveNoFileComp
	}
}

// completeLevels completes MODE and then LEVEL.
func (a *app) completeLevels(cmd *cobra.Command, args []string, typed string) ([]string, cobra.ShellCompDirective) {
	switch {
	case len(args) == 0:
		return a.completeNames(document.Mode)(cmd, args, typed)
	case len(args) > 1 || !a.quickly(cmd):
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	ctx, cancel := context.WithTimeout(cmd.Context(), completionTime)
	defer cancel()
	def, err := a.get(ctx, document.Key{Kind: document.Mode, Name: args[0]}, nil)
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	return readMode(def).names(), cobra.ShellCompDirectiveNoFileComp | cobra.ShellCompDirectiveKeepOrder
}

// completeVariants completes --variant of a flag.
func (a *app) completeVariants(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	if len(args) == 0 || !a.quickly(cmd) {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	ctx, cancel := context.WithTimeout(cmd.Context(), completionTime)
	defer cancel()
	def, err := a.get(ctx, document.Key{Kind: document.Flag, Name: args[0]}, nil)
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	return variantsOf(def.GetSpec()), cobra.ShellCompDirectiveNoFileComp
}

// completeContexts completes the names of contexts.
func (a *app) completeContexts(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	file, _, err := a.readContexts()
	if err != nil || len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	return file.names(), cobra.ShellCompDirectiveNoFileComp
}
