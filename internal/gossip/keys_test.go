package gossip

import (
	"bytes"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/memberlist"

	"github.com/holdfast-dev/holdfast/internal/gossip/mesh"
)

func key(b byte) []byte { return bytes.Repeat([]byte{b}, 32) }

func TestSetKeysOrders(t *testing.T) {
	a, b, c, d := key(1), key(2), key(3), key(4)
	ring, _ := memberlist.NewKeyring(nil, nil)
	for _, keys := range [][][]byte{{a}, {a, b}, {b, a}, {b}, {c, b}, {a, d, c}, {d, c}, {b, a, c, d}, {c, b}, {a}} {
		if err := setKeys(ring, keys); err != nil {
			t.Fatal(err)
		}
		got := ring.GetKeys()
		if len(got) != len(keys) || !bytes.Equal(got[0], keys[0]) {
			t.Errorf("%x has become %x", keys, got)
		}
		for _, k := range keys {
			if !contains(got, k) {
				t.Errorf("%x lacks %x", got, k)
			}
		}
	}
	p, err := New(Config{Name: "x"})
	if err != nil {
		t.Fatal(err)
	}
	for _, keys := range [][][]byte{nil, {{1}}, {a, {1}}, slices.Repeat([][]byte{a}, keyLimit+1)} {
		if err := p.SetKeys(keys); err == nil {
			t.Errorf("took %x", keys)
		}
	}
	if len(p.ring.GetKeys()) != 0 {
		t.Error("a refused set was taken in part")
	}
}

// The library's readers take no lock while they go through the keys. Its own way to
// remove one shifts them meanwhile, which the race detector shows here.
func TestSetKeysWhileKeysAreRead(t *testing.T) {
	ring, _ := memberlist.NewKeyring(nil, nil)
	a, b, c := key(1), key(2), key(3)
	if err := setKeys(ring, [][]byte{a}); err != nil {
		t.Fatal(err)
	}
	var passes atomic.Int64
	stop := make(chan struct{})
	var readers sync.WaitGroup
	for range 2 {
		readers.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				for _, k := range ring.GetKeys() {
					if len(k) != 32 || k[0] == 0 {
						t.Error("a reader saw half a change")
						return
					}
				}
				passes.Add(1)
			}
		})
	}
	for round := 0; round < 5000 || passes.Load() < 50000; round++ {
		for _, keys := range [][][]byte{{a, b, c}, {c, b}, {b, c, a}, {a}} {
			if err := setKeys(ring, keys); err != nil {
				t.Error(err)
			}
		}
	}
	close(stop)
	readers.Wait()
}

// Keys change under traffic, member by member, and no member and no news is lost.
func TestKeysRotateUnderTraffic(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		settle(t)
		network := mesh.New(41)
		network.Links(mesh.Link{Latency: time.Millisecond, Spread: 0.3})
		var peers []*peer
		for i := range 6 {
			transport, err := network.Transport(fmt.Sprintf("10.0.0.%d:1", i+1))
			if err != nil {
				t.Fatal(err)
			}
			peers = append(peers, open(t, Config{
				Name: "k", Label: "keys", Profile: Instances, Transport: transport, Keys: [][]byte{key(1)}, Join: []string{"10.0.0.1:1"},
			}))
		}
		until(t, time.Minute, "pool is whole", whole(peers))
		version := uint64(0)
		for old := byte(1); old < 4; old++ {
			for _, keys := range [][][]byte{{key(old), key(old + 1)}, {key(old + 1), key(old)}, {key(old + 1)}} {
				for i, p := range peers {
					if err := p.SetKeys(keys); err != nil {
						t.Fatal(err)
					}
					version++
					from := peers[(i+1)%len(peers)]
					from.facts.set("x", version)
					from.channel.Spread("x")
					until(t, time.Second, "news in the midst of it", allHave(peers, "x", version))
				}
			}
		}
		if !whole(peers)() {
			t.Error("a member was lost")
		}
		// The first key is worth nothing any more, and the last one lets in.
		join := func(k []byte, addr string) *peer {
			transport, err := network.Transport(addr)
			if err != nil {
				t.Fatal(err)
			}
			return open(t, Config{Name: "n", Label: "keys", Profile: Instances, Transport: transport, Keys: [][]byte{k}, Join: []string{"10.0.0.1:1"}})
		}
		late := join(key(1), "10.0.0.8:1")
		<-time.After(30 * time.Second)
		if len(late.Members()) != 1 {
			t.Error("an old key opens the pool")
		}
		if err := late.SetKeys([][]byte{key(4)}); err != nil {
			t.Fatal(err)
		}
		until(t, 30*time.Second, "in with the new key", whole(append(slices.Clone(peers), late)))
	})
}

// Plaintext becomes encrypted without a restart.
func TestKeysComeLive(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		settle(t)
		peers := instances(t, mesh.New(42), 4)
		until(t, time.Minute, "pool is whole", whole(peers))
		for _, p := range peers {
			if err := p.SetKeys([][]byte{key(9)}); err != nil {
				t.Fatal(err)
			}
		}
		peers[1].facts.set("x", 1)
		peers[1].channel.Spread("x")
		until(t, time.Second, "all know", allHave(peers, "x", 1))
		<-time.After(2 * time.Minute)
		if !whole(peers)() {
			t.Error("a member was lost")
		}
	})
}
