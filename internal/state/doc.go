// Package state is the replicated state of a cluster: the resources of all
// namespaces, the outcomes of recent requests, the audit, and the clock they
// share.
//
// It is a deterministic machine. Equal entries lead to equal states on every
// server, whatever the batches they come in and whether or not a snapshot was
// taken and read in between: nothing here reads a clock, draws a random number,
// or lets the order of a map, a locale or the wording of a message reach what is
// hashed. It knows no definition: specs are bytes that were validated before
// they were proposed.
//
// A View is immutable. Applying a batch builds the next one from persistent
// trees and swaps one pointer, so readers take no lock and see all of a
// transaction or nothing of it.
package state
