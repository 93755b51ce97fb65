package cluster

import (
	"testing"

	holdfastv1 "github.com/holdfast-dev/holdfast/proto/holdfast/v1"
)

var (
	epochOne = &holdfastv1.Epoch{Lineage: []byte("l"), Counter: 1, Nonce: 7}
	epochTwo = &holdfastv1.Epoch{Lineage: []byte("l"), Counter: 2, Nonce: 8}
)

func snapshotMsg(e *holdfastv1.Epoch, revision uint64, chunk uint32, last bool, names ...string) *holdfastv1.WatchResponse {
	s := &holdfastv1.Snapshot{Revision: revision, Root: []byte("root"), Chunk: chunk, Last: last}
	for _, n := range names {
		s.Resources = append(s.Resources, &holdfastv1.Resource{Key: key("", holdfastv1.Kind_KIND_FLAG, n), ModRevision: revision})
	}
	return &holdfastv1.WatchResponse{Epoch: e, Event: &holdfastv1.WatchResponse_Snapshot{Snapshot: s}}
}

func deltaMsg(e *holdfastv1.Epoch, from, to uint64, chunk uint32, last bool, mod uint64) *holdfastv1.WatchResponse {
	d := &holdfastv1.Delta{From: from, To: to, Root: []byte("root2"), Chunk: chunk, Last: last}
	d.Puts = []*holdfastv1.Resource{{Key: key("", holdfastv1.Kind_KIND_FLAG, "a"), ModRevision: mod}}
	return &holdfastv1.WatchResponse{Epoch: e, Event: &holdfastv1.WatchResponse_Delta{Delta: d}}
}

func progressMsg(e *holdfastv1.Epoch, revision uint64, root string) *holdfastv1.WatchResponse {
	return &holdfastv1.WatchResponse{Epoch: e, Event: &holdfastv1.WatchResponse_Progress{
		Progress: &holdfastv1.Progress{Revision: revision, Root: []byte(root)},
	}}
}

// The replica of the tests is their judge of watch streams: it must accept what
// the contract allows and notice what it does not.
func TestReplicaJudgesStreams(t *testing.T) {
	type msgs = []*holdfastv1.WatchResponse
	begin := snapshotMsg(epochOne, 10, 0, true, "a", "b")
	for _, tc := range []struct {
		name string
		ok   bool
		msgs msgs
	}{
		{"snapshot, delta, progress", true, msgs{begin, deltaMsg(epochOne, 10, 12, 0, true, 11), progressMsg(epochOne, 15, "root2")}},
		{"delta after progress", true, msgs{begin, progressMsg(epochOne, 15, "root"), deltaMsg(epochOne, 15, 16, 0, true, 16)}},
		{"delta that begins before", true, msgs{begin, progressMsg(epochOne, 15, "root"), deltaMsg(epochOne, 10, 16, 0, true, 16)}},
		{"snapshot of a higher epoch", true, msgs{begin, snapshotMsg(epochTwo, 5, 0, true)}},
		{"snapshot in chunks", true, msgs{snapshotMsg(epochOne, 10, 0, false, "a"), snapshotMsg(epochOne, 10, 1, true, "b")}},
		{"gap before a delta", false, msgs{begin, deltaMsg(epochOne, 11, 12, 0, true, 12)}},
		{"delta again", false, msgs{begin, deltaMsg(epochOne, 10, 12, 0, true, 11), deltaMsg(epochOne, 10, 12, 0, true, 11)}},
		{"delta that begins before repeats", false, msgs{begin, progressMsg(epochOne, 15, "root"), deltaMsg(epochOne, 10, 16, 0, true, 12)}},
		{"empty range", false, msgs{begin, deltaMsg(epochOne, 10, 10, 0, true, 10)}},
		{"resource outside the range", false, msgs{begin, deltaMsg(epochOne, 10, 12, 0, true, 10)}},
		{"delta of another epoch", false, msgs{begin, deltaMsg(epochTwo, 10, 12, 0, true, 11)}},
		{"missing chunk", false, msgs{begin, deltaMsg(epochOne, 10, 12, 1, true, 11)}},
		{"chunk of another delta", false, msgs{begin, deltaMsg(epochOne, 10, 12, 0, false, 11), deltaMsg(epochOne, 10, 13, 1, true, 13)}},
		{"progress between chunks", false, msgs{begin, deltaMsg(epochOne, 10, 12, 0, false, 11), progressMsg(epochOne, 12, "root")}},
		{"progress goes back", false, msgs{begin, progressMsg(epochOne, 9, "root")}},
		{"progress hides a change", false, msgs{begin, progressMsg(epochOne, 12, "other")}},
		{"snapshot goes back", false, msgs{begin, snapshotMsg(epochOne, 9, 0, true)}},
		{"epoch goes back", false, msgs{snapshotMsg(epochTwo, 10, 0, true), snapshotMsg(epochOne, 11, 0, true)}},
		{"name twice", false, msgs{snapshotMsg(epochOne, 10, 0, true, "a", "a")}},
		{"chunks of two snapshots", false, msgs{snapshotMsg(epochOne, 10, 0, false), snapshotMsg(epochOne, 11, 1, true)}},
		{"delta first", false, msgs{deltaMsg(epochOne, 0, 1, 0, true, 1)}},
		{"empty message", false, msgs{{Epoch: epochOne}}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			r := NewReplica("")
			var pending msgs
			var err error
			for _, m := range tc.msgs {
				if pending, err = r.take(pending, m); err != nil {
					break
				}
			}
			if (err == nil) != tc.ok {
				t.Errorf("judged %v, want ok %v", err, tc.ok)
			}
		})
	}
}

func TestQuantile(t *testing.T) {
	d := Durations{5, 1, 4, 2, 3}
	for q, want := range map[float64]int64{0: 1, 0.2: 1, 0.5: 3, 0.9: 5, 0.99: 5, 1: 5} {
		if got := int64(d.Quantile(q)); got != want {
			t.Errorf("quantile %v is %d, want %d", q, got, want)
		}
	}
	if Durations(nil).Quantile(0.5) != 0 {
		t.Error("quantile of nothing is not 0")
	}
}
