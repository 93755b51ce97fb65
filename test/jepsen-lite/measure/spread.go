package measure

import (
	"cmp"
	"slices"
)

// Spread is how samples are distributed.
type Spread[T cmp.Ordered] struct {
	N                  int
	Min, P50, P90, Max T
}

// SpreadOf sorts samples and takes those at half and at nine tenths of them.
func SpreadOf[T cmp.Ordered](samples []T) Spread[T] {
	if len(samples) == 0 {
		return Spread[T]{}
	}
	sorted := slices.Sorted(slices.Values(samples))
	n := len(sorted)
	return Spread[T]{N: n, Min: sorted[0], P50: sorted[(n-1)/2], P90: sorted[(9*n+9)/10-1], Max: sorted[n-1]}
}
