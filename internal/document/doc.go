// Package document holds the content of a namespace as every replica, cache and
// peer must agree on it: resources, their canonical definitions, their hashes
// and the Merkle root over all of them.
//
// Everything here is a value. Nothing reads a clock, starts a goroutine or does
// I/O, and no result depends on the order of a map, so two replicas that hold
// the same resources hold the same root.
package document
