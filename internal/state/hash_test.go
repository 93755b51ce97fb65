package state

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/holdfast-dev/holdfast/internal/btree"
	"github.com/holdfast-dev/holdfast/internal/document"
	storagev1 "github.com/holdfast-dev/holdfast/proto/holdfast/storage/v1"
	holdfastv1 "github.com/holdfast-dev/holdfast/proto/holdfast/v1"
)

// TestHashCoversTheState changes each part of a state by itself. A part that the
// hash left out could differ between servers without anybody noticing.
func TestHashCoversTheState(t *testing.T) {
	base := sample(t)
	edited := func(c *content) *View {
		v, e := *base, new(btree.Edit)
		v.namespaces.Put(e, btree.Text(c.name), c)
		return &v
	}
	space := func(change func(*content, *btree.Edit)) func() *View {
		return func() *View {
			c := *base.Namespace("a").content
			change(&c, new(btree.Edit))
			return edited(&c)
		}
	}
	view := func(change func(*View)) func() *View {
		return func() *View {
			v := *base
			change(&v)
			return &v
		}
	}
	seen := map[[32]byte]string{base.Hash(): "the state itself"}
	for name, changed := range map[string]func() *View{
		"lineage":           view(func(v *View) { v.epoch.Lineage[0]++ }),
		"epoch counter":     view(func(v *View) { v.epoch.Counter++ }),
		"epoch nonce":       view(func(v *View) { v.epoch.Nonce++ }),
		"revision":          view(func(v *View) { v.revision++ }),
		"state time":        view(func(v *View) { v.now++ }),
		"lived time":        view(func(v *View) { v.lived++ }),
		"horizon":           view(func(v *View) { v.horizon++ }),
		"term":              view(func(v *View) { v.term++ }),
		"history":           view(func(v *View) { v.history[31]++ }),
		"audit dropped":     view(func(v *View) { v.auditDropped++ }),
		"an outcome less":   view(func(v *View) { v.outcomes.pop() }),
		"a record less":     view(func(v *View) { v.audit.pop() }),
		"no restore":        view(func(v *View) { v.staged = nil }),
		"another restore":   view(func(v *View) { s := *v.staged; s.id[0]++; v.staged = &s }),
		"restore size":      view(func(v *View) { s := *v.staged; s.size++; v.staged = &s }),
		"restore sum":       view(func(v *View) { s := *v.staged; s.want[0]++; v.staged = &s }),
		"restore progress":  view(func(v *View) { s := *v.staged; s.touched++; v.staged = &s }),
		"staged bytes":      view(func(v *View) { v.staged = v.staged.append([]byte{0}, v.staged.touched) }),
		"other staged":      view(func(v *View) { v.staged = v.staged.append([]byte{1}, v.staged.touched) }),
		"namespace less":    view(func(v *View) { v.namespaces.Delete(new(btree.Edit), "b") }),
		"namespace renamed": func() *View { c := *base.Namespace("a").content; c.name = "c"; return edited(&c) },
		"root": space(func(c *content, _ *btree.Edit) {
			c.merkle = c.merkle.Put(document.Key{Kind: document.Flag}, [32]byte{1})
		}),
		"mod revision": space(func(c *content, _ *btree.Edit) { c.modRevision++ }),
		"floor":        space(func(c *content, _ *btree.Edit) { c.floor++ }),
		"a tombstone more": space(func(c *content, e *btree.Edit) {
			c.dead.Put(e, document.Key{Kind: document.Flag, Name: "d"}, document.Tombstone{})
		}),
		"a resource more": space(func(c *content, e *btree.Edit) {
			c.byKey.Put(e, document.Key{Kind: document.Flag, Name: "d"}, &document.Resource{})
		}),
	} {
		hash := changed().Hash()
		if other, ok := seen[hash]; ok {
			t.Errorf("the hash is the same with another %s as with %s", name, other)
		}
		seen[hash] = name
	}
}

// TestHistoryCoversOutcomesAndAudit writes the same with one thing different each
// time; the resources come out the same.
func TestHistoryCoversOutcomesAndAudit(t *testing.T) {
	run := func(edit func(*storagev1.Command)) [32]byte {
		h := newHarness(t, DefaultLimits())
		cmd := transaction(requestOf(1), put("a", document.Flag, "x", "1"))
		edit(cmd)
		h.apply(cmd)
		h.must(del("a", document.Flag, "x"))
		return h.View().history
	}
	seen := map[[32]byte]string{}
	for name, edit := range map[string]func(*storagev1.Command){
		"nothing":       func(*storagev1.Command) {},
		"request":       func(cmd *storagev1.Command) { cmd.RequestId = requestOf(2) },
		"actor":         func(cmd *storagev1.Command) { cmd.Actor.Name = "bob" },
		"unverified":    func(cmd *storagev1.Command) { cmd.Actor.Verified = false },
		"nobody":        func(cmd *storagev1.Command) { cmd.Actor = &holdfastv1.Actor{} },
		"reason":        func(cmd *storagev1.Command) { cmd.Reason = "why not" },
		"definition":    func(cmd *storagev1.Command) { cmd.GetTransaction().Steps[0].Spec = []byte("2") },
		"namespace":     func(cmd *storagev1.Command) { cmd.GetTransaction().Steps[0].Key.Namespace = "b" },
		"kind":          func(cmd *storagev1.Command) { cmd.GetTransaction().Steps[0].Key.Kind++ },
		"name":          func(cmd *storagev1.Command) { cmd.GetTransaction().Steps[0].Key.Name = "y" },
		"precondition":  func(cmd *storagev1.Command) { expecting(cmd.GetTransaction().Steps[0], 0) },
		"rejected":      func(cmd *storagev1.Command) { expecting(cmd.GetTransaction().Steps[0], 7) },
		"rejected also": func(cmd *storagev1.Command) { expecting(cmd.GetTransaction().Steps[0], 8) },
		"nothing to do": func(cmd *storagev1.Command) {
			cmd.GetTransaction().Steps = []*storagev1.Step{del("a", document.Flag, "x")}
		},
	} {
		hash := run(edit)
		if other, ok := seen[hash]; ok {
			t.Errorf("%s and %s have the same history", name, other)
		}
		seen[hash] = name
	}
}

// TestFormatsArePinned fails when the hash of a state changes, or when a snapshot
// that an earlier version has written is read as anything else: servers of two
// versions in one cluster would fence each other, and backups would be lost. The
// file is what written(sample) was when the format began. A change of the hash
// needs another hashScheme in package node, one of the file another
// snapshotFormat beside this one.
func TestFormatsArePinned(t *testing.T) {
	const want = "158dcb2d2d19a0d19a87bb6f1bc1928b8906f7724dd7e982811d8e978d156760"
	if have := fmt.Sprintf("%x", sample(t).Hash()); have != want {
		t.Errorf("the hash is %s, was %s", have, want)
	}
	file, err := os.Open(filepath.Join("testdata", "format1.snapshot"))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	v, err := ReadView(file)
	if err != nil || fmt.Sprintf("%x", v.Hash()) != want {
		t.Errorf("a snapshot of format 1: %v", err)
	}
}
