package check

import (
	"testing"
	"time"
)

func BenchmarkSweepOfAMillion(b *testing.B) {
	h := simulateClients(1_000_000, 16, 500, 0)
	for b.Loop() {
		if v := revisionSweep(newFacts(h, Defaults())).verdict(); v.Result != Pass {
			b.Fatal(v)
		}
	}
}

func BenchmarkPorcupineOfSixteenThousand(b *testing.B) {
	h := simulateClients(16_000, 12, 12, 0.01) // 1,333 operations on a register, some 5 unknown
	o := Defaults()
	o.Porcupine = 20 * time.Second
	for b.Loop() {
		if v := linearizable(newFacts(h, o)).verdict(); v.Result != Pass {
			b.Fatal(v)
		}
	}
}

// BenchmarkJudge is all rules on the history of a run of a minute at 400 operations
// per second.
func BenchmarkJudge(b *testing.B) {
	h := simulate(1, 24_000, 12, 20, 0.002)
	for b.Loop() {
		if o := Overall(Judge(h, Defaults())); o != Pass {
			b.Fatal(o)
		}
	}
}
