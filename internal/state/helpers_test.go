package state

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/holdfast-dev/holdfast/internal/document"
	storagev1 "github.com/holdfast-dev/holdfast/proto/holdfast/storage/v1"
	holdfastv1 "github.com/holdfast-dev/holdfast/proto/holdfast/v1"
)

// tiny are limits that random tests reach.
func tiny() Limits {
	return Limits{
		Namespaces: 3, Declared: 6, DeclaredBytes: 1_900, Overrides: 3, OverrideBytes: 900,
		Command: 4 << 10, Steps: 4, TTL: time.Hour,
		AuditBytes: 1_500, AuditRecordBytes: 420,
		Outcomes: 8, OutcomeBytes: 3_200, OutcomeAge: 20 * time.Second,
		Tombstones: 2, BackupBytes: 1 << 20, ChunkBytes: 256 << 10, RestoreIdle: 2 * time.Minute,
	}
}

// failer is what helpers need of a test, be it a random one or not.
type failer interface {
	Helper()
	Fatalf(format string, args ...any)
}

// harness feeds a machine with commands one at a time.
type harness struct {
	*Machine
	t     failer
	index uint64
	term  uint64
	now   int64
	ids   uint64
}

func newHarness(t failer, limits Limits) *harness {
	return &harness{Machine: newMachine(&limits), t: t, term: 1, now: 1_000_000, ids: 1 << 32}
}

func requestOf(n uint64) []byte {
	return binary.BigEndian.AppendUint64(make([]byte, 8), n)
}

func (h *harness) apply(cmd *storagev1.Command) Result {
	h.t.Helper()
	cmd.Version = Version
	cmd.TimeMs = h.now
	h.index++
	results, err := h.Apply([]Entry{{Index: h.index, Term: h.term, Data: marshal(h.t, cmd)}})
	if err != nil {
		h.t.Fatalf("apply: %v", err)
	}
	return results[0]
}

func (h *harness) write(steps ...*storagev1.Step) Result {
	h.t.Helper()
	h.ids++
	return h.apply(transaction(requestOf(h.ids), steps...))
}

// must writes and fails on a rejection.
func (h *harness) must(steps ...*storagev1.Step) Result {
	h.t.Helper()
	r := h.write(steps...)
	if r.Rejection != nil {
		h.t.Fatalf("rejected: %v", r.Rejection)
	}
	return r
}

func transaction(id []byte, steps ...*storagev1.Step) *storagev1.Command {
	return &storagev1.Command{
		Version: Version, RequestId: id, Actor: &holdfastv1.Actor{Name: "ann", Verified: true}, Reason: "because",
		Body: &storagev1.Command_Transaction{Transaction: &storagev1.Transaction{Steps: steps}},
	}
}

func put(namespace string, kind document.Kind, name, spec string) *storagev1.Step {
	s := &storagev1.Step{Key: (document.Key{Kind: kind, Name: name}).Proto(namespace), Spec: []byte(spec)}
	if kind == document.Override {
		s.TtlMs = 5_000
	}
	return s
}

func del(namespace string, kind document.Kind, name string) *storagev1.Step {
	return &storagev1.Step{Key: (document.Key{Kind: kind, Name: name}).Proto(namespace), Delete: true}
}

// restoring returns the commands that restore a file, in chunks.
func restoring(id byte, file []byte, chunk int, nonce uint64) []*storagev1.Command {
	restore, sum := bytes.Repeat([]byte{id}, 16), sha256.Sum256(file)
	cmds := []*storagev1.Command{{Body: &storagev1.Command_RestoreBegin{RestoreBegin: &storagev1.RestoreBegin{
		RestoreId: restore, SizeBytes: uint64(len(file)), Sha256: sum[:],
	}}}}
	for offset := 0; offset < len(file); offset += chunk {
		cmds = append(cmds, chunkOf(restore, uint64(offset), file[offset:min(len(file), offset+chunk)]))
	}
	cmds = append(cmds, &storagev1.Command{
		Actor: &holdfastv1.Actor{Name: "bob"}, Reason: "restored",
		Body: &storagev1.Command_RestoreCommit{RestoreCommit: &storagev1.RestoreCommit{RestoreId: restore, Nonce: nonce}},
	})
	for _, cmd := range cmds {
		cmd.Version = Version
	}
	return cmds
}

func chunkOf(restore []byte, offset uint64, data []byte) *storagev1.Command {
	return &storagev1.Command{Version: Version, Body: &storagev1.Command_RestoreChunk{RestoreChunk: &storagev1.RestoreChunk{
		RestoreId: restore, Offset: offset, Data: data,
	}}}
}

func expecting(s *storagev1.Step, revision uint64) *storagev1.Step {
	s.ExpectedRevision = &revision
	return s
}

func tick() *storagev1.Command {
	return &storagev1.Command{Version: Version, Body: &storagev1.Command_Tick{Tick: &storagev1.Tick{}}}
}

func expire() *storagev1.Command {
	return &storagev1.Command{Version: Version, Body: &storagev1.Command_Expire{Expire: &storagev1.Expire{}}}
}

func epochOf(lineage byte, nonce uint64) *storagev1.Command {
	return &storagev1.Command{Version: Version, Body: &storagev1.Command_NewEpoch{NewEpoch: &storagev1.NewEpoch{
		Lineage: bytes.Repeat([]byte{lineage}, 16), Nonce: nonce,
	}}}
}

func marshal(t failer, m proto.Message) []byte {
	t.Helper()
	data, err := proto.MarshalOptions{Deterministic: true}.Marshal(m)
	if err != nil {
		t.Fatalf("marshal: %v", err)
	}
	return data
}

func written(t failer, v *View) []byte {
	t.Helper()
	var b bytes.Buffer
	n, err := v.WriteTo(&b)
	if err != nil || n != int64(b.Len()) {
		t.Fatalf("write: %d bytes of %d, %v", n, b.Len(), err)
	}
	return b.Bytes()
}

func reason(r Result) string {
	if r.Rejection == nil {
		return ""
	}
	return r.Rejection.Reason
}

func resourcesOf(n *Namespace) []*document.Resource {
	var all []*document.Resource
	n.Ascend(0, "", "", func(r *document.Resource) bool {
		all = append(all, r)
		return true
	})
	return all
}
