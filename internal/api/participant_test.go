package api

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/holdfast-dev/holdfast/internal/trust"
	holdfastv1 "github.com/holdfast-dev/holdfast/proto/holdfast/v1"
)

// TestRelayed: the instance is certified, and told who signs and where its like are,
// but not how to join the pool.
func TestRelayed(t *testing.T) {
	n, f := fleeted(t)
	g := n.gossips(t, "i", func(h *holdfastv1.Hello) { h.Identity.Labels = map[string]string{"zone": "eu-1"} })
	s := g.granted(t, modeRelayed)
	cert, err := f.signers.Certificate("default", s.GetCertificate(), time.Now())
	want := trust.Certificate{Namespace: "default", ID: "i", Service: "checkout", Host: "127.0.0.1", Zone: "eu-1", PublicKey: g.key.Public()}
	cert.NotAfter = 0
	if err != nil || !cert.PublicKey.Equal(want.PublicKey) || fmt.Sprint(cert) != fmt.Sprint(want) {
		t.Errorf("certificate = %+v, %v", cert, err)
	}
	if s.GetWhy() != "" || len(s.GetSeeds())+len(s.GetKeys())+len(s.GetLabel()) > 0 || !bytes.Equal(s.GetSigners(), f.signers.Bytes()) {
		t.Errorf("settings = %v", s)
	}
	g.until(t, "the population", func() bool {
		s = g.settings[len(g.settings)-1]
		return len(s.GetPopulation()) == 1
	})
	if p := s.GetPopulation()[0]; p.GetService() != "checkout" || p.GetHosts() != 1 || p.GetZones() != 1 {
		t.Errorf("population = %v", p)
	}
	if p := f.in("default").population("checkout"); p.Hosts != 1 {
		t.Errorf("the pool knows of %+v", p)
	}
	// Other signers are told without being asked for.
	f.sign(2)
	g.until(t, "the new signers", func() bool {
		return bytes.Equal(g.settings[len(g.settings)-1].GetSigners(), f.Signers())
	})
	// A new key gets a certificate of its own.
	g.key = newKey(t)
	g.wants(t, &holdfastv1.GossipState{Mode: modeRelayed})
	g.until(t, "another certificate", func() bool {
		c, err := f.signers.Certificate("default", g.settings[len(g.settings)-1].GetCertificate(), time.Now())
		return err == nil && c.PublicKey.Equal(g.key.Public())
	})
	g.wants(t, &holdfastv1.GossipState{})
	if s := g.granted(t, modeOff); s.GetCertificate() != nil || s.GetWhy() != "" {
		t.Errorf("off: %v", s)
	}
}

// TestCertificatesAreRenewed: at the next event after they should be.
func TestCertificatesAreRenewed(t *testing.T) {
	n, f := fleeted(t)
	f.life = time.Nanosecond
	g := n.gossips(t, "i", func(h *holdfastv1.Hello) { h.ProgressInterval = durationpb.New(MinProgressInterval) })
	g.until(t, "a renewal", func() bool { return len(g.settings) > 2 })
	// What cannot be renewed is kept.
	f.set(func() { f.uncertain = errors.New("not now") })
	g.events = nil
	g.until(t, "progress", func() bool { return len(g.events) > 3 })
	if last := g.settings[len(g.settings)-1]; last.GetMode() != modeRelayed {
		t.Errorf("without renewal: %v", last)
	}
}

// TestGossipNeverCostsASession: whatever is wrong with it stands in why, and what was
// decided flows on.
func TestGossipNeverCostsASession(t *testing.T) {
	for name, test := range map[string]struct {
		state *holdfastv1.GossipState
		harm  func(*fakeFleet)
		why   string
	}{
		"unknown mode":   {&holdfastv1.GossipState{Mode: "loud\x1b"}, nil, "does not know the mode"},
		"no key":         {&holdfastv1.GossipState{Mode: modeRelayed, PublicKey: []byte{1}}, nil, "public key"},
		"no pool":        {nil, func(f *fakeFleet) { f.refused = errors.New("no port") }, "not in the pool: no port"},
		"no certificate": {nil, func(f *fakeFleet) { f.uncertain = errors.New("no clock") }, "not certified: no clock"},
	} {
		t.Run(name, func(t *testing.T) {
			n, f := fleeted(t)
			if test.harm != nil {
				f.set(func() { test.harm(f) })
			}
			g := n.gossips(t, "i", func(h *holdfastv1.Hello) {
				if test.state != nil {
					h.Gossip = test.state
				}
			})
			if s := g.granted(t, modeOff); !strings.Contains(s.GetWhy(), test.why) || strings.Contains(s.GetWhy(), "\x1b") {
				t.Errorf("why = %q", s.GetWhy())
			}
			g.hands(t, []byte("something"))
			n.put(t, flag("a", `1`))
			g.until(t, "the change", func() bool {
				return len(g.events) > 0 && g.events[len(g.events)-1].GetDelta().GetTo() == 1 || len(g.events) == 1 && g.events[0].GetSnapshot().GetRevision() == 1
			})
			eventually(t, "the record to be dropped", func() bool { return counted(n.metrics.evidence.WithLabelValues("dropped")) == 1 })
		})
	}
}

// TestPoolComesLater: what a server cannot do yet it does when it can.
func TestPoolComesLater(t *testing.T) {
	n, f := fleeted(t)
	f.set(func() { f.refused = errors.New("not yet") })
	g := n.gossips(t, "i")
	g.granted(t, modeOff)
	f.set(func() { f.refused = nil })
	g.granted(t, modeRelayed)
}

// TestSettingsComeWhileAhead: an instance that is ahead of its server takes part in
// gossip nevertheless.
func TestSettingsComeWhileAhead(t *testing.T) {
	n, f := fleeted(t)
	g := n.gossips(t, "i", func(h *holdfastv1.Hello) {
		h.Cursor = &holdfastv1.Cursor{Epoch: n.replica.View().Epoch().Proto(), Revision: 7}
	})
	g.granted(t, modeRelayed)
	f.sign(2)
	g.until(t, "the new signers", func() bool { return bytes.Equal(g.settings[len(g.settings)-1].GetSigners(), f.Signers()) })
	if len(g.events) > 0 {
		t.Errorf("was told %v", g.events)
	}
}
