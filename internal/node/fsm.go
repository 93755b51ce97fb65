package node

import (
	"fmt"
	"io"

	"google.golang.org/protobuf/proto"

	"github.com/holdfast-dev/holdfast/internal/consensus"
	"github.com/holdfast-dev/holdfast/internal/seam"
	"github.com/holdfast-dev/holdfast/internal/state"
	"github.com/holdfast-dev/holdfast/internal/watch"
	storagev1 "github.com/holdfast-dev/holdfast/proto/holdfast/storage/v1"
)

// maxTickBytes bounds the encoding of a Tick: a version, a time and an empty
// body. Longer commands need not be decoded to know that they are none.
const maxTickBytes = 32

// fsm adapts the state to consensus. Its methods run on Raft's own goroutine,
// which must not block.
type fsm struct {
	machine *state.Machine
	hub     *watch.Hub
	clock   *clock
	// ticked is told the hash of the state right after each Tick.
	ticked func(index uint64, hash [32]byte)
	// moved is told that the state has changed.
	moved func()
}

var (
	_ consensus.StateMachine = (*fsm)(nil)
	_ consensus.Traced       = (*fsm)(nil)
)

// Apply implements consensus.StateMachine.
func (f *fsm) Apply(entries []consensus.Entry) ([]any, error) {
	results := make([]any, 0, len(entries))
	for len(entries) > 0 {
		n, tick := upToTick(entries)
		if seam.Enabled {
			n = 1 // so that every command has its own hash in the trace
			tick = isTick(entries[0].Data)
		}
		if err := f.apply(entries[:n], &results); err != nil {
			return results, err
		}
		if tick {
			f.ticked(entries[n-1].Index, f.machine.View().Hash())
		}
		entries = entries[n:]
	}
	f.moved()
	return results, nil
}

func (f *fsm) apply(entries []consensus.Entry, results *[]any) error {
	batch := make([]state.Entry, len(entries))
	for i, e := range entries {
		batch[i] = state.Entry{Index: e.Index, Term: e.Term, Data: e.Data}
	}
	before := f.machine.View().Revision()
	outcomes, err := f.machine.Apply(batch)
	if err != nil {
		return fmt.Errorf("apply commands %d to %d: %w", batch[0].Index, batch[len(batch)-1].Index, err)
	}
	view := f.machine.View()
	f.clock.advance(view.Time())
	f.hub.Publish(view, touched(outcomes))
	for i, e := range entries {
		if seam.Enabled && seam.Tracing() {
			record(&e, view, before)
		}
		*results = append(*results, outcomes[i])
	}
	return nil
}

// record traces a command that was applied alone and led to a view.
func record(e *consensus.Entry, after *state.View, before uint64) {
	var cmd storagev1.Command
	_ = proto.Unmarshal(e.Data, &cmd) // it was applied, so it can be read
	seam.Record(&seam.Applied{
		Index: e.Index, Term: e.Term, Command: e.Data, Request: cmd.GetRequestId(),
		State: after.Hash(), Epoch: after.Epoch().Counter, Revision: after.Revision(), Effective: after.Revision() > before,
	})
}

// Trace implements consensus.Traced.
func (f *fsm) Trace() (epoch, revision uint64, hash [32]byte) {
	view := f.machine.View()
	return view.Epoch().Counter, view.Revision(), view.Hash()
}

// touched is the union of the namespaces that the results changed.
func touched(results []state.Result) []string {
	if len(results) == 1 {
		return results[0].Touched
	}
	var union []string
	seen := make(map[string]struct{})
	for _, r := range results {
		for _, ns := range r.Touched {
			if _, ok := seen[ns]; !ok {
				seen[ns] = struct{}{}
				union = append(union, ns)
			}
		}
	}
	return union
}

// upToTick returns how many entries end with the first Tick, or all.
func upToTick(entries []consensus.Entry) (n int, tick bool) {
	for i, e := range entries {
		if isTick(e.Data) {
			return i + 1, true
		}
	}
	return len(entries), false
}

func isTick(data []byte) bool {
	if len(data) > maxTickBytes {
		return false
	}
	var cmd storagev1.Command
	return proto.Unmarshal(data, &cmd) == nil && cmd.GetTick() != nil
}

// Snapshot implements consensus.StateMachine.
func (f *fsm) Snapshot() (io.WriterTo, error) { return f.machine.View(), nil }

// Restore implements consensus.StateMachine.
func (f *fsm) Restore(r io.Reader) error {
	before := f.machine.View()
	if seam.Bug(seam.SnapshotIgnored) && before.Revision() > 0 {
		_, err := io.Copy(io.Discard, r)
		return err
	}
	if err := f.machine.Restore(r); err != nil {
		return fmt.Errorf("restore state: %w", err)
	}
	view := f.machine.View()
	f.clock.advance(view.Time())
	f.hub.Publish(view, append(before.Namespaces(), view.Namespaces()...))
	f.moved()
	return nil
}
