package cli

import (
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	holdfastv1 "github.com/holdfast-dev/holdfast/proto/holdfast/v1"
)

// flagAt is a flag as it is at a revision.
func flagAt(name string, created, revision uint64) *holdfastv1.Resource {
	return &holdfastv1.Resource{
		Key:  &holdfastv1.ResourceKey{Kind: holdfastv1.Kind_KIND_FLAG, Name: name},
		Spec: []byte(`{}`), CreateRevision: created, ModRevision: revision, Version: 1 + revision - created,
	}
}

func tombstone(name string, kind holdfastv1.Kind, revision uint64, change holdfastv1.ChangeType) *holdfastv1.Tombstone {
	return &holdfastv1.Tombstone{Key: &holdfastv1.ResourceKey{Kind: kind, Name: name}, Revision: revision, Type: change}
}

func snapshotOf(epoch, revision uint64, chunk uint32, last bool, list ...*holdfastv1.Resource) *holdfastv1.WatchResponse {
	return &holdfastv1.WatchResponse{
		Epoch: &holdfastv1.Epoch{Counter: epoch},
		Event: &holdfastv1.WatchResponse_Snapshot{Snapshot: &holdfastv1.Snapshot{Revision: revision, Chunk: chunk, Last: last, Resources: list}},
	}
}

func deltaOf(epoch, from, to uint64, last bool, puts []*holdfastv1.Resource, deletes ...*holdfastv1.Tombstone) *holdfastv1.WatchResponse {
	return &holdfastv1.WatchResponse{
		Epoch: &holdfastv1.Epoch{Counter: epoch},
		Event: &holdfastv1.WatchResponse_Delta{Delta: &holdfastv1.Delta{From: from, To: to, Last: last, Puts: puts, Deletes: deletes}},
	}
}

// TestWatchResumes breaks the stream in every awkward place: what was complete
// counts, what was not comes again, and nothing is told twice.
func TestWatchResumes(t *testing.T) {
	f := newFake(t)
	var cursors []uint64
	f.onWatch = func(n int, req *holdfastv1.WatchRequest, send func(*holdfastv1.WatchResponse)) error {
		f.mu.Lock()
		cursors = append(cursors, req.GetCursor().GetRevision())
		f.mu.Unlock()
		switch n {
		case 1: // a snapshot that breaks off
			send(snapshotOf(1, 5, 0, false, flagAt("a", 1, 1)))
		case 2: // a whole one, and half a delta
			send(snapshotOf(1, 5, 0, false, flagAt("a", 1, 1)))
			send(snapshotOf(1, 5, 1, true, flagAt("b", 2, 2)))
			send(deltaOf(1, 5, 6, true, []*holdfastv1.Resource{flagAt("c", 6, 6)}))
			send(deltaOf(1, 6, 8, false, []*holdfastv1.Resource{flagAt("a", 1, 7)}))
		case 3: // a delta with a gap is not believed
			send(deltaOf(1, 9, 10, true, []*holdfastv1.Resource{flagAt("never", 10, 10)}))
		case 4:
			send(deltaOf(1, 6, 8, true, []*holdfastv1.Resource{flagAt("a", 1, 7)},
				tombstone("b", holdfastv1.Kind_KIND_FLAG, 8, holdfastv1.ChangeType_CHANGE_TYPE_DELETED),
				tombstone("o", holdfastv1.Kind_KIND_OVERRIDE, 8, holdfastv1.ChangeType_CHANGE_TYPE_ENDED)))
		default: // a restore: a snapshot of another epoch
			send(snapshotOf(2, 9, 0, true, flagAt("c", 6, 6), flagAt("d", 9, 9)))
		}
		return status.Error(codes.Unavailable, "going away")
	}
	got := run(inTime(t), t, terminal{}, "", nil, "watch", "--addr", unavailable(t)+","+f.addr, "--count", "6")
	got.want(t, exitOK, "", "watching namespace default from revision 5 (2 resources)", "reconnecting")
	var events []string
	for _, line := range splitLines(got.out) {
		fields := strings.Fields(line)
		events = append(events, fields[1]+" "+fields[2])
	}
	want := "CREATED flag/c, UPDATED flag/a, DELETED flag/b, ENDED override/o, DELETED flag/a, CREATED flag/d"
	if strings.Join(events, ", ") != want {
		t.Errorf("got  %s\nwant %s", strings.Join(events, ", "), want)
	}
	if len(cursors) < 5 || cursors[0] != 0 || cursors[1] != 0 || cursors[2] != 6 || cursors[3] != 6 || cursors[4] != 8 {
		t.Errorf("cursors %v", cursors)
	}
}

func TestWatchEndsOnARefusal(t *testing.T) {
	f := newFake(t)
	f.onWatch = func(int, *holdfastv1.WatchRequest, func(*holdfastv1.WatchResponse)) error {
		return reasoned(codes.PermissionDenied, "PERMISSION_DENIED", "definite", "no")
	}
	run(inTime(t), t, terminal{}, "", nil, "watch", "--addr", f.addr).want(t, exitAuth, "", "cannot watch namespace default: no (PERMISSION_DENIED)")
	if f.watches != 1 {
		t.Errorf("tried %d times", f.watches)
	}
}
