package state

import (
	"bytes"
	"fmt"
	"slices"
	"testing"

	"github.com/holdfast-dev/holdfast/internal/document"
	storagev1 "github.com/holdfast-dev/holdfast/proto/holdfast/storage/v1"
)

// FuzzReplicas reads its input as a script of commands, elections, snapshots and
// restores, and plays it on two servers. One applies each entry by itself and is
// held to what every command must leave alone. The other one applies batches and
// goes through snapshots. Both answer alike and end up the same to the byte.
func FuzzReplicas(f *testing.F) {
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, script []byte) {
		limits := tiny()
		p := &player{t: t, script: script, limits: &limits, one: newMachine(&limits), many: newMachine(&limits), now: 1_000_000, term: 1}
		p.entry(epochOf(1, 1))
		for len(p.script) > 0 && p.index < 200 {
			p.act()
		}
		p.flush()
		if !bytes.Equal(written(t, p.one.View()), written(t, p.many.View())) {
			t.Fatal("the snapshots differ")
		}
		requireSelfConsistent(t, p.one.View())
	})
}

// player plays a script. Where it ends it reads as zeros.
type player struct {
	t         *testing.T
	script    []byte
	limits    *Limits
	one, many *Machine
	index     uint64
	term      uint64
	now       int64
	batch     []Entry
	answers   []Result // of one, to the entries of batch
	backup    []byte
	restore   []*storagev1.Command // what is left of a restore
	sent      *storagev1.Command   // the last of it
	restores  byte
}

func (p *player) byte() byte {
	if len(p.script) == 0 {
		return 0
	}
	b := p.script[0]
	p.script = p.script[1:]
	return b
}

// act plays one line of the script.
func (p *player) act() {
	op := p.byte()
	switch op % 16 {
	case 0:
		p.flush()
	case 1: // a snapshot is taken and read on one of the servers
		p.flush()
		file := written(p.t, p.many.View())
		p.many = newMachine(p.limits)
		if err := p.many.Restore(bytes.NewReader(file)); err != nil {
			p.t.Fatalf("restore: %v", err)
		}
	case 2: // an election, of a leader whose clock is up to two hours off
		p.term++
		p.now += (int64(p.byte()) - 128) * 60_000
	case 3:
		p.now += int64(p.byte()) * 1_000
		p.entry(tick())
	case 4:
		p.entry(expire())
	case 5:
		if op >= 240 { // the cluster is lost, and a new one takes its place
			p.flush()
			p.one, p.many = newMachine(p.limits), newMachine(p.limits)
		}
		p.entry(epochOf(1+op/16%2, uint64(op/64)))
	case 6:
		p.backup = written(p.t, p.one.View().Backup())
	case 7: // a restore begins, of a backup that may be damaged
		p.restores++
		file := bytes.Clone(p.backup)
		if len(file) > 0 && op >= 128 {
			file[int(p.byte())*len(file)/256] ^= 1
		}
		p.restore = restoring(p.restores, file, 400+int(op), uint64(p.restores)+7)
	case 8, 9: // some of it, what was sent last once more, or its end
		for n := int(op / 16); n >= 0 && len(p.restore) > 0; n-- {
			p.sent, p.restore = p.restore[0], p.restore[1:]
			p.entry(p.sent)
		}
		if op == 9 && p.sent != nil {
			p.entry(p.sent)
		}
		if op == 8 {
			p.entry(&storagev1.Command{Version: Version, Body: &storagev1.Command_RestoreAbort{RestoreAbort: &storagev1.RestoreAbort{RestoreId: bytes.Repeat([]byte{p.restores}, 16)}}})
		}
	default:
		p.transaction(op)
	}
}

func (p *player) transaction(op byte) {
	var steps []*storagev1.Step
	for range 1 + op%4 {
		what := p.byte()
		namespace, kind, name := string('a'+rune(what%4)), document.Kind(1+what/4%4), string('x'+rune(what/16%2))
		s := del(namespace, kind, name)
		if how := p.byte(); how%3 > 0 {
			s = put(namespace, kind, name, fmt.Sprint(how%5, string(make([]byte, int(how%2)*150))))
			if kind == document.Override {
				s.TtlMs = 1 + int64(how)*100
			}
			if what >= 128 {
				expecting(s, uint64(how/16))
			}
		}
		steps = append(steps, s)
	}
	cmd := transaction(requestOf(uint64(op/8)), steps...)
	cmd.AgeMs = []int64{0, 0, 700, 20_000}[p.byte()%4]
	p.entry(cmd)
}

// entry applies a command on one server, and puts it off on the other.
func (p *player) entry(cmd *storagev1.Command) {
	cmd.TimeMs = p.now
	p.index++
	e := Entry{Index: p.index, Term: p.term, Data: marshal(p.t, cmd)}
	before := p.one.View()
	results, err := p.one.Apply([]Entry{e})
	if err != nil {
		p.t.Fatalf("apply: %v", err)
	}
	p.requireModest(cmd, results[0], before, p.one.View())
	p.batch, p.answers = append(p.batch, e), append(p.answers, results[0])
}

// flush lets the other server catch up.
func (p *player) flush() {
	results, err := p.many.Apply(p.batch)
	if err != nil {
		p.t.Fatalf("apply: %v", err)
	}
	if !slices.EqualFunc(results, p.answers, sameResult) {
		p.t.Fatalf("the answers differ:\n%v\n%v", p.answers, results)
	}
	if p.one.View().Hash() != p.many.View().Hash() {
		p.t.Fatal("the hashes differ")
	}
	p.batch, p.answers = nil, nil
}

// requireModest checks that a command changed nothing but what it may.
func (p *player) requireModest(cmd *storagev1.Command, r Result, before, after *View) {
	p.t.Helper()
	switch commit := cmd.GetRestoreCommit() != nil; {
	case after.now < before.now || after.lived < before.lived || after.horizon < before.horizon || after.auditDropped < before.auditDropped && !commit:
		p.t.Fatalf("time went back over %v", cmd)
	case after.revision < before.revision || !commit && after.revision > before.revision+1:
		p.t.Fatalf("revision %d after %d over %v", after.revision, before.revision, cmd)
	case after.epoch != before.epoch && after.epoch.Lineage == before.epoch.Lineage && after.epoch.Counter <= before.epoch.Counter:
		p.t.Fatalf("epoch %v after %v", after.epoch, before.epoch)
	case (r.Rejection != nil || r.Duplicate) && essence(before) != essence(after):
		p.t.Fatalf("refused or repeated, and yet it changed the state: %v", cmd)
	case cmd.GetTick() != nil && essence(before) != essence(after):
		p.t.Fatal("a tick changed more than time")
	case (after.revision == before.revision) != (len(r.Touched) == 0) && !commit:
		p.t.Fatalf("touched %v at revision %d after %d", r.Touched, after.revision, before.revision)
	}
	for _, name := range slices.Concat(before.Namespaces(), after.Namespaces()) {
		was, is := before.Namespace(name), after.Namespace(name)
		if (was.Root() != is.Root() || was.ModRevision() != is.ModRevision()) && !slices.Contains(r.Touched, name) {
			p.t.Fatalf("%s changed, touched are %v", name, r.Touched)
		}
	}
	if after.outcomes.len() > p.limits.Outcomes || after.outcomeBytes > p.limits.OutcomeBytes || after.auditBytes > p.limits.AuditBytes || after.graves.Len() > p.limits.Tombstones {
		p.t.Fatalf("over a limit: %d outcomes of %d bytes, %d bytes of audit, %d tombstones", after.outcomes.len(), after.outcomeBytes, after.auditBytes, after.graves.Len())
	}
}

// essence is the hash of a state without its clocks, its outcomes, and a restore
// that is under way.
func essence(v *View) [32]byte {
	w := *v
	w.now, w.lived, w.horizon, w.term, w.history = 0, 0, 0, 0, [32]byte{}
	w.outcomes, w.staged = fifo[*kept]{}, nil
	return w.Hash()
}
