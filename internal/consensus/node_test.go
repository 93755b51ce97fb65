package consensus

import (
	"fmt"
	"slices"
	"testing"
)

func TestClusterReplicates(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 3, nil)
	leader := c.leader()
	var want []string
	var last uint64
	for i := range 20 {
		want = append(want, fmt.Sprint("c", i))
		last = leader.propose(want[i])
	}
	for _, s := range c.sites {
		s.waitApplied(last)
		if got := s.sm.commands(); !slices.Equal(got, want) {
			t.Errorf("%s applied %v, want %v", s.cfg.ID, got, want)
		}
	}
}
