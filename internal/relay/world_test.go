package relay

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"maps"
	"net"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/test/bufconn"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/holdfast-dev/holdfast/internal/document"
	"github.com/holdfast-dev/holdfast/internal/gossip"
	"github.com/holdfast-dev/holdfast/internal/gossip/mesh"
	"github.com/holdfast-dev/holdfast/internal/mirror"
	"github.com/holdfast-dev/holdfast/internal/session"
	"github.com/holdfast-dev/holdfast/internal/trust"
	holdfastv1 "github.com/holdfast-dev/holdfast/proto/holdfast/v1"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const namespace = "default"

// cluster is a server with sessions that signs what it tells.
type cluster struct {
	holdfastv1.UnimplementedSessionServiceServer
	t *testing.T

	mu        sync.Mutex
	key       *trust.Key
	set       *trust.Signers
	epoch     document.Epoch
	history   []map[document.Key]*document.Resource
	changed   chan struct{}
	snapshots int
	hellos    []*holdfastv1.Hello
}

func newKey(t *testing.T) *trust.Key {
	t.Helper()
	k, err := trust.NewKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func newCluster(t *testing.T) *cluster {
	t.Helper()
	c := &cluster{
		t: t, key: newKey(t), epoch: document.Epoch{Lineage: [16]byte{1}, Counter: 1, Nonce: 7},
		history: []map[document.Key]*document.Resource{{}}, changed: make(chan struct{}),
	}
	c.set = c.signers(1, c.key)
	return c
}

// signers returns a set of the cluster.
func (c *cluster) signers(version uint64, keys ...*trust.Key) *trust.Signers {
	c.t.Helper()
	var public []trust.Server
	for i, k := range keys {
		public = append(public, trust.Server{ID: fmt.Sprint("n", i), Key: k.Public()})
	}
	s, err := trust.NewSigners(keys[0], c.epoch, version, public)
	if err != nil {
		c.t.Fatal(err)
	}
	for _, k := range keys[1:] {
		s = s.Countersign(k)
	}
	return s
}

// put commits resources by name; an empty spec removes one.
func (c *cluster) put(specs map[string]string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	next, revision := maps.Clone(c.history[len(c.history)-1]), uint64(len(c.history))
	for name, spec := range specs {
		k := document.Key{Kind: document.Flag, Name: name}
		if delete(next, k); spec != "" {
			next[k] = &document.Resource{Key: k, Spec: []byte(spec), CreateRevision: revision, ModRevision: revision, Version: 1}
		}
	}
	c.history = append(c.history, next)
	close(c.changed)
	c.changed = make(chan struct{})
}

func (c *cluster) newest() uint64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return uint64(len(c.history) - 1)
}

func rootOf(content map[document.Key]*document.Resource) document.Root {
	return document.Build(func(yield func(document.Key, [32]byte) bool) {
		for k, r := range content {
			if !yield(k, r.Hash()) {
				return
			}
		}
	}).Root()
}

// head returns the head at a revision.
func (c *cluster) head(revision uint64) trust.Head {
	c.mu.Lock()
	defer c.mu.Unlock()
	return trust.Head{Namespace: namespace, Epoch: c.epoch, Revision: revision, Root: rootOf(c.history[revision]), StateTime: time.Now().UnixMilli()}
}

func (c *cluster) stamp() *holdfastv1.SignedHead {
	c.mu.Lock()
	defer c.mu.Unlock()
	return trust.SignTimestamp(c.key, trust.Timestamp{Epoch: c.epoch, Revision: uint64(len(c.history) - 1), StateTime: time.Now().UnixMilli()})
}

// mirror returns what an instance holds that is at a revision.
func (c *cluster) mirror(revision uint64) *mirror.Mirror {
	c.t.Helper()
	m, err := mirror.New(namespace, mirror.Position{}).Apply(c.whole(revision))
	if err != nil {
		c.t.Fatal(err)
	}
	return m
}

func (c *cluster) whole(revision uint64) mirror.Update {
	c.mu.Lock()
	defer c.mu.Unlock()
	content := c.history[revision]
	d := document.Delta{Namespace: namespace, To: revision, Root: rootOf(content)}
	for _, k := range slices.SortedFunc(maps.Keys(content), document.Key.Compare) {
		d.Puts = append(d.Puts, content[k])
	}
	return mirror.Update{Epoch: c.epoch, Replace: true, Delta: d}
}

// certify returns the certificate of an instance.
func (c *cluster) certify(id string, key *trust.Key, end time.Time) []byte {
	c.t.Helper()
	b, err := trust.Certify(c.key, trust.Certificate{
		Namespace: namespace, ID: id, Service: "shop", Host: id, PublicKey: key.Public(), NotAfter: end.UnixMilli(),
	})
	if err != nil {
		c.t.Fatal(err)
	}
	return b
}

// Connect is a session: what the cluster holds, from the cursor on, with heads.
func (c *cluster) Connect(stream grpc.BidiStreamingServer[holdfastv1.ConnectRequest, holdfastv1.ConnectResponse]) error {
	first, err := stream.Recv()
	if err != nil {
		return err
	}
	hello := first.GetHello()
	c.mu.Lock()
	c.hellos = append(c.hellos, hello)
	m := &holdfastv1.ConnectResponse{
		Epoch: c.epoch.Proto(), StateTime: timestamppb.Now(),
		Event:  &holdfastv1.ConnectResponse_Welcome{Welcome: &holdfastv1.Welcome{ServerId: "n1"}},
		Gossip: &holdfastv1.GossipSettings{Signers: c.set.Bytes(), Mode: "direct"},
	}
	c.mu.Unlock()
	if err := stream.Send(m); err != nil {
		return err
	}
	go func() { // acknowledgements
		for {
			if _, err := stream.Recv(); err != nil {
				return
			}
		}
	}()
	at, cursor := uint64(0), hello.GetCursor()
	have := cursor != nil && cursor.GetEpoch().GetCounter() == c.epoch.Counter
	if have {
		at = cursor.GetRevision()
	}
	progress := time.NewTicker(5 * time.Second)
	defer progress.Stop()
	for {
		c.mu.Lock()
		changed := c.changed
		c.mu.Unlock()
		if to := c.newest(); to >= at {
			if err := stream.Send(c.tell(have, at, to)); err != nil {
				return err
			}
			at, have = to, true
		}
		select {
		case <-changed:
		case <-progress.C:
		case <-stream.Context().Done():
			return stream.Context().Err()
		}
	}
}

func (c *cluster) tell(have bool, from, to uint64) *holdfastv1.ConnectResponse {
	is := c.mirror(to)
	u := is.Whole()
	if have {
		u = is.Since(c.mirror(from))
	}
	m := mirror.NewSheaf(u, 1<<30).Message(0)
	if u.Replace {
		c.mu.Lock()
		c.snapshots++
		c.mu.Unlock()
	}
	m.StateTime, m.Head, m.Timestamp = timestamppb.Now(), trust.SignHead(c.key, c.head(to)), c.stamp()
	return m
}

// world is a cluster, a network for gossip, and whoever is in it.
type world struct {
	t       *testing.T
	cluster *cluster
	mesh    *mesh.Network
	api     *bufconn.Listener
	grpc    *grpc.Server
	n       int

	mu  sync.Mutex
	cut map[string]bool // instances that reach no server
}

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{t: t, cluster: newCluster(t), mesh: mesh.New(1), cut: map[string]bool{}}
	w.mesh.Shape(500*time.Microsecond, 0)
	w.up()
	t.Cleanup(func() {
		w.grpc.Stop()
		wait(10 * time.Second) // probes that the library has under way
	})
	return w
}

// up starts the server.
func (w *world) up() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.api, w.grpc = bufconn.Listen(64<<10), grpc.NewServer()
	holdfastv1.RegisterSessionServiceServer(w.grpc, w.cluster)
	api, g := w.api, w.grpc
	go func() { _ = g.Serve(api) }()
}

// instance is what a process with the SDK has of all this.
type instance struct {
	w       *world
	id      string
	addr    string
	dir     string
	seeds   []string
	key     *trust.Key
	relay   *Relay
	session *session.Session
	pool    *gossip.Pool
	conns   []net.Conn

	mu      sync.Mutex
	changes []session.Change
}

func (i *instance) Install(c session.Change) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.changes = append(i.changes, c)
}
func (i *instance) Report() session.Report     { return session.Report{} }
func (i *instance) StateTime(int64)            {}
func (i *instance) Connected(session.Server)   { i.relay.Connected(true) }
func (i *instance) Disconnected(string, error) { i.relay.Connected(false) }
func (i *instance) revision() uint64           { return i.session.Mirror().Position().Revision }
func (i *instance) source() session.Source     { return i.session.Status().Source }
func (i *instance) at(w *cluster) bool         { return i.session.Mirror().Root() == w.head(w.newest()).Root }

// dial reaches the server unless the instance is cut off.
func (i *instance) dial(ctx context.Context, _ string) (net.Conn, error) {
	i.w.mu.Lock()
	api, cut := i.w.api, i.w.cut[i.id]
	i.w.mu.Unlock()
	if cut {
		return nil, errors.New("unreachable")
	}
	conn, err := api.DialContext(ctx)
	if err == nil {
		i.w.mu.Lock()
		i.conns = append(i.conns, conn)
		i.w.mu.Unlock()
	}
	return conn, err
}

// cutOff takes the servers away from an instance, or gives them back.
func (w *world) cutOff(i *instance, cut bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.cut[i.id] = cut
	if cut {
		for _, c := range i.conns {
			_ = c.Close()
		}
		i.conns = nil
	}
}

// instance makes one that is not started.
func (w *world) instance() *instance {
	w.t.Helper()
	i := &instance{w: w, id: fmt.Sprintf("i%d", w.n), addr: fmt.Sprintf("10.0.%d.%d:7000", w.n/250, w.n%250+1), key: newKey(w.t)}
	if w.n > 0 {
		i.seeds = []string{"10.0.0.1:7000"}
	}
	w.n++
	return i
}

// start opens session, relay and pool, as the SDK does.
func (i *instance) start() *instance {
	i.w.t.Helper()
	i.changes = nil
	i.relay = New(Config{Namespace: namespace, Key: i.key, OnSigners: func(s *trust.Signers) {
		i.session.KeepTrust(mirror.Trust{Key: i.key.Seed(), Settings: &holdfastv1.GossipSettings{Signers: s.Bytes()}})
	}})
	var err error
	i.session, err = session.Open(session.Config{
		Servers: []string{"server:7400"}, Namespace: namespace, Handler: i, Dir: i.dir,
		Identity:    session.Identity{ID: i.id, Service: "shop", SDK: "test/1"},
		DialOptions: []grpc.DialOption{grpc.WithContextDialer(i.dial)},
		Gossip: &session.Gossip{
			State:    func() *holdfastv1.GossipState { return &holdfastv1.GossipState{Mode: "direct"} },
			Settings: func(s *holdfastv1.GossipSettings) { _ = i.relay.TrustServer(s.GetSigners()) },
			Evidence: func([][]byte) {}, Own: func() []byte { return nil },
			Head: i.relay.Head,
		},
	})
	if err != nil {
		i.w.t.Fatal(err)
	}
	if known := i.session.Trust(); known.Settings != nil {
		if err := i.relay.TrustServer(known.Settings.GetSigners()); err != nil {
			i.w.t.Error(err)
		}
	}
	i.relay.SetCertificate(i.w.cluster.certify(i.id, i.key, time.Now().Add(trust.CertificateLife)))
	i.pool = i.w.pool(i.id, i.addr, i.seeds, i.relay.Attach)
	i.relay.Start(i.session)
	return i
}

// pool starts a member of the pool.
func (w *world) pool(id, addr string, seeds []string, prepare func(*gossip.Pool)) *gossip.Pool {
	w.t.Helper()
	transport, err := w.mesh.Transport(addr)
	if err != nil {
		w.t.Fatal(err)
	}
	p, err := gossip.New(gossip.Config{Name: id, BindAddr: addr, Join: seeds, Transport: transport, Profile: gossip.Instances})
	if err != nil {
		w.t.Fatal(err)
	}
	prepare(p)
	if err := p.Start(); err != nil {
		w.t.Fatal(err)
	}
	return p
}

func (i *instance) close() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	_ = i.pool.Close(ctx)
	i.relay.Close()
	if err := i.session.Close(context.Background()); err != nil {
		i.w.t.Error(err)
	}
}

// instances starts so many, and lets them find each other and the server.
func (w *world) instances(n int) []*instance {
	w.t.Helper()
	all := make([]*instance, n)
	for k := range all {
		all[k] = w.instance().start()
		if k%10 == 9 {
			wait(200 * time.Millisecond)
		}
	}
	w.t.Cleanup(func() {
		for _, i := range all {
			i.close()
		}
	})
	wait(15 * time.Second)
	for _, i := range all {
		until(w.t, 3*time.Minute, i.id+" knows all the others", func() bool { return len(i.pool.Members()) == n })
	}
	return all
}

// wait lets virtual time pass.
func wait(d time.Duration) {
	time.Sleep(d) //nolint:forbidigo // in a bubble, where it is the time of the bubble
	synctest.Wait()
}

// until lets virtual time pass until something is so, and returns how long that took.
func until(t *testing.T, most time.Duration, what string, is func() bool) time.Duration {
	t.Helper()
	begin := time.Now()
	for !is() {
		if time.Since(begin) > most {
			t.Fatalf("after %v still not so: %s", most, what)
		}
		wait(10 * time.Millisecond)
	}
	return time.Since(begin)
}

// forget removes the cache and the mark from a directory.
func forget(t *testing.T, dir string) {
	t.Helper()
	for _, name := range []string{"holdfast-default.cache", "holdfast-default.mark"} {
		if err := os.Remove(filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
}
