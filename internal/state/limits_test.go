package state

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"strings"
	"testing"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"github.com/holdfast-dev/holdfast/internal/document"
	storagev1 "github.com/holdfast-dev/holdfast/proto/holdfast/storage/v1"
)

func TestLimitsRefuse(t *testing.T) {
	long := strings.Repeat("x", 700)
	for name, c := range map[string]struct {
		before, step []*storagev1.Step
		want         string
	}{
		"namespaces": {
			[]*storagev1.Step{put("a", document.Flag, "x", "1"), put("b", document.Flag, "x", "1"), put("c", document.Flag, "x", "1")},
			[]*storagev1.Step{put("d", document.Flag, "x", "1")},
			ReasonTooManyNamespaces,
		},
		"overrides": {
			[]*storagev1.Step{put("a", document.Override, "x", "1"), put("a", document.Override, "y", "1"), put("a", document.Override, "z", "1")},
			[]*storagev1.Step{put("a", document.Override, "w", "1")},
			ReasonTooManyOverrides,
		},
		"bytes": {
			[]*storagev1.Step{put("a", document.Flag, "x", long)},
			[]*storagev1.Step{put("a", document.Flag, "y", long)},
			ReasonStateFull,
		},
		"bytes of overrides": {nil, []*storagev1.Step{put("a", document.Override, "y", long)}, ReasonStateFull},
		"steps": {nil, []*storagev1.Step{
			del("a", document.Flag, "1"), del("a", document.Flag, "2"), del("a", document.Flag, "3"),
			del("a", document.Flag, "4"), del("a", document.Flag, "5"),
		}, ReasonCommandTooLarge},
		"bytes of a command": {nil, []*storagev1.Step{put("a", document.Flag, "x", strings.Repeat("x", 5_000))}, ReasonCommandTooLarge},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHarness(t, tiny())
			if c.before != nil {
				h.must(c.before...)
			}
			before := h.View().Revision()
			if r := h.write(c.step...); reason(r) != c.want || h.View().Revision() != before {
				t.Fatalf("%q, want %q: %v", reason(r), c.want, r.Rejection)
			}
		})
	}
}

func TestTooManyResources(t *testing.T) {
	h := newHarness(t, tiny())
	for i := range 6 {
		h.must(put("a", document.Flag, fmt.Sprint(i), "1"))
	}
	if r := h.write(put("a", document.Policy, "x", "1")); reason(r) != ReasonTooManyResources {
		t.Fatalf("%v", r.Rejection)
	}
	h.must(put("a", document.Override, "x", "1")) // a full state can still be operated
	h.must(del("a", document.Flag, "1"), put("a", document.Policy, "x", "1"))
}

func TestInvalidCommands(t *testing.T) {
	withTTL := put("a", document.Flag, "x", "1")
	withTTL.TtlMs = 1
	withoutTTL := put("a", document.Override, "x", "1")
	withoutTTL.TtlMs = 0
	forEver := put("a", document.Override, "x", "1")
	forEver.TtlMs = math.MaxInt64
	deleted := del("a", document.Override, "x")
	deleted.TtlMs = 1
	labels := put("a", document.Flag, "x", "1")
	labels.Labels = []*storagev1.Label{{Key: "b"}, {Key: "a"}}
	late := transaction(requestOf(1), put("a", document.Flag, "x", "1"))
	late.TimeMs = math.MaxInt64
	nameless := transaction(nil, put("a", document.Flag, "x", "1"))
	for name, cmd := range map[string]*storagev1.Command{
		"no steps":           transaction(requestOf(1)),
		"no key":             transaction(requestOf(1), &storagev1.Step{}),
		"unknown kind":       transaction(requestOf(1), put("a", 5, "x", "1")),
		"no namespace":       transaction(requestOf(1), put("", document.Flag, "x", "1")),
		"no name":            transaction(requestOf(1), put("a", document.Flag, "", "1")),
		"control character":  transaction(requestOf(1), put("a", document.Flag, "x\x00", "1")),
		"long name":          transaction(requestOf(1), put("a", document.Flag, strings.Repeat("x", 254), "1")),
		"flag with an end":   transaction(requestOf(1), withTTL),
		"override without":   transaction(requestOf(1), withoutTTL),
		"override for ever":  transaction(requestOf(1), forEver),
		"deletion with end":  transaction(requestOf(1), deleted),
		"labels not sorted":  transaction(requestOf(1), labels),
		"twice the same":     transaction(requestOf(1), del("a", document.Flag, "x"), put("a", document.Flag, "x", "1")),
		"no request id":      nameless,
		"short request id":   transaction([]byte{1}, put("a", document.Flag, "x", "1")),
		"beyond the year":    late,
		"lineage of 3 bytes": {Version: 1, Body: &storagev1.Command_NewEpoch{NewEpoch: &storagev1.NewEpoch{Lineage: []byte{1, 2, 3}}}},
	} {
		m := New()
		results, err := m.Apply([]Entry{{Index: 1, Term: 1, Data: marshal(t, cmd)}})
		if err != nil || reason(results[0]) != ReasonInvalidCommand {
			t.Errorf("%s: %v %v", name, results, err)
		}
	}
}

// TestFatalEntries checks that a machine stops at what it cannot understand,
// before it, and not at what comes earlier in the batch.
func TestFatalEntries(t *testing.T) {
	good := marshal(t, transaction(requestOf(1), put("a", document.Flag, "x", "1")))
	newer := tick()
	newer.Version = Version + 1
	body := protowire.AppendTag(marshal(t, &storagev1.Command{Version: 1}), 18, protowire.BytesType)
	body = protowire.AppendBytes(body, nil)
	step := put("a", document.Flag, "y", "1")
	step.ProtoReflect().SetUnknown(protowire.AppendVarint(protowire.AppendTag(nil, 99, protowire.VarintType), 1))
	for name, c := range map[string]struct {
		data []byte
		want error
	}{
		"garbage":       {[]byte{0xff, 1, 2}, ErrUndecodable},
		"nothing":       {nil, ErrUndecodable},
		"no version":    {marshal(t, &storagev1.Command{Body: tick().Body}), ErrUndecodable},
		"no body":       {marshal(t, &storagev1.Command{Version: 1}), ErrUndecodable},
		"newer version": {marshal(t, newer), ErrUnknownCommand},
		"newer body":    {body, ErrUnknownCommand},
		"newer field":   {marshal(t, transaction(requestOf(2), step)), ErrUnknownCommand},
	} {
		m := New()
		results, err := m.Apply([]Entry{{Index: 1, Term: 1, Data: good}, {Index: 2, Term: 1, Data: c.data}, {Index: 3, Term: 1, Data: good}})
		if !errors.Is(err, c.want) || !strings.Contains(err.Error(), "entry 2") {
			t.Errorf("%s: %v", name, err)
		}
		if len(results) != 1 || m.View().Revision() != 1 || m.View().Index() != 1 {
			t.Errorf("%s: %d results, revision %d, index %d", name, len(results), m.View().Revision(), m.View().Index())
		}
	}
}

// TestAuditRecordIsBounded deletes much with a short command.
func TestAuditRecordIsBounded(t *testing.T) {
	limits := DefaultLimits()
	h := newHarness(t, limits)
	spec := strings.Repeat("x", 400<<10)
	var steps []*storagev1.Step
	for i := range 8 {
		name := fmt.Sprint(i)
		h.must(put("a", document.Flag, name, spec))
		steps = append(steps, del("a", document.Flag, name))
	}
	h.must(steps...)
	for record := range h.View().Audit(math.MaxUint64) {
		if size := record.size(); size > limits.AuditRecordBytes || len(record.Changes) != 8 || len(record.Changes[0].Before) == 0 {
			t.Fatalf("%d bytes, %d changes", size, len(record.Changes))
		}
		break
	}
	requireSelfConsistent(t, h.View())
}

// TestDefinitionsDoNotMatter replays a log of definitions that no validator
// would have let pass: the state knows bytes. Servers whose validators differ
// agree all the same.
func TestDefinitionsDoNotMatter(t *testing.T) {
	h, other := newHarness(t, DefaultLimits()), newHarness(t, DefaultLimits())
	for i, spec := range []string{"", "{", "\x00\xff", `{"a":1,"a":2}`, "[]", strings.Repeat("[", 10_000)} {
		cmd := transaction(requestOf(uint64(i)), put("a", document.Flag, fmt.Sprint(i), spec))
		if r := h.apply(proto.CloneOf(cmd)); r.Rejection != nil {
			t.Fatal(r.Rejection)
		}
		other.apply(cmd)
	}
	if h.View().Hash() != other.View().Hash() || !bytes.Equal(written(t, h.View()), written(t, other.View())) {
		t.Fatal("the states differ")
	}
	requireSelfConsistent(t, h.View())
}

// TestMessagesDoNotMatter checks that the wording of a rejection reaches nothing
// that servers compare or evict by.
func TestMessagesDoNotMatter(t *testing.T) {
	a := &kept{outcome: Outcome{Rejection: &Rejection{Reason: "R", Message: "one wording"}}}
	b := &kept{outcome: Outcome{Rejection: &Rejection{Reason: "R", Message: "another, longer wording"}}}
	if hashOutcome([32]byte{}, a) != hashOutcome([32]byte{}, b) || a.size() != b.size() {
		t.Fatal("the wording counts")
	}
}

func TestAscend(t *testing.T) {
	h := newHarness(t, DefaultLimits())
	for _, name := range []string{"a", "ab", "abc", "b"} {
		h.must(put("n", document.Flag, name, "1"), put("n", document.Mode, name, "1"))
	}
	list := func(kind document.Kind, prefix, after string) string {
		var names []string
		h.View().Namespace("n").Ascend(kind, prefix, after, func(r *document.Resource) bool {
			names = append(names, r.Name)
			return r.Name != "abc"
		})
		return strings.Join(names, " ")
	}
	for _, c := range []struct {
		kind          document.Kind
		prefix, after string
		want          string
	}{
		{document.Flag, "", "", "a ab abc"},
		{document.Flag, "", "ab", "abc"},
		{document.Flag, "", "aa", "ab abc"},
		{document.Flag, "", "abc", "b"},
		{document.Flag, "b", "", "b"},
		{document.Flag, "b", "a", "b"},
		{document.Flag, "a", "b", ""},
		{document.Flag, "ab", "ab", "abc"},
		{document.Policy, "", "", ""},
		{0, "b", "", "b b"},
		{0, "", "abc", "b b"},
	} {
		if have := list(c.kind, c.prefix, c.after); have != c.want {
			t.Errorf("%v prefix %q after %q: %q, want %q", c.kind, c.prefix, c.after, have, c.want)
		}
	}
	if n := h.View().Namespace("none"); n.Len() != 0 || n.Root() != (document.Root{}) || n.Name() != "none" {
		t.Error("a namespace that does not exist is not empty")
	}
}

// TestFloor drops tombstones and looks at the revisions around the floor.
func TestFloor(t *testing.T) {
	limits := DefaultLimits()
	limits.Tombstones = 1
	h := newHarness(t, limits)
	h.must(put("a", document.Flag, "old", "1"), put("a", document.Flag, "x", "1"), put("a", document.Flag, "y", "1"))
	h.must(put("b", document.Flag, "x", "1"))
	h.must(del("a", document.Flag, "x"))
	h.must(del("a", document.Flag, "y")) // drops the tombstone of revision 3
	a, b := h.View().Namespace("a"), h.View().Namespace("b")
	for from, want := range []bool{false, false, false, true, true, false} {
		if _, ok := a.Since(uint64(from)); ok != want {
			t.Errorf("since %d: %v, want %v", from, ok, want)
		}
		if base := a.Base(uint64(from)); base != uint64(from) {
			t.Errorf("base of %d is %d", from, base)
		}
	}
	if d, ok := a.Since(3); !ok || len(d.Puts) != 0 || len(d.Deletes) != 1 || d.Deletes[0].Name != "y" {
		t.Errorf("since the floor: %+v %v", d, ok)
	}
	if _, ok := b.Since(0); !ok || b.Base(1) != 0 || b.Base(4) != 2 {
		t.Errorf("the floor of one namespace is that of another: base %d %d", b.Base(1), b.Base(4))
	}
}

// TestBaseWithoutOlderResources asks for the base where nothing lies before it.
func TestBaseWithoutOlderResources(t *testing.T) {
	limits := DefaultLimits()
	limits.Tombstones = 1
	h := newHarness(t, limits)
	h.must(put("a", document.Flag, "x", "1"), put("a", document.Flag, "y", "1"))
	h.must(del("a", document.Flag, "x"))
	h.must(del("a", document.Flag, "y"))
	h.must(put("b", document.Flag, "z", "1"), put("a", document.Flag, "y", "1"))
	if n := h.View().Namespace("a"); n.Base(3) != 2 {
		t.Errorf("base of 3 is %d, the floor is 2", n.Base(3))
	}
}

// TestAllOverridesEndAtOnce makes the longest record that there can be, and
// checks that it can be read again.
func TestAllOverridesEndAtOnce(t *testing.T) {
	limits := DefaultLimits()
	h := newHarness(t, limits)
	namespace, name := strings.Repeat("n", document.MaxName), strings.Repeat("o", document.MaxName-6)
	for n, full := 0, false; !full; {
		var steps []*storagev1.Step
		for range 500 {
			steps = append(steps, put(namespace, document.Override, fmt.Sprintf("%s%06d", name, n), "1"))
			n++
		}
		full = h.write(steps...).Rejection != nil
	}
	before := h.View().Overrides()
	h.now += 60_000
	if r := h.apply(expire()); h.View().Overrides() != 0 || r.Revision != h.View().Revision() || len(r.Touched) != 1 {
		t.Fatalf("%d of %d overrides are left: %+v", h.View().Overrides(), before, r)
	}
	for record := range h.View().Audit(math.MaxUint64) {
		if len(record.Changes) != before || record.Actor != "holdfast" || record.Reason != "ended" || record.Changes[0].Type != document.Ended {
			t.Fatalf("%d changes by %s: %s", len(record.Changes), record.Actor, record.Reason)
		}
		break
	}
	requireSelfConsistent(t, h.View())
}
