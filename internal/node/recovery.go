package node

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"

	"github.com/holdfast-dev/holdfast/internal/consensus"
	"github.com/holdfast-dev/holdfast/internal/document"
	"github.com/holdfast-dev/holdfast/internal/state"
	"github.com/holdfast-dev/holdfast/internal/watch"
)

// recovery is the mark of a server that was recovered from a lost quorum. What
// was acknowledged may be missing, so nobody may be answered before the epoch
// has been raised: watchers then take a snapshot instead of a delta that leads
// from a past that no longer exists.
type recovery struct {
	dir *dataDir

	mu     sync.Mutex // guards marker
	marker *recoveryMarker
}

// recoveryMarker is the file.
type recoveryMarker struct {
	// Nonce of the epoch to come.
	Nonce uint64 `json:"nonce"`
	// Counter of the epoch at the recovery. The mark is void once the state is
	// past it, whoever raised it. Missing when the recovery was interrupted.
	Counter *uint64 `json:"counter,omitempty"`
}

func openRecovery(dir *dataDir) (*recovery, error) {
	var m recoveryMarker
	found, err := dir.readJSON(fileRecovered, &m)
	if err != nil {
		return nil, err
	}
	r := &recovery{dir: dir}
	if found {
		r.marker = &m
	}
	return r, nil
}

// pending tells whether the epoch has yet to be raised, and with which nonce.
func (r *recovery) pending(v *state.View) (nonce uint64, pending bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.marker == nil || r.marker.passed(v.Epoch()) {
		return 0, false
	}
	return r.marker.Nonce, true
}

func (m *recoveryMarker) passed(e document.Epoch) bool {
	return e.Nonce == m.Nonce || m.Counter != nil && e.Counter > *m.Counter
}

// settle removes the mark once the epoch has been raised.
func (r *recovery) settle(v *state.View) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.marker == nil || !r.marker.passed(v.Epoch()) {
		return nil
	}
	if err := r.dir.remove(fileRecovered); err != nil {
		return err
	}
	r.marker = nil
	return nil
}

// Peer is a server of a recovered cluster.
type Peer struct{ ID, RaftAddr string }

// ParsePeers reads id=host:port,id=host:port.
func ParsePeers(text string) ([]Peer, error) {
	var peers []Peer
	for part := range strings.SplitSeq(text, ",") {
		id, addr, ok := strings.Cut(strings.TrimSpace(part), "=")
		if !ok || id == "" {
			return nil, fmt.Errorf("peer %q: must be id=host:port", part)
		}
		if err := checkAddr(addr); err != nil {
			return nil, fmt.Errorf("peer %q: address %w", part, err)
		}
		if slices.ContainsFunc(peers, func(p Peer) bool { return p.ID == id || p.RaftAddr == addr }) {
			return nil, fmt.Errorf("peer %q: is named twice", part)
		}
		peers = append(peers, Peer{ID: id, RaftAddr: addr})
	}
	return peers, nil
}

// Recover rewrites the membership of a stopped server whose cluster has lost its
// majority for good, and marks it so that the first leader raises the epoch
// before anybody is served. Every survivor is to be recovered with the same
// peers. Entries in its log that were never committed become part of the state.
func Recover(ctx context.Context, config Config, peers []Peer, log *slog.Logger) (err error) {
	dir, err := openDataDir(config.DataDir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, dir.close()) }()
	id, err := dir.nodeID("")
	if err != nil {
		return err
	}
	members := make([]consensus.Member, len(peers))
	for i, p := range peers {
		members[i] = consensus.Member{ID: p.ID, Addr: p.RaftAddr, Voter: true}
	}
	if !slices.ContainsFunc(peers, func(p Peer) bool { return p.ID == id }) {
		return fmt.Errorf("this server is %s, which is not among the peers", id)
	}
	var b [8]byte
	_, _ = rand.Read(b[:]) // crypto/rand never returns an error
	marker := recoveryMarker{Nonce: binary.BigEndian.Uint64(b[:])}
	// The mark comes first: a recovery that is interrupted must not pass for
	// none. Without a counter it is valid until its own nonce is reached.
	if err := dir.writeJSON(fileRecovered, marker); err != nil {
		return err
	}
	machine := state.New()
	sm := &fsm{
		machine: machine, hub: watch.NewHub(machine.View()), clock: &clock{},
		ticked: func(uint64, [32]byte) {}, moved: func() {},
	}
	raft := consensus.Config{
		ID: id, DataDir: dir.file(dirRaft), BindAddr: config.RaftAddr, Timing: timing(&config), Logger: log,
	}
	if err := consensus.Recover(ctx, raft, sm, members); err != nil {
		return fmt.Errorf("recover: %w", err)
	}
	counter := machine.View().Epoch().Counter
	marker.Counter = &counter
	return dir.writeJSON(fileRecovered, marker)
}
