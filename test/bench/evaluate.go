package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"slices"
	"strconv"
	"testing"
	"time"
)

// contender decides one case by one system.
type contender struct {
	name string
	// decide decides n times for a user, each time from what the program knows of
	// them to the value, and returns the last one; what goes wrong is in its place.
	// It is what is compared as well as what is measured.
	decide func(n int, u *user) string
	// ownHash tells that shares are by another hash than flagd's.
	ownHash bool
}

// What evaluate takes for a round of one contender, alone and as a part of all.
const (
	aloneBenchtime = time.Second
	shortBenchtime = 100 * time.Millisecond
)

// runEvaluate measures decisions beside other evaluators, all in this process, one
// goroutine, round by round in turns. Before, it makes sure that they decide alike.
func runEvaluate(ctx context.Context, c config) error {
	if err := setBenchtime(&c); err != nil {
		return err
	}
	cases := evaluateCases()
	contenders, stop, err := evaluateContenders(ctx, cases)
	if err != nil {
		return err
	}
	defer stop()
	for i := range cases {
		if err := agree(&cases[i], contenders[i]); err != nil {
			return err
		}
	}
	fmt.Printf("%d flags in every store; %d rounds of %s in turns; ns: median of the rounds, and least to most;\n"+
		"× Evaluate, × View: to these rows in the same round, median; of the least times\n", len(cases)+fillers, c.rounds, c.benchtime)
	t := newTable(os.Stdout, "case             ", "system                                 ", "ns/op", "least to most  ", "allocs", "B/op ", "× Evaluate    ", "× View       ")
	for i := range cases {
		rounds := make([][]testing.BenchmarkResult, c.rounds)
		for r := range rounds {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			rounds[r] = measure(contenders[i], &evaluateUsers()[0])
		}
		for j, contender := range contenders[i] {
			evaluateRow(t, cases[i].name, contender.name, column(rounds, j), column(rounds, 0), column(rounds, 1))
		}
	}
	return nil
}

// setBenchtime tells package testing how long a round is.
func setBenchtime(c *config) error {
	if c.benchtime == 0 {
		c.benchtime = aloneBenchtime
	}
	testing.Init()
	if err := flag.Set("test.benchtime", c.benchtime.String()); err != nil {
		return fmt.Errorf("set the length of a round: %w", err)
	}
	return nil
}

// evaluateContenders returns all contenders of each case, Holdfast's evaluation and
// that with a view first, and what ends them.
func evaluateContenders(ctx context.Context, cases []evaluateCase) ([][]contender, func(), error) {
	view, err := holdfastView(cases, fillers)
	if err != nil {
		return nil, nil, err
	}
	flagd, err := newFlagd(flagdDocument(cases, fillers))
	if err != nil {
		return nil, nil, err
	}
	launchDarkly, err := newLaunchDarkly(cases, fillers)
	if err != nil {
		return nil, nil, err
	}
	inMemory := newInMemory(cases, fillers)
	all := make([][]contender, len(cases))
	for i := range cases {
		c := &cases[i]
		if all[i], err = holdfastContenders(c, view); err != nil {
			break
		}
		all[i] = append(all[i], flagdContenders(ctx, c, flagd)...)
		all[i] = append(all[i], launchDarklyContenders(c, launchDarkly)...)
		all[i] = append(all[i], inMemoryContender(ctx, c, inMemory), byHandContender(c))
	}
	return all, func() { _ = launchDarkly.Close() }, err
}

func byHandContender(c *evaluateCase) contender {
	byHand := c.byHand
	return contender{name: "Go by hand", decide: func(n int, u *user) (last string) {
		for range n {
			last = byHand(u)
		}
		return last
	}}
}

// agree makes sure that all contenders of a case decide what the program by hand
// decides, for users that differ.
func agree(c *evaluateCase, contenders []contender) error {
	seen := map[string]bool{}
	users := evaluateUsers()
	for _, contender := range contenders {
		if c.weights != nil {
			if err := fair(c, contender); err != nil {
				return err
			}
			if contender.ownHash {
				continue
			}
		}
		for i := range users {
			want := c.byHand(&users[i])
			seen[want] = true
			if got := contender.decide(1, &users[i]); got != want {
				return fmt.Errorf("%s: %s decides %q for %+v, want %q", c.name, contender.name, got, users[i], want)
			}
		}
	}
	if c.targeting != "" && len(seen) != len(c.variants) {
		return fmt.Errorf("%s: the users only see the variants %v", c.name, seen)
	}
	return nil
}

// fair makes sure that a contender splits users by the weights.
func fair(c *evaluateCase, by contender) error {
	const users, tolerance = 5000, 0.03
	shares := map[string]float64{}
	for i := range users {
		id := strconv.Itoa(i)
		shares[by.decide(1, &user{ID: "user-" + id, Email: id + "@example.com"})] += 1.0 / users
	}
	for i, v := range c.variants {
		if want := float64(c.weights[i]) / 100; shares[v] < want-tolerance || shares[v] > want+tolerance {
			return fmt.Errorf("%s: %s gives %q to %.3f of the users, want %.2f", c.name, by.name, v, shares[v], want)
		}
	}
	return nil
}

// measure runs one round of all contenders.
func measure(contenders []contender, u *user) []testing.BenchmarkResult {
	results := make([]testing.BenchmarkResult, len(contenders))
	for i, contender := range contenders {
		results[i] = testing.Benchmark(func(b *testing.B) { //nolint:thelper // it is the benchmark
			b.ReportAllocs()
			contender.decide(b.N, u)
		})
	}
	return results
}

func column[R ~[]testing.BenchmarkResult | [2]testing.BenchmarkResult](rounds []R, j int) []testing.BenchmarkResult {
	results := make([]testing.BenchmarkResult, len(rounds))
	for i := range rounds {
		results[i] = rounds[i][j]
	}
	return results
}

// evaluateRow prints a row; base is what its ratios are to.
func evaluateRow(t *table, name, system string, results []testing.BenchmarkResult, base ...[]testing.BenchmarkResult) {
	s := summary(results)
	cells := []string{
		name, system, brief(s.middle), brief(s.least) + " to " + brief(s.most),
		strconv.FormatInt(results[0].AllocsPerOp(), 10), strconv.FormatInt(results[0].AllocedBytesPerOp(), 10),
	}
	for _, other := range base {
		ratios := make([]float64, len(results))
		for i, r := range results {
			ratios[i] = nanoseconds(r) / nanoseconds(other[i])
		}
		cells = append(cells, fmt.Sprintf("%.2f; %.2f", middle(ratios), s.least/summary(other).least))
	}
	t.row(cells...)
}

func nanoseconds(r testing.BenchmarkResult) float64 { return float64(r.T.Nanoseconds()) / float64(r.N) }

// spread is the times of rounds in nanoseconds.
type spread struct{ least, middle, most float64 }

func summary(results []testing.BenchmarkResult) spread {
	times := make([]float64, len(results))
	for i, r := range results {
		times[i] = nanoseconds(r)
	}
	return spread{slices.Min(times), middle(times), slices.Max(times)}
}

// middle returns the median, of an even number of values the upper one.
func middle(values []float64) float64 {
	return slices.Sorted(slices.Values(values))[len(values)/2]
}

// brief returns a number with about three digits.
func brief(f float64) string {
	if f < 100 {
		return fmt.Sprintf("%.1f", f)
	}
	return fmt.Sprintf("%.0f", f)
}
