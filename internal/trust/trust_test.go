package trust_test

import (
	"bytes"
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/holdfast-dev/holdfast/internal/document"
	"github.com/holdfast-dev/holdfast/internal/trust"
	holdfastv1 "github.com/holdfast-dev/holdfast/proto/holdfast/v1"
)

// newKey draws a key that is the same in every run.
func newKey(tb testing.TB, seed byte) *trust.Key {
	tb.Helper()
	k, err := trust.NewKey(rand.NewChaCha8([32]byte{seed}))
	if err != nil {
		tb.Fatal(err)
	}
	return k
}

func epoch(counter uint64) document.Epoch {
	return document.Epoch{Lineage: [16]byte{1, 2, 3}, Counter: counter, Nonce: 7}
}

// named are the servers of keys, with ids as long as servers draw them.
func named(keys ...*trust.Key) []trust.Server {
	servers := make([]trust.Server, len(keys))
	for i, k := range keys {
		servers[i] = trust.Server{ID: k.ID().String(), Key: k.Public()}
	}
	return servers
}

func newSigners(tb testing.TB, e document.Epoch, version uint64, keys ...*trust.Key) *trust.Signers {
	tb.Helper()
	s, err := trust.NewSigners(keys[0], e, version, named(keys...))
	if err != nil {
		tb.Fatal(err)
	}
	return s
}

var noon = time.UnixMilli(1_800_000_000_000)

func sample(instance *trust.Key) trust.Certificate {
	return trust.Certificate{
		Namespace: "shop", ID: "checkout-7", Service: "checkout", Host: "10.0.0.7", Zone: "eu-1",
		PublicKey: instance.Public(), NotAfter: noon.Add(trust.CertificateLife).UnixMilli(),
	}
}

func certify(tb testing.TB, server *trust.Key, c trust.Certificate) []byte {
	tb.Helper()
	b, err := trust.Certify(server, c)
	if err != nil {
		tb.Fatal(err)
	}
	return b
}

func TestKeyIsShownNowhere(t *testing.T) {
	t.Parallel()
	k := newKey(t, 1)
	same, err := trust.ParseKey(k.Seed())
	if err != nil || same.ID() != k.ID() || !same.Public().Equal(k.Public()) {
		t.Fatalf("a key does not come back from its seed: %v", err)
	}
	var log bytes.Buffer
	slog.New(slog.NewJSONHandler(&log, nil)).Info("key", "key", k, "in", struct{ Key *trust.Key }{k})
	marshalled, err := json.Marshal(map[string]any{"key": k})
	if err != nil {
		t.Fatal(err)
	}
	shown := log.String() + string(marshalled)
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d"} {
		shown += fmt.Sprintf(verb, k) + fmt.Sprintf(verb, struct{ K *trust.Key }{k})
	}
	for _, secret := range [][]byte{k.Seed(), k.Seed()[:4]} {
		for _, form := range []string{string(secret), fmt.Sprintf("%x", secret), fmt.Sprintf("%X", secret), fmt.Sprint(secret[0], secret[1], secret[2])} {
			if strings.Contains(shown, strings.Trim(form, "[]")) {
				t.Fatalf("the secret shows as %q", form)
			}
		}
	}
	if _, err := trust.ParseKey(k.Seed()[1:]); !errors.Is(err, trust.ErrMalformed) {
		t.Errorf("a short seed: %v", err)
	}
}

func TestCertificate(t *testing.T) {
	t.Parallel()
	server, stranger, instance := newKey(t, 1), newKey(t, 2), newKey(t, 3)
	signers := newSigners(t, epoch(1), 1, server)
	want := sample(instance)
	b := certify(t, server, want)
	t.Logf("a certificate has %d bytes", len(b))

	got, err := signers.Certificate("shop", b, noon)
	if err != nil || fmt.Sprint(got) != fmt.Sprint(want) {
		t.Fatalf("got %v, %v", got, err)
	}
	for name, tc := range map[string]struct {
		by        *trust.Signers
		namespace string
		b         []byte
		now       time.Time
		want      error
	}{
		"another namespace": {signers, "bank", b, noon, trust.ErrNamespace},
		"expired":           {signers, "shop", b, time.UnixMilli(want.NotAfter), trust.ErrExpired},
		"unknown signer":    {signers, "shop", certify(t, stranger, want), noon, trust.ErrUnknownSigner},
		"nobody known":      {nil, "shop", b, noon, trust.ErrUnknownSigner},
		"truncated":         {signers, "shop", b[:len(b)-1], noon, trust.ErrMalformed},
		"longer":            {signers, "shop", append(bytes.Clone(b), 0), noon, trust.ErrMalformed},
		"empty":             {signers, "shop", nil, noon, trust.ErrMalformed},
	} {
		if _, err := tc.by.Certificate(tc.namespace, tc.b, tc.now); !errors.Is(err, tc.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for i := range b { // every byte is covered
		changed := bytes.Clone(b)
		changed[i] ^= 1
		if _, err := signers.Certificate("shop", changed, noon); err == nil {
			t.Fatalf("byte %d can be changed", i)
		}
	}
}

func TestCertificateLimits(t *testing.T) {
	t.Parallel()
	server, instance := newKey(t, 1), newKey(t, 3)
	for name, change := range map[string]func(*trust.Certificate){
		"too long":     func(c *trust.Certificate) { c.ID, c.Service = strings.Repeat("i", 200), strings.Repeat("s", 200) },
		"no namespace": func(c *trust.Certificate) { c.Namespace = "" },
		"no id":        func(c *trust.Certificate) { c.ID = "" },
		"no text":      func(c *trust.Certificate) { c.Zone = "\xff" },
		"short key":    func(c *trust.Certificate) { c.PublicKey = c.PublicKey[1:] },
	} {
		c := sample(instance)
		change(&c)
		if _, err := trust.Certify(server, c); err == nil {
			t.Errorf("%s: certified", name)
		}
	}
	longest := sample(instance)
	longest.Host = strings.Repeat("h", document.MaxName)
	size := 0
	for {
		b, err := trust.Certify(server, longest)
		if err != nil {
			if !strings.Contains(err.Error(), "shorter") {
				t.Errorf("a longer one: %v", err)
			}
			break
		}
		size = len(b)
		longest.Zone += "z"
	}
	if size != trust.MaxCertificate && size != trust.MaxCertificate-1 {
		t.Errorf("the longest certificate has %d bytes", size)
	}
}

// Texts carry their length, and one that is written with more bytes than it needs is
// another encoding.
func TestCertificateHasOneEncoding(t *testing.T) {
	t.Parallel()
	b := certify(t, newKey(t, 1), sample(newKey(t, 3)))
	padded := append([]byte{b[0] | 0x80, 0}, b[1:]...)
	if _, err := trust.ReadCertificate(padded); !errors.Is(err, trust.ErrMalformed) {
		t.Fatalf("a longer length is read: %v", err)
	}
}

func TestStatements(t *testing.T) {
	t.Parallel()
	server, instance := newKey(t, 1), newKey(t, 3)
	c := sample(instance)
	said := []byte("payments is down")
	signature := c.Sign(instance, "record", said)
	if !c.Verify("record", said, signature) {
		t.Fatal("not verified")
	}
	// Somebody else may be certified for a key that it does not have.
	thief := c
	thief.ID = "thief"
	abroad := c
	abroad.Namespace = "bank"
	other := c
	other.PublicKey = newKey(t, 4).Public()
	for name, ok := range map[string]bool{
		"another context":    c.Verify("question", said, signature),
		"other words":        c.Verify("record", said[1:], signature),
		"moved boundary":     c.Verify("recor", append([]byte("d"), said...), signature),
		"another id":         thief.Verify("record", said, signature),
		"another namespace":  abroad.Verify("record", said, signature),
		"another key":        other.Verify("record", said, signature),
		"no signature":       c.Verify("record", said, nil),
		"a server's word":    c.Verify("record", said, certify(t, server, c)[:ed25519.SignatureSize]),
		"no key":             (&trust.Certificate{}).Verify("record", said, signature),
		"truncated":          c.Verify("record", said, signature[:63]),
		"longer than itself": c.Verify("record", said, append(bytes.Clone(signature), 0)),
	} {
		if ok {
			t.Errorf("%s: verified", name)
		}
	}
}

func TestHeads(t *testing.T) {
	t.Parallel()
	server, stranger := newKey(t, 1), newKey(t, 2)
	signers := newSigners(t, epoch(1), 1, server)
	h := trust.Head{Namespace: "shop", Epoch: epoch(3), Revision: 42, Root: document.Root{9, 8, 7}, StateTime: noon.UnixMilli()}
	ts := trust.Timestamp{Epoch: epoch(3), Revision: 43, StateTime: noon.UnixMilli()}
	signedHead, signedTime := trust.SignHead(server, h), trust.SignTimestamp(server, ts)
	if got, err := signers.Head("shop", signedHead); err != nil || got != h {
		t.Fatalf("got %v, %v", got, err)
	}
	if got, err := signers.Timestamp(signedTime); err != nil || got != ts {
		t.Fatalf("got %v, %v", got, err)
	}
	if _, err := signers.Head("bank", signedHead); !errors.Is(err, trust.ErrNamespace) {
		t.Errorf("another namespace: %v", err)
	}
	if _, err := signers.Head("shop", trust.SignHead(stranger, h)); !errors.Is(err, trust.ErrUnknownSigner) {
		t.Errorf("a stranger's head: %v", err)
	}
	if _, err := (*trust.Signers)(nil).Timestamp(signedTime); !errors.Is(err, trust.ErrUnknownSigner) {
		t.Errorf("nobody known: %v", err)
	}
	for name, p := range map[string]*holdfastv1.SignedHead{
		"nothing": nil, "empty": {}, "a timestamp": signedTime,
		"no key id":       {Head: signedHead.GetHead(), Signature: signedHead.GetSignature()},
		"another writing": {Head: signedHead.GetHead(), Signature: signedHead.GetSignature(), KeyId: strings.ToUpper(signedHead.GetKeyId())},
		"no signature":    {Head: signedHead.GetHead(), KeyId: signedHead.GetKeyId()},
		"the time's":      {Head: signedHead.GetHead(), Signature: signedTime.GetSignature(), KeyId: signedHead.GetKeyId()},
	} {
		if _, err := signers.Head("shop", p); err == nil {
			t.Errorf("%s passes for a head", name)
		}
	}
	padded := proto.CloneOf(signedHead) // the length of the namespace with a byte more than it needs
	padded.Head = append([]byte{padded.Head[0] | 0x80, 0}, padded.Head[1:]...)
	if _, err := signers.Head("shop", padded); !errors.Is(err, trust.ErrMalformed) {
		t.Errorf("another encoding: %v", err)
	}
	for i := range signedHead.GetHead() {
		changed := proto.CloneOf(signedHead)
		changed.Head[i] ^= 1
		if _, err := signers.Head("shop", changed); err == nil {
			t.Fatalf("byte %d can be changed", i)
		}
	}
}

// What a key signs as one thing verifies as nothing else, even where the bytes are
// the same: here those of an instance's statement and of a timestamp.
func TestSignaturesAreApart(t *testing.T) {
	t.Parallel()
	k := newKey(t, 1)
	signers := newSigners(t, epoch(1), 1, k)
	c := trust.Certificate{Namespace: "shop", ID: "a", PublicKey: k.Public()}
	begin := append([]byte{0, 4}, "shop\x01a"...) // no context, the namespace, the id
	ts := trust.Timestamp{Revision: 9, StateTime: 9}
	copy(ts.Epoch.Lineage[:], begin)
	body := trust.SignTimestamp(k, ts).GetHead()
	p := &holdfastv1.SignedHead{Head: body, Signature: c.Sign(k, "", body[len(begin):]), KeyId: k.ID().String()}
	if _, err := signers.Timestamp(p); !errors.Is(err, trust.ErrSignature) {
		t.Errorf("a statement passes for a timestamp: %v", err)
	}
	if c.Verify("", body[len(begin):], trust.SignTimestamp(k, ts).GetSignature()) {
		t.Error("a timestamp passes for a statement")
	}
}

func BenchmarkCertificate(b *testing.B) {
	server := newKey(b, 1)
	signers, cert := newSigners(b, epoch(1), 1, server), certify(b, server, sample(newKey(b, 2)))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := signers.Certificate("shop", cert, noon); err != nil {
			b.Fatal(err)
		}
	}
}
