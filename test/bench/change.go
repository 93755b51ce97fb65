package main

import (
	"context"
	"fmt"
	"maps"
	"os"
	"strconv"
	"strings"
	"testing"

	"github.com/open-feature/flagd/core/pkg/evaluator"
	"github.com/open-feature/flagd/core/pkg/sync"

	"github.com/holdfast-dev/holdfast/internal/document"
	"github.com/holdfast-dev/holdfast/internal/flags"
)

// runChange measures what one changed flag costs among few and many: the next view
// of an instance, Merkle root included, beside flagd, which takes in the document.
func runChange(ctx context.Context, c config) error {
	if err := setBenchtime(&c); err != nil {
		return err
	}
	fmt.Printf("%d rounds of %s in turns; medians, and least to most; growth: to the first row\n", c.rounds, c.benchtime)
	t := newTable(os.Stdout, " flags", "Holdfast µs", "least to most  ", "allocs", "growth", "flagd core ms", "least to most  ", " allocs", "growth", "     ratio")
	var first [2]float64
	for _, n := range []int{100, 1000, 10_000} {
		ours, err := newViewChange(n)
		if err != nil {
			return err
		}
		theirs, err := newDocumentChange(ctx, n)
		if err != nil {
			return err
		}
		rounds := make([][2]testing.BenchmarkResult, c.rounds)
		for i := range rounds {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			if rounds[i], err = measureChanges(ours, theirs); err != nil {
				return err
			}
		}
		first = changeRow(t, n, rounds, first)
	}
	return nil
}

func measureChanges(changes ...func() error) (results [2]testing.BenchmarkResult, err error) {
	for i, change := range changes {
		results[i] = testing.Benchmark(func(b *testing.B) { //nolint:thelper // it is the benchmark
			b.ReportAllocs()
			for range b.N {
				if err == nil {
					err = change()
				}
			}
		})
	}
	return results, err
}

// changeRow prints the row of n flags and returns the medians that growth is
// against.
func changeRow(t *table, n int, rounds [][2]testing.BenchmarkResult, first [2]float64) [2]float64 {
	cells := []string{strconv.Itoa(n)}
	var medians [2]float64
	for i, unit := range [2]float64{1e3, 1e6} {
		s := summary(column(rounds, i))
		if medians[i] = s.middle; first[i] == 0 {
			first[i] = s.middle
		}
		cells = append(cells, brief(s.middle/unit), brief(s.least/unit)+" to "+brief(s.most/unit),
			strconv.FormatInt(rounds[0][i].AllocsPerOp(), 10), fmt.Sprintf("× %.2f", s.middle/first[i]))
	}
	t.row(append(cells, fmt.Sprintf("× %.0f", medians[1]/medians[0]))...)
	return first
}

// newViewChange returns a function that changes the next one of n flags in a view
// and in the tree of its root.
func newViewChange(n int) (func() error, error) {
	var all [2][]*document.Resource
	for version := range all {
		for i := range n {
			r, err := flagResource(fillerKey(i), changedDefinition(i, version), 1)
			if err != nil {
				return nil, err
			}
			all[version] = append(all[version], r)
		}
	}
	hashes := map[document.Key][32]byte{}
	for _, r := range all[0] {
		hashes[r.Key] = r.Hash()
	}
	tree := document.Build(maps.All(hashes))
	revision := uint64(1)
	view := flags.NewView(flags.Instance{ID: "bench"}).Update(document.Delta{To: revision, Root: tree.Root(), Puts: all[0]})
	if problems := view.Problems(); len(problems) > 0 {
		return nil, fmt.Errorf("view: %v", problems[0])
	}
	who := flags.Attribute{Key: flags.TargetingKey, Value: flags.String("user")}
	return func() error {
		// The steps go through all flags, far from each other.
		const step = 7919
		i, version := int(revision*step%uint64(n)), int(revision/uint64(n)+1)%2
		r := *all[version][i]
		revision++
		r.ModRevision = revision
		root := tree.Root()
		tree = tree.Put(r.Key, r.Hash())
		view = view.Update(document.Delta{From: revision - 1, To: revision, Root: tree.Root(), Puts: []*document.Resource{&r}})
		on, _ := view.Flag(r.Name).Evaluate(0, who).Variant.Value.AsBool()
		if on != (version == 1) || view.Root() == root || view.Len() != n {
			return fmt.Errorf("flag %s of version %d is %v in the view of %d flags", r.Name, version, on, view.Len())
		}
		return nil
	}, nil
}

// newDocumentChange returns a function that changes one of n flags in flagd.
func newDocumentChange(ctx context.Context, n int) (func() error, error) {
	var documents [2]string
	for version := range documents {
		var b strings.Builder
		for i := range n {
			changed := 0
			if i == n/2 {
				changed = version
			}
			fmt.Fprintf(&b, ",%q:%s", fillerKey(i), changedDefinition(i, changed))
		}
		documents[version] = `{"flags":{` + b.String()[1:] + `}}`
	}
	flagd, err := newFlagd(documents[0])
	if err != nil {
		return nil, err
	}
	version := 0
	return func() error {
		version = 1 - version
		return setState(ctx, flagd, documents[version], fillerKey(n/2), version == 1)
	}, nil
}

func setState(ctx context.Context, flagd *evaluator.JSON, all, key string, want bool) error {
	if err := flagd.SetState(sync.DataSync{FlagData: all, Source: flagdSource}); err != nil {
		return fmt.Errorf("state of flagd: %w", err)
	}
	on, _, _, _, err := flagd.ResolveBooleanValue(ctx, "", key, map[string]any{targetingKey: "user"})
	if err != nil || on != want {
		return fmt.Errorf("flagd decides %v for %s, want %v (error: %w)", on, key, want, err)
	}
	return nil
}

// changedDefinition is a flag with a rule that decides false for everybody in
// version 0, and true in version 1.
func changedDefinition(i, version int) string {
	return strings.ReplaceAll(fillerDefinition(i), `["on",10],["off",90]`, fmt.Sprintf(`["on",%d],["off",%d]`, version*100, 100-version*100))
}
