package cli

import (
	"bytes"
	"fmt"

	"github.com/spf13/cobra"
)

// validationView is what validate found, in JSON and YAML.
type validationView struct {
	head
	Files       int           `json:"files"`
	Definitions int           `json:"definitions"`
	Errors      int           `json:"errors"`
	Warnings    int           `json:"warnings"`
	Items       []problemView `json:"items"`
}

// problemView is one thing that validate found.
type problemView struct {
	Severity string `json:"severity"`
	File     string `json:"file"`
	Line     int    `json:"line"`
	Resource string `json:"resource,omitempty"`
	Path     string `json:"path,omitempty"`
	Message  string `json:"message"`
}

// validateCommand is `validate FILE|DIR...`.
func (a *app) validateCommand() *cobra.Command {
	return &cobra.Command{
		Use: "validate FILE|DIR...", Short: "Check files of definitions; needs no server",
		Long: `Check files of definitions as the servers would: documents of flags, modes, policies and
overrides, and flagd files, as YAML or JSON. A directory stands for its .yaml, .yml and .json
files, - for standard input. Everything that is wrong with any file is told at once, as
file:line: resource: path: message.

Names that definitions use are looked up in the same files: a variant or a level that its flag or
mode does not have is an error, a flag, mode or policy that no file declares a warning. Errors
exit with 2, warnings with 0. Nothing is sent anywhere.`,
		Example: `holdfast validate definitions/
holdfast validate flags.flagd.json modes/ -o json
holdfast import flagd flags.json --print | holdfast validate -`,
		Args: atLeastArgs("FILE"),
		RunE: func(_ *cobra.Command, args []string) error {
			s, err := a.resolve()
			if err != nil {
				return err
			}
			r := &manifestReader{namespace: s.Namespace.Value, lenient: true}
			files, err := a.readInto(r, args)
			if err != nil {
				return err
			}
			crossCheck(r)
			return a.tellValidation(r, files)
		},
	}
}

// tellValidation writes what was found, and fails if any of it is an error.
func (a *app) tellValidation(r *manifestReader, files int) error {
	sortProblems(r.problems)
	v := validationView{head: newHead("ValidationResult"), Files: files, Definitions: len(r.manifests), Items: []problemView{}}
	var lines bytes.Buffer
	for _, p := range r.problems {
		severity := "error"
		if p.warning {
			severity = "warning"
			v.Warnings++
		} else {
			v.Errors++
		}
		v.Items = append(v.Items, problemView{severity, p.file, p.line, p.key, p.path, p.text})
		fmt.Fprintln(&lines, printable(p.String()))
	}
	found := plural(v.Warnings, "warning")
	if v.Errors > 0 {
		found = plural(v.Errors, "error") + " and " + found
	}
	if a.format != tableFormat {
		if err := a.emit(v); err != nil {
			return err
		}
	} else {
		if v.Errors == 0 {
			fmt.Fprintf(&lines, "%s in %s: no errors, %s\n", plural(v.Definitions, "definition"), plural(files, "file"), found)
		}
		if err := a.flush(lines.Bytes()); err != nil {
			return err
		}
	}
	if v.Errors > 0 {
		return usage("%s in %s", found, plural(files, "file"))
	}
	return nil
}
