package client_test

import (
	"context"
	"errors"
	"net"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/test/bufconn"

	"github.com/holdfast-dev/holdfast/pkg/client/clienttest"
)

// A dependency that was down for long is found within seconds when it is back; gRPC by
// itself would dial again up to two minutes later.
func TestConnectionsAreFoundAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		plane := clienttest.New(t)
		listener := bufconn.Listen(1 << 16)
		server := &texts{calls: map[string]int{}}
		server.on(func(context.Context, string, string) (string, error) { return "here", nil })
		back := time.Now().Add(10 * time.Minute)
		options := append(plane.Client().DialOptions("texts"), grpc.WithTransportCredentials(insecure.NewCredentials()),
			grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) {
				if time.Now().Before(back) {
					return nil, errors.New("nobody is there")
				}
				return listener.DialContext(ctx)
			}))
		conn, err := grpc.NewClient("passthrough:///texts", options...)
		if err != nil {
			t.Fatal(err)
		}
		srv := grpc.NewServer()
		srv.RegisterService(server.desc(), nil)
		ended := make(chan error, 1)
		go func() { ended <- srv.Serve(listener) }()
		conn.Connect()
		time.Sleep(time.Until(back)) //nolint:forbidigo // virtual time
		for conn.Invoke(t.Context(), get, new(text), new(text), grpc.WaitForReady(true)) != nil {
		}
		if took := time.Since(back); took > 6*time.Second+500*time.Millisecond {
			t.Errorf("found after %v", took)
		}
		if err := conn.Close(); err != nil {
			t.Error(err)
		}
		srv.Stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}
