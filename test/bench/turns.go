package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"sync"
	"testing"
)

// subject is something that is measured beside others of its kind.
type subject struct {
	name string
	// run makes n calls, one after the other, and returns what the last one returned.
	// Several goroutines may run it at once.
	run func(n int) error
	// refused tells that the calls have to fail; what fails them must be among them.
	refused error
}

// check makes sure that a subject does what its row says.
func (s subject) check() error {
	const calls = 100
	err := s.run(calls)
	switch {
	case s.refused == nil && err != nil:
		return fmt.Errorf("%s: a call failed: %w", s.name, err)
	case s.refused != nil && !errors.Is(err, s.refused):
		return fmt.Errorf("%s: a call ended with %w; want %w", s.name, err, s.refused)
	}
	return nil
}

// measure runs one round. In parallel the calls are shared out among as many
// goroutines as there are processors, and ns/op is the time of all for one call: half
// of the serial figure is the best that two processors can do.
func (s subject) measure(parallel bool) testing.BenchmarkResult {
	return testing.Benchmark(func(b *testing.B) { //nolint:thelper // it is the benchmark
		b.ReportAllocs()
		if !parallel {
			_ = s.run(b.N)
			return
		}
		var group sync.WaitGroup
		workers := runtime.GOMAXPROCS(0)
		for i := range workers {
			group.Go(func() { _ = s.run((b.N + i) / workers) })
		}
		group.Wait()
	})
}

// takeTurns measures the subjects round by round in turns: results of each round in
// the order of the subjects.
func takeTurns(ctx context.Context, rounds int, subjects []subject, parallel bool) ([][]testing.BenchmarkResult, error) {
	for _, s := range subjects {
		if err := s.check(); err != nil {
			return nil, err
		}
	}
	all := make([][]testing.BenchmarkResult, rounds)
	for r := range all {
		for _, s := range subjects {
			if ctx.Err() != nil {
				return nil, ctx.Err()
			}
			all[r] = append(all[r], s.measure(parallel))
		}
	}
	return all, nil
}

// comparison is a table of subjects. The first one of a case is the floor, what would
// be there anyway; the second one is what the others are compared with.
type comparison struct{ table *table }

func newComparison(c config, floor string) comparison {
	fmt.Printf("%d rounds of %s in turns; ns: median of the rounds, and least to most; above: %s, the first row of a case;\n"+
		"×: to the second row; both of the same round, median; × also of the least times; parallel: time of all for one call\n", c.rounds, c.benchtime, floor)
	return comparison{newTable(os.Stdout, "case                      ", "system                                         ", "ns/op", "least to most  ",
		"allocs", "B/op ", " above", "×              ")}
}

// run measures one case and prints its rows.
func (t comparison) run(ctx context.Context, c config, name string, parallel bool, subjects ...subject) error {
	rounds, err := takeTurns(ctx, c.rounds, subjects, parallel)
	if err != nil {
		return err
	}
	if parallel {
		name += ", parallel"
	}
	floor, base := column(rounds, 0), column(rounds, 1)
	for j, s := range subjects {
		results := column(rounds, j)
		above, times := make([]float64, c.rounds), make([]float64, c.rounds)
		for i, r := range results {
			above[i], times[i] = nanoseconds(r)-nanoseconds(floor[i]), nanoseconds(r)/nanoseconds(base[i])
		}
		all := summary(results)
		t.table.row(name, s.name, brief(all.middle), brief(all.least)+" to "+brief(all.most),
			strconv.FormatInt(results[0].AllocsPerOp(), 10), strconv.FormatInt(results[0].AllocedBytesPerOp(), 10),
			brief(middle(above)), fmt.Sprintf("%.2f; %.2f", middle(times), all.least/summary(base).least))
	}
	return nil
}
