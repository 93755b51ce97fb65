package consensus

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
)

func TestRecoverFromTwoOfThreeLost(t *testing.T) {
	t.Parallel()
	for _, snapshot := range []bool{false, true} {
		t.Run(fmt.Sprint("snapshot=", snapshot), func(t *testing.T) {
			t.Parallel()
			c := newCluster(t, 3, nil)
			leader := c.leader()
			var want []string
			var last uint64
			for i := range 10 {
				want = append(want, fmt.Sprint("c", i))
				last = leader.propose(want[i])
				if snapshot && i == 5 {
					leader.snapshot()
				}
			}
			survivor := leader
			survivor.waitApplied(last)
			alone := []Member{{ID: survivor.cfg.ID, Addr: survivor.node.Addr(), Voter: true}}
			if err := Recover(t.Context(), survivor.cfg, &journal{}, alone); !errors.Is(err, ErrLocked) {
				t.Errorf("recover a running node: %v", err)
			}
			for _, s := range c.sites {
				s.close()
			}
			must(t, Recover(t.Context(), survivor.cfg, &journal{}, alone))
			survivor.mustOpen()
			c.leader()
			survivor.waitApplied(survivor.propose("recovered"))
			if got := survivor.sm.commands(); !slices.Equal(got, append(want, "recovered")) {
				t.Errorf("recovered %v", got)
			}
			if m := survivor.node.Members(); len(m) != 1 {
				t.Errorf("members %+v", m)
			}
			fresh := newSite(t, "n9", c.net, nil)
			fresh.mustOpen()
			must(t, survivor.node.AddNonvoter(testCtx(t), "n9", fresh.node.Addr()))
			fresh.waitApplied(survivor.propose("joined"))
			if !slices.Equal(fresh.sm.commands(), survivor.sm.commands()) {
				t.Errorf("the new member has %v", fresh.sm.commands())
			}
		})
	}
}

func TestRecoverRefuses(t *testing.T) {
	t.Parallel()
	s := newSite(t, "a", &links{}, nil)
	self := Member{ID: "a", Addr: "127.0.0.1:1", Voter: true}
	if err := Recover(t.Context(), s.cfg, &journal{}, []Member{{ID: "b", Addr: "x:1", Voter: true}}); err == nil {
		t.Error("members without this node")
	}
	if err := Recover(t.Context(), s.cfg, &journal{}, []Member{self}); err == nil {
		t.Error("a directory without state")
	}
	c := newCluster(t, 1, nil)
	one := c.leader()
	one.propose("a command nobody knows")
	one.close()
	self = Member{ID: one.cfg.ID, Addr: one.cfg.BindAddr, Voter: true}
	err := Recover(t.Context(), one.cfg, &journal{poison: "a command nobody knows"}, []Member{self})
	if err == nil || !strings.Contains(err.Error(), "unknown command") {
		t.Errorf("a log that cannot be applied: %v", err)
	}
	must(t, Recover(t.Context(), one.cfg, &journal{}, []Member{self})) // nothing was spoilt
}
