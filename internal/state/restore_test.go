package state

import (
	"bytes"
	"fmt"
	"slices"
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
	// The audit is that of the lineage that goes on, and the restore.
	var audit []string
	for record := range v.Audit(1 << 62) {
		namespace := ""
		if len(record.Changes) > 0 {
			namespace = record.Changes[0].Namespace
		}
		audit = append(audit, fmt.Sprint(record.Revision, record.Actor, record.Reason, namespace))
	}
	if want := []string{"3bobrestored", "2annbecauseb", "1annbecausea"}; !slices.Equal(audit, want) {
		t.Fatalf("audit %q", audit)
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
	if expect("abort of the displaced one", abort, ""); h.View().staged == nil {
		t.Fatal("the restore was aborted under another's name")
	}
	abort.GetRestoreAbort().RestoreId = bytes.Repeat([]byte{3}, 16)
	expect("abort", abort, "")
	if h.View().staged != nil {
		t.Fatal("the restore is still there")
	}
	tooLarge := restoring(4, file, 200, 2)[0]
	tooLarge.GetRestoreBegin().SizeBytes = DefaultLimits().BackupBytes + 1
	expect("too large", tooLarge, ReasonRestoreTooLarge)
}

// TestAbandonedRestoreIsDropped leaves a restore alone: its bytes would be in the
// memory of every server and in every snapshot for ever. One that moves stays.
func TestAbandonedRestoreIsDropped(t *testing.T) {
	file, _ := backupOf(t, 1)
	h := newHarness(t, DefaultLimits())
	h.apply(epochOf(1, 1))
	cmds := restoring(1, file, 200, 2)
	idle := DefaultLimits().RestoreIdle.Milliseconds()
	for _, cmd := range cmds[:3] {
		h.now += idle
		h.apply(tick())
		if r := h.apply(cmd); r.Rejection != nil {
			t.Fatalf("dropped while it moved: %v", r.Rejection)
		}
	}
	h.now += idle
	h.apply(tick())
	if r := h.apply(restoring(3, file, 200, 2)[0]); reason(r) != ReasonRestoreBusy || h.View().staged == nil {
		t.Fatalf("dropped too early: %v", r.Rejection)
	}
	before := h.View()
	h.now++
	if h.apply(tick()); h.View().staged != nil {
		t.Fatal("still staged")
	}
	if r := h.apply(cmds[3]); reason(r) != ReasonRestoreUnknown || essence(h.View()) != essence(before) {
		t.Fatalf("a late chunk: %v", r.Rejection)
	}
}

// TestRestoreIsAtomic looks at the state after each command of a restore: it is
// the old one until the commit and the new one from then on, and the batch that
// holds both commit and a write shows nothing in between.
func TestRestoreIsAtomic(t *testing.T) {
	file, root := backupOf(t, 1)
	h := newHarness(t, DefaultLimits())
	h.apply(epochOf(2, 1))
	h.must(put("c", document.Flag, "own", "1"))
	cmds := restoring(1, file, 100, 2)
	before := h.View()
	for _, cmd := range cmds[:len(cmds)-1] {
		if r := h.apply(cmd); r.Rejection != nil || r.Touched != nil || essence(h.View()) != essence(before) {
			t.Fatalf("staging shows: %+v", r)
		}
	}
	write := transaction(requestOf(1), put("a", document.Flag, "y", "1"))
	commit := cmds[len(cmds)-1]
	commit.TimeMs, write.TimeMs = h.now, h.now
	results, err := h.Apply([]Entry{{Index: 90, Term: 1, Data: marshal(t, commit)}, {Index: 91, Term: 1, Data: marshal(t, write)}})
	if err != nil || results[0].Rejection != nil || results[1].Rejection != nil || results[1].Revision != results[0].Revision+1 {
		t.Fatalf("%+v %v", results, err)
	}
	v := h.View()
	if v.staged != nil || v.Namespace("c").Len() != 0 || v.Namespace("a").Len() != 3 || v.Namespace("a").Root() == root {
		t.Fatalf("namespaces %v, %d resources", v.Namespaces(), v.Namespace("a").Len())
	}
	if before.Namespace("c").Len() != 1 || before.Revision() != 1 {
		t.Fatal("the old view has changed")
	}
}

// TestRestoresGoForward restores one backup again and again: revisions and epochs
// only grow, and no epoch has the nonce of another.
func TestRestoresGoForward(t *testing.T) {
	h := newHarness(t, DefaultLimits())
	h.apply(epochOf(1, 1))
	h.must(put("a", document.Flag, "x", "1"))
	file := written(t, h.View().Backup())
	seen := map[document.Epoch]bool{h.View().Epoch(): true}
	for round := range byte(4) {
		for range round {
			h.must(put("a", document.Flag, "x", string(requestOf(h.ids))))
		}
		before := h.View()
		for _, cmd := range restoring(round, file, 1<<16, uint64(round)+2) {
			if r := h.apply(cmd); r.Rejection != nil {
				t.Fatal(r.Rejection)
			}
		}
		v := h.View()
		if v.Revision() != before.Revision()+1 || v.Epoch().Counter != before.Epoch().Counter+1 || seen[v.Epoch()] {
			t.Fatalf("revision %d after %d, epoch %v after %v", v.Revision(), before.Revision(), v.Epoch(), before.Epoch())
		}
		seen[v.Epoch()] = true
		// No cursor of the epoch before can get a delta: the hub asks for the epoch.
		if d, ok := v.Namespace("a").Since(v.Revision()); !ok || len(d.Puts) > 0 {
			t.Fatalf("a cursor of now gets %+v", d)
		}
	}
}

// TestRestoreOfTooMuch restores a backup of a state with higher limits.
func TestRestoreOfTooMuch(t *testing.T) {
	rich := newHarness(t, DefaultLimits())
	rich.apply(epochOf(1, 1))
	for i := range 7 {
		rich.must(put("a", document.Flag, fmt.Sprint(i), "1"))
	}
	limits := tiny()
	limits.AuditBytes, limits.OutcomeBytes = 1<<20, 1<<20
	h := newHarness(t, limits)
	h.apply(epochOf(1, 1))
	h.must(put("b", document.Flag, "own", "1"))
	before, r := h.View(), Result{}
	for _, cmd := range restoring(1, written(t, rich.View().Backup()), 2_000, 2) {
		r = h.apply(cmd)
	}
	if reason(r) != ReasonTooManyResources || essence(h.View()) != essence(before) || h.View().staged != nil {
		t.Fatalf("%q: %v", reason(r), r.Rejection)
	}
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
