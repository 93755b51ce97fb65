package cli

import (
	"context"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	holdfastv1 "github.com/holdfast-dev/holdfast/proto/holdfast/v1"
)

// scriptInstances are the instances of one script, by id, and how each leaves.
type scriptInstances map[string]func()

// scriptInstancesKey is where a script has them.
type scriptInstancesKey struct{}

// instance has an instance connect that obeys whatever it is told, and waits until
// it obeys what there is: instance [-stuck|-disabled] ID SERVICE [KEY=VALUE...]. One
// that is stuck obeys nothing that comes later; one that is disabled obeys nothing of
// it all, and has a problem. With instance -leave ID it goes.
func instance(ts *testscript.TestScript, neg bool, args []string) {
	all, ok := ts.Value(scriptInstancesKey{}).(scriptInstances)
	if neg || len(args) < 2 || !ok {
		ts.Fatalf("usage: instance [-stuck|-disabled] ID SERVICE [KEY=VALUE...], or instance -leave ID")
	}
	if args[0] == "-leave" {
		all[args[1]]()
		return
	}
	option := ""
	if strings.HasPrefix(args[0], "-") {
		option, args = args[0], args[1:]
	}
	identity := &holdfastv1.Identity{Id: args[0], Service: args[1], Labels: map[string]string{}, Incarnation: 1, Sdk: "test/1", Host: "here"}
	for _, term := range args[2:] {
		key, value, _ := strings.Cut(term, "=")
		identity.Labels[key] = value
	}
	leave, err := connectInstance(ts.Getenv("HOLDFAST_ADDR"), identity, option)
	ts.Check(err)
	all[identity.GetId()] = leave
	ts.Defer(leave)
}

// connectInstance returns once the instance has told what it obeys.
func connectInstance(addr string, identity *holdfastv1.Identity, option string) (leave func(), err error) {
	conn, err := grpc.NewClient(addr, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	var obeying sync.WaitGroup
	leave = func() {
		cancel()
		obeying.Wait()
		_ = conn.Close()
	}
	stream, err := holdfastv1.NewSessionServiceClient(conn).Connect(ctx)
	if err == nil {
		err = stream.Send(&holdfastv1.ConnectRequest{Message: &holdfastv1.ConnectRequest_Hello{Hello: &holdfastv1.Hello{
			Identity: identity, Source: holdfastv1.Source_SOURCE_DEFAULTS,
		}}})
	}
	if err != nil {
		leave()
		return nil, err
	}
	obeying.Go(func() {
		for acks := 0; ; {
			res, err := stream.Recv()
			if err != nil {
				return
			}
			ack := &holdfastv1.Ack{Epoch: res.GetEpoch(), Revision: max(res.GetDelta().GetTo(), res.GetSnapshot().GetRevision())}
			if !res.GetSnapshot().GetLast() && !res.GetDelta().GetLast() || option == "-stuck" && acks > 0 {
				continue
			}
			if option == "-disabled" {
				ack.OverriddenBy = "HOLDFAST_DISABLE"
				ack.Problems = []*holdfastv1.InstanceProblem{{
					Key: &holdfastv1.ResourceKey{Kind: holdfastv1.Kind_KIND_MODE, Name: "storefront"}, Message: "unknown action",
				}}
			}
			_ = stream.Send(&holdfastv1.ConnectRequest{Message: &holdfastv1.ConnectRequest_Ack{Ack: ack}})
			acks++
		}
	})
	if err := told(ctx, conn, identity.GetId()); err != nil {
		leave()
		return nil, err
	}
	return leave, nil
}

// told waits until the server knows what an instance obeys.
func told(ctx context.Context, conn *grpc.ClientConn, id string) error {
	for {
		res, err := holdfastv1.NewInstanceServiceClient(conn).ListInstances(ctx, &holdfastv1.ListInstancesRequest{})
		if err != nil {
			return err
		}
		if slices.ContainsFunc(res.GetInstances(), func(i *holdfastv1.Instance) bool { return i.GetIdentity().GetId() == id && i.GetRevision() > 0 }) {
			return nil
		}
	}
}
