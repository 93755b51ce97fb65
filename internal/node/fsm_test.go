package node

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"

	"github.com/holdfast-dev/holdfast/internal/consensus"
	"github.com/holdfast-dev/holdfast/internal/state"
	"github.com/holdfast-dev/holdfast/internal/watch"
	storagev1 "github.com/holdfast-dev/holdfast/proto/holdfast/storage/v1"
	holdfastv1 "github.com/holdfast-dev/holdfast/proto/holdfast/v1"
)

func entry(t *testing.T, index uint64, cmd *storagev1.Command) consensus.Entry {
	t.Helper()
	cmd.Version, cmd.TimeMs = 1, int64(index)*1000
	data, err := proto.Marshal(cmd)
	if err != nil {
		t.Fatal(err)
	}
	return consensus.Entry{Index: index, Term: 1, Data: data}
}

func putCommand(name string) *storagev1.Command {
	id := make([]byte, 16)
	copy(id, name)
	return &storagev1.Command{RequestId: id, Body: &storagev1.Command_Transaction{Transaction: &storagev1.Transaction{
		Steps: []*storagev1.Step{{
			Key:  &holdfastv1.ResourceKey{Namespace: "default", Kind: holdfastv1.Kind_KIND_FLAG, Name: name},
			Spec: []byte(`{}`),
		}},
	}}}
}

// Raft cuts batches differently on every server; the hash recorded for a Tick
// must be that of the state right after it nevertheless.
func TestTickHashDoesNotDependOnBatches(t *testing.T) {
	tick := func() *storagev1.Command {
		return &storagev1.Command{Body: &storagev1.Command_Tick{Tick: &storagev1.Tick{}}}
	}
	entries := []consensus.Entry{
		entry(t, 1, putCommand("a")), entry(t, 2, tick()), entry(t, 3, putCommand("b")),
		entry(t, 4, tick()), entry(t, 5, tick()), entry(t, 6, putCommand("c")),
	}
	run := func(batches ...int) map[uint64][32]byte {
		ticks := make(map[uint64][32]byte)
		machine := state.New()
		f := &fsm{
			machine: machine, hub: watch.NewHub(machine.View()), clock: &clock{}, moved: func() {},
			ticked: func(index uint64, hash [32]byte) { ticks[index] = hash },
		}
		rest := entries
		for _, n := range batches {
			results, err := f.Apply(rest[:n])
			if err != nil || len(results) != n {
				t.Fatalf("%d results, %v", len(results), err)
			}
			for i, r := range results {
				if got, ok := r.(state.Result); !ok || got.Index != rest[i].Index || got.Rejection != nil {
					t.Fatalf("result %d is %+v", i, r)
				}
			}
			rest = rest[n:]
		}
		return ticks
	}
	all := run(6)
	if len(all) != 3 || all[2] == all[4] {
		t.Fatalf("ticks %v", all)
	}
	for _, batches := range [][]int{{1, 1, 1, 1, 1, 1}, {3, 3}, {2, 4}, {5, 1}} {
		if diff := cmp.Diff(all, run(batches...)); diff != "" {
			t.Errorf("batches %v: %s", batches, diff)
		}
	}
}

func TestUnknownCommandStopsTheServer(t *testing.T) {
	machine := state.New()
	f := &fsm{
		machine: machine, hub: watch.NewHub(machine.View()), clock: &clock{}, moved: func() {},
		ticked: func(uint64, [32]byte) {},
	}
	newer := putCommand("a")
	e := entry(t, 1, newer)
	newer.Version = state.Version + 1
	data, err := proto.Marshal(newer)
	if err != nil {
		t.Fatal(err)
	}
	e.Data = data
	if _, err := f.Apply([]consensus.Entry{e}); err == nil {
		t.Fatal("a command of a newer version was skipped")
	}
}
