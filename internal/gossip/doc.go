// Package gossip carries opaque records between processes that know each other only
// by gossip: a shell round hashicorp/memberlist.
//
// It imports no domain package. Whoever uses it brings records that merge; the
// shell brings membership, failure detection, dissemination, repair, and messages
// from member to member.
//
// What the shell adds to the library, because the library does not do it:
//
//   - News goes to five members at once, and each that learns of it does the same:
//     nine in ten of a thousand know within a few network hops. Besides it goes
//     round in packets of the pool's own, several records in each: the library
//     sends them only after its own messages, not at all while many come and go.
//   - Acknowledgements of probes carry digests; members that differ exchange what
//     differs. The library's exchange takes minutes in a pool of a thousand.
//   - Lost members and seeds are joined again and again: a partition longer than
//     about a minute never heals by itself otherwise.
//   - Members say farewell: the library does not tell leaving from dying.
//   - Every process has a name of its own: a reused name is refused, or worse,
//     believed dead.
//   - Membership is copied out of the library's callbacks, which run under its
//     lock: calling back into it there deadlocks, and reading its nodes races.
//   - A record that does not fit a packet goes by streams.
//   - Handlers of messages have workers and queues of bounded number: the library
//     would wait for them with everything else.
//   - Keys change while the pool runs, without the library's own way to remove one,
//     which races.
//   - Several pools share a port by their labels, and packets are received without
//     64 KiB of garbage each.
//
// The keys keep strangers out; whoever has them is believed by the shell, and can
// send in anybody's name. What must not be forged is signed by its owner.
package gossip
