package client

import (
	"crypto/rand"
	"testing"
	"time"

	"github.com/holdfast-dev/holdfast/internal/mirror"
	"github.com/holdfast-dev/holdfast/internal/trust"
	holdfastv1 "github.com/holdfast-dev/holdfast/proto/holdfast/v1"
)

// TestTrustOfAnother: a process that finds the directory of another one, or got another
// id, knows whom to believe, and does not speak as the other one.
func TestTrustOfAnother(t *testing.T) {
	key, err := trust.NewKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	certificate, err := trust.Certify(key, trust.Certificate{
		Namespace: "default", ID: "checkout-1", PublicKey: key.Public(), NotAfter: time.Now().Add(time.Hour).UnixMilli(),
	})
	if err != nil {
		t.Fatal(err)
	}
	known := mirror.Trust{Key: key.Seed(), Settings: &holdfastv1.GossipSettings{Certificate: certificate, Label: "pool"}}
	if of := ownTrust(known, "checkout-1"); len(of.Key) == 0 || len(of.Settings.GetCertificate()) == 0 {
		t.Errorf("its own is not taken: %v", of)
	}
	if of := ownTrust(known, "checkout-2"); len(of.Key) != 0 || len(of.Settings.GetCertificate()) != 0 || of.Settings.GetLabel() != "pool" {
		t.Errorf("another one's is taken: %v", of)
	}
	if len(known.Settings.GetCertificate()) == 0 {
		t.Error("what was read is changed")
	}
	if of := ownTrust(mirror.Trust{}, "checkout-1"); of.Key != nil || of.Settings != nil {
		t.Errorf("made up: %v", of)
	}
}
