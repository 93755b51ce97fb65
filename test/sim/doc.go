// Package sim runs fleets of instances in virtual time: the real memberlist, gossip
// shell, fleet health and breakers, over a network in memory and against dependencies
// that a scenario kills and revives. A minute of three hundred instances takes some
// seconds.
//
// go test ./test/sim runs a short profile, make sim the long one with 300 and 1,000
// instances; with -v both print what docs/benchmarks.md quotes. Each scenario is run
// against the same fleet with breakers that know only themselves.
//
// Everything is the real code but for the network, the dependencies, and one thing: a
// signature is verified once for all instances of the process. Real members each verify
// what is news to them.
//
// What a seed decides: loads, delays, losses, rates, hosts and jitter of breakers. Not
// decided are the random choices of memberlist and the order of goroutines that wake
// at the same instant: figures vary a little, the bounds that are asserted hold.
package sim
