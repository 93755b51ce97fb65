package api

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/holdfast-dev/holdfast/internal/document"
	"github.com/holdfast-dev/holdfast/internal/registry"
	peerv1 "github.com/holdfast-dev/holdfast/proto/holdfast/peer/v1"
	holdfastv1 "github.com/holdfast-dev/holdfast/proto/holdfast/v1"
)

// TestAnotherLineageIsNotObeyed: a cluster may go on with the backup of another one,
// whose epochs are counted anew. What instances obeyed before says nothing then.
func TestAnotherLineageIsNotObeyed(t *testing.T) {
	n := single(t)
	revision := n.put(t, flag("a", `1`)).GetRevision()
	i := n.connect(t, helloOf("i"))
	before := proto.CloneOf(i.epochOf(t))
	before.Lineage[0]++
	before.Counter = 7
	i.say(t, &holdfastv1.ConnectRequest{Message: &holdfastv1.ConnectRequest_Ack{Ack: &holdfastv1.Ack{Epoch: before, Revision: 99}}})
	eventually(t, "the acknowledgement", func() bool { return n.instances(t, false)["i"].GetRevision() == 99 })
	if got := n.list(t, &holdfastv1.ListInstancesRequest{Behind: revision}).GetTotal(); got != 1 {
		t.Errorf("%d instances are behind", got)
	}
	if got := n.sessions.behind(); got != 1 {
		t.Errorf("the metric says that %d are behind", got)
	}
	c := n.count(t, &holdfastv1.AwaitInstancesRequest{Revision: revision, Wait: durationpb.New(time.Minute)})
	c.obeying(t, 0, 1)
	i.ack(t, &holdfastv1.Ack{})
	c.obeying(t, 1, 1)
	c.over(t, true)
}

// epochOf installs what there is and returns the epoch that it is of.
func (i *instance) epochOf(t *testing.T) *holdfastv1.Epoch {
	t.Helper()
	if err := i.next(); err != nil {
		t.Fatal(err)
	}
	return i.epoch
}

// TestNothingUnknownIsKept: what this version cannot read of an instance takes no
// room, neither here nor in lists.
func TestNothingUnknownIsKept(t *testing.T) {
	n := single(t)
	junk := protowire.AppendBytes(protowire.AppendTag(nil, 5000, protowire.BytesType), make([]byte, 300<<10))
	hello := helloOf("i")
	hello.Identity.ProtoReflect().SetUnknown(junk)
	i := n.connect(t, hello)
	epoch := proto.CloneOf(i.epochOf(t))
	problem := &holdfastv1.InstanceProblem{Key: &holdfastv1.ResourceKey{Kind: holdfastv1.Kind_KIND_FLAG, Name: "a"}, Message: "no"}
	for _, m := range []proto.Message{epoch, problem, problem.GetKey()} {
		m.ProtoReflect().SetUnknown(junk)
	}
	ack := &holdfastv1.Ack{Epoch: epoch, Problems: []*holdfastv1.InstanceProblem{problem}, OverriddenBy: "a file"}
	ack.ProtoReflect().SetUnknown(junk)
	i.say(t, &holdfastv1.ConnectRequest{Message: &holdfastv1.ConnectRequest_Ack{Ack: ack}})
	var got *holdfastv1.Instance
	eventually(t, "the acknowledgement", func() bool {
		got = n.instances(t, false)["i"]
		return got.GetOverriddenBy() != ""
	})
	if size := proto.Size(got); size > 1024 || got.GetProblems()[0].GetKey().GetName() != "a" || got.GetEpoch().GetCounter() != 1 {
		t.Errorf("kept %d bytes", size)
	}
	for known := range n.sessions.registry.Instances(time.Now(), "default") {
		if size := proto.Size(known.Ack) + proto.Size(known.Identity); size > 1024 {
			t.Errorf("holds %d bytes", size)
		}
	}
	// An epoch that is none is no reason to end a session.
	ack = &holdfastv1.Ack{Epoch: &holdfastv1.Epoch{Lineage: make([]byte, 1<<20)}, OverriddenBy: "another file"}
	i.say(t, &holdfastv1.ConnectRequest{Message: &holdfastv1.ConnectRequest_Ack{Ack: ack}})
	eventually(t, "the acknowledgement", func() bool {
		got = n.instances(t, false)["i"]
		return got.GetOverriddenBy() == "another file"
	})
	if got.GetEpoch() != nil {
		t.Errorf("holds %v", got.GetEpoch())
	}
}

// TestStrangersPushNobodyOut: an instance of another cluster is refused before it
// could take the place of one.
func TestStrangersPushNobodyOut(t *testing.T) {
	n := single(t)
	i := n.joined(t, helloOf("i"))
	foreign := n.replica.View().Epoch()
	foreign.Lineage[0]++
	stranger := helloOf("i")
	stranger.Identity.Incarnation, stranger.Cursor = 2, &holdfastv1.Cursor{Epoch: foreign.Proto()}
	expect(t, n.open(t.Context(), t, stranger).ended(), ReasonForeignLineage)
	i.until(t, n.put(t, flag("a", `1`)).GetRevision())
	if got := n.instances(t, false)["i"]; got.GetIdentity().GetIncarnation() != 1 {
		t.Errorf("the instance is %v", got)
	}
}

// TestCountsFitIntoAMessage: of instances about which there is much to tell, fewer
// are named.
func TestCountsFitIntoAMessage(t *testing.T) {
	leader, follower := pair(t)
	const n = 100
	for at := range n {
		h := helloOf(fmt.Sprintf("i-%03d", at))
		h.Identity.Labels = make(map[string]string)
		for l := range MaxLabels {
			h.Identity.Labels[fmt.Sprintf("%060d", l)] = strings.Repeat("x", MaxLabelValueBytes)
		}
		i := follower.connect(t, h)
		ack := &holdfastv1.Ack{}
		for range MaxProblems {
			ack.Problems = append(ack.Problems, &holdfastv1.InstanceProblem{
				Key: &holdfastv1.ResourceKey{Name: strings.Repeat("x", document.MaxName)}, Message: strings.Repeat("x", MaxProblemBytes),
			})
		}
		i.epochOf(t)
		i.ack(t, ack)
	}
	c := leader.count(t, &holdfastv1.AwaitInstancesRequest{Wait: durationpb.New(time.Minute)})
	c.until(t, "all obey", (*holdfastv1.AwaitInstancesResponse).GetReached)
	if c.last.GetImpaired() != n || len(c.last.GetImpairedInstances()) == 0 || proto.Size(c.last) > 2*MaxPageBytes {
		t.Errorf("%d of %d are named, in %d bytes", len(c.last.GetImpairedInstances()), c.last.GetImpaired(), proto.Size(c.last))
	}
	c.over(t, true)
}

// TestAwaitFollowsTheMembers: who joins the cluster is asked, who leaves it is not
// waited for.
func TestAwaitFollowsTheMembers(t *testing.T) {
	nodes := trio(t)
	revision := nodes[0].put(t, flag("a", `1`)).GetRevision()
	known := func(hidden ...int) {
		nodes[0].replica.set(func(r *fakeReplica) { r.hidden = nil })
		for _, at := range hidden {
			nodes[0].replica.set(func(r *fakeReplica) { r.hidden = append(r.hidden, nodes[at].replica.id) })
		}
	}
	known(1)
	nodes[2].replica.set(func(r *fakeReplica) { r.addr = "127.0.0.1:1" }) // nobody listens
	late := nodes[1].connect(t, helloOf("late"))
	here := nodes[0].connect(t, helloOf("here"))
	c := nodes[0].count(t, &holdfastv1.AwaitInstancesRequest{Revision: revision, Wait: durationpb.New(time.Minute)})
	c.obeying(t, 0, 1)
	known(2) // n3 is removed, and n2 is added
	here.follow(t)
	c.obeying(t, 1, 2)
	late.follow(t)
	c.obeying(t, 2, 2)
	c.over(t, true)
}

// TestAwaitOfARevisionToCome: on a server without others, too, the revision may turn
// out to ask for nothing new.
func TestAwaitOfARevisionToCome(t *testing.T) {
	n := single(t)
	h := helloOf("i")
	h.ProgressInterval = durationpb.New(MaxProgressInterval)
	n.joined(t, h)
	c := n.count(t, &holdfastv1.AwaitInstancesRequest{Revision: 1, Wait: durationpb.New(time.Minute)})
	c.obeying(t, 0, 1)
	op := flag("a", `1`)
	op.GetPut().GetKey().Namespace = "other"
	if revision := n.put(t, op).GetRevision(); revision != 1 {
		t.Fatalf("committed as %d", revision)
	}
	c.obeying(t, 1, 1)
	c.over(t, true)
}

// TestAwaitEndsInTimeBesideASilentServer: one that counts, and then does not list.
func TestAwaitEndsInTimeBesideASilentServer(t *testing.T) {
	leader, follower := pair(t)
	stuck := foreign(t, grpc.UnknownServiceHandler(func(_ any, stream grpc.ServerStream) error {
		if method, _ := grpc.MethodFromServerStream(stream); method == peerv1.PeerService_AwaitInstances_FullMethodName {
			if err := stream.SendMsg(&peerv1.AwaitInstancesResponse{}); err != nil {
				return err
			}
		}
		<-stream.Context().Done()
		return nil
	}))
	follower.replica.set(func(r *fakeReplica) { r.addr = stuck })
	leader.connect(t, helloOf("i"))
	began := time.Now()
	const wait = recountAfter + 200*time.Millisecond
	c := leader.count(t, &holdfastv1.AwaitInstancesRequest{Wait: durationpb.New(wait)})
	for {
		resp, err := c.stream.Recv()
		if err != nil {
			break
		}
		c.last = resp
	}
	if d := time.Since(began); d > wait+firstTime/2 || c.last.GetReached() || !slices.Equal(ids(c.last.GetBehind()), []string{"i"}) {
		t.Errorf("ended after %s with %v", d, c.last)
	}
}

// TestGoneConnectionsAreNotWaitedForAmidChanges: counts that change all the time do
// not keep anybody from looking closely.
func TestGoneConnectionsAreNotWaitedForAmidChanges(t *testing.T) {
	nodes := trio(t)
	nodes[0].joined(t, helloOf("i")) // stays open, and never says anything again
	live, busy := nodes[1].joined(t, helloOf("i")), nodes[2].joined(t, helloOf("busy"))
	revision := nodes[0].put(t, flag("a", `1`)).GetRevision()
	for _, i := range []*instance{live, busy} {
		i.until(t, revision)
		i.ack(t, &holdfastv1.Ack{})
	}
	c := nodes[2].count(t, &holdfastv1.AwaitInstancesRequest{Revision: revision, Wait: durationpb.New(time.Minute)})
	for problems := uint32(0); !c.last.GetReached(); problems = 1 - problems {
		busy.ack(t, &holdfastv1.Ack{ProblemCount: problems})
		c.until(t, "the change", func(r *holdfastv1.AwaitInstancesResponse) bool { return r.GetReached() || r.GetImpaired() == problems })
	}
	c.over(t, true)
}

// TestPanicsOfReadersAreFailures: what is said in a session is taken in beside its
// handler.
func TestPanicsOfReadersAreFailures(t *testing.T) {
	n := single(t)
	i := n.connect(t, helloOf("i"))
	i.epochOf(t)
	tally, err := n.sessions.registry.Tally("default", func(i *registry.Instance) bool {
		if i.Impaired() {
			panic("defect")
		}
		return true
	}, registry.Demand{})
	if err != nil {
		t.Fatal(err)
	}
	i.ack(t, &holdfastv1.Ack{ProblemCount: 1})
	expect(t, i.ended(), ReasonInternal)
	tally.Close()
	n.joined(t, helloOf("j"))
}
