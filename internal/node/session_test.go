package node

import (
	"context"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	holdfastv1 "github.com/holdfast-dev/holdfast/proto/holdfast/v1"
)

// connectOf returns a session of an instance, with the connection that it is on.
func connectOf(t *testing.T, addr, id string) (*grpc.ClientConn, grpc.BidiStreamingClient[holdfastv1.ConnectRequest, holdfastv1.ConnectResponse]) {
	t.Helper()
	conn, err := grpc.NewClient("passthrough:///"+addr, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	t.Cleanup(cancel)
	stream, err := holdfastv1.NewSessionServiceClient(conn).Connect(ctx)
	if err == nil {
		err = stream.Send(&holdfastv1.ConnectRequest{Message: &holdfastv1.ConnectRequest_Hello{
			Hello: &holdfastv1.Hello{Identity: &holdfastv1.Identity{Id: id, Service: "checkout"}},
		}})
	}
	if err != nil {
		t.Fatal(err)
	}
	return conn, stream
}

// obey acknowledges whatever comes, and returns the welcome and what ended the
// session.
func obey(stream grpc.BidiStreamingClient[holdfastv1.ConnectRequest, holdfastv1.ConnectResponse]) (*holdfastv1.Welcome, error) {
	var welcome *holdfastv1.Welcome
	for {
		resp, err := stream.Recv()
		if err != nil {
			return welcome, err
		}
		if resp.GetWelcome() != nil {
			welcome = resp.GetWelcome()
			continue
		}
		ack := &holdfastv1.Ack{Epoch: resp.GetEpoch(), Revision: max(
			resp.GetSnapshot().GetRevision(), resp.GetDelta().GetTo(), resp.GetProgress().GetRevision())}
		if err := stream.Send(&holdfastv1.ConnectRequest{Message: &holdfastv1.ConnectRequest_Ack{Ack: ack}}); err != nil {
			return welcome, err
		}
	}
}

// TestInstancesOfARealCluster has an instance at each of three servers, and a write
// waited for at one of them, until a server stops.
func TestInstancesOfARealCluster(t *testing.T) {
	t.Parallel()
	sites := newSites(t, 3, 3)
	startAll(t, sites)
	until(t, 30*time.Second, "cluster", formed(sites, 3))
	type end struct {
		welcome *holdfastv1.Welcome
		err     error
	}
	ends := make([]chan end, len(sites))
	var clients []holdfastv1.InstanceServiceClient
	for i, s := range sites {
		conn, stream := connectOf(t, s.APIAddr(), "i-"+s.ID())
		clients = append(clients, holdfastv1.NewInstanceServiceClient(conn))
		ends[i] = make(chan end, 1)
		go func() {
			welcome, err := obey(stream)
			ends[i] <- end{welcome, err}
		}()
	}
	list := func(of int) *holdfastv1.ListInstancesResponse {
		resp, err := clients[of].ListInstances(t.Context(), &holdfastv1.ListInstancesRequest{})
		if err != nil {
			t.Fatal(err)
		}
		return resp
	}
	for i := range sites {
		until(t, 10*time.Second, "three instances", func() bool { return list(i).GetTotal() == 3 && len(list(i).GetUnreachable()) == 0 })
	}
	revision := put(t, sites[0].APIAddr(), "first", 0)
	counts, err := clients[1].AwaitInstances(t.Context(), &holdfastv1.AwaitInstancesRequest{Revision: revision, Wait: durationpb.New(20 * time.Second)})
	if err != nil {
		t.Fatal(err)
	}
	for reached := false; !reached; {
		resp, err := counts.Recv()
		if err != nil {
			t.Fatalf("not all obey: %v", err)
		}
		reached = resp.GetReached() && resp.GetObeying() == 3
	}

	stopped := sites[2].ID()
	sites[2].stop(t)
	if e := <-ends[2]; status.Code(e.err) != codes.Unavailable || len(e.welcome.GetServers()) != 3 || e.welcome.GetServerId() != stopped {
		t.Errorf("the session of the stopped server ended with %v, its welcome was %v", e.err, e.welcome)
	}
	if resp := list(0); resp.GetTotal() != 2 || len(resp.GetUnreachable()) != 1 || resp.GetUnreachable()[0].GetServerId() != stopped {
		t.Errorf("without a server: %v", resp)
	}
}
