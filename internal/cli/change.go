package cli

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/holdfast-dev/holdfast/internal/document"
	holdfastv1 "github.com/holdfast-dev/holdfast/proto/holdfast/v1"
)

// changeView is one change of a write in JSON and YAML.
type changeView struct {
	Change    string     `json:"change"`
	Kind      string     `json:"kind"`
	Name      string     `json:"name"`
	Namespace string     `json:"namespace"`
	EndTime   *time.Time `json:"end_time,omitempty"`
	// diff is shown by a dry run in the table format.
	before, after *holdfastv1.Resource
}

// resultView is what a write came to, in JSON and YAML.
type resultView struct {
	head
	DryRun       bool         `json:"dry_run"`
	Revision     uint64       `json:"revision"`
	Transactions int          `json:"transactions"`
	Created      int          `json:"created"`
	Updated      int          `json:"updated"`
	Unchanged    int          `json:"unchanged"`
	Deleted      int          `json:"deleted"`
	Items        []changeView `json:"items"`
	Warnings     []string     `json:"warnings,omitempty"`
	Wait         *waitView    `json:"wait,omitempty"`
	// Preview is there for a dry run that sets a mode.
	Preview *previewView `json:"preview,omitempty"`
	// concerns are the instances that the change is for; nil means all of the
	// namespaces that it changed.
	concerns *holdfastv1.InstanceFilter
}

// instances are those that a wait is for, apart by namespace.
func (v *resultView) instances() []*holdfastv1.InstanceFilter {
	if v.concerns != nil {
		return []*holdfastv1.InstanceFilter{v.concerns}
	}
	var names []string
	for _, item := range v.Items {
		if !slices.Contains(names, item.Namespace) {
			names = append(names, item.Namespace)
		}
	}
	filters := make([]*holdfastv1.InstanceFilter, 0, len(names))
	for _, name := range names {
		filters = append(filters, &holdfastv1.InstanceFilter{Namespace: name})
	}
	return filters
}

// add takes in the outcome of a transaction.
func (v *resultView) add(req *holdfastv1.ApplyRequest, res *holdfastv1.ApplyResponse) {
	v.Revision = max(v.Revision, res.GetRevision())
	v.Transactions++
	for i, c := range res.GetChanges() {
		switch c.GetType() {
		case holdfastv1.ChangeType_CHANGE_TYPE_CREATED:
			v.Created++
		case holdfastv1.ChangeType_CHANGE_TYPE_UPDATED:
			v.Updated++
		case holdfastv1.ChangeType_CHANGE_TYPE_DELETED:
			v.Deleted++
		default:
			v.Unchanged++
		}
		item := changeView{
			Change: document.ChangeType(c.GetType()).String(), Kind: kindTitle(kindOf(c.GetKey())),
			Name: c.GetKey().GetName(), Namespace: namespaceOf(c.GetKey()), before: c.GetBefore(), after: c.GetAfter(),
		}
		if i < len(req.GetOperations()) {
			if ttl := req.GetOperations()[i].GetPut().GetTtl(); ttl != nil {
				end := res.GetHeader().GetStateTime().AsTime().Add(ttl.AsDuration()).Truncate(time.Second)
				item.EndTime = &end
			}
		}
		v.Items = append(v.Items, item)
	}
}

// changed is how many resources the write changed, or would.
func (v *resultView) changed() int { return v.Created + v.Updated + v.Deleted }

// diff shows a dry run: what every changed resource is and would be.
func (a *app) diff(v *resultView) error {
	var buf bytes.Buffer
	for i := range v.Items {
		c := &v.Items[i]
		if c.before == nil && c.after == nil || c.Change == document.Unchanged.String() {
			continue
		}
		title := fmt.Sprintf("%s/%s", strings.ToLower(c.Kind), c.Name)
		if c.Namespace != document.DefaultNamespace {
			title += " in " + c.Namespace
		}
		fmt.Fprintln(&buf, a.out.bold(printable(fmt.Sprintf("%s would be %s", title, c.Change))))
		before, after := definitionLines(c.before), definitionLines(c.after)
		if c.Change == document.Deleted.String() {
			after = nil
		}
		a.out.diff(&buf, diffLines(before, after))
	}
	return a.flush(buf.Bytes())
}

// waitFlag declares --wait. It is on by default on a terminal.
func (a *app) waitFlag(cmd *cobra.Command, wait *bool) {
	cmd.Flags().BoolVar(wait, "wait", a.io.OutTTY, "wait until every server has applied the change and every connected instance in its scope obeys it, at most --timeout (default on a terminal)")
	cmd.Flags().Lookup("wait").DefValue = "false"
}

// finish ends a write: it waits if asked to and writes the result. In the table
// format the caller has said what happened already.
func (a *app) finish(ctx context.Context, v *resultView, wait bool) error {
	var err error
	if wait && !v.DryRun {
		v.Wait, err = a.await(ctx, v.Revision, v.instances())
	}
	if a.format != tableFormat {
		if v.Items == nil {
			v.Items = []changeView{}
		}
		if werr := a.emit(v); werr != nil {
			return werr
		}
	}
	return err
}

// newResult returns an empty result.
func newResult(dryRun bool) *resultView {
	return &resultView{head: newHead("ApplyResult"), DryRun: dryRun}
}

// clockTime writes a time of the cluster as this computer's clock will show it:
// the time of day, with the date when it is not within a day.
func (a *app) clockTime(t time.Time) string {
	t = t.Add(-a.skew).Local()
	if d := t.Sub(a.now()); d > 20*time.Hour || d < -20*time.Hour {
		return t.Format("2006-01-02 15:04")
	}
	return t.Format("15:04:05")
}
