package cli

import (
	"cmp"
	"context"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"

	"github.com/holdfast-dev/holdfast/internal/document"
	holdfastv1 "github.com/holdfast-dev/holdfast/proto/holdfast/v1"
)

// auditView is an audit record in JSON and YAML.
type auditView struct {
	Revision      uint64            `json:"revision"`
	Time          time.Time         `json:"time"`
	Actor         string            `json:"actor"`
	ActorVerified bool              `json:"actor_verified"`
	Reason        string            `json:"reason,omitempty"`
	RequestID     string            `json:"request_id,omitempty"`
	Changes       []auditChangeView `json:"changes"`
}

// auditChangeView is a change of an audit record.
type auditChangeView struct {
	Change    string          `json:"change"`
	Kind      string          `json:"kind"`
	Name      string          `json:"name"`
	Namespace string          `json:"namespace"`
	Before    json.RawMessage `json:"before,omitempty"`
	After     json.RawMessage `json:"after,omitempty"`
}

// auditFlags select records.
type auditFlags struct {
	since, name, kind string
	limit             int
	everywhere, diff  bool
	linearizable      bool
}

// auditCommand is `audit`.
func (a *app) auditCommand() *cobra.Command {
	f := &auditFlags{}
	cmd := &cobra.Command{
		Use: "audit", Short: "Who changed what, when and why; newest first",
		Example: `holdfast audit
holdfast audit --since 2h --kind override
holdfast audit --name new-checkout --diff
holdfast audit --all-namespaces --limit 100 -o json`,
		Args: exactArgs(),
		RunE: func(cmd *cobra.Command, _ []string) error { return a.audit(cmd.Context(), f) },
	}
	cmd.Flags().StringVar(&f.since, "since", "", "only records since then: a `time` ago (2h, 3d) or a moment (2026-01-31, RFC 3339)")
	cmd.Flags().IntVar(&f.limit, "limit", 20, "at most so many records; 0 means all")
	cmd.Flags().StringVar(&f.name, "name", "", "only changes of resources whose name begins with `text`")
	cmd.Flags().StringVar(&f.kind, "kind", "", "only changes of this `kind`: flag, mode, policy, override")
	cmd.Flags().BoolVar(&f.everywhere, "all-namespaces", false, "of every namespace")
	cmd.Flags().BoolVar(&f.diff, "diff", false, "show each change as a difference")
	cmd.Flags().BoolVar(&f.linearizable, "linearizable", false, "ask the leader: include every write acknowledged before now")
	return cmd
}

// parseSince reads a duration ago or a moment.
func (a *app) parseSince(s string) (time.Time, error) {
	if s == "" {
		return time.Time{}, nil
	}
	if d, err := parseDuration(s); err == nil {
		return a.now().Add(-d), nil
	}
	for _, layout := range []string{time.RFC3339, "2006-01-02T15:04:05", "2006-01-02 15:04:05", "2006-01-02 15:04", "2006-01-02"} {
		if t, err := time.ParseInLocation(layout, s, time.Local); err == nil {
			return t, nil
		}
	}
	return time.Time{}, usage("--since %q: write a time ago such as 2h or 3d, or a moment such as 2026-01-31 or 2026-01-31T03:00:00Z", s)
}

// audit lists audit records.
func (a *app) audit(ctx context.Context, f *auditFlags) error {
	since, err := a.parseSince(f.since)
	if err != nil {
		return err
	}
	if f.limit < 0 {
		return usage("--limit %d: it cannot be negative", f.limit)
	}
	var kind document.Kind
	if f.kind != "" {
		if kind, err = document.ParseKind(strings.ToLower(f.kind)); err != nil {
			return usage("--kind: %v", err)
		}
	}
	if err := a.connect(); err != nil {
		return err
	}
	req := &holdfastv1.ListAuditRequest{
		Namespace: a.namespace(), Kind: holdfastv1.Kind(kind), NamePrefix: f.name, PageSize: pageSize, Read: readOptions(f.linearizable),
	}
	if f.everywhere {
		req.Namespace = ""
	}
	if f.limit > 0 {
		req.PageSize = int32(min(f.limit, pageSize))
	}
	records, revision, dropped, err := a.auditPages(ctx, req, f.limit, since)
	if err != nil {
		return a.rpcFailure("list the audit", err)
	}
	if dropped > 0 && (f.limit == 0 || len(records) < f.limit) {
		a.notice("records up to revision %d have been dropped: the audit is bounded", dropped)
	}
	if a.format == tableFormat {
		return a.auditTable(records, f.diff)
	}
	list := listView[auditView]{head: newHead("AuditList"), Revision: revision, Items: []auditView{}}
	for _, r := range records {
		list.Items = append(list.Items, auditViewOf(r))
	}
	return a.emit(list)
}

// auditPages reads pages until there are enough records or they are too old.
func (a *app) auditPages(ctx context.Context, req *holdfastv1.ListAuditRequest, limit int, since time.Time) (out []*holdfastv1.AuditRecord, revision, dropped uint64, err error) {
	for {
		res, err := query(ctx, a.remote, req,
			func(c *grpc.ClientConn) func(context.Context, *holdfastv1.ListAuditRequest, ...grpc.CallOption) (*holdfastv1.ListAuditResponse, error) {
				return holdfastv1.NewStateServiceClient(c).ListAudit
			})
		if err != nil {
			return nil, 0, 0, err
		}
		a.learnTime(res.GetHeader())
		if revision == 0 {
			revision = res.GetHeader().GetRevision()
		}
		for _, r := range res.GetRecords() {
			if r.GetTime().AsTime().Before(since) {
				return out, revision, 0, nil
			}
			if out = append(out, r); len(out) == limit {
				return out, revision, 0, nil
			}
		}
		if req.PageToken = res.GetNextPageToken(); req.PageToken == "" {
			return out, revision, res.GetDroppedThrough(), nil
		}
	}
}

func auditViewOf(r *holdfastv1.AuditRecord) auditView {
	v := auditView{
		Revision: r.GetRevision(), Time: r.GetTime().AsTime(), Actor: r.GetActor().GetName(), ActorVerified: r.GetActor().GetVerified(),
		Reason: r.GetReason(), RequestID: hex.EncodeToString(r.GetRequestId()), Changes: []auditChangeView{},
	}
	for _, c := range r.GetChanges() {
		change := auditChangeView{
			Change: document.ChangeType(c.GetType()).String(), Kind: kindTitle(kindOf(c.GetKey())),
			Name: c.GetKey().GetName(), Namespace: namespaceOf(c.GetKey()),
		}
		if len(c.GetBefore()) > 0 {
			change.Before = rawSpec(c.GetBefore())
		}
		if len(c.GetAfter()) > 0 {
			change.After = rawSpec(c.GetAfter())
		}
		v.Changes = append(v.Changes, change)
	}
	return v
}

// auditTable writes one line per record, or with diff a paragraph.
func (a *app) auditTable(records []*holdfastv1.AuditRecord, diff bool) error {
	if len(records) == 0 {
		a.notice("no record matches%s", a.inNamespace())
		return nil
	}
	if diff {
		return a.auditDiff(records)
	}
	t := table{paint: a.headRow}
	t.row("WHEN", "REVISION", "BY", "CHANGES", "REASON")
	for _, r := range records {
		t.row(human(a.stateTime().Sub(r.GetTime().AsTime()))+" ago", fmt.Sprint(r.GetRevision()), auditActor(r), auditChanges(r), cmp.Or(r.GetReason(), "-"))
	}
	return t.write(a.io.Out)
}

// auditActor names who; the cluster itself has no request id.
func auditActor(r *holdfastv1.AuditRecord) string {
	if r.GetActor().GetName() == "" && len(r.GetRequestId()) == 0 {
		return "the cluster"
	}
	return actorText(r.GetActor())
}

// restoredText stands for the changes of a restore. It has none, as it replaces
// everything, and it is the only write without any that is recorded.
const restoredText = "restored a backup"

// auditChanges names the changes of a record, the first ones if there are many.
func auditChanges(r *holdfastv1.AuditRecord) string {
	const shown = 3
	if len(r.GetChanges()) == 0 {
		return restoredText
	}
	var parts []string
	for i, c := range r.GetChanges() {
		if i == shown {
			parts = append(parts, fmt.Sprintf("and %s more", humanCount(len(r.GetChanges())-shown)))
			break
		}
		parts = append(parts, keyText(c.GetKey())+" "+document.ChangeType(c.GetType()).String())
	}
	return strings.Join(parts, ", ")
}

// auditDiff writes records with the difference of each change.
func (a *app) auditDiff(records []*holdfastv1.AuditRecord) error {
	var b strings.Builder
	for i, r := range records {
		if i > 0 {
			b.WriteByte('\n')
		}
		fmt.Fprintf(&b, "%s\n", a.out.bold(printable(fmt.Sprintf("revision %d, %s, by %s: %s", r.GetRevision(),
			r.GetTime().AsTime().Local().Format("2006-01-02 15:04:05"), auditActor(r), cmp.Or(r.GetReason(), "no reason")))))
		if len(r.GetChanges()) == 0 {
			fmt.Fprintf(&b, "%s\n", restoredText)
		}
		for _, c := range r.GetChanges() {
			fmt.Fprintf(&b, "%s\n", printable(keyText(c.GetKey())+" "+document.ChangeType(c.GetType()).String()))
			var before, after []string
			if len(c.GetBefore()) > 0 {
				before = definitionLines(&holdfastv1.Resource{Spec: c.GetBefore()})
			}
			if len(c.GetAfter()) > 0 {
				after = definitionLines(&holdfastv1.Resource{Spec: c.GetAfter()})
			}
			a.out.diff(&b, diffLines(before, after))
		}
	}
	return a.flush([]byte(b.String()))
}
