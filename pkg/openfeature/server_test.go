package openfeature_test

import (
	"context"
	"log/slog"
	"net"
	"slices"
	"testing"
	"time"

	of "github.com/open-feature/go-sdk/openfeature"
	"github.com/open-feature/go-sdk/openfeature/isolated"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/holdfast-dev/holdfast/internal/document"
	"github.com/holdfast-dev/holdfast/internal/node"
	"github.com/holdfast-dev/holdfast/pkg/client"
	"github.com/holdfast-dev/holdfast/pkg/openfeature"
	holdfastv1 "github.com/holdfast-dev/holdfast/proto/holdfast/v1"
)

// serve runs a server at an address until stop.
func serve(t *testing.T, addr string) (stop func()) {
	t.Helper()
	settings, err := node.Load([]string{"--data-dir=" + t.TempDir() + "/data", "--port-base=0", "--api-addr=" + addr, "--drain-jitter=0s"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	server := node.New(settings.Config, slog.New(slog.DiscardHandler))
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- server.Run(ctx) }()
	t.Cleanup(cancel)
	return func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
}

// free returns an address that nobody listens at.
func free(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// TestWithAServer has a provider before there is a server, changes a flag on one, and
// goes on without it.
func TestWithAServer(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	addr := free(t)
	cp, err := client.Open(ctx, client.Config{
		Service: "checkout", Servers: []string{addr}, OpenTimeout: -1, Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cp.Close(context.Background()) })
	api := isolated.NewAPI()
	t.Cleanup(func() { _ = api.Shutdown(context.Background()) })
	ready, changed := make(chan of.EventDetails, 16), make(chan of.EventDetails, 16)
	toldReady, toldChanged := func(d of.EventDetails) { ready <- d }, func(d of.EventDetails) { changed <- d }
	api.AddHandler(of.ProviderReady, &toldReady)
	api.AddHandler(of.ProviderConfigChange, &toldChanged)
	if err := api.SetProviderAndWait(ctx, openfeature.NewProvider(cp)); err == nil {
		t.Error("ready without a server")
	}
	c := api.NewClient()

	stop := serve(t, addr)
	await(ctx, t, ready)
	if c.State() != of.ReadyState {
		t.Error(c.State())
	}
	conn, err := grpc.NewClient(addr, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	change := &holdfastv1.ApplyRequest{
		RequestId: []byte("0123456789abcdef"), Reason: "test",
		Operations: []*holdfastv1.Operation{{Action: &holdfastv1.Operation_Put{Put: &holdfastv1.Put{
			Key:  document.Key{Kind: document.Flag, Name: "new-checkout"}.Proto(document.DefaultNamespace),
			Spec: []byte(`{"state":"ENABLED","variants":{"on":true,"off":false},"defaultVariant":"on"}`),
		}}}},
	}
	for { // the server may have no leader yet
		if _, err = holdfastv1.NewStateServiceClient(conn).Apply(ctx, change, grpc.WaitForReady(true)); err == nil {
			break
		}
		select {
		case <-time.After(50 * time.Millisecond):
		case <-ctx.Done():
			t.Fatal(err)
		}
	}
	for { // a view that was replaced as a whole names no flags
		if d := await(ctx, t, changed); slices.Contains(d.FlagChanges, "new-checkout") {
			break
		}
	}
	if !c.Boolean(ctx, "new-checkout", false, of.EvaluationContext{}) {
		t.Error("the flag is off")
	}
	stop()
	if !c.Boolean(ctx, "new-checkout", false, of.EvaluationContext{}) || c.State() != of.ReadyState {
		t.Error("without the server it is off")
	}
}

func await(ctx context.Context, t *testing.T, events <-chan of.EventDetails) of.EventDetails {
	t.Helper()
	select {
	case d := <-events:
		return d
	case <-ctx.Done():
		t.Fatal("no event")
		return of.EventDetails{}
	}
}
