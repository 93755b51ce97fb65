package client

import (
	"math/rand/v2"
	"slices"

	"google.golang.org/protobuf/proto"

	"github.com/holdfast-dev/holdfast/internal/mirror"
	"github.com/holdfast-dev/holdfast/internal/trust"
	holdfastv1 "github.com/holdfast-dev/holdfast/proto/holdfast/v1"
)

// keptSeeds is how many members are written to the disk, to find the pool by where no
// server can be reached.
const keptSeeds = 32

// ownTrust returns what the disk knew without what is another instance's: a process that
// finds the directory in use, or that was given another id, must not speak for it.
func ownTrust(known mirror.Trust, id string) mirror.Trust {
	b := known.Settings.GetCertificate()
	if c, err := trust.ReadCertificate(b); len(b) == 0 || err == nil && c.ID == id {
		return known
	}
	s := proto.CloneOf(known.Settings)
	s.Certificate = nil
	return mirror.Trust{Settings: s}
}

// membersChanged is told by the pool.
func (p *peers) membersChanged() {
	p.member.Wake()
	select {
	case p.others <- struct{}{}:
	default:
	}
}

// kept returns what a start without servers needs: the settings as they are, the
// signers that count now, and some members beside the servers. The goroutine calls it.
func (p *peers) kept() *holdfastv1.GossipSettings {
	s := proto.CloneOf(p.settings)
	if signers := p.newer.Load(); signers != nil {
		s.Signers = signers.Bytes()
	}
	if r := p.reached.Load(); r != nil && r.joined {
		// A server that has just come back verifies the address once more, and grants less
		// until it has.
		s.Mode = GossipDirect
		var members []string
		for _, m := range r.pool.Members() {
			if m.Name != r.pool.Name() {
				members = append(members, m.Addr)
			}
		}
		p.seeds = stillThere(p.seeds, members)
	}
	for _, addr := range p.seeds {
		if !slices.Contains(s.GetSeeds(), addr) {
			s.Seeds = append(s.Seeds, addr)
		}
	}
	return s
}

// stillThere returns the seeds that are members, and others up to keptSeeds in the place
// of those that are not; all of them while there are no members.
func stillThere(seeds, members []string) []string {
	if len(members) == 0 {
		return seeds
	}
	seeds = slices.DeleteFunc(slices.Clone(seeds), func(addr string) bool { return !slices.Contains(members, addr) })
	rand.Shuffle(len(members), func(i, j int) { members[i], members[j] = members[j], members[i] })
	for _, addr := range members {
		if len(seeds) < keptSeeds && !slices.Contains(seeds, addr) {
			seeds = append(seeds, addr)
		}
	}
	return seeds
}
