package cli

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/holdfast-dev/holdfast/internal/document"
)

// policyCommand is everything about policies.
func (a *app) policyCommand() *cobra.Command {
	return a.group("policy", "Policies: the resilience settings of one dependency",
		"holdfast policy list\nholdfast policy set payments -f payments.yaml\nholdfast policy get payments -o yaml",
		a.listCommand(document.Policy), a.getCommand(document.Policy), a.setCommand(document.Policy), a.deleteCommand(document.Policy))
}

// setCommand is `policy set NAME -f FILE`.
func (a *app) setCommand(kind document.Kind) *cobra.Command {
	cmd := &cobra.Command{
		Use: "set NAME", Short: "Create or replace a " + kind.String(),
		Example: fmt.Sprintf("holdfast %s set NAME -f FILE", kind),
		Args:    exactArgs("NAME"), ValidArgsFunction: a.completeNames(kind),
	}
	def, of := a.definitionFlags(cmd), &overrideFlags{}
	a.reasonFlag(cmd, &of.reason)
	a.waitFlag(cmd, &of.wait)
	cmd.Flags().BoolVar(&of.dryRun, "dry-run", false, "print the difference and change nothing")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		return a.setDefinition(cmd.Context(), document.Key{Kind: kind, Name: args[0]}, def, of)
	}
	return cmd
}
