package state

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"slices"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/holdfast-dev/holdfast/internal/btree"
	"github.com/holdfast-dev/holdfast/internal/document"
	storagev1 "github.com/holdfast-dev/holdfast/proto/holdfast/storage/v1"
)

// The files of these tests have right sums: they are what somebody would make who
// knows the format, or a server with a bug.

// TestSnapshotRefusesOtherOrders moves, repeats and leaves out records, and counts
// them right. A resource that came twice would count twice and be there once.
func TestSnapshotRefusesOtherOrders(t *testing.T) {
	file := written(t, sample(t))
	records := recordsOf(t, file)
	kind := func(i int) string {
		var r storagev1.SnapshotRecord
		if err := proto.Unmarshal(records[i], &r); err != nil {
			t.Fatal(err)
		}
		return string(r.ProtoReflect().WhichOneof(r.ProtoReflect().Descriptor().Oneofs().Get(0)).Name())
	}
	refuse := func(what string, i int, edited [][]byte) {
		t.Helper()
		var last storagev1.SnapshotRecord
		if proto.Unmarshal(edited[len(edited)-1], &last) == nil && last.GetFooter() != nil {
			last.GetFooter().Records = uint64(len(edited) - 1)
			edited[len(edited)-1] = marshal(t, &last)
		}
		if _, err := ReadView(bytes.NewReader(sealed(edited))); !errors.Is(err, ErrCorrupt) {
			t.Errorf("record %d (%s) %s: %v", i, kind(i), what, err)
		}
	}
	for i := range records {
		refuse("left out", i, slices.Delete(slices.Clone(records), i, i+1))
		refuse("twice", i, slices.Insert(slices.Clone(records), i, records[i]))
		if i == 0 || kind(i) == "outcome" && kind(i-1) == "outcome" {
			continue // two outcomes of one moment may stand either way
		}
		swapped := slices.Clone(records)
		swapped[i-1], swapped[i] = swapped[i], swapped[i-1]
		refuse("moved to the front", i, swapped)
	}
}

// TestSnapshotRefusesForgedStates writes states that no commands lead to.
func TestSnapshotRefusesForgedStates(t *testing.T) {
	base := sample(t)
	view := func(change func(*View)) *View {
		v := *base
		change(&v)
		return &v
	}
	space := func(change func(*content, *btree.Edit)) *View {
		return view(func(v *View) {
			c, e := *v.Namespace("a").content, new(btree.Edit)
			change(&c, e)
			v.namespaces.Put(e, "a", &c)
		})
	}
	with := func(change func(*document.Resource)) *View {
		return space(func(c *content, e *btree.Edit) {
			_, first, _ := c.byKey.Min() // the flag
			r := *first
			change(&r)
			c.byKey.Put(e, r.Key, &r)
			c.merkle = c.merkle.Put(r.Key, r.Hash())
		})
	}
	for name, v := range map[string]*View{
		"dropped in the future":     view(func(v *View) { v.horizon = v.lived + 1 }),
		"moves in the future":       view(func(v *View) { s := *v.staged; s.touched = v.now + 1; v.staged = &s }),
		"more staged than said":     view(func(v *View) { s := *v.staged; s.size = 10; v.staged = &s }),
		"no state time":             view(func(v *View) { v.now = -1 }),
		"state time without an end": view(func(v *View) { v.now = maxTime + 1 }),
		"lived time without an end": view(func(v *View) { v.lived = maxTime + 1 }),
		"no revision left":          view(func(v *View) { v.revision = maxCounter + 1 }),
		"no epoch left":             view(func(v *View) { v.epoch.Counter = maxCounter + 1 }),
		"namespace ahead":           space(func(c *content, _ *btree.Edit) { c.modRevision = base.revision + 1 }),
		"floor ahead":               space(func(c *content, _ *btree.Edit) { c.floor = base.revision + 1 }),
		"namespace without a name":  view(func(v *View) { c := *v.Namespace("a").content; c.name = ""; v.namespaces.Put(new(btree.Edit), "", &c) }),
		"resource never made":       with(func(r *document.Resource) { r.ModRevision, r.CreateRevision = 0, 0 }),
		"resource ahead":            with(func(r *document.Resource) { r.ModRevision = 4 }),
		"changed before it was":     with(func(r *document.Resource) { r.ModRevision = r.CreateRevision - 1 }),
		"flag with an end":          with(func(r *document.Resource) { r.End = 5 }),
		"override without":          with(func(r *document.Resource) { r.Kind = document.Override }),
		"alive and dead": space(func(c *content, e *btree.Edit) {
			key := document.Key{Kind: document.Flag, Name: "x"}
			c.dead.Put(e, key, document.Tombstone{Key: key, Revision: c.modRevision})
		}),
		"tombstone ahead": space(func(c *content, e *btree.Edit) {
			key := document.Key{Kind: document.Flag, Name: "y"}
			c.dead.Put(e, key, document.Tombstone{Key: key, Revision: c.modRevision + 1})
		}),
		"tombstone before the floor": space(func(c *content, e *btree.Edit) {
			c.floor = 2
			key := document.Key{Kind: document.Flag, Name: "y"}
			c.dead.Put(e, key, document.Tombstone{Key: key, Revision: 1})
		}),
		"outcome from the future": view(func(v *View) {
			k := *v.outcomes.at(0)
			k.id[0], k.lived = 1, v.lived+1
			v.outcomes.push(&k)
		}),
		"two outcomes": view(func(v *View) {
			k := *v.outcomes.at(0)
			k.lived = v.lived
			v.outcomes.push(&k)
		}),
		"record ahead": view(func(v *View) { v.audit.push(&AuditRecord{Revision: v.revision + 1}) }),
		"record twice": view(func(v *View) { v.audit.push(v.audit.at(v.audit.len() - 1)) }),
	} {
		if _, err := ReadView(bytes.NewReader(written(t, v))); !errors.Is(err, ErrCorrupt) || strings.Contains(err.Error(), "hash") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestSnapshotRefusesStrangers reads what is no snapshot, and a record that says
// it is longer than any: nobody allocates what a length promises.
func TestSnapshotRefusesStrangers(t *testing.T) {
	file := written(t, sample(t))
	seal := func(b []byte) []byte {
		sum := sha256.Sum256(b)
		return append(b, sum[:]...)
	}
	other := bytes.Clone(file[:len(file)-sha256.Size])
	other[0] = 'H'
	if _, err := ReadView(bytes.NewReader(seal(other))); !errors.Is(err, ErrUnknownFormat) {
		t.Errorf("another magic: %v", err)
	}
	for length, want := range map[uint64]string{maxRecord: "cut off", maxRecord + 1: "a record of"} {
		long := binary.AppendUvarint([]byte(snapshotMagic), length)
		if _, err := ReadView(bytes.NewReader(seal(long))); !errors.Is(err, ErrCorrupt) || !strings.Contains(err.Error(), want) {
			t.Errorf("a record of %d bytes: %v, want %q", length, err, want)
		}
	}
}
