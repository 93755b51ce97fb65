package charter

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"fmt"
	"hash/fnv"
	"io"
	"maps"
	"slices"
	"sync"

	"github.com/holdfast-dev/holdfast/internal/document"
	"github.com/holdfast-dev/holdfast/internal/trust"
)

const (
	// MaxPools is how many namespaces may have keys of their own; for a further one they
	// cannot be rotated: ErrFull.
	MaxPools = 1024
	// maxChanges bounds the changes of one term: a record that claims more is a forgery,
	// after which no honest one could come.
	maxChanges = 1 << 31

	tagSigners = 1
	tagRing    = 2

	keySigners = "signers"
	keyRing    = "pool/" // and the namespace
)

// Config says whose charter it is.
type Config struct {
	// Key is what this server signs with.
	Key *trust.Key
	// PoolKeys are those of the servers' pool; none where it is plaintext.
	PoolKeys [][]byte
	// Epoch returns the cluster's, and Term the highest term that this server knows of.
	// Records of another lineage or of later terms are not taken in, as long as that is
	// so. Neither may block.
	Epoch func() document.Epoch
	Term  func() uint64
}

// Charter is a server's copy. Its methods may be called concurrently, and none blocks.
// It implements gossip.Records.
type Charter struct {
	config Config

	mu      sync.Mutex // guards everything below
	signers *trust.Signers
	rings   map[string]*ring // by namespace
	changed chan struct{}    // closed at the next change
}

// New returns a charter that holds nothing.
func New(config Config) *Charter {
	return &Charter{config: config, rings: make(map[string]*ring), changed: make(chan struct{})}
}

// Changed returns a channel that is closed at the next change. Who waits asks for it
// first and looks afterwards.
func (c *Charter) Changed() <-chan struct{} {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.changed
}

// Signers returns who signs; nil before the first leader has said so.
func (c *Charter) Signers() *trust.Signers {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.signers
}

// PoolKeys returns the keys of a namespace's pool, the one that encrypts first; none
// where pools are plaintext.
func (c *Charter) PoolKeys(namespace string) []Key {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.poolKeys(namespace)
}

func (c *Charter) poolKeys(namespace string) []Key {
	if r, ok := c.rings[namespace]; ok {
		return slices.Clone(r.keys)
	}
	return derived(c.config.PoolKeys, namespace)
}

// InStep tells whether Lead would change nothing.
func (c *Charter) InStep(servers []trust.Server) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	epoch := c.config.Epoch()
	for _, r := range c.rings {
		if r.lineage != epoch.Lineage {
			return false
		}
	}
	return c.signersInStep(epoch, servers)
}

func (c *Charter) signersInStep(epoch document.Epoch, servers []trust.Server) bool {
	return c.signers != nil && c.signers.Epoch() == epoch && sameServers(c.signers.Servers(), servers)
}

// RingRecord is the key of the record of a namespace's keys.
func RingRecord(namespace string) string { return keyRing + namespace }

// Lead brings the charter in step with the servers of the cluster and with its epoch,
// in a term that this server leads, and tells whether it had to change it.
func (c *Charter) Lead(term uint64, servers []trust.Server) (changed bool, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	epoch := c.config.Epoch()
	for namespace, r := range c.rings {
		if r.lineage == epoch.Lineage {
			continue
		}
		// The cluster goes on with the backup of another one.
		version, err := nextVersion(term, r.version)
		if err != nil {
			return false, err
		}
		c.rings[namespace] = newRing(epoch.Lineage, version, namespace, r.keys)
		changed = true
	}
	held := uint64(0)
	if c.signers != nil {
		held = c.signers.Version()
	}
	if !c.signersInStep(epoch, servers) {
		version, err := nextVersion(term, held)
		if err != nil {
			return false, err
		}
		next, err := trust.NewSigners(c.config.Key, epoch, version, servers)
		if err != nil {
			return false, fmt.Errorf("charter: %w", err)
		}
		c.signers, changed = next, true
	}
	if changed {
		c.wake()
	}
	return changed, nil
}

// sameServers compares servers in any order with those of a set, which are in the
// order of their ids.
func sameServers(held, servers []trust.Server) bool {
	sorted := slices.SortedFunc(slices.Values(servers), func(a, b trust.Server) int { return cmp.Compare(a.ID, b.ID) })
	return slices.EqualFunc(held, sorted, equalServers)
}

func equalServers(a, b trust.Server) bool { return a.ID == b.ID && a.Key.Equal(b.Key) }

// nextVersion is what a change has in a term, after a version.
func nextVersion(term, held uint64) (uint64, error) {
	if held>>32 > term {
		return 0, fmt.Errorf("%w, in term %d", ErrOvertaken, held>>32)
	}
	return max(term<<32, held) + 1, nil
}

// Add draws another key for a namespace's pool, with which its members decrypt.
func (c *Charter) Add(term uint64, namespace string, random io.Reader, now int64) error {
	value := make([]byte, keyBytes)
	if _, err := io.ReadFull(random, value); err != nil {
		return fmt.Errorf("draw pool key: %w", err)
	}
	return c.turn(term, namespace, func(keys []Key) ([]Key, error) {
		if len(keys) >= MaxKeys {
			return nil, fmt.Errorf("add key: %w, %d", ErrFull, MaxKeys)
		}
		return append(keys, newKey(value, now)), nil
	})
}

// Use makes a key the one that encrypts.
func (c *Charter) Use(term uint64, namespace, id string) error {
	return c.turn(term, namespace, func(keys []Key) ([]Key, error) {
		i, err := find(keys, id)
		if err != nil {
			return nil, err
		}
		key := keys[i]
		return slices.Insert(slices.Delete(keys, i, i+1), 0, key), nil
	})
}

// Remove forgets a key, unless it is the one that encrypts.
func (c *Charter) Remove(term uint64, namespace, id string) error {
	return c.turn(term, namespace, func(keys []Key) ([]Key, error) {
		i, err := find(keys, id)
		if err != nil {
			return nil, err
		}
		if i == 0 {
			return nil, fmt.Errorf("remove key %s: %w", id, ErrPrimary)
		}
		return slices.Delete(keys, i, i+1), nil
	})
}

func find(keys []Key, id string) (int, error) {
	i := slices.IndexFunc(keys, func(k Key) bool { return k.ID == id })
	if i < 0 {
		return 0, fmt.Errorf("key %q: %w", id, ErrNoKey)
	}
	return i, nil
}

// turn makes a step of a rotation.
func (c *Charter) turn(term uint64, namespace string, step func([]Key) ([]Key, error)) error {
	if err := document.CheckName(namespace); err != nil {
		return fmt.Errorf("namespace %q: %w", namespace, err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.config.PoolKeys) == 0 {
		return fmt.Errorf("keys of %s: %w", namespace, ErrPlaintext)
	}
	held := c.rings[namespace]
	if held == nil && len(c.rings) >= MaxPools {
		return fmt.Errorf("keys of %s: %w, those of %d namespaces", namespace, ErrFull, MaxPools)
	}
	keys, err := step(c.poolKeys(namespace))
	if err != nil {
		return err
	}
	was := uint64(0)
	if held != nil {
		was = held.version
	}
	version, err := nextVersion(term, was)
	if err != nil {
		return err
	}
	c.rings[namespace] = newRing(c.config.Epoch().Lineage, version, namespace, keys)
	c.wake()
	return nil
}

// wake tells that something has changed. The caller holds the lock.
func (c *Charter) wake() {
	close(c.changed)
	c.changed = make(chan struct{})
}

// Keys implements gossip.Records.
func (c *Charter) Keys() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.keys()
}

func (c *Charter) keys() []string {
	var keys []string
	for _, namespace := range slices.Sorted(maps.Keys(c.rings)) {
		keys = append(keys, RingRecord(namespace))
	}
	if c.signers != nil {
		keys = append(keys, keySigners)
	}
	return keys
}

// Encode implements gossip.Records.
func (c *Charter) Encode(key string) []byte {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.encode(key)
}

func (c *Charter) encode(key string) []byte {
	if key == keySigners {
		if c.signers == nil {
			return nil
		}
		return append([]byte{tagSigners}, c.signers.Bytes()...)
	}
	if namespace, ok := bytes.CutPrefix([]byte(key), []byte(keyRing)); ok {
		if r := c.rings[string(namespace)]; r != nil {
			return r.encoded
		}
	}
	return nil
}

// Digest implements gossip.Records.
func (c *Charter) Digest(key string) uint64 {
	b := c.Encode(key)
	if b == nil {
		return 0
	}
	h := fnv.New64a()
	_, _ = h.Write(b) // never fails
	return max(h.Sum64(), 1)
}

// Merge implements gossip.Records: the highest version wins, and of equal ones the
// greater bytes, so that the order in which records come does not matter. Signatures
// under the same set are collected, this server's among them.
func (c *Charter) Merge(b []byte) (key string, news bool) {
	return c.merge(b, c.config.Epoch().Lineage, c.config.Term())
}

func (c *Charter) merge(b []byte, lineage [16]byte, term uint64) (key string, news bool) {
	if len(b) == 0 {
		return "", false
	}
	// What is in a record cannot be believed for itself: who can put one into the
	// servers' pool is a server.
	credible := func(of [16]byte, version uint64) bool {
		return of == lineage && lineage != [16]byte{} && version>>32 <= term && version&(1<<32-1) < maxChanges
	}
	switch b[0] {
	case tagSigners:
		s, err := trust.DecodeSigners(b[1:])
		if err != nil || !credible(s.Epoch().Lineage, s.Version()) {
			return "", false
		}
		return keySigners, c.mergeSigners(s)
	case tagRing:
		r, err := decodeRing(b[1:])
		if err != nil || !credible(r.lineage, r.version) || len(c.config.PoolKeys) == 0 {
			return "", false
		}
		return RingRecord(r.namespace), c.mergeRing(r)
	}
	return "", false
}

func (c *Charter) mergeSigners(s *trust.Signers) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	next := s
	if held := c.signers; held != nil {
		joined, more := held.Join(s)
		switch {
		case more:
			next = joined
		case !wins(s.Version(), held.Version(), s.Bytes(), held.Bytes()) || sameBody(s, held):
			return false
		}
	}
	c.signers = next.Countersign(c.config.Key)
	c.wake()
	return true
}

// sameBody tells whether two sets differ in their signatures only.
func sameBody(a, b *trust.Signers) bool {
	return a.Epoch() == b.Epoch() && a.Version() == b.Version() && sameServers(a.Servers(), b.Servers())
}

func (c *Charter) mergeRing(r *ring) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	held := c.rings[r.namespace]
	if held == nil && len(c.rings) >= MaxPools || held != nil && !wins(r.version, held.version, r.encoded, held.encoded) {
		return false
	}
	c.rings[r.namespace] = r
	c.wake()
	return true
}

// wins tells whether a record takes the place of the one held.
func wins(version, held uint64, b, heldBytes []byte) bool {
	return cmp.Or(cmp.Compare(version, held), bytes.Compare(b, heldBytes)) > 0
}

// Save returns everything, for a file that nobody else can read.
func (c *Charter) Save() []byte {
	c.mu.Lock()
	defer c.mu.Unlock()
	var b []byte
	for _, key := range c.keys() {
		record := c.encode(key)
		b = append(binary.AppendUvarint(b, uint64(len(record))), record...)
	}
	return b
}

// Load takes in what Save returned, before the charter is used.
func (c *Charter) Load(b []byte) error {
	for len(b) > 0 {
		length, n := binary.Uvarint(b)
		if n <= 0 || length > uint64(len(b)-n) {
			return fmt.Errorf("read charter: %w", errMalformed)
		}
		record := b[n : n+int(length)]
		if err := c.load(record); err != nil {
			return fmt.Errorf("read charter: %w", err)
		}
		b = b[n+int(length):]
	}
	return nil
}

func (c *Charter) load(record []byte) error {
	if len(record) == 0 {
		return errMalformed
	}
	switch record[0] {
	case tagSigners:
		s, err := trust.DecodeSigners(record[1:])
		if err != nil {
			return err
		}
		c.signers = s
		return nil
	case tagRing:
		r, err := decodeRing(record[1:])
		if err != nil {
			return err
		}
		c.rings[r.namespace] = r
		return nil
	}
	return errMalformed
}
