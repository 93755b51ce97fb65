package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/holdfast-dev/holdfast/pkg/client"
	"github.com/holdfast-dev/holdfast/test/cluster"
)

const (
	// cutOff is how long all servers are away: long enough for the pauses between
	// attempts to be as long as they get.
	cutOff = 12 * time.Second
	// tenth is what reconnects are counted by.
	tenth = 100 * time.Millisecond
)

// arrival is when an instance had a session again, and with which server.
type arrival struct {
	after  time.Duration // since the first server was ready
	server string
}

// runHerd kills all servers under many instances, brings them back, and prints when
// the instances have sessions again, and obey what was written first.
func runHerd(ctx context.Context, c config) error {
	sizes, err := crewSizes(c)
	if err != nil {
		return err
	}
	n := slices.Max(sizes)
	h, err := startHoldfast(ctx, c, "holdfast")
	if err != nil {
		return err
	}
	defer h.Close()
	writer := h.Writer(0, 10*time.Second)
	if err := prepareCrew(ctx, writer); err != nil {
		return err
	}
	opening := time.Now()
	w, err := openCrew(ctx, h, n)
	if err != nil {
		return err
	}
	defer w.close()
	fmt.Printf("%d instances in this process, each with its own connection; opened in %s ms, %d at a time\n", n, cluster.Millis(time.Since(opening)), openAtOnce)
	for i := range h.Len() {
		if err := h.Kill(i); err != nil {
			return err
		}
	}
	fmt.Printf("all servers killed; back %v later\n", cutOff)
	select {
	case <-time.After(cutOff):
	case <-ctx.Done():
		return ctx.Err()
	}
	back, err := bringBack(ctx, h)
	if err != nil {
		return err
	}
	ack, err := writer.Write(ctx, "bench", setLevel(crewLevels()[0]))
	if err != nil {
		return err
	}
	writable := time.Since(back)
	arrivals, err := w.arrive(ctx, back)
	if err != nil {
		return err
	}
	at, err := w.obey(ctx, ack.Response.GetRevision(), crewLevels()[0])
	if err != nil {
		return err
	}
	fmt.Printf("since the first server was ready: writes again after %s ms, all obey what was written then after %s ms\n",
		cluster.Millis(writable), cluster.Millis(slices.MaxFunc(at, time.Time.Compare).Sub(back)))
	printArrivals(h, arrivals)
	return nil
}

// bringBack starts all servers and returns when the first one was ready.
func bringBack(ctx context.Context, h *holdfast) (first time.Time, err error) {
	ready, errs := make([]time.Time, h.Len()), make([]error, h.Len())
	var group sync.WaitGroup
	for i := range ready {
		if err := h.Restart(i); err != nil {
			return first, err
		}
		group.Go(func() {
			errs[i] = h.WaitReady(ctx, i)
			ready[i] = time.Now()
		})
	}
	group.Wait()
	return slices.MinFunc(ready, time.Time.Compare), errors.Join(errs...)
}

// arrive returns when each instance had a session again, in the order of time.
func (w *crew) arrive(ctx context.Context, back time.Time) ([]arrival, error) {
	ctx, cancel := context.WithTimeout(ctx, crewPatience)
	defer cancel()
	arrivals := make([]arrival, len(w.members))
	for i, m := range w.members {
		e, err := m.next(ctx, func(e client.Event) bool { return e.Connection != nil && e.Connection.Connected })
		if err != nil {
			return nil, err
		}
		arrivals[i] = arrival{e.Time.Sub(back), e.Connection.Server}
	}
	slices.SortFunc(arrivals, func(a, b arrival) int { return int(a.after - b.after) })
	return arrivals, nil
}

func printArrivals(h *holdfast, arrivals []arrival) {
	var all cluster.Durations
	for _, a := range arrivals {
		all = append(all, a.after)
	}
	fmt.Printf("sessions: p10 %s, p50 %s, p90 %s, last %s ms; most within %v: %d\n", cluster.Millis(all.Quantile(0.1)), cluster.Millis(all.Quantile(0.5)),
		cluster.Millis(all.Quantile(0.9)), cluster.Millis(all.Quantile(1)), tenth, busiest(arrivals, "", tenth))
	for i := range h.Len() {
		served := 0
		for _, a := range arrivals {
			if a.server == h.Addr(i) {
				served++
			}
		}
		fmt.Printf("server %d: %d sessions, at most %d new ones in a second\n", i, served, busiest(arrivals, h.Addr(i), time.Second))
	}
	fmt.Printf("sessions for each %v, a second in a line:\n", tenth)
	counts := map[int]int{}
	for _, a := range arrivals {
		counts[int((a.after+time.Hour)/tenth)-int(time.Hour/tenth)]++
	}
	perLine := int(time.Second / tenth)
	for second := int(arrivals[0].after/time.Second) - 1; time.Duration(second)*time.Second <= all.Quantile(1); second++ {
		var line strings.Builder
		some := false
		for i := range perLine {
			count := counts[second*perLine+i]
			some = some || count > 0
			fmt.Fprintf(&line, "%5d", count)
		}
		if some {
			fmt.Printf("%4d s%s\n", second, line.String())
		}
	}
}

// busiest returns the largest number of arrivals at a server, any if it is empty,
// within a time.
func busiest(arrivals []arrival, server string, within time.Duration) int {
	most, first := 0, 0
	var at []time.Duration
	for _, a := range arrivals {
		if server != "" && a.server != server {
			continue
		}
		at = append(at, a.after)
		for a.after-at[first] >= within {
			first++
		}
		most = max(most, len(at)-first)
	}
	return most
}
