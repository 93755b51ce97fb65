package health

import (
	"fmt"
	"testing"

	"github.com/holdfast-dev/holdfast/internal/policy"
)

// BenchmarkJudge is what one piece of news about a dependency costs an instance that
// looks at it at once: tally and verdict, and the plan if it holds the breaker open.
func BenchmarkJudge(b *testing.B) {
	for _, n := range []int{10, 100, 300, 1000} {
		table, origin := holders(n)
		p := prober(origin(0))
		b.Run(fmt.Sprintf("verdict-%d", n), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				tally := table.Tally(second, "d", origin(0))
				c := Case{Fleet: policy.Default().Fleet, Own: Own{Calls: 9, Failures: 2}, Population: Population{n, 3}, Dependencies: 9, Tally: &tally}
				c.Verdict()
			}
		})
		b.Run(fmt.Sprintf("plan-%d", n), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				table.Plan(second, p)
			}
		})
	}
}

// BenchmarkPut takes in a newer record of one of 1,000 instances.
func BenchmarkPut(b *testing.B) {
	table, origin := holders(1000)
	h := say("i500", 2, Report{Dependency: "d", Opinion: Open, Calls: 5, Failures: 5})
	h.from = origin(500)
	b.ReportAllocs()
	for b.Loop() {
		h.record.Sequence++
		h.put(table, second)
	}
}
