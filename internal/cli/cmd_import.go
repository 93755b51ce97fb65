package cli

import (
	"context"
	"maps"

	"github.com/spf13/cobra"

	"github.com/holdfast-dev/holdfast/internal/document"
)

// importCommand is `import`.
func (a *app) importCommand() *cobra.Command {
	return a.group("import", "Import definitions of other systems",
		"holdfast import flagd flags.json --dry-run\nholdfast import flagd flags.json --label team=shop",
		a.importFlagd())
}

// importFlagd is `import flagd FILE`.
func (a *app) importFlagd() *cobra.Command {
	f := &applyFlags{}
	var labels []string
	var show bool
	cmd := &cobra.Command{
		Use: "flagd FILE", Short: "Create or change the flags of a flagd file",
		Long: `Create or change the flags of a flagd file, JSON or YAML; - is standard input. $schema is ignored,
$evaluators are put into the rules that refer to them, the metadata of the set into its flags.
With --print nothing is sent: the flags are printed as documents for apply.`,
		Example: `holdfast import flagd flags.json --dry-run
holdfast import flagd flags.json --label team=shop
holdfast import flagd flags.json --print > flags.yaml`,
		Args: exactArgs("FILE"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := f.check(); err != nil {
				return err
			}
			if err := a.connect(); err != nil {
				return err
			}
			own, err := parseLabels("--label", labels)
			if err != nil {
				return err
			}
			src, err := a.readFile(args[0])
			if err != nil {
				return err
			}
			name := args[0]
			if name == "-" {
				name = stdinName
			}
			manifests, problems := readFlagd(name, src, a.namespace(), own)
			if len(problems) > 0 {
				return problemFailure(problems)
			}
			if show {
				return a.printManifests(manifests)
			}
			if err := a.keepLabels(cmd.Context(), manifests); err != nil {
				return err
			}
			return a.applyManifests(cmd.Context(), manifests, f)
		},
	}
	cmd.Flags().StringArrayVar(&labels, "label", nil, "label `key=value` for every flag")
	cmd.Flags().BoolVar(&show, "print", false, "print documents for apply instead of sending anything")
	a.applyFlags(cmd, f)
	return cmd
}

// keepLabels gives flags that exist already the labels that they have: a flagd file
// has no place for them.
func (a *app) keepLabels(ctx context.Context, manifests []*manifest) error {
	existing, _, err := a.listOf(ctx, document.Flag, &listFlags{})
	if err != nil {
		return err
	}
	labels := make(map[string]map[string]string, len(existing))
	for _, r := range existing {
		labels[r.GetKey().GetName()] = r.GetLabels()
	}
	for _, m := range manifests {
		merged := maps.Clone(labels[m.key.Name])
		if len(merged) == 0 {
			continue
		}
		maps.Copy(merged, m.labels)
		m.labels = merged
	}
	return nil
}

// printManifests writes documents that apply reads; as YAML unless JSON is asked
// for.
func (a *app) printManifests(manifests []*manifest) error {
	list := listView[resourceView]{head: newHead(listKind), Items: []resourceView{}}
	for _, m := range manifests {
		list.Items = append(list.Items, resourceView{
			head: newHead(kindTitle(m.key.Kind)), Name: m.key.Name, Namespace: m.namespace, Labels: m.labels, Spec: m.spec,
		})
	}
	if a.format == tableFormat {
		a.format = yamlFormat
	}
	return a.emit(list)
}
