package node

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/holdfast-dev/holdfast/internal/consensus"
)

func member(id string, voter bool) consensus.Member {
	return consensus.Member{ID: id, Addr: "at-" + id, Voter: voter}
}

func here(id string) server {
	return server{meta: meta{ID: id, Raft: "at-" + id, API: "api-" + id, State: true, Lineage: "l"}}
}

func TestPlan(t *testing.T) {
	abc := []consensus.Member{member("a", true), member("b", true), member("c", true)}
	moved := here("b")
	moved.Raft = "elsewhere"
	fresh := server{meta: meta{ID: "d", Raft: "at-d"}}
	heir := server{meta: meta{ID: "d", Raft: "at-c"}}
	foreign := here("x")
	foreign.Lineage = "other"
	tests := []struct {
		name    string
		members []consensus.Member
		servers []server
		expect  int
		dead    []string
		want    []string
	}{
		{"one that was removed a moment ago does not join again", abc, []server{here("a"), here("b"), here("c"), here("d")}, 3, nil, nil},
		{"one that stays does", abc, []server{here("a"), here("b"), here("c"), here("back")}, 3, nil, []string{"join back"}},
		{"all is well", abc, []server{here("a"), here("b"), here("c")}, 3, nil, nil},
		{"a new server joins", abc, []server{here("a"), here("b"), here("c"), fresh}, 3, nil, []string{"join d"}},
		{"one of another cluster does not", abc, []server{here("a"), here("b"), here("c"), foreign}, 3, nil, nil},
		{"a non-voter is promoted", append(abc[:2:2], member("c", false)), []server{here("a"), here("b"), here("c")}, 3, nil, []string{"promote c"}},
		{"a silent non-voter is not", append(abc[:2:2], member("c", false)), []server{here("a"), here("b")}, 3, nil, nil},
		{"a server has moved", abc, []server{here("a"), moved, here("c")}, 3, nil, []string{"move b"}},
		{"a silent server stays", abc, []server{here("a"), here("b")}, 3, nil, nil},
		{"a dead one stays while the expected number would be missed", abc, []server{here("a"), here("b")}, 3, []string{"c"}, nil},
		{"a dead one beyond it goes", abc, []server{here("a"), here("b")}, 2, []string{"c"}, []string{"remove c"}},
		{"not without a majority of the rest", abc, []server{here("a")}, 1, []string{"b", "c"}, nil},
		{"a wiped one is replaced at once", abc, []server{here("a"), here("b"), heir}, 3, nil, []string{"remove c", "join d"}},
		{"not while it would cost the quorum", abc, []server{here("a"), heir}, 3, nil, []string{"join d"}},
		{
			"two dead of five",
			[]consensus.Member{member("a", true), member("b", true), member("c", true), member("d", true), member("e", true)},
			[]server{here("a"), here("b"), here("c")},
			3,
			[]string{"d", "e"},
			[]string{"remove d", "remove e"},
		},
	}
	for _, test := range tests {
		dead := make(map[string]bool)
		for _, id := range test.dead {
			dead[id] = true
		}
		p := planner{expect: test.expect, lineage: "l", dead: dead, returning: map[string]bool{"back": true}}
		var got []string
		for _, c := range p.plan(test.members, test.servers) {
			got = append(got, c.what+" "+c.id)
		}
		if diff := cmp.Diff(test.want, got); diff != "" {
			t.Errorf("%s: %s", test.name, diff)
		}
	}
}

func TestSightingsForgetWhatHasPassed(t *testing.T) {
	seen := sightings{absent: make(map[string]time.Time), outside: make(map[string]time.Time)}
	now := time.Unix(1000, 0)
	abc := []consensus.Member{member("a", true), member("b", true), member("c", true)}
	seen.track(abc, []server{here("a"), here("d"), here("e")}, now)
	seen.track(abc, []server{here("a"), here("b"), here("d")}, now.Add(time.Minute))
	seen.track(abc[:2], []server{here("a"), here("c"), here("d"), here("e")}, now.Add(2*time.Minute))
	want := sightings{
		absent:  map[string]time.Time{"b": now.Add(2 * time.Minute)},
		outside: map[string]time.Time{"c": now.Add(2 * time.Minute), "d": now, "e": now.Add(2 * time.Minute)},
	}
	if diff := cmp.Diff(want, seen, cmp.AllowUnexported(sightings{})); diff != "" {
		t.Fatal(diff)
	}
}

func newPromise(t *testing.T, self string) *promise {
	t.Helper()
	dir, err := openDataDir(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { dir.close() })
	p, err := openPromise(dir, self)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func nobody(string) string { return "" }

func TestPromiseIsGivenOnce(t *testing.T) {
	p := newPromise(t, "m")
	if err := p.give("b", nobody); err != nil {
		t.Fatal(err)
	}
	if err := p.give("a", nobody); !errors.Is(err, errPromiseKept) {
		t.Fatalf("promised twice: %v", err)
	}
	if err := p.found(func() error { return nil }); !errors.Is(err, errPromiseKept) {
		t.Fatal("founded although promised to another")
	}
	again, err := openPromise(p.dir, "m")
	if err != nil || again.to() != "b" {
		t.Fatalf("after a restart promised to %q: %v", again.to(), err)
	}
	// b gave up its own founding for a.
	if err := again.give("a", func(f string) string { return map[string]string{"b": "a"}[f] }); err != nil {
		t.Fatal(err)
	}
}

func TestFounderYieldsToLowerOnly(t *testing.T) {
	p := newPromise(t, "m")
	if err := p.give("m", nobody); err != nil {
		t.Fatal(err)
	}
	if err := p.give("z", nobody); !errors.Is(err, errPromiseKept) {
		t.Fatal("a founder gave up for a higher one")
	}
	if err := p.found(func() error { return nil }); err != nil {
		t.Fatal(err)
	}
	if err := p.give("a", nobody); err != nil {
		t.Fatal(err)
	}
	if err := p.found(func() error { return nil }); err == nil {
		t.Fatal("founded after giving up")
	}
}

// Random servers ask each other in random order: at most one founder may hold
// all promises of a full set, and with everybody alive one must get there.
func TestOneFounder(t *testing.T) {
	ids := []string{"a", "b", "c", "d", "e"}
	for _, first := range ids {
		promises := make(map[string]*promise)
		for _, id := range ids {
			promises[id] = newPromise(t, id)
		}
		gaveUp := func(f string) string {
			if to := promises[f].to(); to != f {
				return to
			}
			return ""
		}
		// One begins alone and gets a promise; then everybody who may tries.
		_ = promises[first].give(first, gaveUp)
		_ = promises["e"].give(first, gaveUp)
		founders := make(map[string]bool)
		for range 10 {
			for i, id := range ids {
				p := promises[id]
				if to := p.to(); to != id && (to != "" || i > 0) {
					continue
				}
				if p.give(id, gaveUp) != nil {
					continue
				}
				all := true
				for _, other := range ids {
					all = promises[other].give(id, gaveUp) == nil && all
				}
				if all && p.found(func() error { return nil }) == nil {
					founders[id] = true
				}
			}
		}
		if len(founders) != 1 {
			t.Errorf("beginning with %s: founders %v", first, founders)
		}
	}
}

func TestHashes(t *testing.T) {
	hash := func(b byte) [32]byte { return [32]byte{b} }
	all := []string{"a", "b", "c"}
	tell := func(from, to *hashes) bool { return to.Merge(from.Encode()) }
	a, b, c := newHashes("a"), newHashes("b"), newHashes("c")
	for index := uint64(1); index <= 10; index++ {
		a.record(index, 100+index, hash(byte(index)))
		b.record(index, 100+index, hash(byte(index)))
		c.record(index, 100+index, hash(byte(index+1)))
	}
	if !tell(a, c) || !tell(b, c) || !tell(a, b) || !tell(c, b) {
		t.Fatal("nothing new in a first report")
	}
	if tell(a, c) {
		t.Fatal("the same report is news again")
	}
	if at, against := c.compare(all); against != 2 || at < 8 {
		t.Fatalf("the one that differs sees %d against it at %d", against, at)
	}
	if _, against := b.compare(all); against != 0 || b.diverged() != 10 {
		t.Fatalf("one of the majority sees %d against it, divergence at %d", against, b.diverged())
	}
	if b.revision("a") != 110 || b.revision("x") != 0 {
		t.Fatal("revisions are wrong")
	}
	if _, against := newHashesOfTwo(t).compare([]string{"a", "b"}); against != 0 {
		t.Fatal("one of two is no majority")
	}
	b.compare([]string{"b"})
	if b.revision("a") != 0 {
		t.Fatal("a server that is no member is remembered")
	}
}

func newHashesOfTwo(t *testing.T) *hashes {
	t.Helper()
	a, b := newHashes("a"), newHashes("b")
	a.record(1, 1, [32]byte{1})
	b.record(1, 1, [32]byte{2})
	if !a.Merge(b.Encode()) {
		t.Fatal("no news")
	}
	return a
}

func FuzzHashesMerge(f *testing.F) {
	h := newHashes("a")
	h.record(7, 3, [32]byte{1})
	f.Add(h.Encode())
	f.Add([]byte{1, 'b', 3, 200})
	f.Fuzz(func(t *testing.T, data []byte) {
		h := newHashes("self")
		h.Merge(data)
		if len(h.reports) > maxHashServers {
			t.Fatal("unbounded")
		}
		again := newHashes("other")
		again.Merge(h.Encode())
		if again.Merge(h.Encode()) {
			t.Fatal("merging twice is news twice")
		}
	})
}

func TestClockKeepsDistanceAcrossLeaders(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var c clock
		if _, ok := c.stamp(); ok {
			t.Fatal("stamped without leading")
		}
		ahead := time.Now().Add(time.Hour).UnixMilli() // the leader before had a fast clock
		c.advance(ahead)
		if c.known() {
			t.Fatal("a command from the log counts as a leader's word")
		}
		c.lead()
		<-time.After(5 * time.Second)
		if stamp, ok := c.stamp(); !ok || stamp != ahead+5000 {
			t.Fatalf("stamp %d, want %d", stamp, ahead+5000)
		}
		c.follow()
		c.advance(ahead + 5000)
		<-time.After(2 * time.Second)
		c.advance(ahead + 5000) // nothing new
		if got := c.estimate().UnixMilli(); got != ahead+7000 {
			t.Fatalf("estimate %d, want %d", got, ahead+7000)
		}
		c.advance(ahead + 6000) // applied late
		if got := c.estimate().UnixMilli(); got != ahead+7000 {
			t.Fatalf("estimate %d after a late command, want %d", got, ahead+7000)
		}
		c.learn(ahead + 9000)
		c.lead()
		if stamp, _ := c.stamp(); stamp != ahead+9000 {
			t.Fatalf("stamp %d, want %d: others may have made the same estimate", stamp, ahead+9000)
		}
	})
}

func TestMinVersion(t *testing.T) {
	servers := []server{{meta: meta{ID: "a", Command: 3}}, {meta: meta{ID: "b", Command: 2}}}
	for _, test := range []struct {
		members []string
		want    uint32
	}{
		{[]string{"a", "b"}, 2},
		{[]string{"a"}, 3},
		{[]string{"a", "b", "unseen"}, 1},
		{nil, 1},
	} {
		if got := minVersion(test.members, servers); got != test.want {
			t.Errorf("%v: %d, want %d", test.members, got, test.want)
		}
	}
}

func TestDataDir(t *testing.T) {
	path := filepath.Join(t.TempDir(), "deep", "data")
	dir, err := openDataDir(path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := openDataDir(path); !errors.Is(err, ErrDataDirInUse) {
		t.Fatalf("opened twice: %v", err)
	}
	id, err := dir.nodeID("")
	if err != nil || len(id) != 16 {
		t.Fatalf("id %q: %v", id, err)
	}
	if again, err := dir.nodeID(""); again != id || err != nil {
		t.Fatalf("id %q after %q: %v", again, id, err)
	}
	if _, err := dir.nodeID("other"); err == nil {
		t.Fatal("took another id")
	}
	if err := dir.close(); err != nil {
		t.Fatal(err)
	}
	if dir, err = openDataDir(path); err != nil {
		t.Fatal(err)
	}
	defer dir.close()
	if err := dir.write(fileRemoved, nil); err != nil {
		t.Fatal(err)
	}
	if err := dir.removed(); !errors.Is(err, ErrRemoved) {
		t.Fatal(err)
	}
	leftovers, _ := filepath.Glob(filepath.Join(path, "*.*"))
	if len(leftovers) > 0 {
		t.Fatalf("temporary files left: %v", leftovers)
	}
}

func TestGossipKeys(t *testing.T) {
	path := filepath.Join(t.TempDir(), "keys")
	good := "# the new one\nAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\n\nAAAAAAAAAAAAAAAAAAAAAA==\n"
	for text, want := range map[string]int{good: 2, "": -1, "AAAA\n": -1, "not base64!\n": -1} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		keys, err := loadGossipKeys(path)
		if want < 0 && err == nil || want >= 0 && len(keys) != want {
			t.Errorf("%q: %d keys, %v", text, len(keys), err)
		}
		if err != nil && strings.Contains(err.Error(), "AAAA") {
			t.Error("a key is shown in an error")
		}
	}
	if keys, err := loadGossipKeys(""); keys != nil || err != nil {
		t.Error("no file is no key")
	}
}

func TestParsePeers(t *testing.T) {
	got, err := ParsePeers("a=h:1, b=[::1]:2")
	if diff := cmp.Diff([]Peer{{"a", "h:1"}, {"b", "[::1]:2"}}, got); err != nil || diff != "" {
		t.Fatal(err, diff)
	}
	for _, text := range []string{"", "a", "a=b", "=h:1", "a=h:1,a=h:2", "a=h:1,b=h:1"} {
		if _, err := ParsePeers(text); err == nil {
			t.Errorf("accepted %q", text)
		}
	}
}
