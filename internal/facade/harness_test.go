package facade

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"github.com/holdfast-dev/holdfast/internal/api"
	"github.com/holdfast-dev/holdfast/internal/document"
	"github.com/holdfast-dev/holdfast/internal/flags"
	"github.com/holdfast-dev/holdfast/internal/state"
	"github.com/holdfast-dev/holdfast/internal/watch"
	storagev1 "github.com/holdfast-dev/holdfast/proto/holdfast/storage/v1"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// replica is the real state and hub, fed without consensus.
type replica struct {
	api.Replica // what nobody asks for here

	t       *testing.T
	machine *state.Machine
	hub     *watch.Hub

	mu      sync.Mutex // guards the fields below
	index   uint64
	ahead   time.Duration // of the cluster's clock before the last command
	serving error
}

func newReplica(t *testing.T) *replica {
	t.Helper()
	return newReplicaOf(t, state.New())
}

func newReplicaOf(t *testing.T, m *state.Machine) *replica {
	t.Helper()
	r := &replica{t: t, machine: m, hub: watch.NewHub(m.View())}
	r.newEpoch()
	return r
}

func (r *replica) View() *state.View  { return r.machine.View() }
func (r *replica) Status() api.Status { return api.Status{} }

// StateTime is that of the last command, and what the test adds to it.
func (r *replica) StateTime() time.Time {
	r.mu.Lock()
	defer r.mu.Unlock()
	return time.UnixMilli(int64(r.index)).Add(r.ahead)
}

// pass lets time pass without a command, as on a server that is cut off.
func (r *replica) pass(d time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.ahead += d
}

func (r *replica) Serving() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.serving
}

func (r *replica) setServing(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.serving = err
}

// do applies and publishes commands as one batch.
func (r *replica) do(cmds ...*storagev1.Command) {
	r.t.Helper()
	r.mu.Lock()
	defer r.mu.Unlock()
	var entries []state.Entry
	for _, cmd := range cmds {
		r.index++
		cmd.Version, cmd.TimeMs = state.Version, int64(r.index)
		data, err := proto.Marshal(cmd)
		if err != nil {
			r.t.Fatal(err)
		}
		entries = append(entries, state.Entry{Index: r.index, Term: 1, Data: data})
	}
	results, err := r.machine.Apply(entries)
	if err != nil {
		r.t.Fatal(err)
	}
	var touched []string
	for _, result := range results {
		if result.Rejection != nil {
			r.t.Fatal(result.Rejection)
		}
		touched = append(touched, result.Touched...)
	}
	r.hub.Publish(r.machine.View(), touched)
}

func (r *replica) newEpoch() {
	lineage := make([]byte, 16)
	_, _ = rand.Read(lineage)
	r.do(&storagev1.Command{Body: &storagev1.Command_NewEpoch{NewEpoch: &storagev1.NewEpoch{Lineage: lineage, Nonce: binary.BigEndian.Uint64(lineage)}}})
}

func transaction(steps ...*storagev1.Step) *storagev1.Command {
	id := make([]byte, 16)
	_, _ = rand.Read(id)
	return &storagev1.Command{RequestId: id, Body: &storagev1.Command_Transaction{Transaction: &storagev1.Transaction{Steps: steps}}}
}

func put(namespace string, kind document.Kind, name, spec string) *storagev1.Step {
	canonical, err := document.Canonical([]byte(spec))
	if err != nil {
		panic(spec + ": " + err.Error())
	}
	step := &storagev1.Step{Key: (document.Key{Kind: kind, Name: name}).Proto(namespace), Spec: canonical}
	if kind == document.Override {
		step.TtlMs = time.Hour.Milliseconds()
	}
	return step
}

func remove(namespace string, kind document.Kind, name string) *storagev1.Step {
	return &storagev1.Step{Key: (document.Key{Kind: kind, Name: name}).Proto(namespace), Delete: true}
}

// set puts flags into the default namespace: pairs of name and definition. Many
// take several commands, which are applied as one batch.
func (r *replica) set(pairs ...string) {
	r.t.Helper()
	var cmds []*storagev1.Command
	var steps []*storagev1.Step
	size := 0
	for i := 0; i < len(pairs); i += 2 {
		if size += len(pairs[i+1]) + 256; size > 400<<10 {
			cmds, steps, size = append(cmds, transaction(steps...)), nil, len(pairs[i+1])
		}
		steps = append(steps, put("default", document.Flag, pairs[i], pairs[i+1]))
	}
	r.do(append(cmds, transaction(steps...))...)
}

const (
	on  = `{"state":"ENABLED","variants":{"on":true,"off":false},"defaultVariant":"on"}`
	off = `{"state":"ENABLED","variants":{"on":true,"off":false},"defaultVariant":"off"}`
)

// onIn is a flag of a set.
func onIn(set string) string {
	return `{"state":"ENABLED","variants":{"on":true},"defaultVariant":"on","metadata":{"flagSetId":"` + set + `"}}`
}

// served is a server with both ports on loopback.
type served struct {
	*Server
	t       *testing.T
	replica *replica
	api     *api.Server
	conn    *grpc.ClientConn // to the gRPC port
	h2c     *grpc.ClientConn // to the HTTP port
	url     string
	addr    string
	log     *logged
}

// logged keeps what is logged.
type logged struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *logged) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(b)
}

func (l *logged) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}

// serve starts a server over a replica. The options change it before it serves.
func serve(t *testing.T, r *replica, config Config, options ...func(*Server)) *served {
	t.Helper()
	out := &served{t: t, replica: r, log: &logged{}}
	config.Replica, config.Hub = r, r.hub
	config.Logger = slog.New(slog.NewTextHandler(out.log, nil))
	s := New(config)
	for _, o := range options {
		o(s)
	}
	a := api.New(api.Config{Replica: r, Hub: r.hub, Validator: flags.Validator{}, ServerID: "n"})
	s.Register(a.GRPC())
	out.Server, out.api = s, a
	var running sync.WaitGroup
	listen := func(serve func(net.Listener) error) string {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		running.Go(func() {
			if err := serve(l); err != nil {
				t.Errorf("serve: %v", err)
			}
		})
		return l.Addr().String()
	}
	grpcAddr := listen(a.Serve)
	out.addr = listen(s.Serve)
	out.url = "http://" + out.addr
	out.conn, out.h2c = dial(t, grpcAddr), dial(t, out.addr)
	t.Cleanup(func() {
		http.DefaultClient.CloseIdleConnections()
		a.Close()
		s.Close()
		running.Wait()
	})
	return out
}

// ready serves flags with the defaults.
func ready(t *testing.T, pairs ...string) *served {
	t.Helper()
	r := newReplica(t)
	if len(pairs) > 0 {
		r.set(pairs...)
	}
	return serve(t, r, Config{})
}

func dial(t *testing.T, addr string) *grpc.ClientConn {
	t.Helper()
	conn, err := grpc.NewClient("passthrough:///"+addr, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

var bothPorts = []string{"gRPC port", "HTTP port"}

// ports are the connections to both, by name.
func (s *served) ports() map[string]*grpc.ClientConn {
	return map[string]*grpc.ClientConn{"gRPC port": s.conn, "HTTP port": s.h2c}
}

// reply is an answer to an HTTP request.
type reply struct {
	status int
	header http.Header
	body   string
}

// ask sends an HTTP request; headers are pairs.
func (s *served) ask(method, path, body string, headers ...string) reply {
	s.t.Helper()
	req, err := http.NewRequestWithContext(s.t.Context(), method, s.url+path, strings.NewReader(body))
	if err != nil {
		s.t.Fatal(err)
	}
	for i := 0; i < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		s.t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		s.t.Fatal(err)
	}
	return reply{resp.StatusCode, resp.Header, string(text)}
}

// withSelector has calls select flags.
func withSelector(ctx context.Context, selector string) context.Context {
	if selector == "" {
		return ctx
	}
	return metadata.AppendToOutgoingContext(ctx, "flagd-selector", selector)
}

var protoJSON = protojson.MarshalOptions{}

// within returns a context for what must not take long.
func within(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	t.Cleanup(cancel)
	return ctx
}

// eventually waits for a condition that has no channel to wait on.
func eventually(t *testing.T, what string, condition func() bool) {
	t.Helper()
	deadline := time.After(10 * time.Second)
	ticker := time.NewTicker(2 * time.Millisecond)
	defer ticker.Stop()
	for !condition() {
		select {
		case <-ticker.C:
		case <-deadline:
			t.Fatalf("%s did not come true", what)
		}
	}
}

var errFenced = errors.New("fenced off")

// many returns the names and definitions of flags that take so many bytes each.
func many(n, size int) []string {
	var pairs []string
	for i := range n {
		pairs = append(pairs, fmt.Sprintf("flag-%05d", i),
			`{"state":"ENABLED","variants":{"a":"`+strings.Repeat("x", size)+`"},"defaultVariant":"a"}`)
	}
	return pairs
}
