package cluster_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc/codes"

	holdfastv1 "github.com/holdfast-dev/holdfast/proto/holdfast/v1"
	"github.com/holdfast-dev/holdfast/test/cluster"
)

// backup streams the state of one server.
func backup(ctx context.Context, admin holdfastv1.ClusterServiceClient) ([]byte, error) {
	stream, err := admin.Backup(ctx, &holdfastv1.BackupRequest{})
	if err != nil {
		return nil, fmt.Errorf("backup: %w", err)
	}
	var data []byte
	for {
		piece, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return data, nil
		}
		if err != nil {
			return nil, fmt.Errorf("backup: %w", err)
		}
		data = append(data, piece.GetData()...)
	}
}

// restore sends a backup in pieces.
func restore(ctx context.Context, admin holdfastv1.ClusterServiceClient, data []byte) (*holdfastv1.RestoreResponse, error) {
	stream, err := admin.Restore(ctx)
	if err != nil {
		return nil, fmt.Errorf("restore: %w", err)
	}
	const piece = 200 << 10
	for from := 0; from < len(data); from += piece {
		req := &holdfastv1.RestoreRequest{Data: data[from:min(from+piece, len(data))]}
		if from == 0 {
			req.Reason, req.ClaimedActor = "test", "cluster-test"
		}
		if err := stream.Send(req); err != nil {
			break // CloseAndRecv tells why
		}
	}
	resp, err := stream.CloseAndRecv()
	if err != nil {
		return nil, fmt.Errorf("restore: %w", err)
	}
	return resp, nil
}

// history is a run of acknowledged writes, each of a key of its own.
type history struct {
	mu   sync.Mutex // guards acks
	acks []cluster.Ack
}

func (h *history) fill(ctx context.Context, c *cluster.Cluster, who int) error {
	w := c.Writer(who, 2*time.Second)
	for n := 0; ctx.Err() == nil; n++ {
		limit, cancel := context.WithTimeout(context.WithoutCancel(ctx), 20*time.Second)
		ack, err := w.Write(limit, "fill", cluster.Create(cluster.Flag("", fmt.Sprintf("h%d-%d", who, n), "x")))
		cancel()
		if err != nil {
			return err
		}
		h.mu.Lock()
		h.acks = append(h.acks, ack)
		h.mu.Unlock()
		time.Sleep(5 * time.Millisecond)
	}
	return nil
}

// split tells the acks up to a revision from those after it.
func (h *history) split(revision uint64) (before, after []cluster.Ack) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, ack := range h.acks {
		if ack.Response.GetRevision() <= revision {
			before = append(before, ack)
		} else {
			after = append(after, ack)
		}
	}
	return before, after
}

func (h *history) highest() (revision uint64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, ack := range h.acks {
		revision = max(revision, ack.Response.GetRevision())
	}
	return revision
}

// takeBackup fills the cluster and takes a backup from a follower meanwhile. It
// returns the writes and the highest revision acknowledged when it began.
func takeBackup(t *testing.T, c *cluster.Cluster) (h *history, data []byte, atLeast uint64) {
	t.Helper()
	h = &history{}
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var group sync.WaitGroup
	for who := range 6 {
		group.Go(func() {
			if err := h.fill(ctx, c, who); err != nil {
				t.Errorf("fill: %v", err)
			}
		})
	}
	must(t, cluster.Poll(within(t, 20*time.Second), func() error {
		if h.highest() < 300 {
			return errors.New("not enough written yet")
		}
		return nil
	}))
	follower := (leader(t, c) + 1) % c.Len()
	ack := get[cluster.Ack](t)(c.Writer(follower, 5*time.Second).Write(within(t, 10*time.Second), "last before",
		cluster.Create(cluster.Flag("", "last-before", "x"))))
	h.mu.Lock()
	h.acks = append(h.acks, ack)
	h.mu.Unlock()
	// The follower has answered this write, so its backup has it.
	atLeast = ack.Response.GetRevision()
	data = get[[]byte](t)(backup(within(t, 20*time.Second), c.Admin(follower)))
	must(t, cluster.Poll(within(t, 20*time.Second), func() error {
		if h.highest() < atLeast+200 {
			return errors.New("not enough written after the backup yet")
		}
		return nil
	}))
	stop()
	group.Wait()
	return h, data, atLeast
}

// A backup that a follower made while writes went on is one state of the
// history. It can be restored into the running cluster and into a new one, with
// equal roots, a higher epoch and the memory of requests.
func TestBackupWhileWritingRestoresIntoRunningAndNewCluster(t *testing.T) {
	a := start(t, cluster.Options{})
	w := a.Writer(0, 5*time.Second)
	for n := range 40 {
		get[cluster.Ack](t)(w.Write(within(t, 10*time.Second), "frozen", cluster.Flag("frozen", fmt.Sprint("f", n), "x")))
	}
	frozen := get[*holdfastv1.GetStatusResponse](t)(a.Agree(within(t, 10*time.Second)))
	var watchers []*cluster.Replica
	for i := range a.Len() {
		watchers = append(watchers, follow(t, a, "", i))
	}
	h, data, atLeast := takeBackup(t, a)
	before := get[*holdfastv1.GetStatusResponse](t)(a.Agree(within(t, 10*time.Second)))

	damaged := append([]byte(nil), data...)
	damaged[len(damaged)/2] ^= 1
	_, err := restore(within(t, 20*time.Second), a.Admin(1), damaged)
	if err == nil {
		t.Fatal("a damaged backup was restored")
	}
	t.Logf("damaged backup: %v", err)
	if st := get[*holdfastv1.GetStatusResponse](t)(a.Agree(within(t, 10*time.Second))); cluster.Roots(st) != cluster.Roots(before) {
		t.Fatalf("a damaged backup changed the state: %s", cluster.Roots(st))
	}

	got := get[*holdfastv1.RestoreResponse](t)(restore(within(t, 30*time.Second), a.Admin(1), data))
	inA := get[*holdfastv1.GetStatusResponse](t)(a.Agree(within(t, 20*time.Second)))
	checkEpochs(t, before.GetHeader(), got.GetHeader())
	if rootOf(inA, "frozen") != rootOf(frozen, "frozen") {
		t.Errorf("root of the namespace that nobody changed is %s, was %s", rootOf(inA, "frozen"), rootOf(frozen, "frozen"))
	}
	cut := checkPrefix(t, a, h, atLeast)
	for i, r := range watchers {
		s := get[cluster.ReplicaState](t)(r.Wait(within(t, 20*time.Second), func(s cluster.ReplicaState) bool {
			return s.Epoch.GetCounter() == got.GetHeader().GetEpoch().GetCounter() && s.Revision >= got.GetHeader().GetRevision()
		}))
		if s.Snapshots != 2 {
			t.Errorf("watcher of server %d got %d snapshots, want the first and one after the restore", i, s.Snapshots)
		}
		sameResources(t, fmt.Sprintf("watcher of server %d", i), s.Resources, listAll(t, a, ""))
	}
	b := start(t, cluster.Options{})
	gotB := get[*holdfastv1.RestoreResponse](t)(restore(within(t, 30*time.Second), b.Admin(2), data))
	inB := get[*holdfastv1.GetStatusResponse](t)(b.Agree(within(t, 20*time.Second)))
	checkEpochs(t, before.GetHeader(), gotB.GetHeader())
	if cluster.Roots(inA) != cluster.Roots(inB) {
		t.Errorf("roots after the restore differ:\nrunning cluster %s\nnew cluster     %s", cluster.Roots(inA), cluster.Roots(inB))
	}
	kept, lost := h.split(cut)
	t.Logf("backup of %d KiB with %d of %d writes; revision %d restored as %d", len(data)>>10, len(kept), len(kept)+len(lost), cut, got.GetHeader().GetRevision())
	checkRetries(t, a, kept, lost, true)
	checkRetries(t, b, kept, lost, false)
	for _, c := range []*cluster.Cluster{a, b} {
		for i := range c.Len() {
			must(t, c.Kill(i))
		}
		for i := range c.Len() {
			must(t, c.Restart(i))
		}
		must(t, c.WaitVoters(within(t, 30*time.Second), 3))
		if st := get[*holdfastv1.GetStatusResponse](t)(c.Agree(within(t, 20*time.Second))); cluster.Roots(st) != cluster.Roots(inA) {
			t.Errorf("roots after a restart of all servers: %s, want %s", cluster.Roots(st), cluster.Roots(inA))
		}
		checkRetries(t, c, kept[len(kept)-1:], nil, false)
		get[cluster.Ack](t)(c.Writer(0, 5*time.Second).Write(within(t, 10*time.Second), "after", cluster.Flag("", "after", "x")))
	}
}

func rootOf(st *holdfastv1.GetStatusResponse, namespace string) string {
	for _, ns := range st.GetNamespaces() {
		if ns.GetName() == namespace {
			return fmt.Sprintf("%x", ns.GetRoot())
		}
	}
	return ""
}

// checkEpochs requires the lineage of before and a higher counter, another
// nonce and a higher revision.
func checkEpochs(t *testing.T, before, after *holdfastv1.Header) {
	t.Helper()
	b, a := before.GetEpoch(), after.GetEpoch()
	if string(a.GetLineage()) != string(b.GetLineage()) || a.GetCounter() <= b.GetCounter() || a.GetNonce() == b.GetNonce() {
		t.Errorf("epoch %v, was %v: want the same lineage, a higher counter, another nonce", a, b)
	}
}

// checkPrefix requires that the restored state has exactly the writes up to
// some revision, which it returns, and that this is not below atLeast.
func checkPrefix(t *testing.T, c *cluster.Cluster, h *history, atLeast uint64) uint64 {
	t.Helper()
	have := listAll(t, c, "")
	var cut uint64
	for _, r := range have {
		cut = max(cut, r.GetModRevision())
	}
	if cut < atLeast {
		t.Errorf("restored state ends at revision %d, revision %d was acknowledged before the backup began", cut, atLeast)
	}
	before, after := h.split(cut)
	for _, ack := range before {
		if _, ok := have[flagOf(ack)]; !ok {
			t.Errorf("restored state ends at revision %d and lacks %s of revision %d", cut, flagOf(ack), ack.Response.GetRevision())
		}
	}
	for _, ack := range after {
		if _, ok := have[flagOf(ack)]; ok {
			t.Errorf("restored state ends at revision %d and has %s of revision %d", cut, flagOf(ack), ack.Response.GetRevision())
		}
	}
	if len(have) != len(before) {
		t.Errorf("restored state has %d resources, want %d", len(have), len(before))
	}
	return cut
}

func flagOf(ack cluster.Ack) string {
	k := ack.Request.GetOperations()[0].GetPut().GetKey()
	return cluster.ResourceName(k.GetKind(), k.GetName())
}

// checkRetries repeats old requests. Those in the backup are answered with
// their first outcome. Those that the restore undid are answered so where the
// servers remember them, else refused; nothing is applied anew, and neither is
// a request that nobody knows but that is older than the restore.
func checkRetries(t *testing.T, c *cluster.Cluster, kept, lost []cluster.Ack, remembers bool) {
	t.Helper()
	before := get[*holdfastv1.GetStatusResponse](t)(c.Agree(within(t, 10*time.Second)))
	for n, ack := range kept {
		if n%17 != 0 && n != len(kept)-1 {
			continue
		}
		resp, err := c.Client(n%c.Len()).Apply(within(t, 10*time.Second), aged(ack.Request, time.Since(ack.Began)))
		if err != nil || !resp.GetDuplicate() || resp.GetRevision() != ack.Response.GetRevision() {
			t.Errorf("retry of a write in the backup: %v, %v, want a duplicate of revision %d", resp, err, ack.Response.GetRevision())
		}
	}
	for n, ack := range lost {
		if n%17 != 0 {
			continue
		}
		resp, err := c.Client(n%c.Len()).Apply(within(t, 10*time.Second), aged(ack.Request, time.Since(ack.Began)))
		if remembers {
			if err != nil || !resp.GetDuplicate() || resp.GetRevision() != ack.Response.GetRevision() {
				t.Errorf("retry of a write that the restore undid: %v, %v, want a duplicate", resp, err)
			}
			continue
		}
		wantRefusal(t, err, codes.FailedPrecondition, "REQUEST_TOO_OLD")
	}
	stranger := c.Writer(0, 0).NewRequest("too old", cluster.Flag("", "too-old", "x"))
	for i := range c.Len() {
		_, err := c.Client(i).Apply(within(t, 10*time.Second), aged(stranger, 30*time.Minute))
		wantRefusal(t, err, codes.FailedPrecondition, "REQUEST_TOO_OLD")
	}
	if st := get[*holdfastv1.GetStatusResponse](t)(c.Agree(within(t, 10*time.Second))); cluster.Roots(st) != cluster.Roots(before) {
		t.Errorf("retries changed the state: %s, was %s", cluster.Roots(st), cluster.Roots(before))
	}
}
