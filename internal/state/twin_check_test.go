package state

import (
	"bytes"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	"github.com/holdfast-dev/holdfast/internal/document"
	storagev1 "github.com/holdfast-dev/holdfast/proto/holdfast/storage/v1"
)

// check compares everything that can be seen of a view with the twin.
func (w *twin) check(t *rapid.T, v *View) {
	t.Helper()
	eq := func(what string, have, want any) {
		t.Helper()
		if reflect.DeepEqual(want, have) {
			return // most of the time, and much faster than a diff
		}
		if diff := gocmp.Diff(want, have, cmpopts.EquateEmpty()); diff != "" {
			t.Fatalf("%s (-want +have):\n%s", what, diff)
		}
	}
	eq("counters", fmt.Sprint(v.Epoch(), v.Epoch().Nonce, v.Revision(), v.Time(), v.lived, v.horizon, v.term),
		fmt.Sprint(w.epoch, w.epoch.Nonce, w.revision, w.now, w.lived, w.horizon, w.term))
	eq("resources", v.Resources(), len(w.resources))
	eq("namespaces", v.Namespaces(), slices.Sorted(maps.Keys(w.mods)))
	next, size := int64(0), 0
	for _, r := range w.resources {
		size += r.Size()
		if r.End != 0 && (next == 0 || r.End < next) {
			next = r.End
		}
	}
	end, _ := v.NextEnd()
	eq("next end", end, next)
	eq("bytes", v.Bytes(), size)
	eq("audit", slices.Collect(v.Audit(1<<62)), reversed(w.audit))
	eq("audit dropped", v.AuditDroppedThrough(), w.dropped)
	eq("outcomes", v.Outcomes(), len(w.outcomes))
	for _, name := range []string{"a", "b", "c", "d"} {
		w.checkNamespace(t, eq, v, name)
	}
}

func (w *twin) checkNamespace(t *rapid.T, eq func(string, any, any), v *View, name string) {
	n := v.Namespace(name)
	in := func(all map[place]*document.Resource, newerThan uint64) []*document.Resource {
		var some []*document.Resource
		for p, r := range all {
			if p.namespace == name && r.ModRevision > newerThan {
				some = append(some, r)
			}
		}
		slices.SortFunc(some, byKey)
		return some
	}
	all := in(w.resources, 0)
	eq(name, resourcesOf(n), all)
	eq(name+" length", n.Len(), len(all))
	eq(name+" revision", n.ModRevision(), w.mods[name])
	eq(name+" root", n.Root(), document.Build(func(yield func(document.Key, [32]byte) bool) {
		for _, r := range all {
			if !yield(r.Key, r.Hash()) {
				return
			}
		}
	}).Root())
	for from := range w.revision + 3 {
		d, ok := n.Since(from)
		eq(fmt.Sprintf("%s since %d known", name, from), ok, from >= w.floors[name] && from <= w.revision)
		if !ok {
			continue
		}
		puts := slices.Clone(d.Puts)
		slices.SortFunc(puts, byKey)
		eq(fmt.Sprintf("%s puts since %d", name, from), puts, in(w.resources, from))
		var want []document.Tombstone
		for _, g := range w.tombstones {
			if g.namespace == name && g.revision > from {
				want = append(want, document.Tombstone{Key: g.Key, Revision: g.revision, Ended: g.ended})
			}
		}
		eq(fmt.Sprintf("%s deletes since %d", name, from), d.Deletes, want)
		eq("root", d.Root, n.Root())
		eq("to", d.To, w.revision)
		base := n.Base(from)
		shared, ok := n.Since(base)
		if !ok || base > from || base != n.Base(base) {
			t.Fatalf("base of %d is %d, known %v, base of that %d", from, base, ok, n.Base(base))
		}
		eq("shared puts", shared.Puts, d.Puts)
		eq("shared deletes", shared.Deletes, d.Deletes)
		if content, ok := w.contents[from]; ok {
			eq(fmt.Sprintf("%s from %d", name, from), in(patched(content, name, d), 0), all)
		}
	}
}

func patched(content map[place]*document.Resource, name string, d document.Delta) map[place]*document.Resource {
	next := maps.Clone(content)
	for _, r := range d.Puts {
		next[place{name, r.Key}] = r
	}
	for _, t := range d.Deletes {
		delete(next, place{name, t.Key})
	}
	return next
}

func byKey(a, b *document.Resource) int { return a.Compare(b.Key) }

func reversed[T any](s []T) []T {
	s = slices.Clone(s)
	slices.Reverse(s)
	return s
}

// TestTwin runs random commands against the twin, through snapshots, and with
// restores of backups that were taken on the way.
func TestTwin(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		limits := tiny()
		m, w := newMachine(&limits), newTwin(limits)
		type backup struct {
			file []byte
			twin *twin
		}
		var backups []backup
		now, term := int64(1_000_000), uint64(1)
		for index := uint64(1); index <= 50; index++ {
			now += rapid.Int64Range(-500, 3_000).Draw(t, "elapsed")
			if rapid.IntRange(0, 9).Draw(t, "election") == 0 {
				term++
				now += rapid.Int64Range(-3_600_000, 3_600_000).Draw(t, "jump")
			}
			switch rapid.IntRange(0, 11).Draw(t, "action") {
			case 0:
				backups = append(backups, backup{written(t, m.View().Backup()), w.clone()})
			case 1:
				v := m.View()
				m = newMachine(&limits)
				if err := m.Restore(bytes.NewReader(written(t, v))); err != nil {
					t.Fatalf("restore: %v", err)
				}
			case 2:
				if len(backups) == 0 {
					continue
				}
				b := rapid.SampledFrom(backups).Draw(t, "backup")
				restoreBoth(t, m, w, b.file, b.twin, term, now)
			}
			cmd := drawCommand(t, w.revision+1)
			cmd.TimeMs = now
			compareResults(t, m, w, index, term, cmd)
			w.check(t, m.View())
		}
	})
}

func compareResults(t *rapid.T, m *Machine, w *twin, index, term uint64, cmd *storagev1.Command) {
	planned, refused := m.View().Plan(cmd)
	results, err := m.Apply([]Entry{{Index: index, Term: term, Data: marshal(t, cmd)}})
	if err != nil {
		t.Fatalf("apply: %v", err)
	}
	want := w.apply(term, proto.CloneOf(cmd))
	want.Index = index
	ignore := cmpopts.IgnoreFields(Rejection{}, "Message")
	if diff := gocmp.Diff(want, results[0], cmpopts.EquateEmpty(), ignore); diff != "" {
		t.Fatalf("result of %v (-want +have):\n%s", cmd, diff)
	}
	known := results[0].Duplicate || reason(results[0]) == ReasonRequestTooOld || reason(results[0]) == ReasonRequestIDReused
	if cmd.GetTransaction() == nil || known {
		return
	}
	plan := Outcome{Revision: results[0].Revision, Changes: typesOf(planned), Rejection: refused}
	if diff := gocmp.Diff(plan, results[0].Outcome, cmpopts.EquateEmpty(), ignore); diff != "" {
		t.Fatalf("plan of %v (-planned +done):\n%s", cmd, diff)
	}
	for _, c := range planned {
		have := m.View().Namespace(c.Namespace).Get(c.Key)
		if diff := gocmp.Diff(c.After, have); diff != "" {
			t.Fatalf("planned (-planned +done):\n%s", diff)
		}
	}
}

// restoreBoth restores a backup into the machine and the twin.
func restoreBoth(t *rapid.T, m *Machine, w *twin, file []byte, backup *twin, term uint64, now int64) {
	nonce := rapid.Uint64().Draw(t, "restore nonce")
	var last Result
	for _, cmd := range restoring(1, file, 1_500, nonce) {
		cmd.TimeMs = now
		results, err := m.Apply([]Entry{{Term: term, Data: marshal(t, cmd)}})
		if err != nil {
			t.Fatalf("apply: %v", err)
		}
		last = results[0]
		stamp := tick()
		stamp.TimeMs = now
		w.apply(term, stamp)
	}
	if !backup.epoch.HasLineage() {
		if reason(last) != ReasonRestoreCorrupt {
			t.Fatalf("a backup of no cluster: %v", last.Rejection)
		}
		return
	}
	if last.Rejection != nil {
		t.Fatalf("restore: %v", last.Rejection)
	}
	w.restore(backup, nonce, "bob", "restored")
}
