package relay

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/holdfast-dev/holdfast/internal/document"
	"github.com/holdfast-dev/holdfast/internal/mirror"
	"github.com/holdfast-dev/holdfast/internal/session"
	"github.com/holdfast-dev/holdfast/internal/trust"
)

// rotate has other servers sign, and tells the instances that have a session.
func (c *cluster) rotate(set *trust.Signers, key *trust.Key, told ...*instance) {
	c.t.Helper()
	c.mu.Lock()
	c.set, c.key = set, key
	c.mu.Unlock()
	for _, i := range told {
		if err := i.relay.TrustServer(set.Bytes()); err != nil {
			c.t.Error(err)
		}
	}
}

// TestSignerRotation: while an instance is cut off, a server joins, and the one that it
// knew is removed. It follows by way of a peer, and believes the removed one no more.
func TestSignerRotation(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		c := w.cluster
		c.put(map[string]string{"a": `"1"`})
		all := w.instances(3)
		w.cutOff(all[1], true)
		w.cutOff(all[2], true)
		wait(10 * time.Second)
		first, second := c.key, newKey(t)
		c.rotate(c.signers(2, first, second), second, all[0])
		c.put(map[string]string{"a": `"2"`})
		until(t, 10*time.Second, "the new signer is believed", func() bool { return all[1].at(c) && all[2].at(c) })
		c.rotate(c.signers(3, second), second, all[0])
		until(t, 10*time.Second, "the set has arrived", func() bool { return len(all[1].relay.Encode(signersKey)) == 1+len(c.set.Bytes()) })
		if all[1].relay.known != nil {
			t.Error("what a removed server has signed is still known")
		}
		h := c.head(2)
		h.Revision = 9
		if _, news := all[1].relay.Merge(c.record(trust.SignHead(first, h), 0, 2, "")); news {
			t.Error("a removed server is believed")
		}
		c.put(map[string]string{"a": `"3"`})
		until(t, 10*time.Second, "the rest is obeyed", func() bool { return all[1].at(c) && all[2].at(c) })
		stranger := c.signers(4, newKey(t))
		if _, news := all[1].relay.Merge(append([]byte{signersType}, stranger.Bytes()...)); news {
			t.Error("a set that nobody known has signed is believed")
		}
		older := c.signers(2, second)
		if _, news := all[1].relay.Merge(append([]byte{signersType}, older.Bytes()...)); news {
			t.Error("an older set is believed")
		}
	})
}

// TestHeadBeforeItsSigner: a head that arrives before the set that has its signer is
// obeyed once that is there.
func TestHeadBeforeItsSigner(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		c := w.cluster
		c.put(map[string]string{"a": `"1"`})
		i := w.instances(1)[0]
		w.cutOff(i, true)
		wait(10 * time.Second)
		second := newKey(t)
		set := c.signers(2, c.key, second)
		c.put(map[string]string{"a": `"2"`})
		if _, news := i.relay.Merge(c.record(trust.SignHead(second, c.head(2)), 1, 2, "")); news {
			t.Error("an unknown signer is believed")
		}
		wait(time.Second)
		if _, news := i.relay.Merge(append([]byte{signersType}, set.Bytes()...)); !news {
			t.Error("the set is no news")
		}
		wait(time.Second)
		if !i.at(c) {
			t.Error("not obeyed")
		}
	})
}

// TestRestartInAFullPartition: nobody reaches a server, and a process starts anew. What
// it kept lets it find out what a peer has, and check it.
func TestRestartInAFullPartition(t *testing.T) {
	for _, lost := range []bool{false, true} { // all that was cached, but the trust
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t)
			c := w.cluster
			c.put(map[string]string{"a": `"1"`})
			all := w.instances(1)
			i := w.instance()
			i.dir = t.TempDir()
			i.start()
			wait(10 * time.Second)
			i.close()
			c.put(map[string]string{"a": strings.Repeat("x", 5000)})
			synctest.Wait()
			w.cutOff(all[0], true)
			w.cutOff(i, true)
			if lost {
				forget(t, i.dir)
			}
			wait(time.Minute)
			i.start()
			defer i.close()
			took := until(t, 20*time.Second, "obeyed", func() bool { return i.at(c) })
			if i.source() != session.FromPeer || took < firstPatience {
				t.Errorf("from %s after %v", i.source(), took)
			}
			// What it knows of the time comes from peers too.
			if got := i.session.StateTime(); got == 0 || got > time.Now().UnixMilli() {
				t.Errorf("state time %d", got)
			}
		})
	}
}

// TestNobodyToBelieve: without a set of signers nothing is believed.
func TestNobodyToBelieve(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.cluster.put(map[string]string{"a": `"1"`})
		w.instances(1)
		i := w.instance()
		w.cutOff(i, true)
		i.start()
		defer i.close()
		wait(30 * time.Second)
		if i.session.Mirror().Position().Set() || len(i.pool.Members()) != 2 {
			t.Errorf("at %s of %d members", i.session.Mirror().Position(), len(i.pool.Members()))
		}
	})
}

// TestWhoMayAsk: a document is for instances of the namespace, whose certificates have
// not ended.
func TestWhoMayAsk(t *testing.T) {
	for name, certificate := range map[string]func(w *world, i *instance) []byte{
		"expired": func(w *world, i *instance) []byte { return w.cluster.certify(i.id, i.key, time.Now().Add(time.Second)) },
		"another key": func(w *world, i *instance) []byte {
			return w.cluster.certify(i.id, newKey(w.t), time.Now().Add(time.Hour))
		},
		"another namespace": func(w *world, i *instance) []byte {
			b, err := trust.Certify(w.cluster.key, trust.Certificate{
				Namespace: "other", ID: i.id, PublicKey: i.key.Public(), NotAfter: time.Now().Add(time.Hour).UnixMilli(),
			})
			if err != nil {
				w.t.Fatal(err)
			}
			return b
		},
		"another authority": func(w *world, i *instance) []byte {
			return newCluster(w.t).certify(i.id, i.key, time.Now().Add(time.Hour))
		},
		"none": func(*world, *instance) []byte { return nil },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				w.cluster.put(map[string]string{"a": `"1"`})
				all := w.instances(2)
				asker := all[1]
				asker.relay.SetCertificate(certificate(w, asker))
				w.cutOff(asker, true)
				wait(10 * time.Second)
				w.cluster.put(map[string]string{"a": strings.Repeat("x", 5000)})
				wait(20 * time.Second)
				if asker.at(w.cluster) {
					t.Error("it has got the document")
				}
				if m := all[0].relay.Metrics(); m.Served != 0 || name != "none" && m.Refused == 0 {
					t.Errorf("metrics %+v", m)
				}
				w.cluster.put(map[string]string{"a": "", "b": `"small"`}) // comes by itself
				asker.relay.SetCertificate(w.cluster.certify(asker.id, asker.key, time.Now().Add(time.Hour)))
				until(t, time.Minute, "obeyed with a good certificate", func() bool { return asker.at(w.cluster) })
			})
		})
	}
}

// TestFreshness: who is cut off knows how old what it holds may be.
func TestFreshness(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		c := w.cluster
		c.put(map[string]string{"a": `"1"`})
		all := w.instances(2)
		w.cutOff(all[1], true)
		for range 20 { // revisions that change nothing here
			wait(10 * time.Second)
			c.put(nil)
		}
		now := time.Now().UnixMilli()
		for k, most := range []time.Duration{10 * time.Second, 2 * spacing} {
			if age := time.Duration(now-all[k].relay.Status().FreshAt) * time.Millisecond; age > most || age < 0 {
				t.Errorf("%s was fresh %v ago", all[k].id, age)
			}
		}
		if m := all[0].relay.Metrics(); m.Heads > 10 {
			t.Errorf("%d heads were passed on in 200 s, though nothing changed", m.Heads)
		}
		if all[1].source() != session.FromPeer || all[1].revision() < c.newest()-6 {
			t.Errorf("at %d of %d from %s", all[1].revision(), c.newest(), all[1].source())
		}
		w.cutOff(all[0], true)
		wait(time.Minute)
		before := all[1].relay.Status().FreshAt
		c.put(map[string]string{"a": `"2"`}) // which nobody hears of
		later := trust.SignTimestamp(c.key, trust.Timestamp{Epoch: c.epoch, Revision: c.newest(), StateTime: time.Now().UnixMilli()})
		forged := trust.SignTimestamp(newKey(t), trust.Timestamp{Epoch: c.epoch, Revision: 1, StateTime: time.Now().UnixMilli()})
		if _, news := all[1].relay.Merge(appendSigned([]byte{timeType}, forged)); news {
			t.Error("a forged timestamp is believed")
		}
		if _, news := all[1].relay.Merge(appendSigned([]byte{timeType}, later)); !news {
			t.Error("a timestamp is no news")
		}
		wait(spacing / 2)
		soon := trust.SignTimestamp(c.key, trust.Timestamp{Epoch: c.epoch, Revision: c.newest(), StateTime: time.Now().UnixMilli()})
		if _, news := all[1].relay.Merge(appendSigned([]byte{timeType}, soon)); news {
			t.Error("every timestamp is passed on")
		}
		wait(time.Second)
		if got := all[1].relay.Status().FreshAt; got != before {
			t.Errorf("fresh at %d, before %d, though there is something newer", got, before)
		}
		if got, now := all[1].session.StateTime(), time.Now().UnixMilli(); got > now || got < now-1100 {
			t.Errorf("state time is %d off", now-got)
		}
	})
}

// TestRestoredCluster: a backup is restored, and followed by way of a peer too.
func TestRestoredCluster(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		c := w.cluster
		for _, spec := range []string{`"1"`, `"2"`, `"3"`} {
			c.put(map[string]string{"a": spec})
		}
		all := w.instances(2)
		w.cutOff(all[1], true)
		wait(10 * time.Second)
		w.grpc.Stop()
		c.mu.Lock()
		c.epoch.Counter, c.epoch.Nonce, c.history = 2, 8, c.history[:2]
		c.mu.Unlock()
		c.set = c.signers(1, c.key)
		w.up()
		until(t, 20*time.Second, "the restored one is obeyed", func() bool { return all[0].at(c) && all[1].at(c) })
		if at := all[1].session.Mirror().Position(); at.Epoch != c.epoch || at.Revision != 1 || all[1].source() != session.FromPeer {
			t.Errorf("at %s from %s", at, all[1].source())
		}
	})
}

// TestHolderAfterABareHead: where a server's head is faster than an instance that has
// the document, the others learn from that one whom to ask.
func TestHolderAfterABareHead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		c := w.cluster
		c.put(map[string]string{"a": `"1"`})
		all := w.instances(30)
		for _, i := range all[1:] {
			w.cutOff(i, true)
		}
		wait(10 * time.Second)
		c.mu.Lock()
		revision := uint64(len(c.history))
		k := document.Key{Kind: document.Flag, Name: "a"}
		large := &document.Resource{Key: k, Spec: []byte(strings.Repeat("x", 10<<10)), CreateRevision: revision, ModRevision: revision, Version: 1}
		c.mu.Unlock()
		signed := trust.SignHead(c.key, trust.Head{
			Namespace: namespace, Epoch: c.epoch, Revision: revision,
			Root: rootOf(map[document.Key]*document.Resource{k: large}), StateTime: time.Now().UnixMilli(),
		})
		for _, i := range all {
			i.relay.Merge((&signedHead{signed: signed}).encode())
		}
		wait(20 * time.Second) // everybody has asked many who do not have it
		c.put(map[string]string{"a": string(large.Spec)})
		took := until(t, 8*time.Second, "all obey", func() bool {
			for _, i := range all {
				if !i.at(c) {
					return false
				}
			}
			return true
		})
		t.Logf("all obey after %v", took)
	})
}

// TestServersSpreadHeads: a server that is a member of the pool tells of a head where no
// instance has a session.
func TestServersSpreadHeads(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		c := w.cluster
		c.put(map[string]string{"a": `"1"`})
		all := w.instances(2)
		server := New(Config{Namespace: namespace})
		if err := server.TrustServer(c.set.Bytes()); err != nil {
			t.Fatal(err)
		}
		host := w.instance()
		pool := w.pool("server", host.addr, host.seeds, server.Attach)
		server.Start(nil)
		defer func() { _ = pool.Close(t.Context()); server.Close() }()
		wait(10 * time.Second)
		for _, i := range all {
			w.cutOff(i, true)
		}
		wait(10 * time.Second)
		// Another namespace changes: what is held is still the newest.
		c.put(nil)
		server.Head(trust.SignHead(c.key, c.head(2)), c.stamp())
		wait(spacing)
		server.Head(trust.SignHead(c.key, c.head(2)), c.stamp())
		wait(2 * time.Second)
		for _, i := range all {
			if i.revision() != 2 || time.Now().UnixMilli()-i.relay.Status().FreshAt > 3000 {
				t.Errorf("at %d, fresh at %d", i.revision(), i.relay.Status().FreshAt)
			}
		}
		if s := server.Status(); s.Head != (mirror.Position{Epoch: c.epoch, Revision: 2}) {
			t.Errorf("status %+v", s)
		}
	})
}

// TestDeltaAfterABareHead: a head that a server has spread comes without the change; who
// hears it with the change from an instance needs to ask nobody.
func TestDeltaAfterABareHead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		c := w.cluster
		c.put(map[string]string{"a": `"1"`})
		i := w.instances(1)[0]
		w.cutOff(i, true)
		wait(10 * time.Second)
		c.put(map[string]string{"a": `"2"`})
		signed := trust.SignHead(c.key, c.head(2))
		for k, from := range []uint64{0, 1, 1} {
			if _, news := i.relay.Merge(c.record(signed, from, 2, "")); news != (k < 2) {
				t.Errorf("record %d is news: %v", k, news)
			}
			wait(time.Second)
			if i.at(c) != (k > 0) {
				t.Errorf("after record %d it is at %d", k, i.revision())
			}
		}
	})
}

// TestBaseByContent: a change goes onto the same content, whatever its revision.
func TestBaseByContent(t *testing.T) {
	for name, spec := range map[string]string{"with the head": `"2"`, "asked for": strings.Repeat("x", 5000)} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				c := w.cluster
				c.put(map[string]string{"a": `"1"`, "b": strings.Repeat("y", 20<<10)})
				first := w.instances(1)[0]
				w.cutOff(first, true)
				c.put(nil)
				c.put(nil)
				other := w.instance().start() // which has never been where the first is
				defer other.close()
				wait(10 * time.Second)
				first.relay.mu.Lock()
				first.relay.adopted = time.Now() // so that it stays there
				first.relay.mu.Unlock()
				at := first.revision()
				c.put(map[string]string{"a": spec})
				until(t, 5*time.Second, "obeyed", func() bool { return first.at(c) })
				if m := first.relay.Metrics(); first.changes[len(first.changes)-1].Replace || m.Poisoned != 0 {
					t.Errorf("from %d: all of it was sent, metrics %+v", at, m)
				}
			})
		})
	}
}

// TestDeltaOverMissedOnes: what comes with a head leads there also from what was there a
// few changes before.
func TestDeltaOverMissedOnes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		c := w.cluster
		c.put(map[string]string{"a": `"1"`})
		all := w.instances(2)
		w.cutOff(all[1], true)
		all[1].relay.SetCertificate(nil) // it can ask nobody
		wait(10 * time.Second)
		w.mesh.Partition([]string{all[0].addr}, []string{all[1].addr})
		for _, spec := range []string{`"2"`, `"3"`} {
			c.put(map[string]string{"a": spec, "b": spec})
			wait(200 * time.Millisecond)
		}
		w.mesh.Heal()
		c.put(map[string]string{"b": ""})
		until(t, 10*time.Second, "obeyed", func() bool { return all[1].at(c) })
	})
}

// TestTellsTheTime: who is cut off learns from peers what time it is at least.
func TestTellsTheTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t)
		c.put(map[string]string{"a": `"1"`})
		r, h := New(Config{Namespace: namespace}), &static{held: c.mirror(1)}
		if err := r.TrustServer(c.set.Bytes()); err != nil {
			t.Fatal(err)
		}
		r.Start(h)
		defer r.Close()
		r.Merge(appendSigned([]byte{timeType}, c.stamp()))
		want := time.Now().UnixMilli()
		wait(time.Second)
		if h.told != want {
			t.Errorf("told %d, want %d", h.told, want)
		}
		r.Connected(true)
		r.Merge(appendSigned([]byte{timeType}, c.stamp()))
		wait(time.Second)
		if h.told != want {
			t.Error("told beside a server")
		}
	})
}

// TestAnotherCluster: where the session follows the cluster into another history, so
// does the relay.
func TestAnotherCluster(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		c := w.cluster
		c.put(map[string]string{"a": `"1"`})
		i := w.instances(1)[0]
		other := newCluster(t)
		other.epoch.Lineage[0]++
		other.set = other.signers(1, other.key)
		other.put(map[string]string{"a": `"other"`})
		if err := i.relay.TrustServer(other.set.Bytes()); err != nil {
			t.Fatal(err)
		}
		i.relay.Head(trust.SignHead(other.key, other.head(1)), nil) // not held
		if at := i.relay.Status().Head; at.Epoch != c.epoch {
			t.Errorf("a head of what is not held: %s", at)
		}
		w.cutOff(i, true)
		synctest.Wait()
		c.put(map[string]string{"a": `"2"`})
		if err := i.relay.TrustServer(c.signers(1, c.key).Bytes()); err != nil {
			t.Fatal(err)
		}
		i.relay.Head(trust.SignHead(c.key, c.head(2)), nil) // not held either
		if at := i.relay.Status().Head; at.Revision != 1 {
			t.Errorf("a head of what is not held: %s", at)
		}
		if err := i.relay.TrustServer(other.set.Bytes()); err != nil {
			t.Fatal(err)
		}
		stranger := &static{held: other.mirror(1)}
		i.relay.mu.Lock()
		i.relay.holder = stranger
		i.relay.mu.Unlock()
		i.relay.Head(trust.SignHead(other.key, other.head(1)), other.stamp())
		if s := i.relay.Status(); s.Head != stranger.held.Position() || s.FreshAt == 0 {
			t.Errorf("status %+v", s)
		}
	})
}

// static holds something that never changes.
type static struct {
	held *mirror.Mirror
	told int64
}

func (s *static) Mirror() *mirror.Mirror              { return s.held }
func (s *static) Offer(mirror.Update, int64) error    { return session.ErrConnected }
func (s *static) NotBefore(_ document.Epoch, t int64) { s.told = t }
func (s *static) StateTime() int64                    { return 0 }
