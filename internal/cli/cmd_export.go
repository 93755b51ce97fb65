package cli

import (
	"context"
	"encoding/json"
	"maps"
	"slices"

	"github.com/spf13/cobra"

	"github.com/holdfast-dev/holdfast/internal/document"
	"github.com/holdfast-dev/holdfast/internal/flags"
)

// flagdSchema is what flagd files name as their schema.
const flagdSchema = "https://flagd.dev/schema/v0/flags.json"

// flagdFile is a flagd file in the form that providers read.
type flagdFile struct {
	Schema string                     `json:"$schema"`
	Flags  map[string]json.RawMessage `json:"flags"`
}

// exportFlags are the flags of `export flagd`.
type exportFlags struct {
	set       string
	oneSet    bool
	effective bool
	instance  *instanceFlags
}

// exportCommand is `export`.
func (a *app) exportCommand() *cobra.Command {
	return a.group("export", "Export definitions for other systems",
		"holdfast export flagd > flags.json\nholdfast export flagd --effective",
		a.exportFlagd())
}

// exportFlagd is `export flagd`.
func (a *app) exportFlagd() *cobra.Command {
	f := &exportFlags{}
	cmd := &cobra.Command{
		Use: "flagd", Short: "Print all flags as a flagd file",
		Long: `Print all flags of the namespace as a flagd file, as they are at one revision: as JSON, or as YAML
with -o yaml. ` + "`holdfast import flagd`" + ` reads it back.

Definitions are printed as they are declared. With --effective overrides and the levels of modes
are applied as servers do it for flagd providers: a forced variant becomes the default one of a
flag without rules.`,
		Example: `holdfast export flagd > flags.json
holdfast export flagd --set shop -o yaml
holdfast export flagd --effective --instance-label service=checkout`,
		Args: exactArgs(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			f.oneSet = cmd.Flags().Changed("set")
			if f.instance.given() && !f.effective {
				return usage("--instance-label and --instance-id go with --effective only: definitions are the same for every instance")
			}
			if err := a.connect(); err != nil {
				return err
			}
			return a.export(cmd.Context(), f)
		},
	}
	cmd.Flags().StringVar(&f.set, "set", "", "only flags of the flag set `ID`, which is their metadata flagSetId; '' for those without one")
	cmd.Flags().BoolVar(&f.effective, "effective", false, "apply overrides and the levels of modes")
	f.instance = a.instanceFlags(cmd)
	return cmd
}

// export prints the flags as a flagd file.
func (a *app) export(ctx context.Context, f *exportFlags) error {
	instance, err := f.instance.instance()
	if err != nil {
		return err
	}
	content, err := a.snapshot(ctx)
	if err != nil {
		return err
	}
	definitions := map[string]json.RawMessage{}
	if f.effective {
		for r := range flags.NewView(instance).Update(content).Expire(a.stateTime().UnixMilli()).Flags() {
			definitions[r.Key()] = r.Definition()
		}
	} else {
		for _, r := range content.Puts {
			if r.Kind == document.Flag {
				definitions[r.Name] = rawSpec(r.Spec)
			}
		}
	}
	out := flagdFile{Schema: flagdSchema, Flags: map[string]json.RawMessage{}}
	sets := map[string]bool{}
	for key, spec := range definitions {
		set := setOf(spec)
		sets[set] = true
		if !f.oneSet || set == f.set {
			out.Flags[key] = spec
		}
	}
	if f.oneSet && len(out.Flags) == 0 && f.set != "" {
		failure := fail(exitNotFound, "there is no flag of the set %q%s", f.set, a.inNamespace())
		if hint := didYouMean(f.set, slices.Sorted(maps.Keys(sets))); hint != "" {
			failure.addHint("%s", hint)
		}
		return failure
	}
	if a.format == tableFormat {
		a.format = jsonFormat
	}
	return a.emit(out)
}

// setOf returns the flag set of a definition; "" without one.
func setOf(spec []byte) string {
	var def struct {
		Metadata struct {
			Set any `json:"flagSetId"`
		} `json:"metadata"`
	}
	if json.Unmarshal(spec, &def) != nil {
		return ""
	}
	set, _ := def.Metadata.Set.(string)
	return set
}
