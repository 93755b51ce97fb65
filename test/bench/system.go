package main

import (
	"context"
	"fmt"
	"io"
	"os"

	"google.golang.org/grpc"

	holdfastv1 "github.com/holdfast-dev/holdfast/proto/holdfast/v1"
	"github.com/holdfast-dev/holdfast/test/cluster"
)

// valueBytes is the size of every written value: etcd's value, Holdfast's spec.
const valueBytes = 200

// system is a cluster of three servers that can be written to and killed.
type system interface {
	Name() string
	// Open connects to server i anew.
	Open(i int) (link, error)
	Leader(ctx context.Context) (int, error)
	Kill(i int) error
	Restart(i int) error
	// Ready waits until server i has caught up.
	Ready(ctx context.Context, i int) error
	Close()
}

// link writes through one server over one connection. It is safe for
// concurrent use.
type link interface {
	io.Closer
	// Put writes a value of valueBytes bytes that contains text, as one request
	// without retries, and returns when it is acknowledged.
	Put(ctx context.Context, key, text string) error
	// Watch calls seen with the text of every put that it is told of, until ctx
	// ends. It calls ready once it is sure to see what is written from then on.
	Watch(ctx context.Context, ready func(), seen func(key, text string)) error
}

// holdfast is our cluster as a system.
type holdfast struct {
	*cluster.Cluster
	name string
}

func startHoldfast(ctx context.Context, c config, name string, args ...string) (*holdfast, error) {
	dir, err := os.MkdirTemp(c.dir, "holdfast-")
	if err != nil {
		return nil, fmt.Errorf("make directory: %w", err)
	}
	cl, err := cluster.Start(ctx, cluster.Options{Server: c.server, Dir: dir, Args: args})
	if err != nil {
		return nil, err
	}
	return &holdfast{Cluster: cl, name: name}, nil
}

func (h *holdfast) Name() string { return h.name }

func (h *holdfast) Ready(ctx context.Context, i int) error { return h.WaitReady(ctx, i) }

func (h *holdfast) Open(i int) (link, error) {
	conn, err := h.Dial(i)
	if err != nil {
		return nil, err
	}
	return &holdfastClient{conn: conn, stub: holdfastv1.NewStateServiceClient(conn)}, nil
}

type holdfastClient struct {
	conn *grpc.ClientConn
	stub holdfastv1.StateServiceClient
}

func (c *holdfastClient) Close() error { return c.conn.Close() }

func (c *holdfastClient) Put(ctx context.Context, key, text string) error {
	_, err := c.stub.Apply(ctx, &holdfastv1.ApplyRequest{
		RequestId:    cluster.NewRequestID(),
		Operations:   []*holdfastv1.Operation{cluster.Flag("", key, pad(text, valueBytes-len(cluster.FlagSpec(""))))},
		ClaimedActor: "bench",
	})
	return err
}

func (c *holdfastClient) Watch(ctx context.Context, ready func(), seen func(key, text string)) error {
	stream, err := c.stub.Watch(ctx, &holdfastv1.WatchRequest{})
	if err != nil {
		return err
	}
	empty := len(cluster.FlagSpec("")) - len(`","on":"on"}}"`) + 1
	for {
		msg, err := stream.Recv()
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return err
		}
		if s := msg.GetSnapshot(); s != nil && s.GetLast() {
			ready()
		}
		for _, r := range msg.GetDelta().GetPuts() {
			seen(r.GetKey().GetName(), unpad(string(r.GetSpec()[empty:])))
		}
	}
}

// pad fills text up to n bytes.
func pad(text string, n int) string {
	b := make([]byte, 0, n)
	b = append(append(b, text...), ';')
	for len(b) < n {
		b = append(b, '.')
	}
	return string(b)
}

// unpad undoes pad, whatever follows.
func unpad(s string) string {
	for i := range len(s) {
		if s[i] == ';' {
			return s[:i]
		}
	}
	return s
}
