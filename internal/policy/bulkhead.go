package policy

import "time"

// Bulkhead bounds what a dependency can take of an instance.
type Bulkhead struct {
	// MaxConcurrent calls run at a time. MaxQueue more wait up to MaxWait for a
	// place; the rest is rejected.
	MaxConcurrent int
	MaxQueue      int
	MaxWait       time.Duration
	// Adaptive moves the limit between MinConcurrent and MaxConcurrent by the times
	// that calls take. MinConcurrent is at most MaxConcurrent.
	Adaptive      bool
	MinConcurrent int
	// Methods bounds single operations, methods and services beside the whole;
	// Weights says how many places a call of one takes, otherwise 1. A weight above
	// MaxConcurrent takes all places.
	Methods map[string]int
	Weights map[string]int
	// Workers is the size of the worker pool for work that is no RPC, MaxConnections
	// that of a connection pool.
	Workers        int
	MaxConnections int
}

// Limit returns how many calls of an operation or method may run at a time.
func (b Bulkhead) Limit(name string) int {
	return min(lookup(b.Methods, name, b.MaxConcurrent), b.MaxConcurrent)
}

// Weight returns how many places a call of an operation or method takes.
func (b Bulkhead) Weight(name string) int {
	return min(lookup(b.Weights, name, 1), b.MaxConcurrent)
}

func (b *Bulkhead) settings() []setting {
	const most = 1_000_000
	return []setting{
		one("max_concurrent", wholes("calls", 1, most), &b.MaxConcurrent),
		one("max_queue", wholes("calls", 0, most), &b.MaxQueue),
		one("max_wait", durations(0, 10*time.Minute), &b.MaxWait),
		one("adaptive", booleans(), &b.Adaptive),
		one("min_concurrent", wholes("calls", 1, most), &b.MinConcurrent),
		named("methods", wholes("calls", 1, most), &b.Methods),
		named("weights", wholes("places", 1, most), &b.Weights),
		one("workers", wholes("goroutines", 1, 10_000), &b.Workers),
		one("max_connections", wholes("connections", 1, 100_000), &b.MaxConnections),
	}
}
