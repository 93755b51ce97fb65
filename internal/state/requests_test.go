package state

import (
	"bytes"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	"github.com/holdfast-dev/holdfast/internal/document"
	storagev1 "github.com/holdfast-dev/holdfast/proto/holdfast/storage/v1"
)

// TestNeverTwice is the promise of the request ids: however leaders change, with
// clocks an hour apart, whatever is dropped, snapshotted or restored, no request
// is applied twice. Clients measure ages with clocks that drift by up to 1 %, and
// a retry is up to a second on its way.
func TestNeverTwice(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		limits := tiny()
		s := &schedule{t: t, limits: &limits, m: newMachine(&limits), wall: 1 << 40, applied: map[uint64]int{}, first: map[uint64]int64{}}
		s.elect()
		s.send(epochOf(1, 1))
		for range 60 {
			s.real += rapid.SampledFrom([]int64{0, 1, 50, 700, 4_000, 30_000, 4_000_000}).Draw(t, "pause")
			s.act()
		}
	})
}

// schedule runs a cluster and its clients in real time, which only it knows.
type schedule struct {
	t       *rapid.T
	limits  *Limits
	m       *Machine
	real    int64 // milliseconds
	wall    int64
	term    uint64
	anchor  int64 // what the leader's stamps begin at
	elected int64 // real time
	backups [][]byte
	first   map[uint64]int64 // real time of the first attempt
	applied map[uint64]int
}

func (s *schedule) act() {
	switch rapid.IntRange(0, 12).Draw(s.t, "action") {
	case 0:
		s.elect()
	case 1:
		s.send(tick())
	case 2:
		v := s.m.View()
		s.m = newMachine(s.limits)
		if err := s.m.Restore(bytes.NewReader(written(s.t, v))); err != nil {
			s.t.Fatalf("restore: %v", err)
		}
	case 3:
		s.backups = append(s.backups, written(s.t, s.m.View().Backup()))
	case 4:
		s.restore()
	default:
		s.request()
	}
}

// elect begins a term with a leader whose clock is anywhere within the hour.
func (s *schedule) elect() {
	s.term++
	skew := rapid.SampledFrom([]int64{0, -3_600_000, 3_600_000, 20_000}).Draw(s.t, "skew")
	s.anchor, s.elected = max(s.m.View().Time(), s.wall+s.real+skew), s.real
}

func (s *schedule) send(cmd *storagev1.Command) Result {
	cmd.TimeMs = s.anchor + s.real - s.elected
	results, err := s.m.Apply([]Entry{{Term: s.term, Data: marshal(s.t, cmd)}})
	if err != nil {
		s.t.Fatalf("apply: %v", err)
	}
	return results[0]
}

// restore restores a backup, into this cluster or into a new one.
func (s *schedule) restore() {
	if len(s.backups) == 0 {
		return
	}
	file := rapid.SampledFrom(s.backups).Draw(s.t, "backup")
	if rapid.Bool().Draw(s.t, "new cluster") {
		// It takes the place of the old one, which is gone; that takes a moment.
		s.real += ageErrorMs + 1
		s.m = newMachine(s.limits)
		s.elect()
		s.send(epochOf(rapid.Byte().Draw(s.t, "lineage")|2, 1))
	}
	for _, cmd := range restoring(1, file, 1_000, rapid.Uint64().Draw(s.t, "nonce")) {
		if r := s.send(cmd); r.Rejection != nil {
			s.t.Fatalf("restore: %v", r.Rejection)
		}
	}
}

// request makes the first attempt of a request or a later one.
func (s *schedule) request() {
	n := rapid.Uint64Range(1, 30).Draw(s.t, "request")
	first, retried := s.first[n]
	delay := rapid.SampledFrom([]int64{0, 0, 100, ageSlackMs}).Draw(s.t, "delay")
	cmd := transaction(requestOf(n), put("a", document.Flag, "x", string(requestOf(n))))
	if !retried {
		s.first[n] = s.real
	} else if age := max(0, s.real-delay-first); age > 0 {
		drift := rapid.SampledFrom([]float64{0.991, 1, 1.009}).Draw(s.t, "drift")
		cmd.AgeMs = int64(float64(age) * drift)
	}
	r := s.send(cmd)
	if r.Duplicate || r.Rejection != nil {
		return
	}
	if s.applied[n]++; s.applied[n] > 1 {
		s.t.Fatalf("request %d was applied twice", n)
	}
}

func TestRetryGetsTheFirstOutcome(t *testing.T) {
	h := newHarness(t, DefaultLimits())
	cmd := transaction(requestOf(1), put("a", document.Flag, "x", "1"))
	first := h.apply(cmd)
	h.must(put("a", document.Flag, "x", "2"))
	cmd.AgeMs, cmd.Actor, cmd.Reason = 5_000, nil, "again" // none of which is the body
	again := h.apply(cmd)
	if !again.Duplicate || again.Revision != first.Revision || again.Touched != nil || h.View().Revision() != 2 {
		t.Fatalf("retry: %+v", again)
	}

	refused := transaction(requestOf(2), expecting(put("a", document.Flag, "x", "3"), 0))
	if r := h.apply(refused); reason(r) != ReasonRevisionMismatch || r.Rejection.Actual != 2 {
		t.Fatalf("mismatch: %+v", r)
	}
	h.must(del("a", document.Flag, "x"))
	if r := h.apply(refused); reason(r) != ReasonRevisionMismatch || !r.Duplicate {
		t.Fatalf("a refused request was tried anew: %+v", r)
	}
	if r := h.apply(transaction(requestOf(1), del("a", document.Flag, "x"))); reason(r) != ReasonRequestIDReused {
		t.Fatalf("reuse: %+v", r)
	}
}

// TestOutcomesAreDroppedInOrder drops outcomes for each of the three reasons there
// are, oldest first and no sooner. What was dropped is refused, and not applied.
func TestOutcomesAreDroppedInOrder(t *testing.T) {
	size := (&kept{outcome: Outcome{Changes: make([]document.ChangeType, 1)}}).size()
	for name, c := range map[string]struct {
		limit func(*Limits)
		pass  int64 // milliseconds before the last request
	}{
		"count": {func(l *Limits) { l.Outcomes = 3 }, 0},
		"bytes": {func(l *Limits) { l.OutcomeBytes = 4*size - 1 }, 0},
		"age":   {func(l *Limits) { l.OutcomeAge = 10 * time.Second }, 9_998},
	} {
		t.Run(name, func(t *testing.T) {
			limits := DefaultLimits()
			c.limit(&limits)
			h := newHarness(t, limits)
			h.apply(tick())
			var cmds []*storagev1.Command
			for n := range uint64(4) {
				cmds = append(cmds, transaction(requestOf(n), put("a", document.Flag, "x", string(requestOf(n)))))
				if n == 3 {
					before := h.View()
					if r := h.apply(cmds[0]); !r.Duplicate || h.View().Outcomes() != 3 || h.View().Revision() != before.Revision() {
						t.Fatalf("dropped too soon: %+v", r)
					}
					h.now += c.pass
				} else {
					h.now++
				}
				h.apply(cmds[n])
			}
			before := h.View()
			cmds[0].AgeMs = c.pass + 10
			if r := h.apply(cmds[0]); reason(r) != ReasonRequestTooOld || essence(h.View()) != essence(before) {
				t.Fatalf("a request whose outcome was dropped: %+v", r)
			}
			cmds[1].AgeMs = c.pass + 10
			if r := h.apply(cmds[1]); !r.Duplicate || r.Revision != 2 {
				t.Fatalf("the second request was dropped as well: %+v", r)
			}
		})
	}
}

// TestTooOldToTheMillisecond retries a request whose outcome was dropped, as late
// as the slack allows without the client's knowing: that may be a retry. Soon
// after that it cannot be any more.
func TestTooOldToTheMillisecond(t *testing.T) {
	for late, want := range map[int64]string{ageSlackMs: ReasonRequestTooOld, ageSlackMs + 4: ReasonRequestTooOld, ageErrorMs: ReasonRequestTooOld, ageErrorMs + 1: ""} {
		limits := DefaultLimits()
		limits.Outcomes = 1
		h := newHarness(t, limits)
		h.apply(tick())
		cmd := transaction(requestOf(1), put("a", document.Flag, "x", "1"))
		h.apply(cmd)
		h.must(put("a", document.Flag, "y", "1")) // drops the outcome
		h.now += late
		if r := h.apply(cmd); reason(r) != want {
			t.Errorf("%d ms later: %q, want %q", late, reason(r), want)
		}
	}
}

// TestEveryPartIsTheBody uses a request id again with one thing different.
func TestEveryPartIsTheBody(t *testing.T) {
	base := func() *storagev1.Step {
		s := expecting(put("a", document.Override, "x", "1"), 0)
		s.Labels = []*storagev1.Label{{Key: "k", Value: "v"}}
		return s
	}
	step := func(edit func(*storagev1.Step)) *storagev1.Command {
		s := base()
		edit(s)
		return transaction(nil, s)
	}
	id := bytes.Repeat([]byte{1}, 16)
	restore := restoring(1, []byte("0123456789"), 5, 2)
	commit := func(nonce uint64) *storagev1.Command { return restoring(1, []byte("0"), 1, nonce)[2] }
	abort := &storagev1.Command{Body: &storagev1.Command_RestoreAbort{RestoreAbort: &storagev1.RestoreAbort{RestoreId: id}}}
	all := map[string]*storagev1.Command{
		"itself":          step(func(*storagev1.Step) {}),
		"namespace":       step(func(s *storagev1.Step) { s.Key.Namespace = "b" }),
		"kind":            step(func(s *storagev1.Step) { s.Key.Kind = 1 }),
		"name":            step(func(s *storagev1.Step) { s.Key.Name = "y" }),
		"delete":          step(func(s *storagev1.Step) { s.Delete = true }),
		"no precondition": step(func(s *storagev1.Step) { s.ExpectedRevision = nil }),
		"precondition":    step(func(s *storagev1.Step) { expecting(s, 1) }),
		"definition":      step(func(s *storagev1.Step) { s.Spec = []byte("2") }),
		"end":             step(func(s *storagev1.Step) { s.TtlMs++ }),
		"label":           step(func(s *storagev1.Step) { s.Labels[0].Key = "l" }),
		"label's value":   step(func(s *storagev1.Step) { s.Labels[0].Value = "w" }),
		"no labels":       step(func(s *storagev1.Step) { s.Labels = nil }),
		"two steps":       transaction(nil, base(), del("b", document.Flag, "x")),
		"tick":            tick(),
		"expire":          expire(),
		"epoch":           epochOf(1, 1),
		"epoch nonce":     epochOf(1, 2),
		"epoch lineage":   epochOf(2, 1),
		"begin":           restore[0],
		"begin another":   restoring(2, []byte("0123456789"), 5, 2)[0],
		"begin of other":  restoring(1, []byte("0123456780"), 5, 2)[0],
		"begin of more":   restoring(1, []byte("01234567890"), 5, 2)[0],
		"chunk":           restore[1],
		"chunk elsewhere": chunkOf(id, 1, []byte("01234")),
		"chunk of other":  chunkOf(id, 0, []byte("01235")),
		"commit":          commit(1),
		"commit nonce":    commit(2),
		"abort":           abort,
	}
	seen := make(map[[32]byte]string)
	for name, cmd := range all {
		hash := bodyHash(cmd)
		if other, ok := seen[hash]; ok {
			t.Errorf("%q and %q have the same body", name, other)
		}
		seen[hash] = name
		h := newHarness(t, DefaultLimits())
		h.apply(transaction(requestOf(1), base()))
		again := proto.CloneOf(cmd)
		again.RequestId = requestOf(1)
		if r := h.apply(again); (reason(r) == ReasonRequestIDReused) == (name == "itself") {
			t.Errorf("%q: %+v", name, r)
		}
	}
}

// TestDedupSurvivesARestore retries requests after a restore, into the cluster
// that the backup is of and into a new one: those of the backup, those that the
// restore undid, and those of the cluster that was replaced.
func TestDedupSurvivesARestore(t *testing.T) {
	for name, fresh := range map[string]bool{"the same cluster": false, "a new cluster": true} {
		t.Run(name, func(t *testing.T) {
			h := newHarness(t, DefaultLimits())
			h.apply(epochOf(1, 1))
			old := transaction(requestOf(1), put("a", document.Flag, "x", "1"))
			h.apply(old)
			refused := transaction(requestOf(2), expecting(put("a", document.Flag, "x", "3"), 0))
			h.apply(refused)
			file := written(t, h.View().Backup())
			if fresh {
				now := h.now
				h = newHarness(t, DefaultLimits())
				h.now = now
				h.apply(epochOf(2, 1))
			}
			h.now += 5_000
			own := transaction(requestOf(3), put("a", document.Flag, "own", "1"))
			h.apply(own)
			for _, cmd := range restoring(1, file, 1<<16, 9) {
				if r := h.apply(cmd); r.Rejection != nil {
					t.Fatal(r.Rejection)
				}
			}
			h.now += 1_000
			h.apply(tick())
			before := h.View()
			for n, cmd := range []*storagev1.Command{old, refused, own} {
				cmd.AgeMs = 60_000
				if r := h.apply(cmd); !r.Duplicate {
					t.Errorf("request %d: %+v", n+1, r)
				}
			}
			if r := h.apply(refused); reason(r) != ReasonRevisionMismatch || r.Rejection.Actual != 1 {
				t.Errorf("the refusal is forgotten: %+v", r)
			}
			other := transaction(requestOf(1), put("a", document.Flag, "x", "2"))
			if r := h.apply(other); reason(r) != ReasonRequestIDReused {
				t.Errorf("another body: %+v", r)
			}
			unknown := transaction(requestOf(77), put("a", document.Flag, "x", "2"))
			unknown.AgeMs = 60_000
			if r := h.apply(unknown); reason(r) != ReasonRequestTooOld {
				t.Errorf("begun before the restore: %+v", r)
			}
			if essence(h.View()) != essence(before) {
				t.Error("a retry has changed the state")
			}
			unknown.AgeMs = 0
			if r := h.apply(unknown); r.Rejection != nil || r.Duplicate {
				t.Errorf("a new request: %+v", r)
			}
		})
	}
}

// TestClockJump checks that a leader whose clock is an hour ahead drops nothing,
// and that one whose clock is an hour behind stops no clock for good.
func TestClockJump(t *testing.T) {
	h := newHarness(t, DefaultLimits())
	cmd := transaction(requestOf(1), put("a", document.Flag, "x", "1"))
	h.apply(cmd)
	for _, jump := range []time.Duration{time.Hour, -time.Hour} {
		before := h.View().Time()
		h.term++
		h.now = max(h.now+jump.Milliseconds(), before) // as a leader does
		h.apply(tick())
		if cmd.AgeMs = 2_000; !h.apply(cmd).Duplicate {
			t.Fatalf("the outcome did not outlive a jump of %s", jump)
		}
		h.now += 15_000
		h.apply(tick())
		if h.View().Time() < before+15_000 {
			t.Fatalf("state time stands still after a jump of %s", jump)
		}
	}
	h.now += 11 * 60_000
	h.apply(tick())
	if h.View().Outcomes() != 0 {
		t.Fatalf("the outcome did not end")
	}
	if cmd.AgeMs = 12 * 60_000; reason(h.apply(cmd)) != ReasonRequestTooOld {
		t.Fatalf("a request older than the window was not refused")
	}
	if r := h.apply(transaction(requestOf(2), put("a", document.Flag, "x", "2"))); r.Rejection != nil {
		t.Fatalf("a new request was refused: %v", r.Rejection)
	}
}

// TestFreshAfterRestore checks that the first write after a restore is taken at
// once, while a retry from before it is not.
func TestFreshAfterRestore(t *testing.T) {
	h := newHarness(t, DefaultLimits())
	h.apply(epochOf(1, 1))
	h.must(put("a", document.Flag, "x", "1"))
	file := written(t, h.View().Backup())
	h.now += 60_000
	for _, cmd := range restoring(1, file, 1<<16, 2) {
		if r := h.apply(cmd); r.Rejection != nil {
			t.Fatal(r.Rejection)
		}
	}
	h.must(put("a", document.Flag, "x", "2"))
	late := transaction(requestOf(1_000), put("a", document.Flag, "y", "1"))
	late.AgeMs = 1_500
	if r := h.apply(late); reason(r) != ReasonRequestTooOld {
		t.Fatalf("a retry from before the restore: %+v", r)
	}
}
