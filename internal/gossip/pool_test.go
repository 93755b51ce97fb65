package gossip

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/memberlist"
	"go.uber.org/goleak"

	"github.com/holdfast-dev/holdfast/internal/gossip/mesh"
)

// TestMain looks for goroutines that were left behind. A probe that memberlist had
// under way when it was stopped ends with its own timeout.
func TestMain(m *testing.M) {
	code := m.Run()
	var leak error
	for range 15 {
		if leak = goleak.Find(); leak == nil {
			break
		}
		<-time.After(time.Second)
	}
	if leak != nil {
		fmt.Fprintln(os.Stderr, leak)
		code = max(code, 1)
	}
	os.Exit(code)
}

// settle lets the library's last probes end in the bubble: they take their own
// timeout, stretched by its health score.
func settle(t *testing.T) {
	t.Helper()
	t.Cleanup(func() { <-time.After(time.Minute) })
}

// words is a set that only grows.
type words struct {
	mu  sync.Mutex
	set map[string]bool
}

func (w *words) add(word string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.set == nil {
		w.set = make(map[string]bool)
	}
	w.set[word] = true
}

func (w *words) has(word string) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.set[word]
}

func (w *words) Encode() []byte {
	w.mu.Lock()
	defer w.mu.Unlock()
	var all []string
	for word := range maps.Keys(w.set) {
		all = append(all, word)
	}
	return []byte(strings.Join(all, " "))
}

func (w *words) Merge(b []byte) bool {
	changed := false
	for word := range strings.FieldsSeq(string(b)) {
		if !w.has(word) {
			w.add(word)
			changed = true
		}
	}
	return changed
}

type peer struct {
	*Pool
	words   words
	tell    func()
	facts   *facts
	channel *Channel
	addr    string
}

// fleet starts members on a network in memory; each joins through the first.
func fleet(t *testing.T, network *mesh.Network, n int) []*peer {
	t.Helper()
	peers := make([]*peer, n)
	for i := range peers {
		addr := fmt.Sprintf("10.0.%d.%d:7403", i/250, i%250+1)
		transport, err := network.Transport(addr)
		if err != nil {
			t.Fatal(err)
		}
		config := Config{Name: fmt.Sprintf("s%d", i), Label: "test", Transport: transport}
		if i > 0 {
			config.Join = []string{peers[0].addr}
		}
		peers[i] = open(t, config)
		peers[i].addr = addr
	}
	return peers
}

func open(t *testing.T, config Config) *peer {
	t.Helper()
	pool, err := New(config)
	if err != nil {
		t.Fatal(err)
	}
	p := &peer{Pool: pool, facts: newFacts()}
	p.tell = pool.AddState("words", &p.words)
	p.channel = pool.AddRecords("facts", p.facts)
	if err := pool.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := pool.Close(context.Background()); err != nil {
			t.Logf("close: %v", err)
		}
	})
	return p
}

// until waits for a condition, in virtual or real time.
func until(t *testing.T, within time.Duration, what string, ok func() bool) time.Duration {
	t.Helper()
	start := time.Now()
	for !ok() {
		if time.Since(start) > within {
			t.Fatalf("not within %v: %s", within, what)
		}
		<-time.After(20 * time.Millisecond)
	}
	return time.Since(start)
}

func whole(peers []*peer) func() bool {
	return func() bool {
		for _, p := range peers {
			if p.Metrics().Members != len(peers) {
				return false
			}
		}
		return true
	}
}

func allKnow(peers []*peer, word string) func() bool {
	return func() bool {
		for _, p := range peers {
			if !p.words.has(word) {
				return false
			}
		}
		return true
	}
}

// Without re-broadcasting on first sight a message reaches about a dozen.
func TestStateReachesEverybodyWithoutAnExchange(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		settle(t)
		peers := fleet(t, mesh.New(1), 40)
		until(t, 5*time.Minute, "pool is whole", whole(peers))
		peers[7].words.add("news")
		peers[7].tell()
		took := until(t, 5*time.Second, "all know", allKnow(peers, "news"))
		t.Logf("40 members after %v", took)
	})
}

func TestHealsAfterALongPartition(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		settle(t)
		network := mesh.New(2)
		peers := fleet(t, network, 8)
		until(t, time.Minute, "pool is whole", whole(peers))
		var left, right []string
		for i, p := range peers {
			if i < 4 {
				left = append(left, p.addr)
			} else {
				right = append(right, p.addr)
			}
		}
		network.Partition(left, right)
		until(t, 2*time.Minute, "the halves see themselves alone", func() bool {
			for _, p := range peers {
				if len(p.Members()) != 4 {
					return false
				}
			}
			return true
		})
		peers[1].words.add("left")
		peers[1].tell()
		peers[6].words.add("right")
		peers[6].tell()
		<-time.After(5 * time.Minute)
		network.Heal()
		took := until(t, time.Minute, "whole again", whole(peers))
		t.Logf("whole after %v", took)
		until(t, time.Minute, "both sides' news", func() bool {
			return allKnow(peers, "left")() && allKnow(peers, "right")()
		})
	})
}

func TestLossyNetwork(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		settle(t)
		network := mesh.New(3)
		network.Shape(5*time.Millisecond, 0.2)
		peers := fleet(t, network, 10)
		until(t, 2*time.Minute, "pool is whole", whole(peers))
		peers[3].words.add("news")
		peers[3].tell()
		until(t, time.Minute, "all know", allKnow(peers, "news"))
	})
}

func TestCrashIsNoticedAndRestartComesBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		settle(t)
		network := mesh.New(4)
		peers := fleet(t, network, 3)
		until(t, time.Minute, "pool is whole", whole(peers))
		rest := []string{peers[0].addr, peers[1].addr}
		network.Partition([]string{peers[2].addr}, rest)
		until(t, time.Minute, "crash noticed", func() bool { return len(peers[0].Members()) == 2 })
		old := peers[2].Name()
		_ = peers[2].Close(context.Background())
		network.Heal()

		transport, err := network.Transport(peers[2].addr)
		if err != nil {
			t.Fatal(err)
		}
		again := open(t, Config{Name: "s2", Label: "test", Transport: transport, Join: rest})
		again.addr = peers[2].addr
		if again.Name() == old {
			t.Fatal("a new run has the name of the old one")
		}
		until(t, 15*time.Second, "back", whole([]*peer{peers[0], peers[1], again}))
	})
}

func TestLeaveIsSeenAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		settle(t)
		peers := fleet(t, mesh.New(5), 3)
		until(t, time.Minute, "pool is whole", whole(peers))
		if err := peers[2].Close(context.Background()); err != nil {
			t.Fatal(err)
		}
		until(t, 2*time.Second, "gone", func() bool { return len(peers[0].Members()) == 2 && len(peers[1].Members()) == 2 })
	})
}

func TestOversizeStateTravelsByExchange(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		settle(t)
		peers := fleet(t, mesh.New(6), 3)
		until(t, time.Minute, "pool is whole", whole(peers))
		long := strings.Repeat("x", packetSize)
		peers[1].words.add(long)
		peers[1].tell()
		took := until(t, time.Second, "all know", allKnow(peers, long))
		t.Logf("by streams after %v", took)
		m := peers[1].Metrics()
		if m.Oversize != 1 {
			t.Errorf("oversize = %d, want 1", m.Oversize)
		}
		if m.Queued != 0 {
			t.Errorf("%d messages queued that can never leave", m.Queued)
		}
	})
}

func TestMetaSpreadsAndIsGuarded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		settle(t)
		network := mesh.New(7)
		var meta atomic.Pointer[[]byte]
		set := func(b []byte) { meta.Store(&b) }
		set([]byte("one"))
		transport, err := network.Transport("10.1.0.1:7403")
		if err != nil {
			t.Fatal(err)
		}
		first := open(t, Config{Name: "m", Transport: transport, Meta: func() []byte { return *meta.Load() }})
		transport, err = network.Transport("10.1.0.2:7403")
		if err != nil {
			t.Fatal(err)
		}
		var second *peer
		var changes atomic.Int32
		ready := make(chan struct{})
		second = open(t, Config{
			Name: "n", Transport: transport, Join: []string{"10.1.0.1:7403"},
			// A callback may call the pool: it does not run under its locks.
			OnChange: func() { <-ready; _ = second.Members(); second.UpdateMeta(); changes.Add(1) },
		})
		close(ready)
		seen := func() string {
			for _, m := range second.Members() {
				if m.Name == first.Name() {
					return string(m.Meta)
				}
			}
			return "absent"
		}
		until(t, time.Minute, "first meta", func() bool { return seen() == "one" })
		set([]byte("two"))
		first.UpdateMeta()
		until(t, 5*time.Second, "second meta", func() bool { return seen() == "two" })
		set(bytes.Repeat([]byte("x"), metaLimit+1))
		first.UpdateMeta()
		until(t, 5*time.Second, "no meta", func() bool { return seen() == "" })
		if first.Metrics().Oversize == 0 || changes.Load() == 0 {
			t.Fatal("oversize meta not counted, or no change reported")
		}
	})
}

func TestFullInboxDropsAndCounts(t *testing.T) {
	p, err := New(Config{Name: "x"})
	if err != nil {
		t.Fatal(err)
	}
	message := append(appendName(nil, "words"), "a"...)
	for range inboxSize + 10 {
		delegate{p}.NotifyMsg(message)
	}
	if m := p.Metrics(); m.Received != inboxSize || m.Dropped != 10 {
		t.Fatalf("received %d, dropped %d", m.Received, m.Dropped)
	}
	message[0] = 0xff // the library reuses its buffer
	if name, _, ok := cutName(<-p.inbox); !ok || name != "words" {
		t.Fatal("the message was not copied")
	}
}

func TestOddVersionsAreRefused(t *testing.T) {
	p, err := New(Config{Name: "x"})
	if err != nil {
		t.Fatal(err)
	}
	if err := (delegate{p}).NotifyAlive(node("good")); err != nil {
		t.Fatal(err)
	}
	for _, n := range []*memberlist.Node{
		{PMin: 3, PMax: 5, PCur: 3},
		{PMin: 1, PMax: 5, PCur: 9},
		{PMin: 1, PMax: 5, PCur: 2, DMax: 7},
	} {
		if err := (delegate{p}).NotifyAlive(n); err == nil {
			t.Errorf("accepted %+v", n)
		}
	}
}

func node(name string) *memberlist.Node {
	return &memberlist.Node{Name: name, PMin: 1, PMax: 5, PCur: 2}
}

func TestLostIsBounded(t *testing.T) {
	p, err := New(Config{Name: "x"})
	if err != nil {
		t.Fatal(err)
	}
	now := time.Unix(1e9, 0)
	for i := range lostLimit + 50 {
		p.lose("x", fmt.Sprintf("10.0.0.1:%d", i), now.Add(time.Duration(i)*time.Second))
	}
	if len(p.lost) != lostLimit {
		t.Fatalf("%d lost addresses kept", len(p.lost))
	}
	if _, ok := p.lost["10.0.0.1:0"]; ok {
		t.Fatal("the oldest was kept")
	}
	// Each is tried by and by.
	now = now.Add(time.Hour)
	tried := make(map[string]int)
	for range 360 {
		due := p.lostDue(now, rejoinBatch)
		if len(due) > rejoinBatch {
			t.Fatalf("%d at once", len(due))
		}
		for _, a := range due {
			tried[a.addr]++
		}
		now = now.Add(rejoinInterval)
	}
	if len(tried) != lostLimit {
		t.Errorf("%d of %d tried in half an hour", len(tried), lostLimit)
	}
	// One that went just now is tried within half a minute for the first ten minutes,
	// however many wait, and then more rarely.
	p.lose("y", "10.0.0.2:1", now)
	last, longest, tries := now, time.Duration(0), 0
	for range 720 {
		if slices.Contains(p.lostDue(now, rejoinBatch), address{"y", "10.0.0.2:1"}) {
			if now.Sub(p.lost["10.0.0.2:1"].at) <= 10*time.Minute {
				longest = max(longest, now.Sub(last))
			}
			last = now
			tries++
		}
		now = now.Add(rejoinInterval)
	}
	if longest > 25*time.Second || tries > 300 || tries < 90 {
		t.Errorf("tried %d times in an hour, and at first not for %v", tries, longest)
	}
	if got := p.lostDue(now.Add(lostFor+time.Hour), lostLimit); len(got) != 0 || len(p.lost) != 0 {
		t.Fatalf("%d addresses kept for ever", len(p.lost))
	}
}

func TestLoopback(t *testing.T) {
	key := bytes.Repeat([]byte{1}, 32)
	base := Config{BindAddr: "127.0.0.1:0", Label: "test", Keys: [][]byte{key}}
	a := base
	a.Name = "a"
	first := open(t, a)
	var peers []*peer
	for _, name := range []string{"b", "c"} {
		c := base
		c.Name, c.Join, c.SourceIP = name, []string{first.Addr()}, "127.0.0.1"
		peers = append(peers, open(t, c))
	}
	peers = append(peers, first)
	until(t, 20*time.Second, "pool is whole", whole(peers))

	until(t, 20*time.Second, "traffic is counted", func() bool {
		m := first.Metrics()
		return m.ReceivedPackets > 0 && m.ReceivedBytes >= m.ReceivedPackets && m.SentPackets > 0 && m.SentBytes >= 100
	})
	foreign := base
	foreign.Name, foreign.Join, foreign.Keys = "d", []string{first.Addr()}, [][]byte{bytes.Repeat([]byte{2}, 32)}
	wrongKey := open(t, foreign)
	other := base
	other.Name, other.Join, other.Label = "e", []string{first.Addr()}, "other"
	wrongLabel := open(t, other)

	first.words.add("news")
	first.tell()
	until(t, 20*time.Second, "all know", allKnow(peers, "news"))
	until(t, 20*time.Second, "strangers have tried", func() bool {
		return wrongKey.Metrics().Rejoins > 1 && wrongLabel.Metrics().Rejoins > 1
	})
	if len(wrongKey.Members()) != 1 || len(wrongLabel.Members()) != 1 || len(first.Members()) != 3 {
		t.Fatal("a stranger is in the pool")
	}
}

func TestStreamsLeaveFromTheSourceIP(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = listener.Close() }()
	transport, err := openSockets("127.0.0.1:0", "", "127.0.0.9")
	if err != nil {
		t.Skipf("no second loopback address: %v", err)
	}
	conn, err := transport.DialTimeout(listener.Addr().String(), time.Second)
	if err != nil {
		t.Skipf("no second loopback address: %v", err)
	}
	far, err := listener.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = far.Close() }()
	if host, _, _ := net.SplitHostPort(far.RemoteAddr().String()); host != "127.0.0.9" {
		t.Fatalf("stream came from %s", host)
	}
	if err := transport.Shutdown(); err != nil {
		t.Fatal(err)
	}
	if _, err := conn.Write([]byte("x")); err == nil {
		t.Fatal("the stream outlived its transport")
	}
	if _, err := transport.DialTimeout(listener.Addr().String(), time.Second); err == nil {
		t.Fatal("dialled after the shutdown")
	}
}

func TestConfigIsChecked(t *testing.T) {
	for _, c := range []Config{{}, {Name: "a/b"}, {Name: "a", Label: strings.Repeat("x", 256)}} {
		if _, err := New(c); err == nil {
			t.Errorf("accepted %+v", c)
		}
	}
	for _, c := range []Config{
		{Name: "a", BindAddr: "nonsense"},
		{Name: "a", BindAddr: "127.0.0.1:0", Keys: [][]byte{{1}}},
		{Name: "a", BindAddr: "127.0.0.1:0", SourceIP: "nonsense"},
		{Name: "a", BindAddr: "127.0.0.1:0", AdvertiseAddr: "nonsense::::"},
	} {
		p, err := New(c)
		if err != nil {
			t.Fatal(err)
		}
		if err := p.Start(); err == nil {
			t.Errorf("started %+v", c)
		}
		if err := p.Close(context.Background()); err != nil {
			t.Error(err)
		}
	}
}

func FuzzMessages(f *testing.F) {
	c := (&Pool{name: "x"}).newTestChannel()
	f.Add([]byte(nil))
	f.Add(c.exchange())
	f.Add(append(c.newRepair(kindWant), 1, 2, 3, 4, 5, 6, 7, 8))
	f.Add(append(c.newRepair(kindSums), make([]byte, 8*buckets)...))
	f.Add(appendBlock([]byte{0}, append(c.newMessage(kindNews), 9, 0, 0, 0, 0, 0, 0, 0, 0, 1)))
	f.Add([]byte{5, 200, 1, 2, 3, 4})
	f.Fuzz(func(t *testing.T, b []byte) {
		p, err := New(Config{Name: "x"})
		if err != nil {
			t.Fatal(err)
		}
		p.AddState("state", &words{})
		p.AddRecords("words", newFacts())
		p.receive(b)
		delegate{p}.MergeRemoteState(b, false)
		p.compare(address{}, b)
	})
}

func (p *Pool) newTestChannel() *Channel {
	return &Channel{pool: p, name: "words", records: single{&words{set: map[string]bool{"a": true}}}}
}
