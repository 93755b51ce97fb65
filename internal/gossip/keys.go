package gossip

import (
	"bytes"
	"errors"
	"fmt"
	"slices"

	"github.com/hashicorp/memberlist"
)

// keyLimit bounds the keys: each costs a trial on packets of strangers.
const keyLimit = 8

// SetKeys replaces the AES keys (16, 24 or 32 bytes, at most eight): the first
// encrypts, all decrypt. It may be called while the pool runs; to change keys under
// traffic, add the new one everywhere, then put it first, then drop the old one. A
// plaintext pool becomes an encrypted one, but not the other way round.
func (p *Pool) SetKeys(keys [][]byte) error {
	if len(keys) == 0 || len(keys) > keyLimit {
		return fmt.Errorf("%d gossip keys: must be 1 to %d", len(keys), keyLimit)
	}
	for _, key := range keys {
		if err := memberlist.ValidateKey(key); err != nil {
			return fmt.Errorf("use gossip keys: %w", err)
		}
	}
	p.keys.Lock()
	defer p.keys.Unlock()
	return setKeys(p.ring, keys)
}

// setKeys never lets the library remove a key that is not the last: it would
// shift an array that others read without a lock.
func setKeys(ring *memberlist.Keyring, keys [][]byte) error {
	var failed error
	for _, key := range keys {
		failed = errors.Join(failed, ring.AddKey(bytes.Clone(key)))
	}
	unwanted := func() (bad [][]byte, last bool) {
		for _, key := range ring.GetKeys() {
			if contains(keys, key) {
				last = len(bad) == 0
			} else {
				bad = append(bad, key)
			}
		}
		return bad, last || len(bad) == 0
	}
	// What is put first comes before what was first, so that the unwanted end up
	// last. Mostly they are already, and packets are encrypted with no other key
	// than the first for not even a moment.
	if _, last := unwanted(); !last {
		for i := len(keys) - 1; i > 0; i-- {
			failed = errors.Join(failed, ring.UseKey(keys[i]))
		}
	}
	failed = errors.Join(failed, ring.UseKey(keys[0]))
	bad, _ := unwanted()
	for _, key := range slices.Backward(bad) {
		failed = errors.Join(failed, ring.RemoveKey(key))
	}
	if failed != nil {
		return fmt.Errorf("use gossip keys: %w", failed)
	}
	return nil
}

func contains(keys [][]byte, key []byte) bool {
	for _, k := range keys {
		if bytes.Equal(k, key) {
			return true
		}
	}
	return false
}
