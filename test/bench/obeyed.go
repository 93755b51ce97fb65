package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"strings"
	"sync"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	holdfastv1 "github.com/holdfast-dev/holdfast/proto/holdfast/v1"
	"github.com/holdfast-dev/holdfast/test/cluster"
)

// runObeyed prints how long after a level of a mode has been set instances obey it.
// All of them are in this process, each with a connection of its own; the servers are
// processes on the same machine. Beside it etcd's watch of as many clients.
func runObeyed(ctx context.Context, c config) error {
	sizes, err := crewSizes(c)
	if err != nil {
		return err
	}
	fmt.Printf("%d writes a row, 20 to 80 ms after all obey the one before; all instances in this process, each with its own connection;\n"+
		"obeyed: the view is swapped (etcd: the event is there), one figure for each write and instance; counted: the servers know that all obey\n", c.writes)
	out := newTable(os.Stdout, "  system", "instances", "write p50", "ack to obeyed p50", "   p99", "   max",
		"sent to obeyed p50", "   p99", "   max", "ack to counted p50", "   p99")
	for _, n := range sizes {
		if strings.Contains(c.systems, "holdfast") {
			m, err := measureObeyed(ctx, c, n)
			if err != nil {
				return fmt.Errorf("%d instances: %w", n, err)
			}
			m.row(out, "holdfast", n)
		}
		if strings.Contains(c.systems, "etcd") {
			m, err := measureSeen(ctx, c, n)
			if err != nil {
				return fmt.Errorf("etcd, %d watchers: %w", n, err)
			}
			m.row(out, "etcd", n)
		}
	}
	return nil
}

// obeyedResult are times from the acknowledgement, and from the sending, of writes
// to what follows.
type obeyedResult struct{ write, acked, sent, counted cluster.Durations }

func (m *obeyedResult) add(sent, acked time.Time, at []time.Time) {
	m.write = append(m.write, acked.Sub(sent))
	for _, t := range at {
		m.acked, m.sent = append(m.acked, t.Sub(acked)), append(m.sent, t.Sub(sent))
	}
}

func (m *obeyedResult) row(out *table, name string, n int) {
	ms := func(d cluster.Durations, q float64) string {
		if len(d) == 0 {
			return ""
		}
		return cluster.Millis(d.Quantile(q))
	}
	out.row(name, fmt.Sprint(n), ms(m.write, 0.5), ms(m.acked, 0.5), ms(m.acked, 0.99), ms(m.acked, 1),
		ms(m.sent, 0.5), ms(m.sent, 0.99), ms(m.sent, 1), ms(m.counted, 0.5), ms(m.counted, 0.99))
}

func measureObeyed(ctx context.Context, c config, n int) (*obeyedResult, error) {
	h, err := startHoldfast(ctx, c, "holdfast")
	if err != nil {
		return nil, err
	}
	defer h.Close()
	writer := h.Writer(0, 10*time.Second)
	if err := prepareCrew(ctx, writer); err != nil {
		return nil, err
	}
	w, err := openCrew(ctx, h, n)
	if err != nil {
		return nil, err
	}
	defer w.close()
	conn, err := h.Dial(1)
	if err != nil {
		return nil, err
	}
	defer func() { _ = conn.Close() }()
	m, asked := &obeyedResult{}, holdfastv1.NewInstanceServiceClient(conn)
	for i := range c.writes {
		level := crewLevels()[i%2]
		sent := time.Now()
		ack, err := writer.Write(ctx, "bench", setLevel(level))
		if err != nil {
			return nil, err
		}
		acked, revision := time.Now(), ack.Response.GetRevision()
		counted, err := awaitCount(ctx, asked, revision, n)
		if err != nil {
			return nil, err
		}
		at, err := w.obey(ctx, revision, level)
		if err != nil {
			return nil, err
		}
		m.add(sent, acked, at)
		m.counted = append(m.counted, counted.Sub(acked))
		pauseBetweenWrites()
	}
	return m, nil
}

func pauseBetweenWrites() { time.Sleep(20*time.Millisecond + rand.N(60*time.Millisecond)) }

// awaitCount waits until the servers know that n instances obey, as "--wait" does.
func awaitCount(ctx context.Context, client holdfastv1.InstanceServiceClient, revision uint64, n int) (time.Time, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := client.AwaitInstances(ctx, &holdfastv1.AwaitInstancesRequest{Revision: revision, Wait: durationpb.New(crewPatience)})
	if err != nil {
		return time.Time{}, err
	}
	for {
		m, err := stream.Recv()
		if err != nil {
			return time.Time{}, fmt.Errorf("wait for %d instances: %w", n, err)
		}
		if m.GetReached() {
			if int(m.GetObeying()) != n {
				return time.Time{}, fmt.Errorf("%d instances are connected, want %d", m.GetConnected(), n)
			}
			return time.Now(), nil
		}
	}
}

// measureSeen is the same with etcd, whose clients watch.
func measureSeen(ctx context.Context, c config, n int) (*obeyedResult, error) {
	e, err := startEtcd(ctx, c)
	if err != nil {
		return nil, err
	}
	defer e.Close()
	ctx, cancel := context.WithCancel(ctx)
	var group sync.WaitGroup
	defer group.Wait()
	defer cancel()
	watchers := make([]<-chan sighting, n)
	for i := range watchers {
		if watchers[i], err = follow(ctx, &group, e, i%3); err != nil {
			return nil, err
		}
	}
	through, err := e.Open(0)
	if err != nil {
		return nil, err
	}
	defer func() { _ = through.Close() }()
	m := &obeyedResult{}
	for i := range c.writes {
		text := fmt.Sprint("w", i)
		sent := time.Now()
		if err := through.Put(ctx, crewOverride, text); err != nil {
			return nil, fmt.Errorf("write: %w", err)
		}
		acked := time.Now()
		at := make([]time.Time, n)
		for j, w := range watchers {
			if at[j], err = await(ctx, w, text); err != nil {
				return nil, err
			}
		}
		m.add(sent, acked, at)
		pauseBetweenWrites()
	}
	return m, nil
}
