package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"

	holdfastv1 "github.com/holdfast-dev/holdfast/proto/holdfast/v1"
	"github.com/holdfast-dev/holdfast/test/cluster"
)

const (
	watchersPerConn = 25
	writeEvery      = 100 * time.Millisecond
	slowBytes       = 100 // per slowPause: 1 KB/s
	slowPause       = 100 * time.Millisecond
	phases          = 3
	phaseWrites     = 60
	bigFlags        = 16 // of writeBytes each are changed by every write
	writeBytes      = 4 << 10
)

// runWatchers compares what watchers of one server see with and without one
// among them that reads 1 KB/s. The phases alternate. The document and what
// changes in a second are far larger than that, so that the slow reader is
// behind from its first message on.
func runWatchers(ctx context.Context, c config) error {
	h, err := startHoldfast(ctx, c, "holdfast")
	if err != nil {
		return err
	}
	defer h.Close()
	leader, err := h.Leader(ctx)
	if err != nil {
		return err
	}
	watched := (leader + 1) % h.Len()
	pid := h.PID(watched)
	before, _, err := cluster.RSS(pid)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	crowd := &crowd{sent: make(map[uint64]time.Time)}
	defer crowd.group.Wait()
	defer cancel()
	if err := crowd.join(ctx, h, watched, c.watchers-1); err != nil {
		return err
	}
	joined, _, err := cluster.RSS(pid)
	if err != nil {
		return err
	}
	fmt.Printf("%d watchers on one follower, a write of %d KiB every %v through the leader; memory of that server: %d MiB before, %d MiB with watchers\n",
		c.watchers, writeBytes>>10, writeEvery, before>>20, joined>>20)
	return crowd.compare(ctx, h, leader, watched, pid)
}

func (w *crowd) compare(ctx context.Context, h *holdfast, leader, watched, pid int) error {
	out := newTable(os.Stdout, "phase", "slow watcher", "deliveries", " p50 ms", " p99 ms", "worst ms", "server memory MiB", "slow one read KiB")
	total := map[bool]cluster.Durations{}
	for phase := range 2 * phases {
		withSlow := phase%2 == 1
		slow := &slowReader{}
		stop := func() {}
		if withSlow {
			var err error
			if stop, err = slow.start(ctx, h, watched); err != nil {
				return err
			}
		}
		took, err := w.phase(ctx, h, leader, phase)
		stop()
		if err != nil {
			return err
		}
		now, _, err := cluster.RSS(pid)
		if err != nil {
			return err
		}
		total[withSlow] = append(total[withSlow], took...)
		out.row(fmt.Sprint(phase+1), fmt.Sprint(withSlow), fmt.Sprint(len(took)), cluster.Millis(took.Quantile(0.5)),
			cluster.Millis(took.Quantile(0.99)), cluster.Millis(took.Quantile(1)), fmt.Sprint(now>>20),
			fmt.Sprintf("%.1f", float64(slow.read.Load())/1024))
	}
	fmt.Printf("all phases: p99 without the slow one %s ms, with it %s ms\n",
		cluster.Millis(total[false].Quantile(0.99)), cluster.Millis(total[true].Quantile(0.99)))
	return nil
}

// crowd is many watchers that note how long after its sending each write
// arrives.
type crowd struct {
	group sync.WaitGroup
	size  int

	mu   sync.Mutex // guards the fields below
	sent map[uint64]time.Time
	took cluster.Durations
	seen map[uint64]int
	errs error
}

func (w *crowd) join(ctx context.Context, h *holdfast, server, n int) error {
	var ready sync.WaitGroup
	w.size = n
	ready.Add(n)
	var stub holdfastv1.StateServiceClient
	for i := range n {
		if i%watchersPerConn == 0 {
			conn, err := h.Dial(server)
			if err != nil {
				return err
			}
			context.AfterFunc(ctx, func() { _ = conn.Close() })
			stub = holdfastv1.NewStateServiceClient(conn)
		}
		w.group.Go(func() { w.watch(ctx, stub, sync.OnceFunc(ready.Done)) })
	}
	ready.Wait()
	return w.err()
}

func (w *crowd) watch(ctx context.Context, stub holdfastv1.StateServiceClient, ready func()) {
	defer ready()
	stream, err := stub.Watch(ctx, &holdfastv1.WatchRequest{})
	for err == nil {
		var msg *holdfastv1.WatchResponse
		if msg, err = stream.Recv(); err != nil {
			break
		}
		now := time.Now()
		if msg.GetSnapshot().GetLast() {
			ready()
		}
		if d := msg.GetDelta(); d.GetLast() {
			w.note(d.GetFrom(), d.GetTo(), now)
		}
	}
	if ctx.Err() == nil {
		w.mu.Lock()
		w.errs = errors.Join(w.errs, err)
		w.mu.Unlock()
	}
}

// note counts a delivery for every write that the delta covers. The writer
// holds mu from before it sends until it knows the revision, so that a delta
// that overtakes the acknowledgement finds it.
func (w *crowd) note(from, to uint64, at time.Time) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for rev := from + 1; rev <= to; rev++ {
		if sent, ok := w.sent[rev]; ok {
			w.took = append(w.took, at.Sub(sent))
			w.seen[rev]++
		}
	}
}

func (w *crowd) err() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.errs
}

// phase writes and returns all deliveries, one per write and watcher.
func (w *crowd) phase(ctx context.Context, h *holdfast, leader, phase int) (cluster.Durations, error) {
	w.mu.Lock()
	w.took, w.sent, w.seen = nil, make(map[uint64]time.Time), make(map[uint64]int)
	w.mu.Unlock()
	writer := h.Writer(leader, 10*time.Second)
	ticker := time.NewTicker(writeEvery)
	defer ticker.Stop()
	for n := range phaseWrites {
		<-ticker.C
		text := pad(fmt.Sprint("p", phase, "n", n), writeBytes)
		w.mu.Lock()
		sent := time.Now()
		ack, err := writer.Write(ctx, "bench", cluster.Flag("", fmt.Sprintf("big-%d", n%bigFlags), text))
		if err == nil {
			w.sent[ack.Response.GetRevision()] = sent
		}
		w.mu.Unlock()
		if err != nil {
			return nil, err
		}
	}
	return w.collect(ctx)
}

// collect waits until every watcher of the crowd has seen every write.
func (w *crowd) collect(ctx context.Context) (cluster.Durations, error) {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	var took cluster.Durations
	err := cluster.Poll(ctx, func() error {
		w.mu.Lock()
		defer w.mu.Unlock()
		took = w.took
		if w.errs != nil {
			return w.errs
		}
		if want := len(w.sent) * w.size; len(took) != want {
			return fmt.Errorf("%d deliveries of %d", len(took), want)
		}
		return nil
	})
	return took, err
}

// slowReader is a watcher whose connection reads 1 KB/s.
type slowReader struct{ read atomic.Int64 }

func (s *slowReader) start(ctx context.Context, h *holdfast, server int) (stop func(), err error) {
	ctx, cancel := context.WithCancel(ctx)
	conn, err := h.Dial(server, grpc.WithContextDialer(func(ctx context.Context, addr string) (net.Conn, error) {
		var d net.Dialer
		c, err := d.DialContext(ctx, "tcp", addr)
		if err != nil {
			return nil, err
		}
		_ = c.(*net.TCPConn).SetReadBuffer(4096)
		return &slowConn{Conn: c, reader: s}, nil
	}))
	if err != nil {
		cancel()
		return nil, err
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		stream, err := holdfastv1.NewStateServiceClient(conn).Watch(ctx, &holdfastv1.WatchRequest{}, grpc.WaitForReady(true))
		for err == nil {
			_, err = stream.Recv()
		}
	}()
	return func() { cancel(); _ = conn.Close(); <-done }, nil
}

type slowConn struct {
	net.Conn
	reader *slowReader
}

func (c *slowConn) Read(b []byte) (int, error) {
	time.Sleep(slowPause)
	n, err := c.Conn.Read(b[:min(len(b), slowBytes)])
	c.reader.read.Add(int64(n))
	return n, err
}
