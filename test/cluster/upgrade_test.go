package cluster_test

import (
	"context"
	"errors"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/holdfast-dev/holdfast/internal/version"
	holdfastv1 "github.com/holdfast-dev/holdfast/proto/holdfast/v1"
	"github.com/holdfast-dev/holdfast/test/cluster"
)

// Servers of the previous version are replaced one by one while clients write:
// nothing that was acknowledged is lost, and all come to the same state. What the
// previous version accepted and this one would refuse stays as it is.
func TestRollingUpgrade(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("builds and runs real processes")
	}
	if _, err := exec.LookPath("git"); err != nil {
		t.Skip("git is not at hand")
	}
	previous, was, err := cluster.BuildPrevious(t.Context(), t.TempDir())
	if errors.Is(err, cluster.ErrNoHistory) {
		t.Skip(err)
	}
	must(t, err)
	current := server(t)
	c := start(t, cluster.Options{Server: previous})
	lax := &holdfastv1.ResourceKey{Kind: holdfastv1.Kind_KIND_POLICY, Name: "lax"}
	get[cluster.Ack](t)(c.Writer(9, time.Second).Write(within(t, 30*time.Second), "before", &holdfastv1.Operation{
		Action: &holdfastv1.Operation_Put{Put: &holdfastv1.Put{Key: lax, Spec: []byte(`{"timeouts":{"call":"soon"}}`)}},
	}))

	l := &ledger{acked: make(map[string]uint64)}
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var writers sync.WaitGroup
	for who := range 3 {
		writers.Go(func() { l.fill(ctx, c, who, 5*time.Millisecond) })
	}
	c.Upgrade(current)
	for i := range c.Len() {
		if code := get[int](t)(c.Stop(i)); code != 0 {
			t.Errorf("server %d of %s ended with %d", i, was, code)
		}
		restart(t, c, i)
	}
	stop()
	writers.Wait()
	have, laxName := listAll(t, c, ""), cluster.ResourceName(lax.GetKind(), lax.GetName())
	if spec := string(have[laxName].GetSpec()); spec != `{"timeouts":{"call":"soon"}}` {
		t.Errorf("what %s had stored is now %s", was, spec)
	}
	delete(have, laxName)
	l.check(t, have)
	get[*holdfastv1.GetStatusResponse](t)(c.Agree(within(t, 30*time.Second)))
	for i := range c.Len() {
		members := get[*holdfastv1.ListMembersResponse](t)(c.Admin(i).ListMembers(within(t, 10*time.Second), &holdfastv1.ListMembersRequest{}))
		for _, m := range members.GetMembers() {
			if !strings.HasPrefix(m.GetVersion(), version.Version) {
				t.Errorf("server %d sees %s with version %q, want %s", i, m.GetId(), m.GetVersion(), version.Version)
			}
		}
	}
	t.Logf("%d acknowledged writes from %s to %s", len(l.acked), was, version.Version)
}
