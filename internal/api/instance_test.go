package api

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/holdfast-dev/holdfast/internal/flags"
	"github.com/holdfast-dev/holdfast/internal/pki"
	"github.com/holdfast-dev/holdfast/internal/registry"
	peerv1 "github.com/holdfast-dev/holdfast/proto/holdfast/peer/v1"
	holdfastv1 "github.com/holdfast-dev/holdfast/proto/holdfast/v1"
)

// trio starts a leader n1 and two followers.
func trio(t *testing.T) []*node {
	t.Helper()
	c := newFakeCluster(t, "n1", "n2", "n3")
	nodes := make([]*node, 3)
	for i, r := range c.replicas {
		nodes[i] = serve(t, r)
	}
	return nodes
}

// of returns a hello of a service, in a zone.
func of(service, id, zone string) *holdfastv1.Hello {
	h := helloOf(id)
	h.Identity.Service, h.Identity.Labels = service, map[string]string{"zone": zone}
	return h
}

// counting is an AwaitInstances under way.
type counting struct {
	stream grpc.ServerStreamingClient[holdfastv1.AwaitInstancesResponse]
	last   *holdfastv1.AwaitInstancesResponse
}

func (n *node) count(t *testing.T, req *holdfastv1.AwaitInstancesRequest) *counting {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	t.Cleanup(cancel)
	stream, err := holdfastv1.NewInstanceServiceClient(n.conn).AwaitInstances(ctx, req)
	if err != nil {
		t.Fatal(err)
	}
	return &counting{stream: stream}
}

// until reads answers until one is as wanted.
func (c *counting) until(t *testing.T, what string, is func(*holdfastv1.AwaitInstancesResponse) bool) {
	t.Helper()
	for {
		resp, err := c.stream.Recv()
		if err != nil {
			t.Fatalf("%s: %v after %v", what, err, c.last)
		}
		if c.last = resp; is(resp) {
			return
		}
	}
}

// obeying reads until so many of so many obey.
func (c *counting) obeying(t *testing.T, obeying, connected int) {
	t.Helper()
	c.until(t, fmt.Sprintf("%d of %d", obeying, connected), func(r *holdfastv1.AwaitInstancesResponse) bool {
		return int(r.GetObeying()) == obeying && int(r.GetConnected()) == connected
	})
}

// over checks that the last answer was the last.
func (c *counting) over(t *testing.T, reached bool) {
	t.Helper()
	if _, err := c.stream.Recv(); !errors.Is(err, io.EOF) || c.last.GetReached() != reached {
		t.Errorf("ended with %v after %v", err, c.last)
	}
}

func ids(list []*holdfastv1.Instance) []string {
	out := []string{}
	for _, i := range list {
		out = append(out, i.GetIdentity().GetId())
	}
	return out
}

func TestInstancesOfAllServers(t *testing.T) {
	nodes := trio(t)
	nodes[0].put(t, flag("a", `1`))
	for i := range 9 {
		service := []string{"checkout", "payments"}[i%2]
		nodes[i%3].joined(t, of(service, fmt.Sprintf("%s-%d", service, i), fmt.Sprintf("zone-%d", i%3)))
	}
	quiet := of("checkout", "elsewhere", "")
	quiet.Namespace = "other"
	nodes[2].joined(t, quiet)
	want := []string{
		"checkout-0", "checkout-2", "checkout-4", "checkout-6", "checkout-8", "payments-1", "payments-3", "payments-5", "payments-7",
	}
	for _, n := range nodes {
		eventually(t, "all acknowledgements", func() bool { return n.list(t, &holdfastv1.ListInstancesRequest{Behind: 1}).GetTotal() == 0 })
		// Page by page it is the same as at once.
		for _, size := range []int32{0, 1, 4, 9} {
			var got []string
			req := &holdfastv1.ListInstancesRequest{PageSize: size}
			for {
				resp := n.list(t, req)
				if resp.GetTotal() != 9 || len(resp.GetUnreachable()) != 0 {
					t.Fatalf("page = %v", resp)
				}
				got = append(got, ids(resp.GetInstances())...)
				if req.PageToken = resp.GetNextPageToken(); req.GetPageToken() == "" {
					break
				}
			}
			if !slices.Equal(got, want) {
				t.Fatalf("with pages of %d: %q", size, got)
			}
		}
	}
	resp := nodes[0].list(t, &holdfastv1.ListInstancesRequest{Filter: &holdfastv1.InstanceFilter{Selector: "service=payments,zone in (zone-0,zone-1)"}})
	if got := ids(resp.GetInstances()); !slices.Equal(got, []string{"payments-1", "payments-3", "payments-7"}) {
		t.Errorf("selected %q", got)
	}
	one := resp.GetInstances()[0]
	if !one.GetConnected() || one.GetServerId() != "n2" || one.GetRevision() != 1 || one.GetAddress() == "" || one.GetNamespace() != "default" ||
		one.GetConnectedSince() == nil || one.GetLastSeen().AsTime().Before(one.GetConnectedSince().AsTime()) {
		t.Errorf("payments-1 = %v", one)
	}
}

// TestPercentIsDrawnAsInstancesDo compares with the rule of the overrides.
func TestPercentIsDrawnAsInstancesDo(t *testing.T) {
	n := single(t)
	const percent, salt = 40.0, "mode/storefront"
	var want []string
	for i := range 50 {
		id := fmt.Sprintf("i-%02d", i)
		n.joined(t, helloOf(id))
		if (&flags.Instance{ID: id}).Within(percent, salt) {
			want = append(want, id)
		}
	}
	filter := &holdfastv1.InstanceFilter{Percent: new(percent), Salt: salt}
	got := n.list(t, &holdfastv1.ListInstancesRequest{Filter: filter})
	if !slices.Equal(ids(got.GetInstances()), want) || len(want) == 0 || len(want) == 50 {
		t.Errorf("drew %q, want %q", ids(got.GetInstances()), want)
	}
	c := n.count(t, &holdfastv1.AwaitInstancesRequest{Filter: filter, Wait: durationpb.New(time.Minute)})
	c.obeying(t, len(want), len(want))
	c.over(t, true)
}

// TestLastSeenIsKept: an instance that left, or went to another server, is shown once.
func TestLastSeenIsKept(t *testing.T) {
	nodes := trio(t)
	later := helloOf("moves")
	later.Identity.Incarnation = 9 // as before its clock was set back
	gone, moves := nodes[0].joined(t, helloOf("gone")), nodes[0].joined(t, later)
	before := time.Now()
	gone.cancel()
	moves.cancel()
	eventually(t, "both left", func() bool { return len(nodes[1].instances(t, false)) == 0 })
	nodes[2].joined(t, helloOf("moves"))
	all := nodes[1].instances(t, true)
	if len(all) != 2 || all["gone"].GetConnected() || !all["moves"].GetConnected() || all["moves"].GetServerId() != "n3" {
		t.Errorf("the instances are %v", all)
	}
	if seen := all["gone"].GetLastSeen().AsTime(); seen.Before(before) || seen.After(time.Now()) {
		t.Errorf("last seen at %s", seen)
	}
	if now := nodes[1].instances(t, false); len(now) != 1 || now["moves"] == nil {
		t.Errorf("connected are %v", now)
	}
}

func TestInstanceRequestsAreChecked(t *testing.T) {
	n := single(t)
	client := holdfastv1.NewInstanceServiceClient(n.conn)
	filters := map[string]*holdfastv1.InstanceFilter{
		"namespace":    {Namespace: "\x00"},
		"selector":     {Selector: "a in"},
		"NaN":          {Percent: new(math.NaN()), Salt: "s"},
		"too much":     {Percent: new(101.0), Salt: "s"},
		"negative":     {Percent: new(-1.0), Salt: "s"},
		"without salt": {Percent: new(1.0)},
		"long salt":    {Percent: new(1.0), Salt: strings.Repeat("x", flags.MaxSelector+1)},
	}
	for name, filter := range filters {
		t.Run(name, func(t *testing.T) {
			_, err := client.ListInstances(t.Context(), &holdfastv1.ListInstancesRequest{Filter: filter})
			expect(t, err, ReasonInvalidRequest)
			_, err = n.count(t, &holdfastv1.AwaitInstancesRequest{Filter: filter}).stream.Recv()
			expect(t, err, ReasonInvalidRequest)
			listing, err := n.peer.ListInstances(t.Context(), &peerv1.ListInstancesRequest{Filter: filter})
			if err == nil {
				_, err = listing.Recv()
			}
			expect(t, err, ReasonInvalidRequest)
			waiting, err := n.peer.AwaitInstances(t.Context(), &peerv1.AwaitInstancesRequest{Filter: filter})
			if err == nil {
				_, err = waiting.Recv()
			}
			expect(t, err, ReasonInvalidRequest)
		})
	}
	_, err := client.ListInstances(t.Context(), &holdfastv1.ListInstancesRequest{PageSize: MaxPageSize + 1})
	expect(t, err, ReasonInvalidRequest)
	_, err = n.count(t, &holdfastv1.AwaitInstancesRequest{Wait: durationpb.New(MaxInstancesWait + 1)}).stream.Recv()
	expect(t, err, ReasonInvalidRequest)
	n.joined(t, helloOf("1"))
	n.joined(t, helloOf("2"))
	token := n.list(t, &holdfastv1.ListInstancesRequest{PageSize: 1}).GetNextPageToken()
	_, err = client.ListInstances(t.Context(), &holdfastv1.ListInstancesRequest{PageToken: token, IncludeDisconnected: true})
	expect(t, err, ReasonInvalidPageToken)
	_, err = client.ListInstances(t.Context(), &holdfastv1.ListInstancesRequest{PageToken: token, Filter: &holdfastv1.InstanceFilter{Selector: "x"}})
	expect(t, err, ReasonInvalidPageToken)
}

// TestInstancePageEndsAtItsBytes also has the servers send several chunks.
func TestInstancePageEndsAtItsBytes(t *testing.T) {
	nodes := trio(t)
	const n = 120
	for i := range n {
		h := helloOf(fmt.Sprintf("i-%03d", i))
		h.Identity.Labels = make(map[string]string)
		for l := range MaxLabels {
			h.Identity.Labels[fmt.Sprint("label-", l)] = strings.Repeat("x", 200)
		}
		nodes[1].connect(t, h)
	}
	var got []string
	pages := 0
	for token := "start"; token != ""; pages++ {
		req := &holdfastv1.ListInstancesRequest{PageSize: MaxPageSize}
		if pages > 0 {
			req.PageToken = token
		}
		resp := nodes[0].list(t, req)
		if size := proto.Size(resp); size > MaxPageBytes+1024 || resp.GetTotal() != n {
			t.Fatalf("a page of %d bytes, total %d", size, resp.GetTotal())
		}
		got, token = append(got, ids(resp.GetInstances())...), resp.GetNextPageToken()
	}
	if pages < 2 || len(got) != n || !slices.IsSorted(got) {
		t.Errorf("%d instances on %d pages", len(got), pages)
	}
}

// TestAwaitInstances follows a change until all who are in the scope obey.
func TestAwaitInstances(t *testing.T) {
	nodes := trio(t)
	var in []*instance
	for i := range 6 {
		in = append(in, nodes[i%3].joined(t, of("checkout", fmt.Sprint("in-", i), "a")))
	}
	nodes[0].joined(t, of("checkout", "out", "b")) // never gets there
	revision := nodes[0].put(t, flag("a", `1`)).GetRevision()
	c := nodes[1].count(t, &holdfastv1.AwaitInstancesRequest{
		Filter: &holdfastv1.InstanceFilter{Selector: "zone=a"}, Revision: revision, Wait: durationpb.New(MaxInstancesWait),
	})
	c.obeying(t, 0, 6)
	if got := ids(c.last.GetBehind()); !slices.Equal(got, []string{"in-0", "in-1", "in-2", "in-3", "in-4", "in-5"}) || c.last.GetHeader().GetServerId() != "n2" {
		t.Errorf("behind are %q", got)
	}
	for i, one := range in[:4] {
		one.until(t, revision)
		ack := &holdfastv1.Ack{}
		switch i {
		case 1:
			ack.ProblemCount = 3
		case 2:
			ack.OverriddenBy = "a file"
		}
		one.ack(t, ack)
	}
	c.obeying(t, 4, 6)
	c.until(t, "two are impaired", func(r *holdfastv1.AwaitInstancesResponse) bool { return r.GetImpaired() == 2 })
	if got := ids(c.last.GetImpairedInstances()); !slices.Equal(got, []string{"in-1", "in-2"}) {
		t.Errorf("impaired are %q", got)
	}
	if got := ids(c.last.GetBehind()); !slices.Equal(got, []string{"in-4", "in-5"}) {
		t.Errorf("behind are %q", got)
	}
	in[4].cancel() // who leaves is not waited for
	c.obeying(t, 4, 5)
	late := nodes[2].connect(t, of("checkout", "in-6", "a")) // who comes is
	c.obeying(t, 4, 6)
	late.follow(t)
	in[5].until(t, revision)
	in[5].ack(t, &holdfastv1.Ack{})
	c.obeying(t, 6, 6)
	c.over(t, true)
	again := nodes[2].count(t, &holdfastv1.AwaitInstancesRequest{Revision: revision}) // an answer at once
	again.obeying(t, 6, 7)
	again.over(t, false)
}

// TestAwaitAsksNothingNewOfOthers: a revision that did not change the namespace is
// obeyed by whoever obeys the one before.
func TestAwaitAsksNothingNewOfOthers(t *testing.T) {
	n := single(t)
	h := helloOf("i")
	h.ProgressInterval = durationpb.New(MaxProgressInterval)
	n.joined(t, h)
	op := flag("a", `1`)
	op.GetPut().GetKey().Namespace = "other"
	revision := n.put(t, op).GetRevision()
	c := n.count(t, &holdfastv1.AwaitInstancesRequest{Revision: revision, Wait: durationpb.New(time.Minute)})
	c.obeying(t, 1, 1)
	c.over(t, true)
	if n.list(t, &holdfastv1.ListInstancesRequest{Behind: revision}).GetTotal() != 0 {
		t.Error("listed as behind")
	}
}

// TestAwaitWithALaggingServer: what a revision asks of its instances a server knows
// only when it has applied it.
func TestAwaitWithALaggingServer(t *testing.T) {
	leader, follower := pair(t)
	h := helloOf("i")
	h.ProgressInterval = durationpb.New(MaxProgressInterval)
	follower.joined(t, h)
	follower.replica.hold()
	op := flag("a", `1`)
	op.GetPut().GetKey().Namespace = "other"
	revision := leader.put(t, op).GetRevision()
	c := leader.count(t, &holdfastv1.AwaitInstancesRequest{Revision: revision, Wait: durationpb.New(time.Minute)})
	c.obeying(t, 0, 1)
	follower.replica.release()
	c.obeying(t, 1, 1) // by what it has told before
	c.over(t, true)
}

func TestAwaitEndsInTime(t *testing.T) {
	n := single(t)
	n.joined(t, helloOf("i"))
	revision := n.put(t, flag("a", `1`)).GetRevision()
	c := n.count(t, &holdfastv1.AwaitInstancesRequest{Revision: revision, Wait: durationpb.New(50 * time.Millisecond)})
	c.obeying(t, 0, 1)
	c.until(t, "the last answer", func(*holdfastv1.AwaitInstancesResponse) bool { return true })
	c.over(t, false)
	if !slices.Equal(ids(c.last.GetBehind()), []string{"i"}) {
		t.Errorf("behind are %v", c.last)
	}
}

// TestUnreachableServersAreNamed, and asked again.
func TestUnreachableServersAreNamed(t *testing.T) {
	nodes := trio(t)
	nodes[0].joined(t, helloOf("i"))
	addr := nodes[2].addr
	nodes[2].replica.set(func(r *fakeReplica) { r.addr = "127.0.0.1:1" }) // nobody listens
	nodes[1].replica.set(func(r *fakeReplica) { r.addr = "" })
	resp := nodes[0].list(t, &holdfastv1.ListInstancesRequest{})
	named := make(map[string]string)
	for _, u := range resp.GetUnreachable() {
		named[u.GetServerId()] = u.GetError()
	}
	if len(named) != 2 || !strings.Contains(named["n2"], "not known") || !strings.Contains(named["n3"], "127.0.0.1:1") || resp.GetTotal() != 1 {
		t.Errorf("listed %v", resp)
	}
	c := nodes[0].count(t, &holdfastv1.AwaitInstancesRequest{Wait: durationpb.New(time.Minute)})
	c.until(t, "two are unreachable", func(r *holdfastv1.AwaitInstancesResponse) bool { return len(r.GetUnreachable()) == 2 })
	if c.last.GetReached() || c.last.GetObeying() != 1 {
		t.Errorf("without two servers: %v", c.last)
	}
	nodes[1].replica.set(func(r *fakeReplica) { r.addr = nodes[1].addr })
	nodes[2].replica.set(func(r *fakeReplica) { r.addr = addr })
	c.until(t, "all servers answer", func(r *holdfastv1.AwaitInstancesResponse) bool { return len(r.GetUnreachable()) == 0 })
	c.over(t, true)
}

// TestSilentServerIsNotWaitedFor: one that takes a call and says nothing.
func TestSilentServerIsNotWaitedFor(t *testing.T) {
	nodes := trio(t)
	silent := silence(t)
	nodes[2].replica.set(func(r *fakeReplica) { r.addr = silent })
	nodes[0].joined(t, helloOf("i"))
	began := time.Now()
	resp := nodes[0].list(t, &holdfastv1.ListInstancesRequest{})
	if d := time.Since(began); d > firstTime+3*time.Second || len(resp.GetUnreachable()) != 1 || resp.GetTotal() != 1 {
		t.Errorf("listed %v within %s", resp, d)
	}
	c := nodes[0].count(t, &holdfastv1.AwaitInstancesRequest{Wait: durationpb.New(time.Minute)})
	c.until(t, "it is named", func(r *holdfastv1.AwaitInstancesResponse) bool {
		return len(r.GetUnreachable()) == 1 && r.GetUnreachable()[0].GetServerId() == "n3" && r.GetObeying() == 1
	})
}

// TestGoneConnectionsAreNotWaitedFor: a server that has not noticed that an instance
// went elsewhere does not keep others waiting.
func TestGoneConnectionsAreNotWaitedFor(t *testing.T) {
	nodes := trio(t)
	nodes[0].joined(t, helloOf("i")) // stays open, and never says anything again
	live := nodes[1].joined(t, helloOf("i"))
	revision := nodes[0].put(t, flag("a", `1`)).GetRevision()
	c := nodes[2].count(t, &holdfastv1.AwaitInstancesRequest{Revision: revision, Wait: durationpb.New(time.Minute)})
	live.until(t, revision)
	live.ack(t, &holdfastv1.Ack{})
	c.until(t, "all obey", (*holdfastv1.AwaitInstancesResponse).GetReached)
	if c.last.GetConnected() != 1 {
		t.Errorf("counted %v", c.last)
	}
	c.over(t, true)
}

func TestAwaitIsBounded(t *testing.T) {
	n := single(t)
	for range registry.MaxTallies + 1 { // those that are over do not count
		c := n.count(t, &holdfastv1.AwaitInstancesRequest{Wait: durationpb.New(time.Minute)})
		c.obeying(t, 0, 0)
		c.over(t, true)
	}
	n.connect(t, helloOf("i")) // and acknowledges nothing
	for range registry.MaxTallies {
		c := n.count(t, &holdfastv1.AwaitInstancesRequest{Wait: durationpb.New(time.Minute)})
		c.obeying(t, 0, 1)
	}
	stream, err := n.peer.AwaitInstances(t.Context(), &peerv1.AwaitInstancesRequest{})
	if err == nil {
		_, err = stream.Recv()
	}
	expect(t, err, ReasonTooManyWaits)
}

func TestAwaitEndsWhenDraining(t *testing.T) {
	leader, follower := pair(t)
	leader.joined(t, helloOf("i"))
	c := leader.count(t, &holdfastv1.AwaitInstancesRequest{Revision: 9, Wait: durationpb.New(time.Minute)})
	c.obeying(t, 0, 1)
	follower.Drain(t.Context())
	c.until(t, "the follower is named", func(r *holdfastv1.AwaitInstancesResponse) bool { return len(r.GetUnreachable()) == 1 })
	leader.Drain(t.Context())
	for {
		if _, err := c.stream.Recv(); err != nil {
			expect(t, err, ReasonDraining)
			return
		}
	}
}

// silence serves calls and answers none. It returns its address.
func silence(t *testing.T) string {
	t.Helper()
	return foreign(t, grpc.UnknownServiceHandler(func(_ any, stream grpc.ServerStream) error {
		<-stream.Context().Done()
		return nil
	}))
}

// foreign serves nothing but what the options say. It returns its address.
func foreign(t *testing.T, options ...grpc.ServerOption) string {
	t.Helper()
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := grpc.NewServer(options...)
	served := make(chan error, 1)
	go func() { served <- s.Serve(l) }()
	t.Cleanup(func() {
		s.Stop()
		if err := <-served; err != nil {
			t.Error(err)
		}
	})
	return l.Addr().String()
}

// TestServerOfThePreviousVersionIsNamed: in the middle of an upgrade.
func TestServerOfThePreviousVersionIsNamed(t *testing.T) {
	nodes := trio(t)
	nodes[0].joined(t, helloOf("i"))
	previous := foreign(t)
	nodes[2].replica.set(func(r *fakeReplica) { r.addr = previous })
	for what, unreachable := range map[string][]*holdfastv1.UnreachableServer{
		"list": nodes[0].list(t, &holdfastv1.ListInstancesRequest{}).GetUnreachable(),
		"count": func() []*holdfastv1.UnreachableServer {
			c := nodes[0].count(t, &holdfastv1.AwaitInstancesRequest{Wait: durationpb.New(time.Minute)})
			c.obeying(t, 1, 1)
			return c.last.GetUnreachable()
		}(),
	} {
		if len(unreachable) != 1 || unreachable[0].GetServerId() != "n3" || !strings.Contains(unreachable[0].GetError(), "version") {
			t.Errorf("%s: %v", what, unreachable)
		}
	}
}

// TestSessionsOverTLS: an instance may have a session, and nobody pushes out one of
// another certificate.
func TestSessionsOverTLS(t *testing.T) {
	server, clients := certificates(t)
	c := newFakeCluster(t, "n1", "n2")
	secure := func(c *Config) {
		c.TLS = server
		c.DialOptions = []grpc.DialOption{grpc.WithTransportCredentials(credentials.NewTLS(clients[pki.RoleServer]))}
	}
	n, other := serve(t, c.replicas[0], secure), serve(t, c.replicas[1], secure)
	as := func(n *node, role pki.Role) *node {
		conn := dial(t, n.addr, grpc.WithTransportCredentials(credentials.NewTLS(clients[role])))
		return &node{Server: n.Server, conn: conn}
	}
	i := as(n, pki.RoleInstance).joined(t, helloOf("i"))
	newer := helloOf("i")
	newer.Identity.Incarnation = 2
	expect(t, as(n, pki.RoleOperator).open(t.Context(), t, newer).ended(), ReasonInstanceReplaced)
	listed := as(other, pki.RoleInstance).instances(t, false)["i"] // over the servers' own connection
	if listed.GetAuthenticatedAs() != "instance/alice" || listed.GetIdentity().GetIncarnation() != 1 || listed.GetServerId() != "n1" {
		t.Errorf("listed as %v", listed)
	}
	as(n, pki.RoleInstance).joined(t, newer)
	expect(t, i.ended(), ReasonInstanceReplaced)
}
