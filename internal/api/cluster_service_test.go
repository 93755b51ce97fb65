package api

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"testing"

	"github.com/holdfast-dev/holdfast/internal/consensus"
	"github.com/holdfast-dev/holdfast/internal/state"
	storagev1 "github.com/holdfast-dev/holdfast/proto/holdfast/storage/v1"
	holdfastv1 "github.com/holdfast-dev/holdfast/proto/holdfast/v1"
)

func TestStatus(t *testing.T) {
	leader, follower := pair(t)
	leader.put(t, flag("a", `1`))
	elsewhere := flag("b", `1`)
	elsewhere.GetPut().Key.Namespace = "another"
	leader.put(t, elsewhere)
	resp, err := follower.cluster.GetStatus(t.Context(), &holdfastv1.GetStatusRequest{})
	if err != nil {
		t.Fatal(err)
	}
	hash := follower.replica.View().Hash()
	ns := resp.GetNamespaces()
	if resp.GetRole() != holdfastv1.Role_ROLE_FOLLOWER || resp.GetLeaderId() != "n1" || resp.GetTerm() != 1 || resp.GetResources() != 2 ||
		!bytes.Equal(resp.GetStateHash(), hash[:]) || resp.GetVersion() != "test" || len(ns) != 2 ||
		ns[0].GetName() != "another" || ns[0].GetModRevision() != 2 || ns[1].GetResources() != 1 {
		t.Errorf("status = %v", resp)
	}
	members, err := follower.cluster.ListMembers(t.Context(), &holdfastv1.ListMembersRequest{})
	if err != nil || len(members.GetMembers()) != 2 || members.GetMembers()[1].GetApiAddr() != follower.addr {
		t.Errorf("members = %v, %v", members, err)
	}
}

func TestMembershipGoesToTheLeader(t *testing.T) {
	leader, follower := pair(t)
	c := leader.replica.cluster
	if _, err := follower.cluster.JoinMember(t.Context(), &holdfastv1.JoinMemberRequest{Id: "n3", RaftAddr: "10.0.0.3:7402"}); err != nil {
		t.Fatal(err)
	}
	if _, err := follower.cluster.PromoteMember(t.Context(), &holdfastv1.PromoteMemberRequest{Id: "n3"}); err != nil {
		t.Fatal(err)
	}
	if _, err := leader.cluster.RemoveMember(t.Context(), &holdfastv1.RemoveMemberRequest{Id: "n3", Force: true}); err != nil {
		t.Fatal(err)
	}
	resp, err := follower.cluster.TransferLeadership(t.Context(), &holdfastv1.TransferLeadershipRequest{Id: "n2"})
	if err != nil || resp.GetLeaderId() != "n2" {
		t.Fatalf("TransferLeadership = %v, %v", resp, err)
	}
	if len(c.changes) != 4 || c.changes[0].GetJoin().GetRaftAddr() != "10.0.0.3:7402" || c.changes[1].GetPromote() != "n3" ||
		!c.changes[2].GetRemove().GetForce() || c.changes[3].GetTransfer() != "n2" {
		t.Errorf("changes = %v", c.changes)
	}
}

func TestMembershipFailures(t *testing.T) {
	leader, follower := pair(t)
	_, err := follower.cluster.JoinMember(t.Context(), &holdfastv1.JoinMemberRequest{RaftAddr: "nowhere"})
	expect(t, err, ReasonInvalidRequest)
	if got := violationsOf(err); len(got) != 2 {
		t.Errorf("violations = %q", got)
	}
	_, err = follower.cluster.PromoteMember(t.Context(), &holdfastv1.PromoteMemberRequest{})
	expect(t, err, ReasonInvalidRequest)
	_, err = follower.cluster.RemoveMember(t.Context(), &holdfastv1.RemoveMemberRequest{Id: "\x00"})
	expect(t, err, ReasonInvalidRequest)

	for reason, cause := range map[string]error{
		ReasonMemberNotFound:    fmt.Errorf("remove: %w", consensus.ErrNotMember),
		ReasonMemberBehind:      consensus.ErrNotCaughtUp,
		ReasonMembershipRefused: Errorf(ReasonMembershipRefused, "it has the last vote"),
		ReasonUnknownOutcome:    context.DeadlineExceeded,
		ReasonInternal:          errors.New("boom"),
	} {
		leader.replica.cluster.changeErr = cause
		_, err := follower.cluster.RemoveMember(t.Context(), &holdfastv1.RemoveMemberRequest{Id: "n2"})
		expect(t, err, reason)
	}
}

// backup reads a backup through the API.
func (n *node) backup(t *testing.T) []byte {
	t.Helper()
	stream, err := n.cluster.Backup(t.Context(), &holdfastv1.BackupRequest{})
	if err != nil {
		t.Fatal(err)
	}
	var file []byte
	for {
		resp, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return file
		}
		if err != nil {
			t.Fatal(err)
		}
		if len(resp.GetData()) > BackupPieceBytes {
			t.Fatalf("a piece has %d bytes", len(resp.GetData()))
		}
		file = append(file, resp.GetData()...)
	}
}

// restore sends a backup in pieces.
func (n *node) restore(ctx context.Context, t *testing.T, file []byte, piece int) (*holdfastv1.RestoreResponse, error) {
	t.Helper()
	stream, err := n.cluster.Restore(ctx)
	if err != nil {
		t.Fatal(err)
	}
	req := &holdfastv1.RestoreRequest{Reason: "drill", ClaimedActor: "alice"}
	for len(file) > 0 {
		size := min(piece, len(file))
		req.Data, file = file[:size], file[size:]
		if err := stream.Send(req); err != nil {
			break // the server has ended the stream; CloseAndRecv tells why
		}
		req = &holdfastv1.RestoreRequest{}
	}
	return stream.CloseAndRecv()
}

func TestBackupAndRestore(t *testing.T) {
	leader, follower := pair(t)
	for i := range 6 {
		leader.put(t, flag(fmt.Sprintf("flag-%d", i), big(200<<10)))
	}
	request := transactionOf(flag("last", `1`))
	if _, err := leader.state.Apply(t.Context(), request); err != nil {
		t.Fatal(err)
	}
	root := leader.replica.View().Namespace("default").Root()
	file := follower.backup(t)
	if _, err := state.ReadView(bytes.NewReader(file)); err != nil {
		t.Fatal(err)
	}
	leader.put(t, remove("flag-1"), flag("later", `1`))
	m := follower.watch(t.Context(), t, &holdfastv1.WatchRequest{})
	m.until(t, 8)

	resp, err := follower.restore(t.Context(), t, file, 100<<10)
	if err != nil {
		t.Fatal(err)
	}
	if h := resp.GetHeader(); h.GetEpoch().GetCounter() != 2 || h.GetRevision() != 9 || h.GetServerId() != "n2" || resp.GetResources() != 7 {
		t.Errorf("Restore = %v", resp)
	}
	for _, n := range []*node{leader, follower} {
		if n.replica.View().Namespace("default").Root() != root {
			t.Errorf("%s has another root than the backup", n.replica.id)
		}
	}
	m.until(t, 9)
	m.check(t, follower.replica.View())
	again, err := leader.state.Apply(t.Context(), request)
	if err != nil || !again.GetDuplicate() {
		t.Errorf("a write from before the restore = %v, %v", again, err)
	}
	audit, err := leader.state.ListAudit(t.Context(), &holdfastv1.ListAuditRequest{PageSize: 1, Namespace: "default"})
	if err != nil || audit.GetRecords()[0].GetReason() != "drill" || audit.GetRecords()[0].GetActor().GetName() != "alice" {
		t.Errorf("audit = %v, %v", audit, err)
	}
}

func TestRestoreRefusesBeforeItProposes(t *testing.T) {
	n := single(t)
	n.put(t, flag("a", `1`))
	file := n.backup(t)
	damaged := bytes.Clone(file)
	damaged[len(damaged)/2] ^= 1
	before := n.replica.cluster.proposals()
	for name, test := range map[string]struct {
		file   []byte
		piece  int
		reason string
	}{
		"damaged":     {damaged, 64, ReasonBackupInvalid},
		"cut short":   {file[:len(file)-1], 64, ReasonBackupInvalid},
		"nothing":     {nil, 1, ReasonBackupInvalid},
		"large piece": {make([]byte, BackupPieceBytes+1), BackupPieceBytes + 1, ReasonInvalidRequest},
		"too large":   {make([]byte, MaxBackupBytes+1), BackupPieceBytes, ReasonBackupTooLarge},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := n.restore(t.Context(), t, test.file, test.piece)
			expect(t, err, test.reason)
		})
	}
	if n.replica.cluster.proposals() != before {
		t.Error("a backup that cannot be restored was proposed")
	}
}

func TestRestoreLeavesNothingBehind(t *testing.T) {
	dir := t.TempDir()
	n := single(t, func(c *Config) { c.TempDir = dir })
	n.put(t, flag("a", `1`))
	file := n.backup(t)
	if _, err := n.restore(t.Context(), t, file, 64); err != nil {
		t.Fatal(err)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) != 0 {
		t.Errorf("left are %v, %v", left, err)
	}
}

func TestRestoreThatFailsIsTakenBack(t *testing.T) {
	n := single(t)
	n.put(t, flag("a", big(300<<10)))
	file := n.backup(t)
	var kinds []string
	fail := Errorf(ReasonNotServing, "no")
	n.replica.cluster.setOnPropose(func(cmd *storagev1.Command) (before, after error) {
		kinds = append(kinds, fmt.Sprintf("%T", cmd.GetBody()))
		if cmd.GetRestoreCommit() != nil {
			return fail, nil
		}
		return nil, nil
	})
	_, err := n.restore(t.Context(), t, file, BackupPieceBytes)
	expect(t, err, ReasonNotServing)
	if last := kinds[len(kinds)-1]; last != "*storagev1.Command_RestoreAbort" {
		t.Errorf("proposed were %q", kinds)
	}
	n.replica.cluster.setOnPropose(nil)
	if _, err := n.restore(t.Context(), t, file, BackupPieceBytes); err != nil {
		t.Errorf("the next restore: %v", err)
	}
}

func TestRestoreRepeatsWhatIsUnknown(t *testing.T) {
	n := single(t)
	n.put(t, flag("a", big(300<<10)))
	file := n.backup(t)
	seen := make(map[string]int)
	n.replica.cluster.setOnPropose(func(cmd *storagev1.Command) (before, after error) {
		id := string(cmd.GetRequestId())
		if seen[id]++; seen[id] == 1 {
			return nil, consensus.ErrUnknownOutcome
		}
		return nil, nil
	})
	resp, err := n.restore(t.Context(), t, file, BackupPieceBytes)
	if err != nil || resp.GetHeader().GetEpoch().GetCounter() != 2 {
		t.Fatalf("Restore = %v, %v", resp, err)
	}
	for _, attempts := range seen {
		if attempts != 2 {
			t.Errorf("attempts under one request id: %d", attempts)
		}
	}
}

func TestBackupAndRestoreLimits(t *testing.T) {
	n := single(t)
	for i := range 10 {
		n.put(t, flag(fmt.Sprintf("flag-%d", i), big(400<<10)))
	}
	ctx, cancel := context.WithCancel(t.Context())
	for range MaxBackups { // begun and not read on
		stream, err := n.cluster.Backup(ctx, &holdfastv1.BackupRequest{})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := stream.Recv(); err != nil {
			t.Fatal(err)
		}
	}
	stream, err := n.cluster.Backup(t.Context(), &holdfastv1.BackupRequest{})
	if err != nil {
		t.Fatal(err)
	}
	_, err = stream.Recv()
	expect(t, err, ReasonTooManyBackups)

	eventually(t, "the refusal of a second restore", func() bool {
		// One of those that are begun gets the slot and keeps it.
		begun, err := n.cluster.Restore(ctx)
		if err != nil {
			t.Fatal(err)
		}
		_ = begun.Send(&holdfastv1.RestoreRequest{Data: []byte("x")}) // refused ones may be over already
		_, err = n.restore(t.Context(), t, []byte("x"), 1)
		return reasonOf(err) == ReasonTooManyRestores
	})
	cancel() // ends them, and with them their slots
	eventually(t, "a free slot", func() bool {
		ctx, stop := context.WithCancel(t.Context())
		defer stop()
		stream, err := n.cluster.Backup(ctx, &holdfastv1.BackupRequest{})
		if err != nil {
			return false
		}
		_, err = stream.Recv()
		return err == nil
	})
}
