package cli

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/protoadapt"
	"google.golang.org/protobuf/types/known/timestamppb"

	holdfastv1 "github.com/holdfast-dev/holdfast/proto/holdfast/v1"
)

// fake is a server whose answers are functions. It shows what a real one does
// only when something is broken.
type fake struct {
	holdfastv1.UnimplementedStateServiceServer
	holdfastv1.UnimplementedClusterServiceServer
	addr string

	mu sync.Mutex
	// applied are the transactions received, in order.
	applied   []*holdfastv1.ApplyRequest
	resources []*holdfastv1.Resource

	onApply func(n int, req *holdfastv1.ApplyRequest) (*holdfastv1.ApplyResponse, error)
	onAwait func(n int) (*holdfastv1.AwaitRevisionResponse, error)
	onWatch func(n int, req *holdfastv1.WatchRequest, send func(*holdfastv1.WatchResponse)) error
	awaits  int
	watches int
	removed []*holdfastv1.RemoveMemberRequest
	// restored are the bytes received by each attempt of a restore.
	restored  [][]byte
	onRestore func(n int) (*holdfastv1.RestoreResponse, error)
	// alone leaves the list of members empty.
	alone bool
}

// service is what a fake serves beside the state.
type service interface {
	register(to grpc.ServiceRegistrar)
}

// newFake starts a fake that has the storefront mode. Without other services it is
// a server of a version that did not know them.
func newFake(t *testing.T, services ...service) *fake {
	t.Helper()
	f := &fake{}
	f.resources = []*holdfastv1.Resource{{
		Key:         &holdfastv1.ResourceKey{Namespace: "default", Kind: holdfastv1.Kind_KIND_MODE, Name: "storefront"},
		Spec:        []byte(`{"levels":[{"name":"read-only"},{"name":"offline"}]}`),
		ModRevision: 1, CreateRevision: 1, Version: 1,
	}}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	f.addr = listener.Addr().String()
	server := grpc.NewServer()
	holdfastv1.RegisterStateServiceServer(server, f)
	holdfastv1.RegisterClusterServiceServer(server, f)
	for _, s := range services {
		s.register(server)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = server.Serve(listener)
	}()
	t.Cleanup(func() {
		server.Stop()
		<-done
	})
	return f
}

func (f *fake) header() *holdfastv1.Header {
	return &holdfastv1.Header{Revision: 7, ServerId: "s1", StateTime: timestamppb.Now()}
}

func (f *fake) Apply(_ context.Context, req *holdfastv1.ApplyRequest) (*holdfastv1.ApplyResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.applied = append(f.applied, req)
	if f.onApply != nil {
		return f.onApply(len(f.applied), req)
	}
	return f.accept(req), nil
}

// accept answers that every step created its resource.
func (f *fake) accept(req *holdfastv1.ApplyRequest) *holdfastv1.ApplyResponse {
	res := &holdfastv1.ApplyResponse{Header: f.header(), Revision: 7}
	for _, op := range req.GetOperations() {
		c := &holdfastv1.Change{Key: op.GetPut().GetKey(), Type: holdfastv1.ChangeType_CHANGE_TYPE_CREATED}
		if d := op.GetDelete(); d != nil {
			c = &holdfastv1.Change{Key: d.GetKey(), Type: holdfastv1.ChangeType_CHANGE_TYPE_DELETED}
		}
		res.Changes = append(res.Changes, c)
	}
	return res
}

func (f *fake) Get(_ context.Context, req *holdfastv1.GetRequest) (*holdfastv1.GetResponse, error) {
	for _, r := range f.resources {
		if r.GetKey().GetKind() == req.GetKey().GetKind() && r.GetKey().GetName() == req.GetKey().GetName() {
			return &holdfastv1.GetResponse{Header: f.header(), Resource: r}, nil
		}
	}
	return nil, reasoned(codes.NotFound, "NOT_FOUND", "definite", "no such resource")
}

func (f *fake) List(_ context.Context, req *holdfastv1.ListRequest) (*holdfastv1.ListResponse, error) {
	res := &holdfastv1.ListResponse{Header: f.header()}
	for _, r := range f.resources {
		if r.GetKey().GetKind() == req.GetKind() && strings.HasPrefix(r.GetKey().GetName(), req.GetNamePrefix()) {
			res.Resources = append(res.Resources, r)
		}
	}
	return res, nil
}

func (f *fake) AwaitRevision(context.Context, *holdfastv1.AwaitRevisionRequest) (*holdfastv1.AwaitRevisionResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.awaits++
	return f.onAwait(f.awaits)
}

func (f *fake) Watch(req *holdfastv1.WatchRequest, stream grpc.ServerStreamingServer[holdfastv1.WatchResponse]) error {
	f.mu.Lock()
	f.watches++
	n := f.watches
	f.mu.Unlock()
	return f.onWatch(n, req, func(res *holdfastv1.WatchResponse) {
		res.StateTime = timestamppb.Now()
		_ = stream.Send(res) // a client that left needs no more
	})
}

func (f *fake) ListMembers(context.Context, *holdfastv1.ListMembersRequest) (*holdfastv1.ListMembersResponse, error) {
	if f.alone {
		return &holdfastv1.ListMembersResponse{Header: f.header()}, nil
	}
	return &holdfastv1.ListMembersResponse{Header: f.header(), Members: []*holdfastv1.Member{
		{Id: "alpha1", RaftAddr: "10.0.0.1:7402", Role: holdfastv1.Role_ROLE_LEADER, Alive: true, Revision: 7},
		{Id: "alpha2", RaftAddr: "10.0.0.2:7402", Role: holdfastv1.Role_ROLE_NON_VOTER, Alive: true, Revision: 7},
		{Id: "beta", RaftAddr: "10.0.0.3:7402", Role: holdfastv1.Role_ROLE_FOLLOWER, Revision: 5},
	}}, nil
}

func (f *fake) GetStatus(context.Context, *holdfastv1.GetStatusRequest) (*holdfastv1.GetStatusResponse, error) {
	return &holdfastv1.GetStatusResponse{
		Header: f.header(), Role: holdfastv1.Role_ROLE_FOLLOWER, StartTime: timestamppb.Now(), Fenced: "its root differs",
		Namespaces: []*holdfastv1.NamespaceStatus{{Name: "default", ModRevision: 7}, {Name: "other", ModRevision: 9}},
	}, nil
}

func (f *fake) Restore(stream grpc.ClientStreamingServer[holdfastv1.RestoreRequest, holdfastv1.RestoreResponse]) error {
	var got []byte
	for {
		req, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
		got = append(got, req.GetData()...)
	}
	f.restored = append(f.restored, got)
	res, err := f.onRestore(len(f.restored))
	if err != nil {
		return err
	}
	return stream.SendAndClose(res)
}

func (f *fake) PromoteMember(context.Context, *holdfastv1.PromoteMemberRequest) (*holdfastv1.PromoteMemberResponse, error) {
	return &holdfastv1.PromoteMemberResponse{}, nil
}

func (f *fake) RemoveMember(_ context.Context, req *holdfastv1.RemoveMemberRequest) (*holdfastv1.RemoveMemberResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.removed = append(f.removed, req)
	if !req.GetForce() {
		return nil, reasoned(codes.FailedPrecondition, "MEMBERSHIP_REFUSED", "definite", "1 of 2 remaining voters is alive")
	}
	return &holdfastv1.RemoveMemberResponse{}, nil
}

func (f *fake) TransferLeadership(_ context.Context, req *holdfastv1.TransferLeadershipRequest) (*holdfastv1.TransferLeadershipResponse, error) {
	return &holdfastv1.TransferLeadershipResponse{LeaderId: req.GetId()}, nil
}

// reasoned is an error as the servers make them.
func reasoned(code codes.Code, reason, outcome, message string, more ...protoadapt.MessageV1) error {
	details := append([]protoadapt.MessageV1{&errdetails.ErrorInfo{
		Domain: errorDomain, Reason: reason, Metadata: map[string]string{"outcome": outcome},
	}}, more...)
	st, err := status.New(code, message).WithDetails(details...)
	if err != nil {
		return err
	}
	return st.Err()
}

// ran is what a run of the program came to.
type ran struct {
	code        int
	out, errors string
}

// terminal says which streams of a run are a terminal.
type terminal struct{ in, out bool }

// run runs a command line in this process.
func run(ctx context.Context, t *testing.T, tty terminal, input string, env map[string]string, args ...string) ran {
	t.Helper()
	var out, errs bytes.Buffer
	if env == nil {
		env = map[string]string{}
	}
	if env["HOLDFAST_CLI_CONFIG"] == "" {
		env["HOLDFAST_CLI_CONFIG"] = t.TempDir() + "/contexts.yaml"
	}
	a := newApp(IO{
		In: strings.NewReader(input), Out: &out, Err: &errs, InTTY: tty.in, OutTTY: tty.out, ErrTTY: tty.in || tty.out,
		Getenv: func(name string) string { return env[name] },
	})
	code := a.run(ctx, args)
	return ran{code, out.String(), errs.String()}
}

// want checks the exit code and that both streams hold what they should.
func (r ran) want(t *testing.T, code int, out string, errors ...string) {
	t.Helper()
	if r.code != code {
		t.Errorf("exit code %d, want %d", r.code, code)
	}
	if !strings.Contains(r.out, out) {
		t.Errorf("standard output has no %q", out)
	}
	for _, e := range errors {
		if !strings.Contains(r.errors, e) {
			t.Errorf("standard error has no %q", e)
		}
	}
	if t.Failed() {
		t.Logf("stdout:\n%s\nstderr:\n%s", r.out, r.errors)
	}
}

// unavailable is an address at which nobody listens.
func unavailable(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// setMode is the command line that most tests run.
func setMode(addr string, more ...string) []string {
	return append([]string{"mode", "set", "storefront", "read-only", "--for", "30m", "--reason", "db failover", "--addr", addr}, more...)
}

// inTime gives a test a context that ends when it hangs.
func inTime(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	t.Cleanup(cancel)
	return ctx
}
