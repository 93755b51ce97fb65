package client_test

import (
	"crypto/rand"
	"fmt"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/holdfast-dev/holdfast/pkg/client"
	holdfastv1 "github.com/holdfast-dev/holdfast/proto/holdfast/v1"
)

// putFlag commits a flag and waits until instances obey it.
func putFlag(t *testing.T, addr, key, variant string, obey ...*client.Client) {
	t.Helper()
	conn, err := grpc.NewClient(addr, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	id := make([]byte, 16)
	_, _ = rand.Read(id)
	spec := fmt.Sprintf(`{"state":"ENABLED","variants":{"on":true,"off":false},"defaultVariant":%q}`, variant)
	if _, err := holdfastv1.NewStateServiceClient(conn).Apply(t.Context(), &holdfastv1.ApplyRequest{
		RequestId: id, Reason: "test", ClaimedActor: "test", Operations: []*holdfastv1.Operation{{Action: &holdfastv1.Operation_Put{Put: &holdfastv1.Put{
			Key: &holdfastv1.ResourceKey{Kind: holdfastv1.Kind_KIND_FLAG, Name: key}, Spec: []byte(spec),
		}}}},
	}); err != nil {
		t.Fatal(err)
	}
	for _, c := range obey {
		eventually(t, "it obeys", func() bool { return c.Bool(key, variant != "on").Get() == (variant == "on") })
	}
}

// TestStartWithoutAnyServer: while a process is away something changes, and then no
// server can be reached any more. It finds the others by what it has kept, learns from
// one of them what was decided, and checks it.
func TestStartWithoutAnyServer(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds")
	}
	addr, stop := serve(t)
	dirs := []string{t.TempDir(), t.TempDir()}
	var all []*client.Client
	for k, dir := range dirs {
		all = append(all, openAt(t, k, client.Config{Servers: []string{addr}, Gossip: client.GossipDirect, CacheDir: dir}))
	}
	putFlag(t, addr, "beta", "off", all...)
	for _, c := range all {
		eventually(t, "everybody is a member", func() bool { s := c.Status().Gossip; return s.Mode == client.GossipDirect && s.Members == 3 })
	}
	if err := all[1].Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	putFlag(t, addr, "beta", "on", all[0])
	stop()
	back := openAt(t, 1, client.Config{Servers: []string{addr}, Gossip: client.GossipDirect, CacheDir: dirs[1]})
	if s := back.Status(); s.Source != client.FromDisk || back.Bool("beta", true).Get() {
		t.Errorf("status %+v", s)
	}
	eventually(t, "a peer tells", func() bool { return back.Bool("beta", false).Get() })
	if s := back.Status(); s.Source != client.FromPeer || s.Gossip.Peer == "" || s.Connected || s.Gossip.Fresh == 0 {
		t.Errorf("status %+v", s)
	}
}
