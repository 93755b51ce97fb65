package state

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/holdfast-dev/holdfast/internal/document"
	storagev1 "github.com/holdfast-dev/holdfast/proto/holdfast/storage/v1"
	holdfastv1 "github.com/holdfast-dev/holdfast/proto/holdfast/v1"
)

// sample returns a view with one of everything.
func sample(t failer) *View {
	h := newHarness(t, DefaultLimits())
	h.apply(epochOf(1, 1))
	h.must(put("a", document.Flag, "x", "1"), put("a", document.Override, "o", "1"), put("b", document.Mode, "m", "1"))
	h.must(put("a", document.Flag, "x", "2"), del("b", document.Mode, "m"))
	h.write(expecting(put("a", document.Flag, "x", "2"), 0))
	h.now += 10_000
	h.apply(expire())
	file := written(t, h.View().Backup())
	for _, cmd := range restoring(1, file, 100, 2)[:3] {
		h.apply(cmd)
	}
	return h.View()
}

// recordsOf returns the records of a snapshot.
func recordsOf(t failer, file []byte) [][]byte {
	t.Helper()
	var records [][]byte
	for rest := file[len(snapshotMagic) : len(file)-sha256.Size]; len(rest) > 0; {
		n, w := binary.Uvarint(rest)
		if w <= 0 || n > uint64(len(rest)-w) {
			t.Fatalf("not a snapshot")
		}
		records = append(records, rest[w:w+int(n)])
		rest = rest[w+int(n):]
	}
	return records
}

// sealed returns a snapshot of records, with a right sum.
func sealed(records [][]byte) []byte {
	out := []byte(snapshotMagic)
	for _, r := range records {
		out = append(binary.AppendUvarint(out, uint64(len(r))), r...)
	}
	sum := sha256.Sum256(out)
	return append(out, sum[:]...)
}

// resealed returns a snapshot with its records edited.
func resealed(t failer, file []byte, edit func(*storagev1.SnapshotRecord)) []byte {
	t.Helper()
	records := recordsOf(t, file)
	for i, data := range records {
		var record storagev1.SnapshotRecord
		if err := proto.Unmarshal(data, &record); err != nil {
			t.Fatalf("unmarshal: %v", err)
		}
		edit(&record)
		records[i] = marshal(t, &record)
	}
	return sealed(records)
}

func TestSnapshotRefusesEveryFlippedBit(t *testing.T) {
	file := written(t, sample(t))
	for i := range file {
		for bit := range 8 {
			bad := bytes.Clone(file)
			bad[i] ^= 1 << bit
			if _, err := ReadView(bytes.NewReader(bad)); !errors.Is(err, ErrCorrupt) && !errors.Is(err, ErrUnknownFormat) {
				t.Fatalf("bit %d of byte %d: %v", bit, i, err)
			}
		}
	}
}

func TestSnapshotRefusesEveryCut(t *testing.T) {
	file := written(t, sample(t))
	for i := range file {
		if _, err := ReadView(bytes.NewReader(file[:i])); !errors.Is(err, ErrCorrupt) {
			t.Fatalf("cut at %d: %v", i, err)
		}
	}
	if _, err := ReadView(bytes.NewReader(append(bytes.Clone(file), 0))); !errors.Is(err, ErrCorrupt) {
		t.Fatalf("with a byte more: %v", err)
	}
}

func TestSnapshotReadsInSmallPieces(t *testing.T) {
	v := sample(t)
	again, err := ReadView(iotest.OneByteReader(bytes.NewReader(written(t, v))))
	if err != nil || again.Hash() != v.Hash() || again.Index() != v.Index() {
		t.Fatalf("read: %v", err)
	}
}

func TestSnapshotPassesErrorsOn(t *testing.T) {
	v, broken := sample(t), errors.New("broken")
	if _, err := ReadView(iotest.ErrReader(broken)); !errors.Is(err, broken) {
		t.Fatalf("read: %v", err)
	}
	if _, err := v.WriteTo(failingWriter{broken}); !errors.Is(err, broken) {
		t.Fatalf("write: %v", err)
	}
}

type failingWriter struct{ err error }

func (w failingWriter) Write([]byte) (int, error) { return 0, w.err }

// TestSnapshotRefusesImpossibleContent edits snapshots whose sums are right.
func TestSnapshotRefusesImpossibleContent(t *testing.T) {
	file := written(t, sample(t))
	for name, edit := range map[string]func(*storagev1.SnapshotRecord){
		"another value": func(r *storagev1.SnapshotRecord) {
			if r.GetResource() != nil {
				r.GetResource().Spec = []byte("9")
			}
		},
		"a resource of another namespace": func(r *storagev1.SnapshotRecord) {
			if r.GetResource() != nil {
				r.GetResource().Key.Namespace = "b"
			}
		},
		"a resource ahead": func(r *storagev1.SnapshotRecord) {
			if r.GetResource() != nil {
				r.GetResource().ModRevision = 99
			}
		},
		"a tombstone ahead": func(r *storagev1.SnapshotRecord) {
			if r.GetTombstone() != nil {
				r.GetTombstone().Revision = 99
			}
		},
		"one request": func(r *storagev1.SnapshotRecord) {
			if r.GetOutcome() != nil {
				r.GetOutcome().RequestId = make([]byte, 16)
			}
		},
		"an audit record ahead": func(r *storagev1.SnapshotRecord) {
			if r.GetAudit() != nil {
				r.GetAudit().Revision = 99
			}
		},
		"outcomes dropped in the future": func(r *storagev1.SnapshotRecord) {
			if r.GetHeader() != nil {
				r.GetHeader().HorizonMs = r.GetHeader().GetLivedMs() + 1
			}
		},
		"a restore in the future": func(r *storagev1.SnapshotRecord) {
			if r.GetStaged() != nil {
				r.GetStaged().TouchedMs = 1 << 40
			}
		},
		"a resource before all revisions": func(r *storagev1.SnapshotRecord) {
			if r.GetResource() != nil {
				r.GetResource().ModRevision = 0
			}
		},
		"a flag with an end": func(r *storagev1.SnapshotRecord) {
			if r.GetResource().GetKey().GetKind() == holdfastv1.Kind_KIND_FLAG {
				r.GetResource().EndTime = timestamppb.New(time.UnixMilli(1))
			}
		},
		"a short history": func(r *storagev1.SnapshotRecord) {
			if r.GetHeader() != nil {
				r.GetHeader().History = nil
			}
		},
		"another time": func(r *storagev1.SnapshotRecord) {
			if r.GetHeader() != nil {
				r.GetHeader().TimeMs++
			}
		},
		"another number of records": func(r *storagev1.SnapshotRecord) {
			if r.GetFooter() != nil {
				r.GetFooter().Records++
			}
		},
		"a staged size of nothing": func(r *storagev1.SnapshotRecord) {
			if r.GetStaged() != nil {
				r.GetStaged().Begin.SizeBytes = 0
			}
		},
		"no staged size": func(r *storagev1.SnapshotRecord) {
			if r.GetStaged() != nil {
				r.GetStaged().Begin.SizeBytes = 50
			}
		},
		"nothing in a record": func(r *storagev1.SnapshotRecord) {
			if r.GetAudit() != nil {
				r.Record = nil
			}
		},
	} {
		if _, err := ReadView(bytes.NewReader(resealed(t, file, edit))); !errors.Is(err, ErrCorrupt) || errors.As(err, new(*Rejection)) {
			t.Errorf("%s: %v", name, err)
		}
	}
	same := resealed(t, file, func(*storagev1.SnapshotRecord) {})
	if !bytes.Equal(same, file) {
		t.Fatal("the editor of this test changes files by itself")
	}
	newer := resealed(t, file, func(r *storagev1.SnapshotRecord) {
		if r.GetHeader() != nil {
			r.GetHeader().Format = 2
		}
	})
	if _, err := ReadView(bytes.NewReader(newer)); !errors.Is(err, ErrUnknownFormat) || !strings.Contains(err.Error(), "format 2") {
		t.Errorf("newer format: %v", err)
	}
}

func TestRestoreKeepsTheStateOnError(t *testing.T) {
	h := newHarness(t, DefaultLimits())
	h.must(put("a", document.Flag, "x", "1"))
	before := h.View()
	if err := h.Restore(io.LimitReader(bytes.NewReader(written(t, sample(t))), 300)); !errors.Is(err, ErrCorrupt) {
		t.Fatalf("restore: %v", err)
	}
	if h.View() != before {
		t.Fatal("the state has changed")
	}
}

// TestSnapshotKeepsNamesOfOtherVersions keeps names that this version of Unicode
// cannot print and another one can: a server that could not read its own snapshot
// would never start again, and servers would disagree about a backup.
func TestSnapshotKeepsNamesOfOtherVersions(t *testing.T) {
	h := newHarness(t, DefaultLimits())
	h.apply(epochOf(1, 1))
	h.must(put("a\u00a0b", document.Flag, "\U0003fffd", "1"), put("a\u00a0b", document.Mode, "gone", "1"))
	h.must(del("a\u00a0b", document.Mode, "gone"))
	requireSelfConsistent(t, h.View())
	for _, cmd := range restoring(1, written(t, h.View().Backup()), 1<<16, 2) {
		if r := h.apply(cmd); r.Rejection != nil {
			t.Fatal(r.Rejection)
		}
	}
}

// TestSnapshotBeyondALimit reads a state under limits that it just fits, and
// under such that are one less. What is too much is refused where it begins to
// be, before the rest of the file is looked at.
func TestSnapshotBeyondALimit(t *testing.T) {
	h := newHarness(t, DefaultLimits())
	h.apply(epochOf(1, 1))
	for i := range 5 {
		namespace := fmt.Sprint("n", i)
		h.must(put(namespace, document.Flag, "x", "1"), put(namespace, document.Override, "o", "1"), put(namespace, document.Mode, "m", "1"))
		h.must(del(namespace, document.Mode, "m"))
	}
	v := h.View()
	file := written(t, v)
	exact := DefaultLimits()
	exact.Namespaces, exact.Tombstones, exact.Outcomes, exact.OutcomeBytes = 5, 5, v.outcomes.len(), v.outcomeBytes
	exact.Declared, exact.DeclaredBytes, exact.Overrides, exact.OverrideBytes = 5, v.declared.bytes, 5, v.overrides.bytes
	exact.AuditBytes = v.auditBytes
	if _, err := readView(bytes.NewReader(file), &exact, Version); err != nil {
		t.Fatalf("at the limits: %v", err)
	}
	for name, c := range map[string]struct {
		lower func(*Limits)
		want  string
	}{
		"namespaces":         {func(l *Limits) { l.Namespaces-- }, ReasonTooManyNamespaces},
		"flags":              {func(l *Limits) { l.Declared-- }, ReasonTooManyResources},
		"overrides":          {func(l *Limits) { l.Overrides-- }, ReasonTooManyOverrides},
		"bytes of flags":     {func(l *Limits) { l.DeclaredBytes-- }, ReasonStateFull},
		"bytes of overrides": {func(l *Limits) { l.OverrideBytes-- }, ReasonStateFull},
		"tombstones":         {func(l *Limits) { l.Tombstones-- }, ""},
		"outcomes":           {func(l *Limits) { l.Outcomes-- }, ""},
		"bytes of outcomes":  {func(l *Limits) { l.OutcomeBytes-- }, ""},
		"audit":              {func(l *Limits) { l.AuditBytes-- }, ""},
	} {
		limits := exact
		c.lower(&limits)
		_, err := readView(bytes.NewReader(file), &limits, Version)
		var rejection *Rejection
		switch {
		case c.want == "" && !errors.Is(err, ErrCorrupt):
			t.Errorf("%s: %v", name, err)
		case c.want != "" && (!errors.As(err, &rejection) || rejection.Reason != c.want):
			t.Errorf("%s: %v, want %s", name, err, c.want)
		}
	}
}

// TestSnapshotIsStreamed checks that neither side holds more than a piece: the
// writer hands out what it has, and the reader stops where the file goes wrong.
func TestSnapshotIsStreamed(t *testing.T) {
	v := filled(t, 5_000).View()
	w := &pieces{most: 1 << 60}
	if _, err := v.WriteTo(w); err != nil || w.longest > w.n/8 {
		t.Fatalf("%d bytes in pieces of up to %d, %v", w.n, w.longest, err)
	}
	cut := &pieces{most: 100_000, err: errors.New("full")}
	if _, err := v.WriteTo(cut); !errors.Is(err, cut.err) || cut.n > 2*64<<10 {
		t.Fatalf("%d bytes after a failure at %d, %v", cut.n, cut.most, err)
	}
	file := written(t, v)
	copy(file[200_000:], make([]byte, 1_000))
	r := bytes.NewReader(file)
	if _, err := ReadView(r); !errors.Is(err, ErrCorrupt) || r.Len() < len(file)-400_000 {
		t.Fatalf("%d of %d bytes were read, %v", len(file)-r.Len(), len(file), err)
	}
}

// TestFailedWriteIsShort counts that a writer which fails at once is not told of
// all the rest: a client that goes away during a backup must not cost one.
func TestFailedWriteIsShort(t *testing.T) {
	v := filled(t, 5_000).View()
	failed := testing.AllocsPerRun(3, func() { _, _ = v.WriteTo(&pieces{err: errors.New("full")}) })
	whole := testing.AllocsPerRun(3, func() { _, _ = v.WriteTo(&pieces{most: 1 << 60}) })
	if failed > whole/10 {
		t.Errorf("%v allocations for a write that fails at once, %v for a whole one", failed, whole)
	}
}

// pieces takes bytes until there are too many.
type pieces struct {
	n, longest, most int
	err              error
}

func (p *pieces) Write(b []byte) (int, error) {
	p.longest = max(p.longest, len(b))
	if p.n += len(b); p.n > p.most {
		return 0, p.err
	}
	return len(b), nil
}

// TestSnapshotWhileApplying writes old views while newer ones are made, for the
// race detector, and checks that they do not change.
func TestSnapshotWhileApplying(t *testing.T) {
	limits := tiny()
	h := newHarness(t, limits)
	views := make(chan *View, 4)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for v := range views {
			again, err := readView(bytes.NewReader(written(t, v)), &limits, Version)
			if err != nil || again.Hash() != v.Hash() {
				t.Errorf("view at %d: %v", v.Revision(), err)
			}
		}
	}()
	for i := range 500 {
		h.now += 700
		h.write(put("a", document.Kind(1+i%4), "x", string(requestOf(uint64(i)))), del("a", document.Flag, "x"+string(rune('a'+i%7))))
		if i%10 == 0 {
			views <- h.View()
		}
	}
	close(views)
	<-done
}
