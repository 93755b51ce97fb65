// Package guard enforces the policies of dependencies on calls: deadline, retry
// with a budget, circuit breaker, bulkhead. It knows calls, not their transport:
// gRPC, HTTP and functions come as an Invocation, streams take a Permit.
//
// A Guard has a Dependency for each name, and that a Target for each of its
// methods and operations. What holds for a target (settings, plan of the modes,
// hold of its breaker) is one immutable value behind one atomic pointer, replaced
// when the view changes, so that no call sees half of a change and none waits for
// one. Statistics belong to the target and stay.
//
// # The order
//
//	deadline → retry → breaker → bulkhead → the call
//	           └────── each attempt ──────┘
//
// The policy's deadline holds where the caller has none or a later one; a server
// that calls on keeps the margin of its own caller's (WithHop). A call with less
// than the minimum left is not made.
//
// An attempt asks the breaker first, so that nobody queues for a dependency that is
// open. Where no place is free, the ticket is given back for as long as the call
// waits, and the breaker is asked again afterwards: no probe's lease runs out in a
// queue, and no call that waited goes to a dependency that opened meanwhile. The
// bulkhead of the method comes before that of the dependency, and the latter's
// places are what weights count. In the worst case a call waits max_wait for each. One
// whose own deadline by the policy ends the wait is refused as DEADLINE_TOO_NEAR; one
// that its caller gives up, or whose caller's deadline ends it, gets the context's error.
//
// A retry is an attempt like the first. It is made only where the call may be
// repeated (by its proto, the policy or its caller) or a classifier says so; for a
// code that the policy lists, or an attempt that ran into per_attempt while the call
// has time left; after the policy's pause or the server's; if the call's deadline
// leaves enough after that; and within the budget, for which only calls count that
// the breaker let pass. What breaker or bulkhead refuse is never repeated: then the
// outcome is that of the last attempt that was made. A call without a deadline does
// not wait longer for a server than max_delay.
//
// A server that answers a call keeps it in a Hop. Where a call made meanwhile used up
// its attempts or its budget, or was told never to come back, that Hop is spent, and
// the server is to tell its own caller not to repeat the call: otherwise three
// attempts at each of three hops would be 27 at the last.
//
// A hedge runs beside the first attempt of a call without side effects. It neither
// waits for a place nor for a lease; the answer that comes first ends the others,
// which then say nothing about the dependency. Call returns when all are back.
//
// # What results say
//
// In this order: an attempt that came back well is a success (or slow), whatever
// else happened; a Rejection from further in and what the caller cancelled say
// nothing; then the classifier decides; then the code, by the policy's failure
// codes. A timeout is a failure only if the attempt had a fair chance: slow_after,
// or else 100 ms, but no more than half of what the policy gives an attempt. Under a
// shorter deadline of the caller it says nothing, or a caller in a hurry would keep
// a breaker open for ever. A server that wants to be left alone for at least as long
// as the breaker would be open, and fails, is left alone for as long as it says.
//
// A panic and runtime.Goexit of an attempt are failures, its places are given back,
// and the panic goes on. An attempt that hangs keeps its place, but as a probe it
// lapses.
//
// # Observe
//
// With enforcement "observe" the same machinery decides the same way, and calls
// pass nevertheless: nothing is refused, delayed, bounded in time, repeated or
// hedged. Statistics count as Observed what would have kept a call from being made.
//
//   - deadline: none is added; a call with less than the minimum left is counted.
//   - breaker: it opens, probes and recovers by the calls that it would have admitted.
//     Those that it would have rejected pass, and their results are not recorded, since
//     they would not exist. One that an operator holds open is obeyed all the same.
//   - bulkhead: a call that finds no place passes without taking one, and is counted
//     as BULKHEAD_FULL. Whether it would have got a place in the queue nobody knows.
//   - retry, hedges: none.
//
// # The fleet
//
// A guard knows nothing of other instances, but lets somebody who does look at what it
// saw (Evidence, OnSuspicion) and act on its breakers from outside: Heed a verdict, Postpone
// probes, Recover. So a call pays nothing for it: whether its breaker is open by hearsay is
// part of the state that it looks at anyway. Only a failure looks at one pointer more.
//
// A verdict is about a dependency, and stands until the next one. Targets heed it that had a
// part in what the dependency is suspected of: one failure of their own, where all of them
// together have as many as the policy's suspicion threshold, or one of them is open.
// Without traffic those without calls heed it. Whoever changes the verdict looks at all
// targets; a target that fails later looks at the verdict, and looks again after it has
// heeded it, since it may be gone by then.
//
// # Time
//
// An attempt reads the clock twice. With a coarse clock it reads memory instead; all
// that is no plain success, and every 64th success of a stripe of the counters,
// reads the clock and renews the note, so that a process too busy to tick believes
// no note for long.
package guard
