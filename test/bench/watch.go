package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/holdfast-dev/holdfast/test/cluster"
)

// runWatch prints how long after its acknowledgement a write reaches watchers
// on the other servers of an idle cluster.
func runWatch(ctx context.Context, c config) error {
	type variant struct {
		name  string
		start func() (system, error)
	}
	var variants []variant
	if strings.Contains(c.systems, "holdfast") {
		variants = append(variants,
			variant{"holdfast", func() (system, error) { return startHoldfast(ctx, c, "holdfast") }},
			variant{"holdfast, nudge off", func() (system, error) { return startHoldfast(ctx, c, "holdfast", "--nudge=false") }})
	}
	if strings.Contains(c.systems, "etcd") {
		variants = append(variants, variant{"etcd", func() (system, error) { return startEtcd(ctx, c) }})
	}
	fmt.Printf("one write at a time through one server, a watcher on each other server; %d writes a row, 20 to 80 ms apart\n", c.writes)
	out := newTable(os.Stdout, "             system", "through ", "write p50", "  p99 ms",
		"watch minus write p50", "    p90", "    p99", "worst ms", "sent to watch p50 ms")
	for _, v := range variants {
		s, err := v.start()
		if err != nil {
			return err
		}
		for _, throughLeader := range []bool{true, false} {
			m, err := measureWatch(ctx, s, c.writes, throughLeader)
			if err != nil {
				s.Close()
				return fmt.Errorf("%s: %w", v.name, err)
			}
			who := "follower"
			if throughLeader {
				who = "leader"
			}
			ms := func(d cluster.Durations, q float64) string { return cluster.Millis(d.Quantile(q)) }
			out.row(v.name, who, ms(m.write, 0.5), ms(m.write, 0.99),
				ms(m.extra, 0.5), ms(m.extra, 0.9), ms(m.extra, 0.99), ms(m.extra, 1), ms(m.total, 0.5))
		}
		s.Close()
	}
	return nil
}

// watchResult holds the time of each write, from sending it to seeing it, and
// the difference, which is negative when the watcher is told first.
type watchResult struct{ write, total, extra cluster.Durations }

type sighting struct {
	text string
	at   time.Time
}

func measureWatch(ctx context.Context, s system, writes int, throughLeader bool) (watchResult, error) {
	ctx, cancel := context.WithCancel(ctx)
	var group sync.WaitGroup
	defer group.Wait()
	defer cancel()
	writer, err := s.Leader(ctx)
	if err != nil {
		return watchResult{}, err
	}
	if !throughLeader {
		writer = (writer + 1) % 3
	}
	var watchers []<-chan sighting
	for i := range 3 {
		if i == writer {
			continue
		}
		seen, err := follow(ctx, &group, s, i)
		if err != nil {
			return watchResult{}, err
		}
		watchers = append(watchers, seen)
	}
	through, err := s.Open(writer)
	if err != nil {
		return watchResult{}, err
	}
	defer func() { _ = through.Close() }()
	var m watchResult
	for n := range writes {
		text := fmt.Sprint("w", n, "-", time.Now().UnixNano())
		sent := time.Now()
		if err := through.Put(ctx, "watched", text); err != nil {
			return m, fmt.Errorf("write: %w", err)
		}
		acked := time.Now()
		m.write = append(m.write, acked.Sub(sent))
		for _, w := range watchers {
			at, err := await(ctx, w, text)
			if err != nil {
				return m, err
			}
			m.total = append(m.total, at.Sub(sent))
			m.extra = append(m.extra, at.Sub(acked))
		}
		time.Sleep(20*time.Millisecond + rand.N(60*time.Millisecond))
	}
	return m, nil
}

// follow watches server i and reports what it sees, with the time.
func follow(ctx context.Context, group *sync.WaitGroup, s system, i int) (<-chan sighting, error) {
	c, err := s.Open(i)
	if err != nil {
		return nil, err
	}
	seen, ready := make(chan sighting, 64), make(chan struct{})
	var once sync.Once
	group.Go(func() {
		defer func() { _ = c.Close() }()
		err := c.Watch(ctx, func() { once.Do(func() { close(ready) }) }, func(_, text string) {
			select {
			case seen <- sighting{text, time.Now()}:
			case <-ctx.Done():
			}
		})
		if err != nil && ctx.Err() == nil {
			fmt.Fprintln(os.Stderr, "watch:", err)
		}
	})
	select {
	case <-ready:
		return seen, nil
	case <-time.After(10 * time.Second):
		return nil, fmt.Errorf("watcher on server %d was not ready in 10 s", i)
	}
}

func await(ctx context.Context, seen <-chan sighting, text string) (time.Time, error) {
	limit := time.After(10 * time.Second)
	for {
		select {
		case s := <-seen:
			if s.text == text {
				return s.at, nil
			}
		case <-limit:
			return time.Time{}, fmt.Errorf("watcher did not see %s within 10 s", text)
		case <-ctx.Done():
			return time.Time{}, ctx.Err()
		}
	}
}
