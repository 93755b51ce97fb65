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

// TestExactlyAtTheLimit reaches each limit, which is allowed, and goes beyond it by
// the least there is, which is not.
func TestExactlyAtTheLimit(t *testing.T) {
	limits := tiny()
	fitting := func(kind document.Kind, bytes int) *storagev1.Step {
		empty := &document.Resource{Key: document.Key{Kind: kind, Name: "x"}, Actor: "ann", Reason: "because"}
		return put("a", kind, "x", strings.Repeat("s", bytes-empty.Size()))
	}
	lasting := func(ms int64) *storagev1.Step {
		s := put("a", document.Override, "x", "1")
		s.TtlMs = ms
		return s
	}
	deletions := func(n int) (steps []*storagev1.Step) {
		for i := range n {
			steps = append(steps, del("a", document.Flag, fmt.Sprint(i)))
		}
		return steps
	}
	begin := func(size uint64) *storagev1.Command {
		cmd := restoring(1, []byte("x"), 1, 1)[0]
		cmd.GetRestoreBegin().SizeBytes = size
		return cmd
	}
	write := func(steps ...*storagev1.Step) *storagev1.Command { return transaction(requestOf(1), steps...) }
	long := func(bytes int) *storagev1.Command {
		cmd := write(put("a", document.Flag, "x", "1"))
		cmd.Version, cmd.TimeMs, cmd.Reason = Version, 1_000_000, strings.Repeat("r", 1_000)
		cmd.Reason = strings.Repeat("r", 1_000+bytes-proto.Size(cmd))
		return cmd
	}
	// Bytes of the state would come in the way of a long command.
	wide := limits
	wide.DeclaredBytes = 1 << 20

	for name, c := range map[string]struct {
		limits Limits
		most   *storagev1.Command
		beyond *storagev1.Command
		want   string
	}{
		"steps":              {limits, write(deletions(limits.Steps)...), write(deletions(limits.Steps + 1)...), ReasonCommandTooLarge},
		"command":            {wide, long(limits.Command), long(limits.Command + 1), ReasonCommandTooLarge},
		"bytes":              {limits, write(fitting(document.Mode, limits.DeclaredBytes)), write(fitting(document.Mode, limits.DeclaredBytes+1)), ReasonStateFull},
		"bytes of overrides": {limits, write(fitting(document.Override, limits.OverrideBytes)), write(fitting(document.Override, limits.OverrideBytes+1)), ReasonStateFull},
		"time to live":       {limits, write(lasting(limits.TTL.Milliseconds())), write(lasting(limits.TTL.Milliseconds() + 1)), ReasonInvalidCommand},
		"name":               {limits, write(put("a", document.Flag, strings.Repeat("n", 253), "1")), write(put("a", document.Flag, strings.Repeat("n", 254), "1")), ReasonInvalidCommand},
		"namespace": {
			limits, write(put(strings.Repeat("n", 253), document.Flag, "x", "1")), write(put(strings.Repeat("n", 254), document.Flag, "x", "1")), ReasonInvalidCommand,
		},
		"backup": {limits, begin(limits.BackupBytes), begin(limits.BackupBytes + 1), ReasonRestoreTooLarge},
	} {
		if r := newHarness(t, c.limits).apply(c.most); r.Rejection != nil {
			t.Errorf("%s: at the limit: %v", name, r.Rejection)
		}
		h := newHarness(t, c.limits)
		before := h.View()
		if r := h.apply(c.beyond); reason(r) != c.want || essence(h.View()) != essence(before) {
			t.Errorf("%s: beyond the limit: %q, want %q: %v", name, reason(r), c.want, r.Rejection)
		}
	}
}

// TestLoweredLimits goes on from a snapshot of a state with higher limits, as after
// an upgrade that lowers them: nothing is lost, nothing can be added, and what
// makes it smaller is not refused.
func TestLoweredLimits(t *testing.T) {
	rich := newHarness(t, DefaultLimits())
	for i := range 10 {
		rich.must(put("a", document.Flag, fmt.Sprint(i), strings.Repeat("1", 300)), put("a", document.Override, fmt.Sprint(i), "1"), put(fmt.Sprint("n", i), document.Mode, "m", "1"))
	}
	h := newHarness(t, tiny())
	if err := h.Restore(bytes.NewReader(written(t, rich.View()))); err != nil || h.View().Hash() != rich.View().Hash() {
		t.Fatalf("restore: %v", err)
	}
	h.index, h.now = rich.index, rich.now+60_000
	for want, s := range map[string]*storagev1.Step{
		ReasonTooManyNamespaces: put("new", document.Override, "x", "1"),
		ReasonTooManyResources:  put("a", document.Flag, "x", "1"),
		ReasonTooManyOverrides:  put("a", document.Override, "x", "1"),
		ReasonStateFull:         put("a", document.Flag, "0", strings.Repeat("1", 301)),
	} {
		if r := h.write(s); reason(r) != want {
			t.Errorf("%q, want %q: %v", reason(r), want, r.Rejection)
		}
		h.now += 2_000 // or outcomes are dropped so young that the next write may be a retry
	}
	h.must(put("a", document.Flag, "0", "1"))
	h.now += 2_000
	h.must(del("a", document.Flag, "1"), del("n1", document.Mode, "m"), del("a", document.Override, "1"))
	if v, l := h.View(), tiny(); v.outcomes.len() > l.Outcomes || v.auditBytes > l.AuditBytes || v.graves.Len() > l.Tombstones || v.Resources() != 27 {
		t.Errorf("%d outcomes, %d bytes of audit, %d tombstones, %d resources", v.outcomes.len(), v.auditBytes, v.graves.Len(), v.Resources())
	}
}

// TestDefaultLimits states what docs and proposers count on.
func TestDefaultLimits(t *testing.T) {
	l := DefaultLimits()
	if l.Declared != 100_000 || l.Command != 512<<10 || l.ChunkBytes > l.Command-1024 || l.DeclaredBytes+l.OverrideBytes != 64<<20 {
		t.Errorf("%+v", l)
	}
}

// TestEveryStateCanBeRestored checks that a state within its limits has a backup
// within the limit of backups, whatever it is full of: a record is no longer than
// what it counts, and the rest is numbered.
func TestEveryStateCanBeRestored(t *testing.T) {
	l := DefaultLimits()
	long := strings.Repeat("n", document.MaxName)
	record := func(r *storagev1.SnapshotRecord) int {
		n := proto.Size(r)
		return n + protowire.SizeVarint(uint64(n))
	}
	resource := func(r *document.Resource) int {
		return record(&storagev1.SnapshotRecord{Record: &storagev1.SnapshotRecord_Resource{Resource: r.Proto("")}})
	}
	for _, name := range []string{"x", long} {
		r := &document.Resource{
			Key:            document.Key{Kind: document.Override, Name: name},
			CreateRevision: maxCounter, ModRevision: maxCounter, Version: maxCounter,
			CreateTime: maxTime - 1, UpdateTime: maxTime - 1, End: maxTime - 1, ActorVerified: true,
		}
		for labels := range 3_000 {
			if labels%100 == 0 && resource(r) > r.Size() {
				t.Fatalf("%d labels: a record of %d bytes counts %d", labels, resource(r), r.Size())
			}
			r.Labels = append(r.Labels, document.Label{Key: fmt.Sprintf("%04d", labels)})
			r.Actor, r.Reason, r.Spec = r.Actor+"a", r.Reason+"r", append(r.Spec, 's')
		}
	}

	audit := &AuditRecord{Revision: maxCounter, Time: maxTime - 1, Actor: "a", ActorVerified: true, Reason: "r", RequestID: make([]byte, 16)}
	for range 1_000 {
		audit.Changes = append(audit.Changes, AuditChange{Namespace: long, Key: document.Key{Kind: document.Override, Name: long}, Type: document.Ended, Before: []byte("b"), After: []byte("a")})
	}
	if have := record(&storagev1.SnapshotRecord{Record: &storagev1.SnapshotRecord_Audit{Audit: audit.Proto()}}); have > audit.size() {
		t.Errorf("an audit record of %d bytes counts %d", have, audit.size())
	}

	// The longest messages are those with two names in them.
	h := newHarness(t, l)
	h.must(put(long, document.Override, long, "1"))
	outcomes := 0
	for _, cmd := range []*storagev1.Command{
		transaction(requestOf(1), del(long, document.Flag, long)),
		transaction(requestOf(2), put(long, document.Override, long, "1"), put(long, document.Override, long, "1")),
		transaction(requestOf(3), expecting(put(long, document.Override, long, "1"), 0)),
		transaction(requestOf(4), expecting(put(long, document.Override, long, "1"), math.MaxUint64)),
		transaction(requestOf(5), expecting(put(long, document.Override, "y", "1"), math.MaxUint64)),
	} {
		r := h.apply(cmd)
		if r.Rejection != nil {
			r.Rejection.Message += strings.Repeat("9", 19) // the revision may be larger
			r.Rejection.Actual = maxCounter
		}
		r.Revision = maxCounter
		k := &kept{lived: maxTime, outcome: r.Outcome}
		n := record(&storagev1.SnapshotRecord{Record: &storagev1.SnapshotRecord_Outcome{Outcome: &storagev1.KeptOutcome{
			RequestId: k.id[:], BodySha256: k.body[:], LivedMs: k.lived, Outcome: k.outcome.Proto(),
		}}})
		if n > k.size() {
			t.Errorf("%v: an outcome of %d bytes counts %d", r.Rejection, n, k.size())
		}
		outcomes = max(outcomes, l.OutcomeBytes/k.size()*n)
	}

	tombstone := document.Tombstone{Key: document.Key{Kind: document.Override, Name: long}, Revision: maxCounter, Ended: true}
	tombstones := l.Tombstones * record(&storagev1.SnapshotRecord{Record: &storagev1.SnapshotRecord_Tombstone{Tombstone: tombstone.Proto("")}})
	namespaces := l.Namespaces * (document.MaxName + 64)
	if worst := l.DeclaredBytes + l.OverrideBytes + l.AuditBytes + outcomes + tombstones + namespaces + 4096; uint64(worst) > l.BackupBytes {
		t.Errorf("a full state may have a backup of %d bytes, of which %d are outcomes and %d tombstones; at most %d can be restored", worst, outcomes, tombstones, l.BackupBytes)
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
