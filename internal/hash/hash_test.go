package hash_test

import (
	"hash/fnv"
	"math/bits"
	"math/rand/v2"
	"testing"

	"github.com/holdfast-dev/holdfast/internal/hash"
)

// TestAdd: instances agree by these hashes who probes, so they may not change.
func TestAdd(t *testing.T) {
	for _, text := range []string{"", "a", "payments", "a\x00b", "ü"} {
		h := fnv.New64a()
		_, _ = h.Write([]byte(text))
		if got := hash.Add(hash.Start, text); got != h.Sum64() {
			t.Errorf("%q: %x, want %x", text, got, h.Sum64())
		}
	}
	if hash.Add(hash.Add(hash.Start, "pay"), "ments") != hash.Add(hash.Start, "payments") {
		t.Error("in two parts it is another one")
	}
}

// TestNth: what the authors' program prints for seed 0.
func TestNth(t *testing.T) {
	for i, want := range []uint64{0xe220a8397b1dcdaf, 0x6e789e6aa1b965f4, 0x06c45d188009454f} {
		if got := hash.Nth(uint64(i) + 1); got != want {
			t.Errorf("number %d is %x, want %x", i+1, got, want)
		}
	}
}

// TestMixSpreads: one bit changed in changes half of those that come out.
func TestMixSpreads(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 1)) //nolint:gosec // a test's
	for bit := range 64 {
		changed := 0
		const numbers = 200
		for range numbers {
			n := r.Uint64()
			changed += bits.OnesCount64(hash.Mix(n) ^ hash.Mix(n^1<<bit))
		}
		if share := float64(changed) / numbers; share < 30 || share > 34 {
			t.Errorf("bit %d changes %.1f bits", bit, share)
		}
	}
}
