// Package api serves Holdfast's gRPC services: the state, the cluster and what
// servers say to each other, beside health and reflection.
//
// It knows nothing of Raft. A [Replica] is the server's copy of the state with a
// way to change it; the services decide who may ask, what is well formed, how
// fresh an answer has to be and which server has to act. Every failure leaves
// through one table, see [Reasons].
//
// Who starts what: a [Server] runs one goroutine that follows the replica's health,
// and one that reads from each session; [Server.Close] ends them, the handlers and
// the connections to peers.
package api
