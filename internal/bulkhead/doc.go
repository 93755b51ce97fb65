// Package bulkhead bounds what one dependency can take of an instance: a Bulkhead
// the calls at a time, and a Pool the work that is no call. A Shedder drops a share
// of all calls by how much they matter.
//
// A Bulkhead is one word that holds the places taken and the calls that wait. While
// nobody waits, to take and to give back are one atomic operation each; a call that
// waits is in the word before it looks for a place once more, so a place that
// becomes free either finds it or is found. What waits is in a queue behind a lock.
//
// Goroutines are only those of a Pool, one for each function that runs.
package bulkhead
