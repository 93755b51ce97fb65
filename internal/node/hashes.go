package node

import (
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"

	"github.com/holdfast-dev/holdfast/internal/gossip"
)

const (
	// hashesTold is how many of its newest hashes a server tells the others.
	hashesTold = 3
	// hashesKept is how many of its own a server remembers: as many ticks as
	// another may be late.
	hashesKept = 40
	// maxHashServers bounds how many servers are remembered; more are ignored.
	maxHashServers = 64
	// hashBytes of a state hash are told. 128 bits are plenty for two states that
	// nobody forges.
	hashBytes = 16
)

// hashScheme is what the hash covers. It is raised whenever a new version of the
// program hashes the same state to something else, so that the servers of a
// rolling upgrade are not compared with each other.
const hashScheme = 1

var errHashes = errors.New("unreadable hashes")

// stateHash is the head of a state's hash.
type stateHash [hashBytes]byte

// report is what one server tells of its state.
type report struct {
	scheme   uint64
	revision uint64
	points   map[uint64]stateHash // by Raft index, at most hashesTold
}

// newest is the highest index of the report.
func (r report) newest() uint64 {
	var newest uint64
	for index := range r.points {
		newest = max(newest, index)
	}
	return newest
}

// hashes compares the states of the servers at the same commands. Every server
// records the hash of its state at each Tick and tells the newest; who finds
// that a majority has another hash has a damaged state. It is a gossip.State.
type hashes struct {
	self string
	// wake holds a token when there is something new to compare.
	wake chan struct{}

	mu      sync.Mutex // guards everything below
	own     map[uint64]stateHash
	reports map[string]report // by server, this one included
	differs uint64            // highest index at which any two servers differed
}

var _ gossip.State = (*hashes)(nil)

func newHashes(self string) *hashes {
	return &hashes{
		self: self, wake: make(chan struct{}, 1),
		own: make(map[uint64]stateHash), reports: make(map[string]report),
	}
}

// record notes this server's hash at a Tick. It does not block.
func (h *hashes) record(index, revision uint64, hash [32]byte) {
	h.mu.Lock()
	h.own[index] = stateHash(hash[:hashBytes])
	for len(h.own) > hashesKept {
		delete(h.own, slices.Min(slices.Collect(maps.Keys(h.own))))
	}
	told := report{scheme: hashScheme, revision: revision, points: make(map[uint64]stateHash, hashesTold)}
	indexes := slices.Sorted(maps.Keys(h.own))
	for _, i := range indexes[max(0, len(indexes)-hashesTold):] {
		told.points[i] = h.own[i]
	}
	h.reports[h.self] = told
	h.mu.Unlock()
	poke(h.wake)
}

// revision returns what a server last told; 0 when it has told nothing.
func (h *hashes) revision(server string) uint64 {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.reports[server].revision
}

// diverged returns the highest index at which two servers were seen to differ; 0
// when there is none.
func (h *hashes) diverged() uint64 {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.differs
}

// compare looks for an index at which a majority of the members has one hash and
// this server another. It forgets servers that are not members.
func (h *hashes) compare(members []string) (at uint64, against int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	maps.DeleteFunc(h.reports, func(id string, _ report) bool {
		return id != h.self && len(members) > 0 && !slices.Contains(members, id)
	})
	for index, mine := range h.own {
		votes := make(map[stateHash]int)
		for id, r := range h.reports {
			if theirs, ok := r.points[index]; ok && id != h.self && r.scheme == hashScheme && theirs != mine {
				votes[theirs]++
				h.differs = max(h.differs, index)
			}
		}
		for _, n := range votes {
			if n > len(members)/2 && n > against {
				at, against = index, n
			}
		}
	}
	return at, against
}

// Encode implements gossip.State.
func (h *hashes) Encode() []byte {
	h.mu.Lock()
	defer h.mu.Unlock()
	var b []byte
	for _, id := range slices.Sorted(maps.Keys(h.reports)) {
		r := h.reports[id]
		b = binary.AppendUvarint(b, uint64(len(id)))
		b = append(b, id...)
		b = binary.AppendUvarint(b, r.scheme)
		b = binary.AppendUvarint(b, r.revision)
		b = binary.AppendUvarint(b, uint64(len(r.points)))
		for _, index := range slices.Sorted(maps.Keys(r.points)) {
			hash := r.points[index]
			b = binary.AppendUvarint(b, index)
			b = append(b, hash[:]...)
		}
	}
	return b
}

// Merge implements gossip.State. The report with the newer index wins; indexes
// only grow, and nobody reports for another server.
func (h *hashes) Merge(b []byte) bool {
	changed := false
	for len(b) > 0 {
		id, r, rest, err := decodeReport(b)
		if err != nil {
			break
		}
		b = rest
		if h.take(id, r) {
			changed = true
		}
	}
	if changed {
		poke(h.wake)
	}
	return changed
}

func (h *hashes) take(id string, r report) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if id == h.self {
		return false
	}
	present, known := h.reports[id]
	if known && r.newest() <= present.newest() || !known && len(h.reports) >= maxHashServers {
		return false
	}
	h.reports[id] = r
	return true
}

func decodeReport(b []byte) (id string, r report, rest []byte, err error) {
	length, b, err := uvarint(b)
	if err != nil || length > uint64(len(b)) {
		return "", report{}, nil, errHashes
	}
	id, b = string(b[:length]), b[length:]
	if r.scheme, b, err = uvarint(b); err != nil {
		return "", report{}, nil, err
	}
	if r.revision, b, err = uvarint(b); err != nil {
		return "", report{}, nil, err
	}
	count, b, err := uvarint(b)
	if err != nil || count > hashesTold {
		return "", report{}, nil, errHashes
	}
	r.points = make(map[uint64]stateHash, count)
	for range count {
		var index uint64
		if index, b, err = uvarint(b); err != nil || len(b) < hashBytes {
			return "", report{}, nil, errHashes
		}
		r.points[index] = stateHash(b[:hashBytes])
		b = b[hashBytes:]
	}
	return id, r, b, nil
}

func uvarint(b []byte) (uint64, []byte, error) {
	v, n := binary.Uvarint(b)
	if n <= 0 {
		return 0, nil, fmt.Errorf("%w: truncated number", errHashes)
	}
	return v, b[n:], nil
}
