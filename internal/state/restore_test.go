package state

import (
	"bytes"
	"testing"

	"github.com/holdfast-dev/holdfast/internal/document"
	storagev1 "github.com/holdfast-dev/holdfast/proto/holdfast/storage/v1"
)

// backupOf returns a backup with one flag, and the root of its namespace.
func backupOf(t failer, lineage byte) ([]byte, document.Root) {
	h := newHarness(t, DefaultLimits())
	h.apply(epochOf(lineage, 1))
	h.apply(epochOf(lineage, 2))
	h.must(put("a", document.Flag, "x", "1"), put("b", document.Flag, "gone", "1"))
	h.must(del("b", document.Flag, "gone"), put("a", document.Override, "o", "1"))
	return written(t, h.View().Backup()), h.View().Namespace("a").Root()
}

func TestRestoreIntoAnotherCluster(t *testing.T) {
	file, root := backupOf(t, 1)
	h := newHarness(t, DefaultLimits())
	h.apply(epochOf(2, 9))
	h.must(put("c", document.Flag, "own", "1"))
	var r Result
	for _, cmd := range restoring(1, file, 100, 77) {
		if r = h.apply(cmd); r.Rejection != nil {
			t.Fatal(r.Rejection)
		}
	}
	v := h.View()
	if v.Namespace("a").Root() != root || len(v.Namespaces()) != 1 {
		t.Fatalf("root %x, namespaces %v", v.Namespace("a").Root(), v.Namespaces())
	}
	if e := v.Epoch(); e.Lineage[0] != 1 || e.Counter != 3 || e.Nonce != 77 {
		t.Fatalf("epoch %+v", e)
	}
	if v.Revision() != 3 || r.Revision != 3 || v.Resources() != 2 {
		t.Fatalf("revision %d, outcome %d, %d resources", v.Revision(), r.Revision, v.Resources())
	}
	if want := []string{"a", "c"}; len(r.Touched) != 2 || r.Touched[0] != want[0] || r.Touched[1] != want[1] {
		t.Fatalf("touched %v", r.Touched)
	}
	for record := range v.Audit(1 << 62) {
		if record.Revision != 3 || record.Reason != "restored" || record.Actor != "bob" {
			t.Fatalf("audit %+v", record)
		}
		break
	}
	requireSelfConsistent(t, v)
}

func TestRestoreIntoTheSameCluster(t *testing.T) {
	h := newHarness(t, DefaultLimits())
	h.apply(epochOf(1, 1))
	h.must(put("a", document.Flag, "x", "1"))
	file, root := written(t, h.View().Backup()), h.View().Namespace("a").Root()
	h.now += 60_000
	mistake := transaction(requestOf(5), put("a", document.Flag, "x", "2"))
	h.apply(mistake)
	for _, cmd := range restoring(1, file, 1<<16, 2) {
		if r := h.apply(cmd); r.Rejection != nil {
			t.Fatal(r.Rejection)
		}
	}
	v := h.View()
	if v.Namespace("a").Root() != root || v.Revision() != 3 || v.Epoch().Counter != 2 {
		t.Fatalf("root %x, revision %d, epoch %v", v.Namespace("a").Root(), v.Revision(), v.Epoch())
	}
	if r := h.apply(mistake); !r.Duplicate || h.View().Namespace("a").Root() != root {
		t.Fatalf("what the restore undid was done again: %+v", r)
	}
}

// TestRestoreStaging walks through what may go wrong on the way to a commit.
func TestRestoreStaging(t *testing.T) {
	file, _ := backupOf(t, 1)
	h := newHarness(t, DefaultLimits())
	h.apply(epochOf(1, 1))
	cmds := restoring(1, file, 200, 2)
	begin, one, two, commit := cmds[0], cmds[1], cmds[2], cmds[len(cmds)-1]
	expect := func(what string, cmd *storagev1.Command, want string) Result {
		t.Helper()
		r := h.apply(cmd)
		if reason(r) != want {
			t.Fatalf("%s: %q, want %q: %v", what, reason(r), want, r.Rejection)
		}
		return r
	}
	expect("a chunk of no restore", one, ReasonRestoreUnknown)
	expect("begin", begin, "")
	expect("begin again", begin, "")
	expect("commit of nothing", commit, ReasonRestoreIncomplete)
	if r := expect("second chunk first", two, ReasonRestoreOutOfOrder); r.Rejection.Actual != 0 {
		t.Fatalf("staged %d", r.Rejection.Actual)
	}
	expect("first chunk", one, "")
	expect("first chunk again", one, "")
	expect("second chunk", two, "")
	id := bytes.Repeat([]byte{1}, 16)
	expect("across two chunks again", chunkOf(id, 150, file[150:300]), "")
	expect("other bytes", chunkOf(id, 150, bytes.Repeat([]byte{1}, 100)), ReasonRestoreOutOfOrder)
	expect("partly new", chunkOf(id, 300, file[300:450]), ReasonRestoreOutOfOrder)
	expect("beyond the end", chunkOf(id, uint64(len(file)), []byte{1}), ReasonRestoreTooLarge)
	expect("beyond all ends", chunkOf(id, 1<<63, []byte{1}), ReasonRestoreTooLarge)
	expect("no bytes", chunkOf(id, 400, nil), ReasonInvalidCommand)
	expect("another restore", restoring(3, file, 200, 2)[0], ReasonRestoreBusy)
	h.now += 120_001
	expect("another restore, later", restoring(3, file, 200, 2)[0], "")
	expect("the displaced one", two, ReasonRestoreUnknown)
	abort := &storagev1.Command{Body: &storagev1.Command_RestoreAbort{RestoreAbort: &storagev1.RestoreAbort{RestoreId: id}}}
	expect("abort of the displaced one", abort, "")
	abort.GetRestoreAbort().RestoreId = bytes.Repeat([]byte{3}, 16)
	expect("abort", abort, "")
	if h.View().staged != nil {
		t.Fatal("the restore is still there")
	}
	tooLarge := restoring(4, file, 200, 2)[0]
	tooLarge.GetRestoreBegin().SizeBytes = DefaultLimits().BackupBytes + 1
	expect("too large", tooLarge, ReasonRestoreTooLarge)
}

// TestRestoreRefusesBadBackups checks that a refused backup leaves no trace.
func TestRestoreRefusesBadBackups(t *testing.T) {
	good, _ := backupOf(t, 1)
	damaged := bytes.Clone(good)
	damaged[len(damaged)/2] ^= 1
	none := newHarness(t, DefaultLimits())
	none.must(put("a", document.Flag, "x", "1"))
	for name, c := range map[string]struct {
		file   []byte
		spoil  func([]*storagev1.Command)
		reason string
	}{
		"damaged":       {damaged, nil, ReasonRestoreCorrupt},
		"cut off":       {good[:len(good)-1], nil, ReasonRestoreCorrupt},
		"of no cluster": {written(t, none.View()), nil, ReasonRestoreCorrupt},
		"other bytes than announced": {good, func(cmds []*storagev1.Command) {
			cmds[0].GetRestoreBegin().Sha256[0] ^= 1
		}, ReasonRestoreCorrupt},
		"newer": {resealed(t, good, func(r *storagev1.SnapshotRecord) {
			if r.GetHeader() != nil {
				r.GetHeader().Version = Version + 1
			}
		}), nil, ReasonRestoreUnknownFormat},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHarness(t, DefaultLimits())
			h.apply(epochOf(1, 1))
			h.must(put("a", document.Flag, "own", "1"))
			before := h.View()
			cmds := restoring(1, c.file, 1<<16, 2)
			if c.spoil != nil {
				c.spoil(cmds)
			}
			var r Result
			for _, cmd := range cmds {
				r = h.apply(cmd)
			}
			if reason(r) != c.reason {
				t.Fatalf("%q, want %q", reason(r), c.reason)
			}
			if h.View().Hash() != before.Hash() {
				t.Fatal("the state has changed")
			}
		})
	}
}

// TestRestoreGoesThroughSnapshots stages one half, takes and reads a snapshot,
// and stages the rest.
func TestRestoreGoesThroughSnapshots(t *testing.T) {
	file, root := backupOf(t, 1)
	h := newHarness(t, DefaultLimits())
	h.apply(epochOf(1, 1))
	hashes := make(map[*View][32]byte)
	for i, cmd := range restoring(1, file, 200, 2) {
		if r := h.apply(cmd); r.Rejection != nil {
			t.Fatal(r.Rejection)
		}
		hashes[h.View()] = h.View().Hash()
		if i == 2 {
			snapshot := h.View()
			if err := h.Restore(bytes.NewReader(written(t, snapshot))); err != nil {
				t.Fatal(err)
			}
			if h.View().Hash() != snapshot.Hash() {
				t.Fatal("the staged bytes did not come back")
			}
		}
	}
	if h.View().Namespace("a").Root() != root {
		t.Fatal("another root")
	}
	for v, hash := range hashes {
		if v.Hash() != hash {
			t.Fatal("bytes that were staged later have changed an older view")
		}
	}
}
