package node

import (
	"crypto/ed25519"
	"encoding/hex"
	"encoding/json"
	"slices"
	"strings"
	"time"

	"github.com/holdfast-dev/holdfast/internal/gossip"
	"github.com/holdfast-dev/holdfast/internal/state"
	"github.com/holdfast-dev/holdfast/internal/version"
)

// maxMetaBytes is what the pool carries of one server.
const maxMetaBytes = 512

// poolLabel keeps this pool apart from every other that shares addresses.
const poolLabel = "holdfast-servers"

// meta is what a server tells about itself in the pool. Encoded it must stay
// within 512 bytes; keys are short for that. Fields are only ever added.
type meta struct {
	ID      string `json:"i"`
	API     string `json:"a"`
	Raft    string `json:"r"`
	Version string `json:"v"`
	// Command is the highest command version that the server understands.
	Command uint32 `json:"c"`
	Expect  int    `json:"e"`
	// State is true once the server belongs to a cluster.
	State bool `json:"s,omitempty"`
	// Lineage is the lineage of the server's state in hex; empty when it has none.
	Lineage string `json:"l,omitempty"`
	// Founder is whom the server has promised itself to.
	Founder string `json:"f,omitempty"`
	// Key is the public key that the server signs with.
	Key ed25519.PublicKey `json:"k,omitempty"`
}

// largest is how long the encoding may become while the server runs.
func (m meta) largest() int {
	m.State, m.Lineage = true, strings.Repeat("0", 32)
	m.Founder = strings.Repeat("x", maxIDBytes)
	b, err := json.Marshal(m)
	if err != nil {
		return 0 // strings, numbers and booleans always encode
	}
	return len(b)
}

// server is a member of the pool.
type server struct {
	meta
	since time.Time
}

// parseServers reads the members of the pool, in the order of their ids. Of two
// runs of one server the younger counts: the older has not been noticed to be
// gone.
func parseServers(members []gossip.Member) []server {
	byID := make(map[string]server, len(members))
	for _, m := range members {
		s := server{since: m.Since}
		if json.Unmarshal(m.Meta, &s.meta) != nil || s.ID == "" {
			continue
		}
		if other, ok := byID[s.ID]; !ok || other.since.Before(s.since) {
			byID[s.ID] = s
		}
	}
	servers := make([]server, 0, len(byID))
	for _, s := range byID {
		servers = append(servers, s)
	}
	slices.SortFunc(servers, func(a, b server) int { return strings.Compare(a.ID, b.ID) })
	return servers
}

// servers returns who is alive in the pool, this server included.
func (n *Node) servers() []server {
	if n.pool == nil {
		return nil
	}
	return parseServers(n.pool.Members())
}

// serverByID returns one of them.
func serverByID(servers []server, id string) (server, bool) {
	i := slices.IndexFunc(servers, func(s server) bool { return s.ID == id })
	if i < 0 {
		return server{}, false
	}
	return servers[i], true
}

// meta describes this server.
func (n *Node) meta() meta {
	return meta{
		ID: n.id, API: n.apiAddr, Raft: n.raft.Addr(), Version: version.Version, Command: n.commandVersion,
		Expect: n.config.founders(), State: n.raft.HasState(), Lineage: lineageOf(n.machine.View()),
		Founder: n.promise.to(), Key: n.key.Public(),
	}
}

func (n *Node) encodeMeta() []byte {
	b, err := json.Marshal(n.meta())
	if err != nil {
		return nil // strings, numbers and booleans always encode
	}
	return b
}

func lineageOf(v *state.View) string {
	epoch := v.Epoch()
	if !epoch.HasLineage() {
		return ""
	}
	return hex.EncodeToString(epoch.Lineage[:])
}

// minVersion is the highest command version that every member understands. One
// that is not seen counts as the oldest: it may be down and come back as it was.
func minVersion(memberIDs []string, servers []server) uint32 {
	lowest := uint32(0)
	for _, id := range memberIDs {
		v := uint32(1)
		if s, ok := serverByID(servers, id); ok && s.Command > 0 {
			v = s.Command
		}
		if lowest == 0 || v < lowest {
			lowest = v
		}
	}
	return max(lowest, 1)
}
