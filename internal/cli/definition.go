package cli

import (
	"context"
	"strings"

	"github.com/spf13/cobra"

	"github.com/holdfast-dev/holdfast/internal/document"
	"github.com/holdfast-dev/holdfast/internal/yamlfile"
	holdfastv1 "github.com/holdfast-dev/holdfast/proto/holdfast/v1"
)

// definitionFlags are the flags of commands that set one definition.
type definitionFlags struct {
	file   string
	labels []string
}

// definitionFlags declares the flags on a command.
func (a *app) definitionFlags(cmd *cobra.Command) *definitionFlags {
	f := &definitionFlags{}
	cmd.Flags().StringVarP(&f.file, "file", "f", "", "`file` with the definition, YAML or JSON: the spec alone or a document with kind and name; - for standard input")
	cmd.Flags().StringArrayVar(&f.labels, "label", nil, "label `key=value` of the resource; they replace the present ones")
	return f
}

// readDefinition reads the definition of one resource from a file that holds its
// spec or its document. Labels are nil where neither says anything.
func (a *app) readDefinition(key document.Key, f *definitionFlags) ([]byte, map[string]string, error) {
	if f.file == "" {
		return nil, nil, usage("-f FILE is missing: it holds the definition")
	}
	labels, err := parseLabels("--label", f.labels)
	if err != nil {
		return nil, nil, err
	}
	src, err := a.readFile(f.file)
	if err != nil {
		return nil, nil, err
	}
	name := f.file
	if name == "-" {
		name = stdinName
	}
	docs, faults := yamlfile.Parse(name, src)
	if len(faults) > 0 {
		r := manifestReader{}
		r.parse(name, src)
		return nil, nil, problemFailure(r.problems)
	}
	if len(docs) != 1 {
		return nil, nil, usage("%s holds %s; one definition is needed", name, plural(len(docs), "document")).
			hint("`holdfast apply -f` takes several")
	}
	r := manifestReader{}
	spec := docs[0]
	if kind := spec.Get("kind"); kind != nil && spec.Get("spec") != nil {
		if kind.Kind != yamlfile.String || !strings.EqualFold(kind.Text, key.Kind.String()) {
			r.bad(name, kind, "the document is a %s; this command sets a %s", kind.Text, key.Kind)
		}
		if n := spec.Get("name"); n != nil && n.Text != key.Name {
			r.bad(name, n, "the document names %q; the command line says %q", n.Text, key.Name)
		}
		if fromFile := r.labels(name, spec.Get("labels")); labels == nil {
			labels = fromFile
		}
		spec = spec.Get("spec")
	}
	m := &manifest{file: name, line: spec.Line, key: key, specNode: spec}
	r.spec(m)
	if len(r.problems) > 0 {
		return nil, nil, problemFailure(r.problems)
	}
	return m.spec, labels, nil
}

// setDefinition creates or replaces a declared resource, as it was seen.
func (a *app) setDefinition(ctx context.Context, key document.Key, def *definitionFlags, of *overrideFlags) error {
	spec, labels, err := a.readDefinition(key, def)
	if err != nil {
		return err
	}
	if err := a.connect(); err != nil {
		return err
	}
	var revision uint64
	switch old, err := a.get(ctx, key, readOptions(true)); {
	case err == nil:
		revision = old.GetModRevision()
		if labels == nil {
			labels = old.GetLabels()
		}
	case exitCodeOf(err) != exitNotFound:
		return err
	}
	req := &holdfastv1.ApplyRequest{
		Reason: strings.TrimSpace(of.reason), ClaimedActor: a.actor(), DryRun: of.dryRun,
		Operations: []*holdfastv1.Operation{{
			Action:           &holdfastv1.Operation_Put{Put: &holdfastv1.Put{Key: key.Proto(a.namespace()), Spec: spec, Labels: labels}},
			ExpectedRevision: &revision,
		}},
	}
	return a.putOne(ctx, key, req, nil, of.wait, func(v *resultView) error {
		return a.say("%s %s (revision %d)", key, v.Items[0].Change, v.Revision)
	})
}
