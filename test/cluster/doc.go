// Package cluster runs real server processes on loopback, hurts them, and
// watches what their clients see. Its tests are the evidence that no
// acknowledged write is lost and none is applied twice; the benchmarks use the
// same vocabulary.
//
// Nothing here imports an internal package: what is checked is the contract on
// the wire, with the operator's own commands for everything else.
//
// # Profiles
//
// By default the tests run in a few minutes on two cores. A longer run is
//
//	go test -race ./test/cluster -long -v -timeout 40m
//
// or with HOLDFAST_CLUSTER_LONG=1; -kills 50 says how often exactly.
// HOLDFAST_CLUSTER_RACE=1 builds the servers with the race detector too.
// HOLDFAST_CLUSTER_BIN names a directory with ready programs (controlplane,
// holdfast), which are then not built.
package cluster
