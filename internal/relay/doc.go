// Package relay carries signed heads, and the documents that they vouch for, from
// instance to instance, for those that can reach no server.
//
// # What travels
//
// Three records travel by gossip, in the channel "heads": the newest head of the
// namespace, the newest timestamp, and the set of those who sign. A head has the
// change that leads to it with it, where that is small, and the name of a member that
// holds the document. Everything else is asked for: see [Relay.Attach].
//
// # What is believed
//
// A head counts if a known signer has signed it, of the own namespace and lineage, and
// if it is newer than the own mark, which outlives the process; a set of signers, if
// one of the signers held has signed it and it is newer; a document, if its root is the
// head's. So a member can withhold or repeat, and forge nothing. The same holds for a
// change that comes with a head: it goes only onto what it was made from, and the root
// after it has to be the head's. What is not believed is not passed on.
//
// A question for a document is signed by who asks, under a certificate that has not
// ended: nobody else gets one, also where the pool is not encrypted.
//
// # When peers are asked
//
// Not while a server is connected, nor in the first 2 to 5 s after one was lost, drawn
// at random. Before a question there is another pause, up to 5 ms for each member and
// at most 2 s. An instance answers two members at a time; it tells others who has got
// the document from it already, so that supply doubles in the time of a transfer. One
// that does not answer, or answers with what does not fit, is left alone for a while.
//
// # How old what is held may be
//
// A timestamp tells that a revision was the newest at a state time. Servers sign one
// only with a quorum. [Status].FreshAt is the last one at which what is held was the
// newest; nothing waits for it.
package relay
