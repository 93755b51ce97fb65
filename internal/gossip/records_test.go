package gossip

import (
	"encoding/binary"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/holdfast-dev/holdfast/internal/gossip/mesh"
)

// facts are versions under keys; the higher version wins. seen is when a key was
// first heard of.
type facts struct {
	mu       sync.Mutex
	versions map[string]uint64
	filler   map[string]string
	seen     map[string]time.Time
}

func newFacts() *facts {
	return &facts{versions: make(map[string]uint64), filler: make(map[string]string), seen: make(map[string]time.Time)}
}

func (f *facts) set(key string, version uint64) { f.setLong(key, version, "") }

func (f *facts) setLong(key string, version uint64, filler string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.versions[key], f.filler[key] = version, filler
}

func (f *facts) version(key string) uint64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.versions[key]
}

func (f *facts) len() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.versions)
}

func (f *facts) Keys() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Collect(maps.Keys(f.versions))
}

func (f *facts) Encode(key string) []byte {
	f.mu.Lock()
	defer f.mu.Unlock()
	version, ok := f.versions[key]
	if !ok {
		return nil
	}
	b := binary.BigEndian.AppendUint64(nil, version)
	return append(appendName(b, key), f.filler[key]...)
}

func (f *facts) Merge(b []byte) (key string, news bool) {
	if len(b) < 8 {
		return "", false
	}
	version := binary.BigEndian.Uint64(b)
	key, filler, ok := cutName(b[8:])
	f.mu.Lock()
	defer f.mu.Unlock()
	if !ok || version <= f.versions[key] {
		return key, false
	}
	f.versions[key], f.filler[key] = version, string(filler)
	f.seen[key] = time.Now()
	return key, true
}

func (f *facts) Digest(key string) uint64 { return f.version(key) }

// instances starts members of a pool tuned for instances; each joins through a
// few of those before it. They are closed when the test ends.
func instances(t *testing.T, network *mesh.Network, n int) []*peer {
	t.Helper()
	peers := make([]*peer, n)
	for i := range peers {
		addr := fmt.Sprintf("10.0.%d.%d:7403", i/250, i%250+1)
		transport, err := network.Transport(addr)
		if err != nil {
			t.Fatal(err)
		}
		config := Config{Name: fmt.Sprintf("i%d", i), Label: "test", Profile: Instances, Transport: transport}
		for s := 0; s < i && s < 4; s++ {
			config.Join = append(config.Join, peers[i*s/4].addr)
		}
		peers[i] = open(t, config)
		peers[i].addr = addr
		if i%50 == 49 {
			<-time.After(200 * time.Millisecond)
		}
	}
	return peers
}

func knowing(peers []*peer, key string, version uint64) int {
	n := 0
	for _, p := range peers {
		if p.facts.version(key) >= version {
			n++
		}
	}
	return n
}

func allHave(peers []*peer, key string, version uint64) func() bool {
	return func() bool { return knowing(peers, key, version) == len(peers) }
}

// Eager push tells 90 in 100 within some hops, far below a round of gossip.
func TestNewsIsPushedEagerly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		settle(t)
		network := mesh.New(11)
		network.Links(mesh.Link{Latency: 500 * time.Microsecond, Spread: 0.5})
		peers := instances(t, network, 60)
		until(t, 5*time.Minute, "pool is whole", whole(peers))
		<-time.After(20 * time.Second)
		peers[42].facts.set("x", 1)
		peers[42].channel.Spread("x")
		<-time.After(15 * time.Millisecond)
		if n := knowing(peers, "x", 1); n < 54 {
			t.Errorf("%d of 60 know after 15 ms", n)
		}
		until(t, time.Second, "all know", allHave(peers, "x", 1))
		sights := uint64(0)
		for _, p := range peers {
			m := p.Metrics()
			for _, n := range m.FirstSight {
				sights += n
			}
			if m.News > 1 {
				t.Errorf("one record was news %d times", m.News)
			}
		}
		if sights != 59 {
			t.Errorf("%d first sights counted", sights)
		}
		until(t, 10*time.Second, "queues are empty", func() bool {
			return !slices.ContainsFunc(peers, func(p *peer) bool { return p.Metrics().Queued > 0 })
		})
	})
}

// A record that is only younger is pushed to nobody, and still reaches everybody.
func TestRefreshIsQuiet(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		settle(t)
		peers := instances(t, mesh.New(12), 40)
		until(t, 5*time.Minute, "pool is whole", whole(peers))
		<-time.After(20 * time.Second)
		sent := func() (eager, packets uint64) {
			for _, p := range peers {
				eager, packets = eager+p.Metrics().EagerSent, packets+p.Metrics().SentPackets
			}
			return eager, packets
		}
		cost := func(tell func(string)) (eager, packets uint64) {
			eager0, packets0 := sent()
			peers[3].facts.set("x", peers[3].facts.version("x")+1)
			tell("x")
			until(t, 20*time.Second, "all know", allHave(peers, "x", peers[3].facts.version("x")))
			<-time.After(10 * time.Second)
			eager1, packets1 := sent()
			return eager1 - eager0, packets1 - packets0
		}
		quietEager, quiet := cost(peers[3].channel.Refresh)
		loudEager, loud := cost(peers[3].channel.Spread)
		t.Logf("packets at 40 members within 10 s: refresh %d, news %d", quiet, loud)
		if quietEager != 0 || loudEager == 0 || quiet >= loud {
			t.Errorf("refresh pushed %d of %d packets, news %d of %d", quietEager, quiet, loudEager, loud)
		}
	})
}

// What every packet has been lost of is found by the digests in acknowledgements.
func TestRepairsWhatWasLost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		settle(t)
		peers := instances(t, mesh.New(13), 5)
		until(t, time.Minute, "pool is whole", whole(peers))
		const each = 300
		for i, p := range peers[:4] { // set and never spread
			for k := range each {
				p.facts.set(fmt.Sprintf("%d-%d", i, k), 1)
			}
		}
		peers[0].facts.set("both", 1)
		peers[1].facts.set("both", 2)
		took := until(t, 25*time.Second, "all have all", func() bool {
			return !slices.ContainsFunc(peers, func(p *peer) bool { return p.facts.len() != 4*each+1 || p.facts.version("both") != 2 })
		})
		t.Logf("%d records repaired after %v", 4*each, took)
		<-time.After(15 * time.Second)
		before := peers[2].Metrics()
		<-time.After(30 * time.Second)
		after := peers[2].Metrics()
		if after.Repairs != before.Repairs || before.Repairs == 0 {
			t.Errorf("repairs of equal members: %d, then %d", before.Repairs, after.Repairs)
		}
	})
}

// A repair gives and takes: what only the other has is there at once, without its
// own probe.
func TestRepairTakesWhatOnlyTheOtherHas(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		settle(t)
		peers := instances(t, mesh.New(21), 2)
		until(t, time.Minute, "pool is whole", whole(peers))
		<-time.After(20 * time.Second)
		peers[0].facts.set("mine", 1)
		peers[1].facts.set("its", 1)
		its, _ := peers[0].lookup(peers[1].Name())
		peers[0].compare(its, peers[1].digests())
		<-time.After(time.Millisecond)
		if peers[0].facts.version("its") != 1 || peers[1].facts.version("mine") != 1 {
			t.Errorf("taken %d, given %d", peers[0].facts.version("its"), peers[1].facts.version("mine"))
		}
	})
}

// One record that its origin spreads while nothing gets through.
func TestRepairsAfterTotalLoss(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		settle(t)
		network := mesh.New(14)
		peers := instances(t, network, 20)
		until(t, time.Minute, "pool is whole", whole(peers))
		network.Links(mesh.Link{Loss: 1})
		peers[7].facts.set("x", 1)
		peers[7].channel.Spread("x")
		until(t, 20*time.Second, "nobody is left to tell", func() bool { return peers[7].Metrics().Queued == 0 })
		if n := knowing(peers, "x", 1); n != 1 {
			t.Fatalf("%d know", n)
		}
		network.Links(mesh.Link{})
		took := until(t, 40*time.Second, "all know", allHave(peers, "x", 1))
		t.Logf("20 members after %v", took)
	})
}

func TestRepairIsOfWhatBothSidesHave(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		settle(t)
		network := mesh.New(15)
		transport := func(addr string) *mesh.Transport {
			tr, err := network.Transport(addr)
			if err != nil {
				t.Fatal(err)
			}
			return tr
		}
		a, _ := New(Config{Name: "a", Profile: Instances, Transport: transport("10.0.0.1:1")})
		b, _ := New(Config{Name: "b", Profile: Instances, Transport: transport("10.0.0.2:1"), Join: []string{"10.0.0.1:1"}})
		both, other := newFacts(), newFacts()
		a.AddRecords("only a", newFacts()).records.(*facts).set("k", 1)
		a.AddRecords("both", both)
		b.AddRecords("both", other)
		for _, p := range []*Pool{a, b} {
			if err := p.Start(); err != nil {
				t.Fatal(err)
			}
			defer func() { _ = p.Close(t.Context()) }()
		}
		until(t, time.Minute, "pool is whole", func() bool { return len(a.Members()) == 2 && len(b.Members()) == 2 })
		both.set("k", 1)
		until(t, 20*time.Second, "repaired", func() bool { return other.version("k") == 1 })
		<-time.After(20 * time.Second)
		if m := b.Metrics(); m.Repairs > 2 {
			t.Errorf("%d repairs", m.Repairs)
		}
	})
}

// A record of the budget goes by packets, a longer one by streams, and both are
// there at once. One beyond recordLimit goes nowhere.
func TestLongRecordsGoByStreams(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		settle(t)
		network := mesh.New(16)
		peers := instances(t, network, 12)
		until(t, time.Minute, "pool is whole", whole(peers))
		<-time.After(20 * time.Second)
		from := peers[4]
		for _, c := range []struct {
			key      string
			size     int
			oversize uint64
			reaches  bool
		}{
			{"fits", from.channel.Budget(), 0, true},
			{"long", from.channel.Budget() + entryOverhead + batchOverhead, 1, true},
			{"huge", recordLimit + 1, 1, false},
		} {
			from.facts.setLong(c.key, 1, "")
			from.facts.setLong(c.key, 1, strings.Repeat("x", c.size-len(from.facts.Encode(c.key))))
			before := from.Metrics().Oversize
			from.channel.Spread(c.key)
			if c.reaches {
				until(t, 2*time.Second, c.key+" known by all", allHave(peers, c.key, 1))
			} else {
				<-time.After(2 * time.Minute)
				if n := knowing(peers, c.key, 1); n != 1 {
					t.Errorf("%s: %d know", c.key, n)
				}
			}
			if got := from.Metrics().Oversize - before; got != c.oversize {
				t.Errorf("%s: oversize counted %d times", c.key, got)
			}
		}
	})
}

// The longest messages fit the packet size with encryption, checksum and a label.
func TestPacketsKeepTheirSize(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		settle(t)
		network := mesh.New(17)
		longest := 0
		var mu sync.Mutex
		var peers []*peer
		for i := range 3 {
			transport, err := network.Transport(fmt.Sprintf("10.0.0.%d:1", i+1))
			if err != nil {
				t.Fatal(err)
			}
			watched := watchedTransport{transport, func(n int) {
				mu.Lock()
				defer mu.Unlock()
				longest = max(longest, n)
			}}
			peers = append(peers, open(t, Config{
				Name: "a", Label: strings.Repeat("l", 200), Transport: watched, Profile: Instances,
				Keys: [][]byte{make([]byte, 32)}, Join: []string{"10.0.0.1:1"},
			}))
		}
		until(t, time.Minute, "pool is whole", whole(peers))
		for k := range 500 {
			peers[0].facts.setLong(fmt.Sprint(k), 1, strings.Repeat("x", k))
			peers[0].channel.Spread(fmt.Sprint(k))
		}
		for k := range 200 { // for repair
			peers[1].facts.setLong(fmt.Sprint("r", k), 1, strings.Repeat("x", 3*k))
		}
		until(t, time.Minute, "all know", func() bool { return peers[2].facts.len() == 700 })
		mu.Lock()
		defer mu.Unlock()
		if longest > packetSize || longest < packetSize-50 {
			t.Errorf("the longest packet has %d bytes", longest)
		}
	})
}

type watchedTransport struct {
	*mesh.Transport
	sent func(n int)
}

func (w watchedTransport) WriteTo(b []byte, addr string) (time.Time, error) {
	w.sent(len(b))
	return w.Transport.WriteTo(b, addr)
}

func TestJoinAddsSeedsLive(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		settle(t)
		network := mesh.New(18)
		var peers []*peer
		for i := range 2 {
			transport, err := network.Transport(fmt.Sprintf("10.0.0.%d:1", i+1))
			if err != nil {
				t.Fatal(err)
			}
			peers = append(peers, open(t, Config{Name: "a", Transport: transport, Profile: Instances}))
		}
		<-time.After(time.Minute)
		if whole(peers)() {
			t.Fatal("they know each other already")
		}
		peers[0].Join("10.0.0.2:1")
		until(t, time.Second, "pool is whole", whole(peers))
		for i := range 3 * seedLimit {
			peers[0].Join(fmt.Sprintf("10.0.0.1:%d", i%(2*seedLimit)+1))
		}
		if seeds := peers[0].knownSeeds(); len(seeds) != seedLimit || seeds[seedLimit-1] != fmt.Sprintf("10.0.0.1:%d", seedLimit) {
			t.Errorf("%d seeds, the last %s", len(seeds), seeds[len(seeds)-1])
		}
	})
}

func TestFarewellsAreToldFromCrashes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		settle(t)
		network := mesh.New(19)
		peers := instances(t, network, 12)
		until(t, time.Minute, "pool is whole", whole(peers))
		peers[2].facts.set("last words", 1)
		peers[2].channel.Spread("last words")
		if err := peers[2].Close(t.Context()); err != nil {
			t.Fatal(err)
		}
		rest := append(slices.Clone(peers[:2]), peers[3:]...)
		until(t, 5*time.Second, "its leave is seen", whole(rest))
		until(t, 2*time.Second, "its last words are heard", allHave(rest, "last words", 1))
		until(t, 5*time.Second, "its farewell is heard", func() bool {
			return !slices.ContainsFunc(rest, func(p *peer) bool { return p.Metrics().Left != 1 || lostBy(p) != 0 })
		})
		// A crash: nothing goes out.
		var others []string
		for _, p := range rest[1:] {
			others = append(others, p.addr)
		}
		network.Partition([]string{rest[0].addr}, others)
		until(t, 5*time.Minute, "the crash is noticed", func() bool { return len(rest[1].Members()) == len(rest)-1 })
		if m := rest[1].Metrics(); m.Left != 1 || lostBy(rest[1]) != 1 {
			t.Errorf("a crash counts as a farewell: %d left", m.Left)
		}
	})
}

// A farewell and the departure come in either order, and farewells are bounded.
func TestFarewellOrder(t *testing.T) {
	p, err := New(Config{Name: "x"})
	if err != nil {
		t.Fatal(err)
	}
	f := farewell{p}
	p.arrive(Member{Name: "a", Addr: "10.0.0.1:1"})
	p.arrive(Member{Name: "b", Addr: "10.0.0.2:1"})
	if _, news := f.Merge([]byte("a")); !news {
		t.Error("no news")
	}
	if _, news := f.Merge([]byte("a")); news {
		t.Error("news twice")
	}
	p.depart("a", "10.0.0.1:1", time.Now())
	p.depart("b", "10.0.0.2:1", time.Now())
	if len(p.lost) != 1 || p.left.Load() != 1 || len(p.leavers) != 0 {
		t.Errorf("lost %v, %d left, leaving %v", p.lost, p.left.Load(), p.leavers)
	}
	if _, news := f.Merge([]byte("b")); !news || len(p.lost) != 0 || p.left.Load() != 2 {
		t.Errorf("lost %v, %d left", p.lost, p.left.Load())
	}
	if _, news := f.Merge([]byte("nobody")); news {
		t.Error("a stranger's farewell is news")
	}
	for i := range leaverLimit + 1 {
		p.arrive(Member{Name: fmt.Sprint(i), Addr: fmt.Sprint(i)})
		f.Merge([]byte(fmt.Sprint(i)))
	}
	if len(p.leavers) > leaverLimit {
		t.Errorf("%d farewells kept", len(p.leavers))
	}
}

// Nothing to say is nothing that the other cannot read.
func TestEmptyExchange(t *testing.T) {
	a, _ := New(Config{Name: "x"})
	b, _ := New(Config{Name: "x"})
	for _, p := range []*Pool{a, b} {
		p.AddState("nothing", silentState{})
		p.AddRecords("facts", newFacts())
	}
	delegate{b}.MergeRemoteState(delegate{a}.LocalState(true), true)
	if m := b.Metrics(); m.Malformed != 0 || m.Merged != 0 {
		t.Errorf("malformed %d, merged %d", m.Malformed, m.Merged)
	}
}

type silentState struct{}

func (silentState) Encode() []byte    { return nil }
func (silentState) Merge([]byte) bool { return false }

func lostBy(p *peer) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.lost)
}

func TestSilenceIsTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		settle(t)
		network := mesh.New(20)
		peers := instances(t, network, 4)
		until(t, time.Minute, "pool is whole", whole(peers))
		<-time.After(30 * time.Second)
		if s := peers[0].Metrics().Silence; s > 10*time.Second {
			t.Errorf("silence of %v in a pool that is well", s)
		}
		network.Links(mesh.Link{Loss: 1})
		<-time.After(30 * time.Second)
		if s := peers[0].Metrics().Silence; s < 29*time.Second {
			t.Errorf("silence of %v when nothing gets through", s)
		}
	})
}

func TestMembersAreBounded(t *testing.T) {
	p, err := New(Config{Name: "x"})
	if err != nil {
		t.Fatal(err)
	}
	for i := range memberLimit {
		p.arrive(Member{Name: fmt.Sprint(i), Addr: fmt.Sprintf("10.0.0.1:%d", i)})
	}
	if err := (delegate{p}).NotifyAlive(node("7")); err != nil {
		t.Error("a member that is known:", err)
	}
	if err := (delegate{p}).NotifyAlive(node("new")); err == nil {
		t.Error("one more was taken in")
	}
	p.depart("5", "10.0.0.1:5", time.Now())
	if err := (delegate{p}).NotifyAlive(node("new")); err != nil {
		t.Error("there is room:", err)
	}
	for i := range memberLimit {
		p.depart(fmt.Sprint(i), fmt.Sprintf("10.0.0.1:%d", i), time.Now())
	}
	if len(p.others) != 0 || len(p.members) != 0 {
		t.Errorf("%d others of %d members left", len(p.others), len(p.members))
	}
	if err := (delegate{p}).NotifyAlive(node(strings.Repeat("n", nameLimit+1))); err == nil {
		t.Error("a long name was taken in")
	}
}

func TestOversizeExchangeIsRefused(t *testing.T) {
	p, err := New(Config{Name: "x"})
	if err != nil {
		t.Fatal(err)
	}
	f := newFacts()
	c := p.AddRecords("facts", f)
	for i := range 40 {
		f.setLong(fmt.Sprint(i), 1, strings.Repeat("x", 50<<10))
	}
	state := delegate{p}.LocalState(true)
	if len(state) > exchangeLimit+recordLimit {
		t.Errorf("an exchange of %d bytes", len(state))
	}
	other, _ := New(Config{Name: "x"})
	g := newFacts()
	other.AddRecords("facts", g)
	delegate{other}.MergeRemoteState(state, true)
	if g.len() < 8 {
		t.Errorf("%d records taken in", g.len())
	}
	before := g.len()
	delegate{other}.MergeRemoteState(make([]byte, stateLimit+1), true)
	if m := other.Metrics(); g.len() != before || m.Malformed != 1 {
		t.Errorf("malformed %d", m.Malformed)
	}
	c.receive([]byte{99}) // of a newer version
	if m := p.Metrics(); m.Malformed != 1 {
		t.Errorf("malformed %d", m.Malformed)
	}
}
