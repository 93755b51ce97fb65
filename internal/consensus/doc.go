// Package consensus replicates opaque commands with Raft. A [Node] is one
// member of a cluster: it orders commands, makes them durable on a quorum and
// hands them to a [StateMachine] in the same order on every member.
//
// The library underneath is hashicorp/raft, hardened from outside by wrappers
// round its transport, log store, stable store, snapshot store and state
// machine. DESIGN.md beside this file lists each wrapper and the defect that it
// answers. The rule for disks is fail-stop: what cannot be written or cannot be
// read back as written ends the node through [Config.OnFatal]; it is never
// answered from.
package consensus
