package cli

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/holdfast-dev/holdfast/internal/document"
	"github.com/holdfast-dev/holdfast/internal/flags"
	"github.com/holdfast-dev/holdfast/internal/yamlfile"
)

// evalFlags are the flags of `flag eval`.
type evalFlags struct {
	context, targetingKey, as, at string
	attributes, files             []string
	explain                       bool
	instance                      *instanceFlags
}

// evaluationView is a decision in JSON and YAML.
type evaluationView struct {
	head
	Name        string           `json:"name"`
	Namespace   string           `json:"namespace"`
	Value       json.RawMessage  `json:"value,omitempty"`
	Variant     string           `json:"variant,omitempty"`
	Reason      string           `json:"reason"`
	ErrorCode   string           `json:"error_code,omitempty"`
	Metadata    json.RawMessage  `json:"metadata,omitempty"`
	Revision    uint64           `json:"revision,omitempty"`
	Explanation *explanationView `json:"explanation,omitempty"`
}

// explanationView tells how a decision was made.
type explanationView struct {
	DecidedBy string `json:"decided_by"`
	Detail    string `json:"detail,omitempty"`
	Revision  uint64 `json:"revision,omitempty"`
	// EndTime is when what decided ends, if it does.
	EndTime *time.Time `json:"end_time,omitempty"`
}

// flagEval is `flag eval KEY`.
func (a *app) flagEval() *cobra.Command {
	f := &evalFlags{}
	cmd := &cobra.Command{
		Use: "eval KEY", Short: "Tell what a flag is for somebody, and why",
		Long: `Tell what a flag is for somebody, and why. The whole namespace is read as it is at one revision,
with its modes and overrides, and evaluated here, by the code that services use; with -f files
are, and no server is asked.

--context is what is known of whom it is for: a file with a JSON or YAML mapping, or - for standard
input. (The servers' context is chosen by HOLDFAST_CONTEXT for this command.) --attr adds to it:
a value that is JSON is taken as that, anything else as a string.

A flag without a value leaves it to the default in the caller's code: it is off, or no rule and no
default variant decides. An error of the evaluation exits with 1, a flag that does not exist with 3.`,
		Example: `holdfast flag eval new-checkout --targeting-key ada --attr plan=gold --explain
holdfast flag eval new-checkout --context user.json --instance-label service=checkout
holdfast flag eval new-checkout -f flags.flagd.json --as bool -o json`,
		Args: exactArgs("KEY"), ValidArgsFunction: a.completeNames(document.Flag),
		RunE: func(cmd *cobra.Command, args []string) error { return a.eval(cmd.Context(), args[0], f) },
	}
	cmd.Flags().StringVar(&f.context, "context", "", "`file` with what is known of whom it is for, JSON or YAML; - for standard input")
	cmd.Flags().StringVar(&f.targetingKey, "targeting-key", "", "`key` of whom it is for, such as a user's id")
	cmd.Flags().StringArrayVar(&f.attributes, "attr", nil, "attribute `key=value` of whom it is for; may be repeated")
	cmd.Flags().StringVar(&f.as, "as", "", "`type` that the caller asks for: "+strings.Join(valueTypes(), ", "))
	cmd.Flags().StringVar(&f.at, "at", "", "`time` for rules that go by it: 2026-01-31T12:00:00Z, or seconds since 1970 (default now)")
	cmd.Flags().BoolVar(&f.explain, "explain", false, "tell also which rule, override or level decided, and its revision")
	cmd.Flags().StringArrayVarP(&f.files, "file", "f", nil, "evaluate what `files` declare instead: flagd files, documents, directories; may be repeated")
	f.instance = a.instanceFlags(cmd)
	_ = cmd.RegisterFlagCompletionFunc("as", cobra.FixedCompletions(valueTypes(), cobra.ShellCompDirectiveNoFileComp))
	return cmd
}

// eval evaluates a flag and writes the decision.
func (a *app) eval(ctx context.Context, key string, f *evalFlags) error {
	if f.as != "" && !slices.Contains(valueTypes(), f.as) {
		return usage("--as %s: the type is one of %s", f.as, strings.Join(valueTypes(), ", "))
	}
	instance, err := f.instance.instance()
	if err != nil {
		return err
	}
	attributes, err := a.attributes(f)
	if err != nil {
		return err
	}
	content, err := a.content(ctx, f.files)
	if err != nil {
		return err
	}
	now, err := a.evaluationTime(f.at)
	if err != nil {
		return err
	}
	view := flags.NewView(instance).Update(content).Expire(now.UnixMilli())
	flag := view.Flag(key)
	if flag == nil {
		return a.noFlag(key, view, f.files)
	}
	x := flag.Explain(now.Unix(), attributes...)
	if v := x.Variant; v != nil && f.as != "" && !hasType(v.Value, f.as) {
		x.Reason, x.Code = flags.Error, flags.TypeMismatch
		x.Detail = fmt.Sprintf("the value is %s, not %s", v.JSON, f.as)
	}
	return a.tellEvaluation(a.evaluation(flag, x, content.To, f), x)
}

// content returns what is evaluated: what files declare, or what the servers have.
func (a *app) content(ctx context.Context, files []string) (document.Delta, error) {
	if len(files) == 0 {
		if err := a.connect(); err != nil {
			return document.Delta{}, err
		}
		return a.snapshot(ctx)
	}
	s, err := a.resolve()
	if err != nil {
		return document.Delta{}, err
	}
	a.settings = s
	return a.declared(files)
}

// attributes collects what is known of whom a flag is evaluated for. What comes
// later counts.
func (a *app) attributes(f *evalFlags) ([]flags.Attribute, error) {
	var out []flags.Attribute
	if f.context != "" {
		if f.context == "-" && slices.Contains(f.files, "-") {
			return nil, usage("--context and -f cannot both be standard input")
		}
		var err error
		if out, err = a.readContext(f.context); err != nil {
			return nil, err
		}
	}
	for _, term := range f.attributes {
		key, text, ok := strings.Cut(term, "=")
		if !ok || key == "" {
			return nil, usage("--attr %q: write key=value", term)
		}
		value, err := flags.ParseValue([]byte(text))
		if err != nil {
			value = flags.String(text)
		}
		out = append(out, flags.Attribute{Key: key, Value: value})
	}
	if f.targetingKey != "" {
		out = append(out, flags.Attribute{Key: flags.TargetingKey, Value: flags.String(f.targetingKey)})
	}
	return out, nil
}

// readContext reads the attributes of a file.
func (a *app) readContext(name string) ([]flags.Attribute, error) {
	src, err := a.readFile(name)
	if err != nil {
		return nil, err
	}
	if name == "-" {
		name = stdinName
	}
	docs, faults := yamlfile.Parse(name, src)
	if len(faults) > 0 {
		return nil, usage("--context: %s", problem{file: name, line: faults[0].Line, text: faults[0].Msg})
	}
	if len(docs) != 1 || docs[0].Kind != yamlfile.Map {
		return nil, usage("--context: %s must hold one mapping of attributes", name)
	}
	out, err := flags.ParseAttributes(docs[0].AppendJSON(nil))
	if err != nil {
		return nil, usage("--context: %s: %v", name, err)
	}
	return out, nil
}

// evaluationTime reads --at. Without it, it is the cluster's time.
func (a *app) evaluationTime(at string) (time.Time, error) {
	if at == "" {
		return a.stateTime(), nil
	}
	if seconds, err := strconv.ParseInt(at, 10, 64); err == nil && seconds >= 0 && seconds <= 1<<40 {
		return time.Unix(seconds, 0), nil
	}
	t, err := time.Parse(time.RFC3339, at)
	if err != nil {
		return t, usage("--at %q is not a time; write 2026-01-31T12:00:00Z, or seconds since 1970", at)
	}
	return t, nil
}

// noFlag says that there is no such flag, and which ones sound like it.
func (a *app) noFlag(key string, view *flags.View, files []string) error {
	where := a.inNamespace()
	if len(files) > 0 {
		where = " in the files"
	}
	var names []string
	for f := range view.Flags() {
		names = append(names, f.Key())
	}
	f := fail(exitNotFound, "there is no flag %q%s", key, where)
	if hint := didYouMean(key, names); hint != "" {
		f.addHint("%s", hint)
	}
	return f
}

// valueTypes are the types that a caller may ask for.
func valueTypes() []string { return []string{"bool", "string", "int", "float", "object"} }

// hasType tells whether a value is of a type that a caller asks for, or becomes
// one without loss.
func hasType(v flags.Value, as string) (ok bool) {
	switch as {
	case "bool":
		_, ok = v.AsBool()
	case "string":
		_, ok = v.AsString()
	case "int":
		_, ok = v.AsInt()
	case "float":
		_, ok = v.AsFloat()
	case "object":
		_, ok = v.Members()
	}
	return ok
}

// evaluation returns a decision for output.
func (a *app) evaluation(flag *flags.Resolved, x flags.Explanation, revision uint64, f *evalFlags) evaluationView {
	v := evaluationView{
		head: newHead("Evaluation"), Name: flag.Key(), Namespace: a.namespace(),
		Reason: x.Reason.String(), ErrorCode: x.Code.String(),
	}
	if x.Variant != nil {
		v.Variant = x.Variant.Name
		if x.Reason != flags.Error {
			v.Value = x.Variant.JSON
		}
	}
	if m := flag.Metadata(); len(m) > 0 {
		v.Metadata = flags.Object(m...).AppendJSON(nil)
	}
	if f.explain {
		v.Explanation = &explanationView{DecidedBy: x.DecidedBy, Detail: x.Detail}
		if x.End > 0 {
			end := time.UnixMilli(x.End).UTC()
			v.Explanation.EndTime = &end
		}
	}
	if len(f.files) == 0 { // files have no revisions
		v.Revision = revision
		if f.explain {
			v.Explanation.Revision = x.Revision
		}
	}
	return v
}

// tellEvaluation writes a decision, and fails if it is an error.
func (a *app) tellEvaluation(v evaluationView, x flags.Explanation) error {
	if a.format != tableFormat {
		if err := a.emit(v); err != nil {
			return err
		}
	} else if err := a.evaluationTable(v); err != nil {
		return err
	}
	if x.Reason != flags.Error {
		return nil
	}
	failure := fail(exitError, "flag %q cannot be evaluated: %s", v.Name, x.Code)
	if x.Detail != "" {
		failure.addDetail("%s", x.Detail)
	}
	return failure.hint("the caller gets the default of its own code")
}

// evaluationTable writes a decision for people.
func (a *app) evaluationTable(v evaluationView) error {
	t := table{paint: func(_, column int, text string) string {
		if column == 0 {
			return a.out.bold(text)
		}
		return text
	}}
	t.row("Flag", v.Name)
	value := "(the default of the caller's code)"
	if v.Value != nil {
		value = string(v.Value)
	}
	t.row("Value", value)
	t.row("Variant", cmp.Or(v.Variant, "-"))
	t.row("Reason", strings.TrimSpace(v.Reason+" "+v.ErrorCode))
	if v.Metadata != nil {
		t.row("Metadata", string(v.Metadata))
	}
	if e := v.Explanation; e != nil {
		t.row("Decided by", cmp.Or(e.DecidedBy, "-"))
		if e.Detail != "" {
			t.row("Detail", e.Detail)
		}
		if e.Revision > 0 {
			t.row("Revision", fmt.Sprint(e.Revision))
		}
		if e.EndTime != nil {
			t.row("Ends", e.EndTime.Format(time.RFC3339))
		}
	}
	return t.write(a.io.Out)
}
