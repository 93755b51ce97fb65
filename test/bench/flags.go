package main

import (
	"context"
	"fmt"
	"os"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	holdfastv1 "github.com/holdfast-dev/holdfast/proto/holdfast/v1"
	"github.com/holdfast-dev/holdfast/test/cluster"
)

const (
	// flagsPerWrite keeps a transaction well below 512 KiB and 1,024 steps.
	flagsPerWrite = 500
	fewFlags      = 1000
	// blockOfWrites is how many writes go to one cluster before the other's turn.
	blockOfWrites = 25
)

// runFlags loads many flags and prints what that costs: time, memory, restart,
// and the latency of a write beside a cluster with few flags.
func runFlags(ctx context.Context, c config) error {
	few, err := startHoldfast(ctx, c, "few")
	if err != nil {
		return err
	}
	defer few.Close()
	many, err := startHoldfast(ctx, c, "many")
	if err != nil {
		return err
	}
	defer many.Close()
	if _, err := load(ctx, few, fewFlags); err != nil {
		return err
	}
	if err := printMemory(many, "empty"); err != nil {
		return err
	}
	took, err := load(ctx, many, c.flags)
	if err != nil {
		return err
	}
	fmt.Printf("load: %d flags in transactions of %d through the leader, one after the other: %.1f s, %.0f flags/s\n",
		c.flags, flagsPerWrite, took.Seconds(), float64(c.flags)/took.Seconds())
	if err := printMemory(many, "loaded"); err != nil {
		return err
	}
	if err := printSnapshot(ctx, many); err != nil {
		return err
	}
	if err := compareWrites(ctx, c, few, many); err != nil {
		return err
	}
	return printRestarts(ctx, many)
}

// flagSpec is a flag of ordinary size with a targeting rule.
func flagSpec(i int, note string) []byte {
	return fmt.Appendf(nil, `{"state":"ENABLED","variants":{"on":true,"off":false},"defaultVariant":"off",`+
		`"targeting":{"if":[{"in":[{"var":"plan"},["gold","plan-%d"]]},"on","off"]},"metadata":{"owner":"team-%d","note":%q}}`, i, i%50, note)
}

func flagPut(i int, note string) *holdfastv1.Operation {
	return &holdfastv1.Operation{Action: &holdfastv1.Operation_Put{Put: &holdfastv1.Put{
		Key:  &holdfastv1.ResourceKey{Kind: holdfastv1.Kind_KIND_FLAG, Name: fmt.Sprintf("flag-%06d", i)},
		Spec: flagSpec(i, note),
	}}}
}

// load puts n flags and waits until every server has them.
func load(ctx context.Context, h *holdfast, n int) (time.Duration, error) {
	leader, err := h.Leader(ctx)
	if err != nil {
		return 0, err
	}
	w := h.Writer(leader, 30*time.Second)
	began := time.Now()
	for from := 0; from < n; from += flagsPerWrite {
		var ops []*holdfastv1.Operation
		for i := from; i < min(from+flagsPerWrite, n); i++ {
			ops = append(ops, flagPut(i, "loaded"))
		}
		if _, err := w.Write(ctx, "load", ops...); err != nil {
			return 0, err
		}
	}
	took := time.Since(began)
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	_, err = h.Agree(ctx)
	return took, err
}

func printMemory(h *holdfast, when string) error {
	fmt.Printf("memory, %s:", when)
	for i := range h.Len() {
		now, peak, err := cluster.RSS(h.PID(i))
		if err != nil {
			return err
		}
		fmt.Printf("  server %d %d MiB (peak %d)", i, now>>20, peak>>20)
	}
	fmt.Println()
	return nil
}

// printSnapshot measures how a watcher gets the whole document, with the client
// library's default limit of 4 MiB a message.
func printSnapshot(ctx context.Context, h *holdfast) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	began := time.Now()
	stream, err := h.Client(0).Watch(ctx, &holdfastv1.WatchRequest{}, grpc.WaitForReady(true))
	if err != nil {
		return err
	}
	chunks, size, largest, resources := 0, 0, 0, 0
	for {
		msg, err := stream.Recv()
		if err != nil {
			return fmt.Errorf("watch: %w", err)
		}
		chunks++
		size += proto.Size(msg)
		largest = max(largest, proto.Size(msg))
		resources += len(msg.GetSnapshot().GetResources())
		if msg.GetSnapshot().GetLast() {
			break
		}
	}
	fmt.Printf("watch snapshot: %d resources, %.1f MiB in %d chunks (largest %d KiB), %s ms\n",
		resources, float64(size)/(1<<20), chunks, largest>>10, cluster.Millis(time.Since(began)))
	return nil
}

// compareWrites alternates between the clusters; both are alive and idle
// otherwise.
func compareWrites(ctx context.Context, c config, few, many *holdfast) error {
	took := map[*holdfast]cluster.Durations{}
	for n := 0; n < c.writes; n += blockOfWrites {
		for _, h := range []*holdfast{few, many} {
			leader, err := h.Leader(ctx)
			if err != nil {
				return err
			}
			w := h.Writer(leader, 10*time.Second)
			for i := range blockOfWrites {
				began := time.Now()
				if _, err := w.Write(ctx, "change", flagPut((n*37+i)%fewFlags, fmt.Sprint("change", n, "-", i))); err != nil {
					return err
				}
				took[h] = append(took[h], time.Since(began))
			}
		}
	}
	out := newTable(os.Stdout, "   flags", "writes", " p50 ms", " p90 ms", " p99 ms")
	for _, h := range []*holdfast{few, many} {
		n := c.flags
		if h == few {
			n = fewFlags
		}
		d := took[h]
		out.row(fmt.Sprint(n), fmt.Sprint(len(d)), cluster.Millis(d.Quantile(0.5)),
			cluster.Millis(d.Quantile(0.9)), cluster.Millis(d.Quantile(0.99)))
	}
	ratio := func(q float64) float64 { return float64(took[many].Quantile(q)) / float64(took[few].Quantile(q)) }
	fmt.Printf("single-flag write, %d : %d flags: p50 x%.2f, p90 x%.2f, p99 x%.2f\n", c.flags, fewFlags, ratio(0.5), ratio(0.9), ratio(0.99))
	return nil
}

// printRestarts measures from the start of the process to caught up.
func printRestarts(ctx context.Context, h *holdfast) error {
	ctx, cancel := context.WithTimeout(ctx, 3*time.Minute)
	defer cancel()
	leader, err := h.Leader(ctx)
	if err != nil {
		return err
	}
	follower := (leader + 1) % h.Len()
	if _, err := h.Stop(follower); err != nil {
		return err
	}
	took, err := restart(ctx, h, follower)
	if err != nil {
		return err
	}
	fmt.Printf("restart of one server after SIGTERM to caught up: %s ms\n", cluster.Millis(took))
	if err := h.Kill(follower); err != nil {
		return err
	}
	if took, err = restart(ctx, h, follower); err != nil {
		return err
	}
	fmt.Printf("restart of one server after kill -9 to caught up: %s ms\n", cluster.Millis(took))
	for i := range h.Len() {
		if err := h.Kill(i); err != nil {
			return err
		}
	}
	began := time.Now()
	for i := range h.Len() {
		if err := h.Restart(i); err != nil {
			return err
		}
	}
	if _, err := h.Writer(0, time.Second).Write(ctx, "after restart", flagPut(0, "after restart")); err != nil {
		return err
	}
	fmt.Printf("restart of all three after kill -9 to the first acknowledged write: %s ms\n", cluster.Millis(time.Since(began)))
	return printMemory(h, "restarted")
}

func restart(ctx context.Context, h *holdfast, i int) (time.Duration, error) {
	began := time.Now()
	if err := h.Restart(i); err != nil {
		return 0, err
	}
	err := h.WaitReady(ctx, i)
	return time.Since(began), err
}
