package api

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/holdfast-dev/holdfast/internal/document"
	storagev1 "github.com/holdfast-dev/holdfast/proto/holdfast/storage/v1"
	holdfastv1 "github.com/holdfast-dev/holdfast/proto/holdfast/v1"
)

func get(name string, read *holdfastv1.ReadOptions) *holdfastv1.GetRequest {
	return &holdfastv1.GetRequest{Key: &holdfastv1.ResourceKey{Kind: holdfastv1.Kind_KIND_FLAG, Name: name}, Read: read}
}

func TestGetNotFound(t *testing.T) {
	n := single(t)
	n.put(t, flag("a", `1`))
	_, err := n.state.Get(t.Context(), get("b", nil))
	expect(t, err, ReasonNotFound)
	if infoOf(err).GetMetadata()[MetaRevision] != "1" {
		t.Error("NOT_FOUND does not tell at which revision")
	}
}

func TestReadsAreChecked(t *testing.T) {
	n := single(t)
	bad := &holdfastv1.ReadOptions{Consistency: 9, MaxStaleness: durationpb.New(-1)}
	_, err := n.state.Get(t.Context(), &holdfastv1.GetRequest{Read: bad})
	expect(t, err, ReasonInvalidRequest)
	if got := violationsOf(err); len(got) != 3 {
		t.Errorf("Get: %q", got)
	}
	_, err = n.state.List(t.Context(), &holdfastv1.ListRequest{
		Namespace: "\x00", Kind: 77, NamePrefix: "\n", PageSize: MaxPageSize + 1, Read: bad, Labels: map[string]string{"": ""},
	})
	expect(t, err, ReasonInvalidRequest)
	if got := violationsOf(err); len(got) != 7 {
		t.Errorf("List: %q", got)
	}
	_, err = n.state.ListAudit(t.Context(), &holdfastv1.ListAuditRequest{Namespace: "\x00", Kind: -1, NamePrefix: "\n", PageSize: -1, Read: bad})
	expect(t, err, ReasonInvalidRequest)
	if got := violationsOf(err); len(got) != 6 {
		t.Errorf("ListAudit: %q", got)
	}
	_, err = n.state.AwaitRevision(t.Context(), &holdfastv1.AwaitRevisionRequest{Wait: durationpb.New(MaxAwait + 1)})
	expect(t, err, ReasonInvalidRequest)
}

func TestMinRevisionWaits(t *testing.T) {
	leader, follower := pair(t)
	follower.replica.hold()
	leader.put(t, flag("a", `1`))
	done := make(chan error, 1)
	go func() {
		resp, err := follower.state.Get(t.Context(), get("a", &holdfastv1.ReadOptions{MinRevision: 1}))
		if err == nil && resp.GetHeader().GetRevision() < 1 {
			err = fmt.Errorf("read revision %d", resp.GetHeader().GetRevision())
		}
		done <- err
	}()
	follower.replica.release()
	if err := <-done; err != nil {
		t.Fatal(err)
	}

	err := inTime(t, func(ctx context.Context) error {
		_, err := follower.state.Get(ctx, get("a", &holdfastv1.ReadOptions{MinRevision: 2}))
		return err
	})
	expect(t, err, ReasonBehind)
	if infoOf(err).GetMetadata()[MetaRevision] != "1" {
		t.Error("BEHIND does not tell where the server is")
	}
}

func TestMaxStaleness(t *testing.T) {
	n := single(t)
	n.put(t, flag("a", `1`))
	n.replica.set(func(r *fakeReplica) { r.staleness = time.Second })
	if _, err := n.state.Get(t.Context(), get("a", &holdfastv1.ReadOptions{MaxStaleness: durationpb.New(time.Second)})); err != nil {
		t.Fatal(err)
	}
	_, err := n.state.Get(t.Context(), get("a", &holdfastv1.ReadOptions{MaxStaleness: durationpb.New(time.Second - 1)}))
	expect(t, err, ReasonStale)
	if _, err = n.state.Get(t.Context(), get("a", nil)); err != nil {
		t.Errorf("a read without a bound: %v", err)
	}
}

func TestLinearizableReads(t *testing.T) {
	linearizable := &holdfastv1.ReadOptions{Consistency: holdfastv1.Consistency_CONSISTENCY_LINEARIZABLE}
	leader, follower := pair(t)
	follower.replica.hold()
	leader.put(t, flag("a", `1`))
	if _, err := leader.state.Get(t.Context(), get("a", linearizable)); err != nil {
		t.Fatalf("at the leader: %v", err)
	}
	// The follower has not applied the write, so the read has to wait for it.
	read := func(ctx context.Context) error {
		_, err := follower.state.Get(ctx, get("a", linearizable))
		return err
	}
	expect(t, inTime(t, read), ReasonBehind)
	follower.replica.release()
	if err := read(t.Context()); err != nil {
		t.Fatalf("at the follower: %v", err)
	}

	leader.replica.set(func(r *fakeReplica) {
		r.readIndex = func(context.Context) (uint64, error) { return 0, errors.New("barrier failed") }
	})
	expect(t, read(t.Context()), ReasonUnavailable)

	leader.replica.cluster.setLeader("")
	expect(t, inTime(t, read), ReasonNoLeader)
}

// listAll reads every page.
func listAll(t *testing.T, n *node, req *holdfastv1.ListRequest) (list []string, pages int) {
	t.Helper()
	for {
		resp, err := n.state.List(t.Context(), req)
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range resp.GetResources() {
			list = append(list, document.Kind(r.GetKey().GetKind()).String()+"/"+r.GetKey().GetName())
		}
		if pages++; resp.GetNextPageToken() == "" {
			return list, pages
		}
		req.PageToken = resp.GetNextPageToken()
	}
}

func TestListPages(t *testing.T) {
	n := single(t)
	mode := flag("b-mode", `{}`)
	mode.GetPut().Key.Kind = holdfastv1.Kind_KIND_MODE
	labelled := flag("c", `1`)
	labelled.GetPut().Labels = map[string]string{"team": "x", "zone": "eu"}
	elsewhere := flag("z", `1`)
	elsewhere.GetPut().Key.Namespace = "other"
	n.put(t, flag("b", `1`), flag("a", `1`), labelled, mode, elsewhere)

	tests := map[string]struct {
		req   *holdfastv1.ListRequest
		want  string
		pages int
	}{
		"all":           {&holdfastv1.ListRequest{}, "flag/a flag/b flag/c mode/b-mode", 1},
		"one by one":    {&holdfastv1.ListRequest{PageSize: 1}, "flag/a flag/b flag/c mode/b-mode", 4},
		"in twos":       {&holdfastv1.ListRequest{PageSize: 2}, "flag/a flag/b flag/c mode/b-mode", 2},
		"kind":          {&holdfastv1.ListRequest{Kind: holdfastv1.Kind_KIND_MODE}, "mode/b-mode", 1},
		"prefix":        {&holdfastv1.ListRequest{NamePrefix: "b", PageSize: 1}, "flag/b mode/b-mode", 2},
		"labels":        {&holdfastv1.ListRequest{Labels: map[string]string{"zone": "eu"}}, "flag/c", 1},
		"other label":   {&holdfastv1.ListRequest{Labels: map[string]string{"zone": "us"}}, "", 1},
		"all labels":    {&holdfastv1.ListRequest{Labels: map[string]string{"zone": "eu", "team": "x"}}, "flag/c", 1},
		"one too many":  {&holdfastv1.ListRequest{Labels: map[string]string{"zone": "eu", "a": ""}}, "", 1},
		"namespace":     {&holdfastv1.ListRequest{Namespace: "other"}, "flag/z", 1},
		"no namespace":  {&holdfastv1.ListRequest{Namespace: "nowhere"}, "", 1},
		"exactly fills": {&holdfastv1.ListRequest{PageSize: 4}, "flag/a flag/b flag/c mode/b-mode", 1},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			got, pages := listAll(t, n, test.req)
			if strings.Join(got, " ") != test.want || pages != test.pages {
				t.Errorf("%d pages of %q, want %d of %q", pages, got, test.pages, test.want)
			}
		})
	}
}

func TestListEndsAPageAtItsBytes(t *testing.T) {
	n := single(t)
	spec := `"` + strings.Repeat("x", 300<<10) + `"`
	for _, name := range []string{"a", "b", "c", "d", "e"} {
		n.put(t, flag(name, spec))
	}
	got, pages := listAll(t, n, &holdfastv1.ListRequest{})
	if len(got) != 5 || pages != 2 {
		t.Errorf("%d pages of %q, want 2", pages, got)
	}
}

func TestListAuditPages(t *testing.T) {
	n := single(t)
	for i := range 5 {
		req := transactionOf(flag(fmt.Sprintf("a%d", i), `1`), flag(fmt.Sprintf("b%d", i), `1`))
		req.Reason = "why"
		if _, err := n.state.Apply(t.Context(), req); err != nil {
			t.Fatal(err)
		}
	}
	var revisions []uint64
	req := &holdfastv1.ListAuditRequest{PageSize: 2, NamePrefix: "a", Kind: holdfastv1.Kind_KIND_FLAG}
	for pages := 1; ; pages++ {
		resp, err := n.state.ListAudit(t.Context(), req)
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range resp.GetRecords() {
			revisions = append(revisions, r.GetRevision())
			if len(r.GetChanges()) != 1 || r.GetReason() != "why" || r.GetActor().GetName() != "alice" {
				t.Errorf("record = %v", r)
			}
		}
		if req.PageToken = resp.GetNextPageToken(); req.GetPageToken() == "" {
			if pages != 3 {
				t.Errorf("%d pages, want 3", pages)
			}
			break
		}
	}
	if fmt.Sprint(revisions) != "[5 4 3 2 1]" {
		t.Errorf("revisions = %v", revisions)
	}
	resp, err := n.state.ListAudit(t.Context(), &holdfastv1.ListAuditRequest{Namespace: "other"})
	if err != nil || len(resp.GetRecords()) != 0 {
		t.Errorf("another namespace: %v, %v", resp, err)
	}
}

func TestPageTokensAreChecked(t *testing.T) {
	n := single(t)
	n.put(t, flag("a", `1`), flag("b", `1`))
	resp, err := n.state.List(t.Context(), &holdfastv1.ListRequest{PageSize: 1})
	if err != nil {
		t.Fatal(err)
	}
	token := resp.GetNextPageToken()
	for name, req := range map[string]*holdfastv1.ListRequest{
		"rubbish":       {PageToken: "rubbish!"},
		"short":         {PageToken: token[:8]},
		"mistyped":      {PageToken: "B" + token[1:]},
		"another query": {PageToken: token, NamePrefix: "a"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := n.state.List(t.Context(), req)
			expect(t, err, ReasonInvalidPageToken)
		})
	}
	_, err = n.state.ListAudit(t.Context(), &holdfastv1.ListAuditRequest{PageToken: token})
	expect(t, err, ReasonInvalidPageToken)
}

func FuzzPageToken(f *testing.F) {
	filter := filterOf("list", "default")
	f.Add("", uint64(0), "")
	f.Add(pageToken{filter: filter, after: document.Key{Kind: document.Mode, Name: "a"}}.String(), uint64(1), "name")
	f.Fuzz(func(t *testing.T, text string, below uint64, name string) {
		if token, err := parsePageToken(text, filter); err == nil && text != "" && token.String() != text {
			t.Errorf("%q is read as %+v, which is written %q", text, token, token.String())
		}
		if len(name) > document.MaxName {
			return
		}
		want := pageToken{filter: filter, below: below, after: document.Key{Kind: document.Flag, Name: name}}
		if got, err := parsePageToken(want.String(), filter); err != nil || got != want {
			t.Errorf("%+v comes back as %+v, %v", want, got, err)
		}
	})
}

func TestAwaitRevision(t *testing.T) {
	c := newFakeCluster(t, "n1", "n2", "n3")
	leader, behind := serve(t, c.replicas[0]), serve(t, c.replicas[1])
	c.replicas[1].hold()
	leader.put(t, flag("a", `1`))
	await := func(revision uint64, wait time.Duration) *holdfastv1.AwaitRevisionResponse {
		t.Helper()
		resp, err := leader.state.AwaitRevision(t.Context(), &holdfastv1.AwaitRevisionRequest{Revision: revision, Wait: durationpb.New(wait)})
		if err != nil {
			t.Fatal(err)
		}
		return resp
	}
	resp := await(1, 50*time.Millisecond)
	if s := resp.GetServers(); resp.GetReached() || len(s) != 3 || !s[0].GetReached() || s[1].GetReached() || s[1].GetError() != "" ||
		!strings.Contains(s[2].GetError(), "not known") {
		t.Fatalf("AwaitRevision = %v", resp)
	}
	c.replicas[2].set(func(r *fakeReplica) { r.addr = "127.0.0.1:1" })
	if s := await(1, 0).GetServers(); !strings.Contains(s[2].GetError(), "cannot reach") {
		t.Fatalf("an unreachable server: %v", s)
	}
	serve(t, c.replicas[2])
	c.replicas[1].release()
	if resp := await(1, 10*time.Second); !resp.GetReached() {
		t.Fatalf("AwaitRevision = %v", resp)
	}
	// The follower asks as well as the leader.
	resp, err := behind.state.AwaitRevision(t.Context(), &holdfastv1.AwaitRevisionRequest{Revision: 1})
	if err != nil || !resp.GetReached() {
		t.Fatalf("AwaitRevision at a follower = %v, %v", resp, err)
	}
	// A server in another epoch has not reached this one's revision.
	c.replicas[1].hold()
	c.commit(t, &storagev1.Command{Body: &storagev1.Command_NewEpoch{NewEpoch: &storagev1.NewEpoch{Nonce: 8}}})
	if s := await(1, 0).GetServers(); s[1].GetReached() || !strings.Contains(s[1].GetError(), "epoch") {
		t.Fatalf("a server in another epoch: %v", s)
	}
}

// A follower that synchronizes learns the leader's clock, which commands from its
// own log do not tell.
func TestSynchronizeLearnsTheTime(t *testing.T) {
	leader, follower := pair(t)
	before := time.Now().Truncate(time.Millisecond)
	if err := follower.Synchronize(t.Context()); err != nil {
		t.Fatal(err)
	}
	if learned := follower.replica.learned.Load(); learned == nil || learned.Before(before) {
		t.Errorf("the follower learned %v, want %v or later", learned, before)
	}
	if err := leader.Synchronize(t.Context()); err != nil {
		t.Fatal(err)
	}
}
