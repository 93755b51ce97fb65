package cli

import (
	"github.com/spf13/cobra"

	"github.com/holdfast-dev/holdfast/internal/document"
	"github.com/holdfast-dev/holdfast/internal/flags"
)

// instanceFlags say as which instance scopes are resolved.
type instanceFlags struct {
	labels []string
	id     string
}

// instanceFlags declares the flags on a command.
func (a *app) instanceFlags(cmd *cobra.Command) *instanceFlags {
	f := &instanceFlags{}
	cmd.Flags().StringArrayVar(&f.labels, "instance-label", nil, "label `key=value` of the instance, as in service=checkout; scopes go by them")
	cmd.Flags().StringVar(&f.id, "instance-id", "", "`id` of the instance; without it, only overrides for all of a scope hold")
	_ = cmd.RegisterFlagCompletionFunc("instance-id", func(cmd *cobra.Command, _ []string, typed string) ([]string, cobra.ShellCompDirective) {
		return a.completeInstances(cmd, nil, typed)
	})
	return f
}

// given tells whether any of the flags is there.
func (f *instanceFlags) given() bool { return len(f.labels) > 0 || f.id != "" }

// instance reads the flags.
func (f *instanceFlags) instance() (flags.Instance, error) {
	labels, err := parseLabels("--instance-label", f.labels)
	if err != nil {
		return flags.Instance{}, err
	}
	return flags.Instance{ID: f.id, Labels: document.LabelsOf(labels)}, nil
}
