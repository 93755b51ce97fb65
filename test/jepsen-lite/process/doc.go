// Package process runs the servers and the other programs of a run as real
// processes, each with an address, a data directory and a log of its own, and asks
// them how they are.
package process
