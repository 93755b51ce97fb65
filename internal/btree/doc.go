// Package btree is an ordered map of which every copy is a snapshot, and of which
// two versions can be compared in the time of what changed between them.
package btree
