package client_test

import (
	"context"
	"testing"
	"time"

	"github.com/holdfast-dev/holdfast/pkg/client"
)

// TestFarewell: what a relayed instance said counts no longer once it has closed, and not
// only when it has become too old, which takes 15 s.
func TestFarewell(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds")
	}
	addr, _ := serve(t)
	stays := openAt(t, 0, client.Config{Servers: []string{addr}})
	pay(stays, nil)
	said := func() int {
		for _, v := range stays.Status().Fleet {
			return v.HostsOpen
		}
		return 0
	}
	for k := 1; k <= 3; k++ {
		leaves := openAt(t, k, client.Config{Servers: []string{addr}})
		eventually(t, "it is relayed", func() bool { return leaves.Status().Gossip.Mode == client.GossipRelayed })
		for range 5 {
			pay(leaves, errBroken)
		}
		eventually(t, "it is heard", func() bool { return said() == 1 })
		closed := time.Now()
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		err := leaves.Close(ctx)
		cancel()
		if err != nil {
			t.Fatal(err)
		}
		eventually(t, "it is heard no more", func() bool { return said() == 0 })
		if took := time.Since(closed); took > 7*time.Second {
			t.Errorf("instance %d, which closed, counted for %v more", k, took)
		}
	}
}
