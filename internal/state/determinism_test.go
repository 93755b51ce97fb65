package state

import (
	"bytes"
	"slices"
	"testing"

	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	storagev1 "github.com/holdfast-dev/holdfast/proto/holdfast/storage/v1"
)

// TestReplicasAgree replays one log on two machines: in other batches, and on
// one of them through a snapshot at a random place. They end up the same to the
// byte, as do the answers.
func TestReplicasAgree(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		limits := tiny()
		a, b := newMachine(&limits), newMachine(&limits)
		log := drawLog(t, &limits)
		fromA, fromB := replay(t, a, log, -1, &limits), replay(t, b, log, rapid.IntRange(0, len(log)).Draw(t, "snapshot at"), &limits)
		if !slices.EqualFunc(fromA, fromB, sameResult) {
			t.Fatalf("results differ:\n%v\n%v", fromA, fromB)
		}
		va, vb := a.View(), b.View()
		if va.Hash() != vb.Hash() {
			t.Fatalf("hashes differ")
		}
		if !bytes.Equal(written(t, va), written(t, vb)) {
			t.Fatalf("snapshots differ")
		}
		requireSelfConsistent(t, va)
	})
}

// drawLog draws a log that includes a restore of the state on its way, in the
// midst of which writes go on and the snapshot may fall.
func drawLog(t *rapid.T, limits *Limits) []Entry {
	scout := newMachine(limits)
	var log []Entry
	now, term := int64(1_000_000), uint64(1)
	add := func(cmd *storagev1.Command) {
		now += rapid.Int64Range(0, 3_000).Draw(t, "elapsed")
		if rapid.IntRange(0, 9).Draw(t, "election") == 0 {
			term++
			now += rapid.Int64Range(-3_600_000, 3_600_000).Draw(t, "jump")
		}
		cmd = proto.CloneOf(cmd)
		cmd.TimeMs = now
		log = append(log, Entry{Index: uint64(len(log) + 1), Term: term, Data: marshal(t, cmd)})
		if _, err := scout.Apply(log[len(log)-1:]); err != nil {
			t.Fatalf("apply: %v", err)
		}
	}
	add(epochOf(1, 1))
	for range rapid.IntRange(1, 15).Draw(t, "before") {
		add(drawCommand(t, scout.View().Revision()+1))
	}
	file := written(t, scout.View().Backup())
	for _, cmd := range restoring(9, file, 900, 5) {
		add(cmd)
		add(drawCommand(t, scout.View().Revision()+1))
	}
	return log
}

// replay applies the log in random batches, with a snapshot before the entry at.
func replay(t *rapid.T, m *Machine, log []Entry, at int, limits *Limits) []Result {
	var all []Result
	for i := 0; i < len(log); {
		end := min(len(log), i+rapid.IntRange(1, 6).Draw(t, "batch"))
		if i < at && at < end {
			end = at
		}
		results, err := m.Apply(log[i:end])
		if err != nil {
			t.Fatalf("apply: %v", err)
		}
		all = append(all, results...)
		if i = end; i == at {
			file := written(t, m.View())
			*m = Machine{}
			m.view.Store(newView(limits))
			if err := m.Restore(bytes.NewReader(file)); err != nil {
				t.Fatalf("restore: %v", err)
			}
		}
	}
	return all
}

func sameResult(a, b Result) bool {
	return a.Index == b.Index && a.Duplicate == b.Duplicate && a.Revision == b.Revision &&
		reason(a) == reason(b) && slices.Equal(a.Changes, b.Changes) && slices.Equal(a.Touched, b.Touched)
}

// requireSelfConsistent checks that a snapshot says of itself what is computed
// anew from it.
func requireSelfConsistent(t failer, v *View) {
	t.Helper()
	again, err := readView(bytes.NewReader(written(t, v)), v.limits, Version)
	if err != nil {
		t.Fatalf("read: %v", err)
	}
	if again.declared != v.declared || again.overrides != v.overrides {
		t.Fatalf("usage: %v %v, was %v %v", again.declared, again.overrides, v.declared, v.overrides)
	}
	if again.outcomeBytes != v.outcomeBytes || again.auditBytes != v.auditBytes || again.graves.Len() != v.graves.Len() {
		t.Fatalf("what eviction goes by has changed")
	}
	if !bytes.Equal(written(t, again), written(t, v)) {
		t.Fatalf("a snapshot of a snapshot is another one")
	}
}
