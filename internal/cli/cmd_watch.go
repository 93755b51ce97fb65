package cli

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"path"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/holdfast-dev/holdfast/internal/document"
	holdfastv1 "github.com/holdfast-dev/holdfast/proto/holdfast/v1"
)

// eventView is an event in JSON and YAML.
type eventView struct {
	head
	Event     string        `json:"event"`
	OfKind    string        `json:"of_kind"`
	Name      string        `json:"name"`
	Namespace string        `json:"namespace"`
	Revision  uint64        `json:"revision,omitempty"`
	Time      time.Time     `json:"time"`
	Resource  *resourceView `json:"resource,omitempty"`
}

// watchFlags select what watch prints.
type watchFlags struct {
	kinds   []string
	name    string
	initial bool
	count   int
}

// watchCommand is `watch`.
func (a *app) watchCommand() *cobra.Command {
	f := &watchFlags{}
	cmd := &cobra.Command{
		Use: "watch", Short: "Print changes as they are committed, until Ctrl-C",
		Long: `Print changes as they are committed, also the ends of overrides. A broken connection is resumed
where it broke, at another server if need be. Several quick changes of one resource may be
printed as one: the last. With -o json one event per line.`,
		Example: `holdfast watch
holdfast watch --kind override
holdfast watch --kind mode --name 'store*' -o json
holdfast watch --count 1`,
		Args: exactArgs(),
		RunE: func(cmd *cobra.Command, _ []string) error { return a.watch(cmd.Context(), f) },
	}
	cmd.Flags().StringSliceVar(&f.kinds, "kind", nil, "only these `kinds`: flag, mode, policy, override")
	cmd.Flags().StringVar(&f.name, "name", "", "only this `name`; * and ? stand for anything")
	cmd.Flags().BoolVar(&f.initial, "initial", false, "print first what there is")
	cmd.Flags().IntVar(&f.count, "count", 0, "end after so many events")
	_ = cmd.RegisterFlagCompletionFunc("kind", cobra.FixedCompletions([]string{"flag", "mode", "policy", "override"}, cobra.ShellCompDirectiveNoFileComp))
	return cmd
}

// watch follows the namespace and prints what the flags select.
func (a *app) watch(ctx context.Context, f *watchFlags) error {
	wanted := map[document.Kind]bool{}
	for _, s := range f.kinds {
		k, err := document.ParseKind(strings.ToLower(strings.TrimSpace(s)))
		if err != nil {
			return usage("--kind: %v", err)
		}
		wanted[k] = true
	}
	if _, err := path.Match(f.name, ""); err != nil {
		return usage("--name %q is not a pattern: %v", f.name, err)
	}
	if f.count < 0 {
		return usage("--count %d: it cannot be negative", f.count)
	}
	if err := a.connect(); err != nil {
		return err
	}
	w := &watcher{
		remote: a.remote, namespace: a.namespace(), known: map[string]*holdfastv1.Resource{},
		started: func(revision uint64, resources int) {
			a.notice("watching namespace %s from revision %d (%s)", a.namespace(), revision, plural(resources, "resource"))
		},
		disconnected: func(err error) { a.notice("%s; reconnecting", briefly(err)) },
		clock:        func(res *holdfastv1.WatchResponse) { a.learnTime(&holdfastv1.Header{StateTime: res.GetStateTime()}) },
	}
	printed := 0
	var failed error
	err := w.follow(ctx, func(e event) bool {
		if e.change == "present" && !f.initial || len(wanted) > 0 && !wanted[kindOf(e.key)] {
			return true
		}
		if match, _ := path.Match(f.name, e.key.GetName()); f.name != "" && !match && f.name != e.key.GetName() {
			return true
		}
		if failed = a.printEvent(e); failed != nil {
			return false
		}
		printed++
		return f.count == 0 || printed < f.count
	})
	if failed != nil {
		return failed
	}
	return a.rpcFailure("watch namespace "+a.namespace(), err)
}

// printEvent writes one event.
func (a *app) printEvent(e event) error {
	if a.format == tableFormat {
		return a.flush([]byte(a.eventLine(e) + "\n"))
	}
	v := eventView{
		head: newHead("WatchEvent"), Event: e.change, OfKind: kindTitle(kindOf(e.key)), Name: e.key.GetName(),
		Namespace: namespaceOf(e.key), Revision: e.revision, Time: a.stateTime().UTC().Truncate(time.Millisecond),
	}
	if e.resource != nil {
		r := viewOf(e.resource)
		v.Resource = &r
	}
	var buf bytes.Buffer
	if a.format == yamlFormat {
		buf.WriteString("---\n")
	}
	if err := encode(&buf, a.format, v, false); err != nil {
		return err
	}
	return a.flush(buf.Bytes())
}

// eventLine is an event for people: when, what, which, its value, by whom, why.
func (a *app) eventLine(e event) string {
	change := fmt.Sprintf("%-8s", strings.ToUpper(e.change))
	switch e.change {
	case document.Created.String():
		change = a.out.green(change)
	case document.Updated.String():
		change = a.out.yellow(change)
	case document.Deleted.String(), document.Ended.String():
		change = a.out.red(change)
	}
	parts := []string{a.now().Format("15:04:05.000"), change, printable(keyText(e.key))}
	if e.revision > 0 {
		parts = append(parts, fmt.Sprintf("revision=%d", e.revision))
	}
	gone := e.change == document.Deleted.String() || e.change == document.Ended.String()
	if r := e.resource; r != nil {
		if kindOf(e.key) == document.Override {
			o := readOverride(r)
			kind, target := o.spec.target()
			parts = append(parts, printable(fmt.Sprintf("%s/%s=%s scope=%q", kind, target, o.spec.value(), o.spec.Scope)))
			if !gone {
				parts = append(parts, "left="+a.remaining(r))
			}
		}
		if !gone {
			parts = append(parts, printable(fmt.Sprintf("by=%q", cmp.Or(r.GetActor().GetName(), "unknown"))))
			if r.GetReason() != "" {
				parts = append(parts, printable(fmt.Sprintf("reason=%q", r.GetReason())))
			}
		}
	}
	return strings.Join(parts, " ")
}
