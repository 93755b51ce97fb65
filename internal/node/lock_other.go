//go:build !unix

package node

import "os"

// locksWork tells whether lockFile keeps others out.
const locksWork = false

// lockFile takes no lock here: the Raft log's own lock keeps a second process
// out.
func lockFile(*os.File) error { return nil }
