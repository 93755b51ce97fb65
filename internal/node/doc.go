// Package node composes a server: it reads the configuration, opens what the
// other packages offer, in order, and stops it in the reverse order.
//
// What lives here belongs to no other package because it needs several: the
// leader's duties (time, expiry, epochs, membership), founding a cluster, and
// the comparison of states between servers.
//
// Goroutines: everything that [Node.Start] starts is named on a stack of stops;
// [Node.Stop] runs it from the top and waits for each.
package node
