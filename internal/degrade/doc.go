// Package degrade gives calls their answer in place of a dependency: what levels of
// modes demand before a call is made (shed, cache, fallback, reject), and the
// fallback of the dependency's policy after it failed. It knows calls, not their
// transport: gRPC and functions come as a Question.
//
// A Point stands for one method or operation on one side. What is to be done comes
// with each call, in the guard.Setting that the call began with:
//
//	by, err := point.Before(ctx, s, q)
//	switch {
//	case err != nil:        // refused: shed or rejected by a level
//	case by != "":          // answered: the answer is in q, by is its mark
//	default:                // to be made; then Record, or After where it failed
//	}
//
// Functions of fallbacks belong to the host and are not trusted: each chain runs in
// a goroutine of its own, within the time and the number of chains that the policy
// allows. One that panics counts as failed; one that does not heed the end of its
// context is left behind and keeps its place until it returns.
//
// Replies are recorded only where a level of some mode may ask for them, and only
// those of calls that the dependency itself answered. The key of a reply is the
// whole question: see Question.Key.
package degrade
