package state

import (
	"errors"
	"fmt"
	"io"
	"sync/atomic"

	"google.golang.org/protobuf/proto"

	"github.com/holdfast-dev/holdfast/internal/seam"
	storagev1 "github.com/holdfast-dev/holdfast/proto/holdfast/storage/v1"
)

var (
	// ErrUndecodable is wrapped by Apply for an entry that is no command. The
	// log is damaged, or not a log of this program.
	ErrUndecodable = errors.New("not a command")
	// ErrUnknownCommand is wrapped by Apply for a command of a newer version. The
	// server has to be upgraded before it can go on.
	ErrUnknownCommand = errors.New("command of a newer version")
)

// Entry is a committed entry of the replicated log.
type Entry struct {
	Index, Term uint64
	Data        []byte // a marshalled storagev1.Command
}

// Result is what an entry came to.
type Result struct {
	Outcome
	// Duplicate is true when the request had been applied before and this is its
	// outcome from then.
	Duplicate bool
	// Touched are the namespaces that were changed, sorted.
	Touched []string
	// Index is the entry's.
	Index uint64
}

// Machine applies commands. One goroutine may call Apply and Restore; any
// number may call View meanwhile.
//
// Two clocks are part of the state. State time is the latest stamp of a command
// and is what users see. Lived time advances only between two commands that one
// leader stamped in one term: it never runs faster than real time, whatever the
// wall clocks of the leaders are, so an age measured by a client is never less
// than the lived time that went by meanwhile. Retries are judged by it.
type Machine struct {
	view atomic.Pointer[View]
	// requests finds the outcomes kept by the view; the applying goroutine's.
	requests map[requestID]*kept
}

// New returns a machine with an empty state.
func New() *Machine { return NewLimited(DefaultLimits()) }

// NewLimited returns a machine with other limits, for tests of what happens at
// them. All servers of a cluster must have the same.
func NewLimited(limits Limits) *Machine { return newMachine(&limits) }

func newMachine(limits *Limits) *Machine {
	m := &Machine{requests: make(map[requestID]*kept)}
	m.view.Store(newView(limits))
	return m
}

// View returns the present state.
func (m *Machine) View() *View { return m.view.Load() }

// Apply applies entries in order and shows the state after the last one at once.
// An error wraps ErrUndecodable or ErrUnknownCommand: the entry at fault and
// those after it were not applied, results are those of the entries before, and
// the server must stop, because it cannot know what the others made of it.
func (m *Machine) Apply(entries []Entry) ([]Result, error) {
	d := newDraft(m.View(), m.requests)
	results := make([]Result, 0, len(entries))
	var fatal error
	for i := range entries {
		e := &entries[i]
		cmd, err := decode(e.Data)
		if err != nil {
			fatal = fmt.Errorf("apply entry %d: %w", e.Index, err)
			break
		}
		results = append(results, d.apply(e, cmd))
	}
	m.view.Store(d.seal())
	return results, fatal
}

// Restore replaces the state by a snapshot of this cluster, as ReadView reads it,
// but for the limits: they hold for what is added to it later. On an error the old
// state stays.
func (m *Machine) Restore(r io.Reader) error {
	b := newBuilder(m.View().limits, Version)
	b.own = true
	v, err := read(r, b)
	if err != nil {
		return fmt.Errorf("restore state: %w", err)
	}
	requests := make(map[requestID]*kept, v.outcomes.len())
	for i := range v.outcomes.len() {
		k := v.outcomes.at(i)
		requests[k.id] = k
	}
	if seam.Bug(seam.RequestsForgotten) {
		clear(requests)
	}
	m.requests = requests
	m.view.Store(v)
	return nil
}

// decode reads a command. What it does not know it refuses: a field that one
// server obeys and another skips would make them differ.
func decode(data []byte) (*storagev1.Command, error) {
	cmd := new(storagev1.Command)
	if err := proto.Unmarshal(data, cmd); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrUndecodable, err)
	}
	switch {
	case cmd.GetVersion() == 0:
		return nil, fmt.Errorf("%w: no version", ErrUndecodable)
	case cmd.GetVersion() > Version:
		return nil, fmt.Errorf("%w: version %d, this server knows up to %d", ErrUnknownCommand, cmd.GetVersion(), Version)
	case hasUnknown(cmd):
		return nil, fmt.Errorf("%w: it has unknown fields", ErrUnknownCommand)
	case cmd.Body == nil:
		return nil, fmt.Errorf("%w: no body", ErrUndecodable)
	}
	return cmd, nil
}

// hasUnknown tells whether the command, or what is below it, has fields that
// this version does not know.
func hasUnknown(cmd *storagev1.Command) bool {
	unknown := func(m proto.Message) bool { return len(m.ProtoReflect().GetUnknown()) > 0 }
	if unknown(cmd) || cmd.Actor != nil && unknown(cmd.Actor) {
		return true
	}
	switch body := cmd.Body.(type) {
	case *storagev1.Command_Transaction:
		for _, s := range body.Transaction.GetSteps() {
			if unknown(s) || s.Key != nil && unknown(s.Key) {
				return true
			}
			for _, l := range s.GetLabels() {
				if unknown(l) {
					return true
				}
			}
		}
		return unknown(body.Transaction)
	case *storagev1.Command_Tick:
		return unknown(body.Tick)
	case *storagev1.Command_Expire:
		return unknown(body.Expire)
	case *storagev1.Command_RestoreBegin:
		return unknown(body.RestoreBegin)
	case *storagev1.Command_RestoreChunk:
		return unknown(body.RestoreChunk)
	case *storagev1.Command_RestoreCommit:
		return unknown(body.RestoreCommit)
	case *storagev1.Command_RestoreAbort:
		return unknown(body.RestoreAbort)
	case *storagev1.Command_NewEpoch:
		return unknown(body.NewEpoch)
	}
	return false
}
