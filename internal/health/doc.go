// Package health holds the rules by which instances believe each other about the
// dependencies they call: what one says (Record), how what is said is kept and
// merged (Table), what follows from it (Case.Verdict), whose turn it is to probe
// (Table.Plan), and when an instance had better not trust itself (Doubter).
//
// Everything is a value or a table that its caller guards. There is no clock, no
// goroutine and no I/O: now is an argument, in nanoseconds of any clock that does
// not go back, and what travels has ages instead of times, so that no two clocks
// ever meet.
//
// # Flow
//
//	record → Put ─▶ Table ─▶ Tally (who says what, one vote a host)
//	                  │          └▶ Case.Verdict → hold calls back, or not, and why
//	                  └─▶ Plan → when to probe; whether others' probes suffice
//
// # What is said
//
// An instance says all it has to say in one record, numbered by itself: of each
// dependency that is not plainly well an opinion with its counts, and that a
// dependency is well only while somebody finds it broken. Of two records the one
// with the higher (incarnation, sequence) holds, and of two with the same numbers
// the one with the greater bytes; so what a table holds does not depend on the order
// or the number of times in which it has heard things. There are no tombstones: a
// newer record without a report withdraws it, and a record that nobody renews is
// gone after TTL.
//
// # What follows
//
// Own evidence first, in both directions: who has seen enough failures is open
// whatever others say, and who has successes is not. In between, an instance that
// suspects a dependency itself believes enough distinct hosts in enough zones that
// outweigh those who find it well. Silence is no vote; nor is what somebody has only
// heard, nor the word of one that doubts itself. DESIGN.md beside this file argues why
// that is safe, and what it cannot do.
package health
