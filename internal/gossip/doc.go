// Package gossip carries opaque named states between processes that know each
// other only by gossip: a shell round hashicorp/memberlist.
//
// It imports no domain package. Whoever uses it brings states that merge; the
// shell brings membership, failure detection, dissemination and anti-entropy.
//
// What the shell adds to the library, because the library does not do it:
//
//   - A received state that changed something is queued again: memberlist never
//     passes user messages on, so that without it a message reaches the first few.
//   - Lost peers and configured seeds are joined again every ten seconds: a
//     partition longer than about a minute never heals by itself otherwise.
//   - Every process has a name of its own: a reused name is refused, or worse,
//     believed dead.
//   - Membership is copied out of the library's callbacks, which run under its
//     lock: calling back into it there deadlocks, and reading its nodes races.
//   - A message that does not fit a packet is refused at the door: it would stay
//     in the queue for ever. Such a state still travels by the periodic exchange.
package gossip
