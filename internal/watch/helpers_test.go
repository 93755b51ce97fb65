package watch

import (
	"encoding/binary"

	"google.golang.org/protobuf/proto"

	"github.com/holdfast-dev/holdfast/internal/document"
	"github.com/holdfast-dev/holdfast/internal/state"
	storagev1 "github.com/holdfast-dev/holdfast/proto/holdfast/storage/v1"
)

// failer is what helpers need of a test.
type failer interface {
	Helper()
	Errorf(format string, args ...any)
	Fatalf(format string, args ...any)
}

// server is a machine with its hub, fed by one goroutine.
type server struct {
	t       failer
	machine *state.Machine
	hub     *Hub
	index   uint64
}

func newServer(t failer, limits state.Limits) *server {
	m := state.NewLimited(limits)
	return &server{t: t, machine: m, hub: NewHub(m.View())}
}

// newCluster returns a server with a lineage.
func newCluster(t failer) *server {
	s := newServer(t, state.DefaultLimits())
	s.do(newEpoch(1, 1))
	return s
}

// do applies commands as one batch and publishes them.
func (s *server) do(cmds ...*storagev1.Command) {
	s.t.Helper()
	entries := make([]state.Entry, len(cmds))
	for i, cmd := range cmds {
		s.index++
		entries[i] = state.Entry{Index: s.index, Term: 1, Data: encode(s.t, cmd)}
	}
	s.feed(entries)
}

func (s *server) feed(entries []state.Entry) {
	s.t.Helper()
	results, err := s.machine.Apply(entries)
	if err != nil {
		s.t.Fatalf("apply: %v", err)
	}
	var touched []string
	for _, r := range results {
		if r.Rejection != nil {
			s.t.Fatalf("rejected: %v", r.Rejection)
		}
		touched = append(touched, r.Touched...)
	}
	s.hub.Publish(s.machine.View(), touched)
}

func (s *server) cursor() Cursor {
	v := s.machine.View()
	return Cursor{Epoch: v.Epoch(), Revision: v.Revision(), Set: true}
}

func (s *server) subscribe(namespace string, c Cursor) *Sub {
	s.t.Helper()
	sub, err := s.hub.Subscribe(namespace, c)
	if err != nil {
		s.t.Fatalf("subscribe: %v", err)
	}
	return sub
}

var requests uint64

func write(steps ...*storagev1.Step) *storagev1.Command {
	requests++
	id := binary.BigEndian.AppendUint64(make([]byte, 8), requests)
	return &storagev1.Command{Version: 1, TimeMs: 1, RequestId: id, Body: &storagev1.Command_Transaction{
		Transaction: &storagev1.Transaction{Steps: steps},
	}}
}

func put(namespace, name, spec string) *storagev1.Step {
	return &storagev1.Step{Key: (document.Key{Kind: document.Flag, Name: name}).Proto(namespace), Spec: []byte(spec)}
}

func del(namespace, name string) *storagev1.Step {
	return &storagev1.Step{Key: (document.Key{Kind: document.Flag, Name: name}).Proto(namespace), Delete: true}
}

func newEpoch(lineage byte, nonce uint64) *storagev1.Command {
	all := make([]byte, 16)
	for i := range all {
		all[i] = lineage
	}
	return &storagev1.Command{Version: 1, Body: &storagev1.Command_NewEpoch{NewEpoch: &storagev1.NewEpoch{Lineage: all, Nonce: nonce}}}
}

func encode(t failer, cmd *storagev1.Command) []byte {
	t.Helper()
	data, err := proto.Marshal(cmd)
	if err != nil {
		t.Fatalf("marshal: %v", err)
	}
	return data
}
