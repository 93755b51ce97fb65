package main

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/holdfast-dev/holdfast/test/cluster"
)

// keySpace bounds how many keys the writers share, so that the state stays
// small while every write is a change.
const keySpace = 4096

// runWrite prints throughput and latency at growing concurrency. Rounds of the
// systems alternate, so that a slow minute of the machine hits both.
func runWrite(ctx context.Context, c config) error {
	systems, closeAll, err := startSystems(ctx, c)
	if err != nil {
		return err
	}
	defer closeAll()
	for _, everywhere := range []bool{false, true} {
		where := "all clients on the leader"
		if everywhere {
			where = "clients spread over the three servers"
		}
		fmt.Printf("%s; %d-byte values, 3 processes, fsync; %d rounds of %v each, interleaved\n",
			where, valueBytes, c.rounds, c.round)
		if err := writeTable(ctx, c, systems, everywhere); err != nil {
			return err
		}
	}
	return nil
}

// startSystems starts what was asked for, Holdfast first.
func startSystems(ctx context.Context, c config) (systems []system, closeAll func(), err error) {
	closeAll = func() {
		for _, s := range systems {
			s.Close()
		}
	}
	if strings.Contains(c.systems, "holdfast") {
		s, err := startHoldfast(ctx, c, "holdfast")
		if err != nil {
			return nil, nil, err
		}
		systems = append(systems, s)
	}
	if c.other != "" {
		beside := c
		beside.server = c.other
		s, err := startHoldfast(ctx, beside, "beside")
		if err != nil {
			closeAll()
			return nil, nil, err
		}
		systems = append(systems, s)
	}
	if strings.Contains(c.systems, "etcd") {
		s, err := startEtcd(ctx, c)
		if err != nil {
			closeAll()
			return nil, nil, err
		}
		systems = append(systems, s)
	}
	return systems, closeAll, nil
}

func writeTable(ctx context.Context, c config, systems []system, everywhere bool) error {
	out := newTable(os.Stdout, "clients", "  system", "writes/s", " p50 ms", " p99 ms", "worst ms", "errors", "ratio")
	for text := range strings.SplitSeq(c.widths, ",") {
		width, err := strconv.Atoi(text)
		if err != nil || width < 1 {
			return fmt.Errorf("-widths: %q is not a number of clients", text)
		}
		results := make([]result, len(systems))
		for round := range c.rounds {
			for i := range systems {
				s := (i + round) % len(systems)
				r, err := measureWrites(ctx, systems[s], width, c.round, everywhere)
				if err != nil {
					return err
				}
				results[s].add(r)
			}
		}
		for i, r := range results {
			ratio := ""
			if i == 0 && len(results) > 1 {
				ratio = fmt.Sprintf("%.2f", r.rate()/results[1].rate())
			}
			out.row(fmt.Sprint(width), systems[i].Name(), fmt.Sprintf("%.0f", r.rate()),
				cluster.Millis(r.took.Quantile(0.5)), cluster.Millis(r.took.Quantile(0.99)),
				cluster.Millis(r.took.Quantile(1)), fmt.Sprint(r.errors), ratio)
		}
	}
	return nil
}

// result is what writers measured.
type result struct {
	took    cluster.Durations
	elapsed time.Duration
	errors  int
}

func (r *result) add(o result) {
	r.took = append(r.took, o.took...)
	r.elapsed += o.elapsed
	r.errors += o.errors
}

// rate is acknowledged writes per second.
func (r result) rate() float64 { return float64(len(r.took)) / r.elapsed.Seconds() }

// measureWrites runs width closed-loop writers for a while, eight to a
// connection, after a short warm-up that does not count.
func measureWrites(ctx context.Context, s system, width int, length time.Duration, everywhere bool) (result, error) {
	leader, err := s.Leader(ctx)
	if err != nil {
		return result{}, err
	}
	var clients []link
	defer func() {
		for _, c := range clients {
			_ = c.Close()
		}
	}()
	for i := range (width + 7) / 8 {
		at := leader
		if everywhere {
			at = (leader + 1 + i) % 3 // with one client: a follower, the worse case
		}
		c, err := s.Open(at)
		if err != nil {
			return result{}, err
		}
		clients = append(clients, c)
	}
	const warmUp = 300 * time.Millisecond
	var (
		group  sync.WaitGroup
		mu     sync.Mutex
		total  result
		count  atomic.Int64
		begin  = time.Now().Add(warmUp)
		finish = begin.Add(length)
	)
	for i := range width {
		group.Go(func() {
			var own result
			for time.Now().Before(finish) && ctx.Err() == nil {
				n := count.Add(1)
				start := time.Now()
				err := clients[i%len(clients)].Put(ctx, fmt.Sprintf("bench-%d", n%keySpace), fmt.Sprint(start.UnixNano(), n))
				end := time.Now()
				switch {
				case end.Before(begin) || end.After(finish):
				case err != nil:
					own.errors++
				default:
					own.took = append(own.took, end.Sub(start))
				}
			}
			mu.Lock()
			total.add(own)
			mu.Unlock()
		})
	}
	group.Wait()
	total.elapsed = length
	return total, ctx.Err()
}
