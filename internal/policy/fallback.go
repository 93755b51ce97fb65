package policy

import "time"

// Fallback says what answers in place of a dependency.
type Fallback struct {
	// Chain is the name of a registered chain of functions; "" leaves it to what code
	// registered for the operation or method. Chains has those of single operations,
	// methods and services.
	Chain  string
	Chains map[string]string
	// On are the outcomes that a fallback answers for.
	On []string
	// Timeout bounds the chain, also after the deadline of the call that failed;
	// MaxConcurrent how many run at a time.
	Timeout       time.Duration
	MaxConcurrent int
}

// The outcomes that a fallback can answer for.
const (
	OnRejected = "rejected" // by breaker, bulkhead or budget: the call was not made
	OnTimeout  = "timeout"  // its deadline has passed
	OnFailure  = "failure"  // one of the breaker's failure codes
	OnOverload = "overload" // RESOURCE_EXHAUSTED
)

// ChainOf returns the name of the chain of an operation or method.
func (f Fallback) ChainOf(name string) string { return lookup(f.Chains, name, f.Chain) }

func (f *Fallback) settings() []setting {
	return []setting{
		one("chain", resourceNames(), &f.Chain),
		named("chains", resourceNames(), &f.Chains),
		one("on", wordLists(OnRejected, OnTimeout, OnFailure, OnOverload), &f.On),
		one("timeout", durations(time.Millisecond, 10*time.Minute), &f.Timeout),
		one("max_concurrent", wholes("calls", 1, 1_000_000), &f.MaxConcurrent),
	}
}
