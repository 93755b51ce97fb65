package seam

// Applied is a command that was applied or, where it is Restored, a snapshot that
// has replaced the state.
type Applied struct {
	// Index and Term are those of the command, or of the last one in the snapshot.
	Index, Term uint64
	Command     []byte
	// Request is the id of the client's write; empty for what the cluster does itself.
	Request []byte
	// State is the hash of the state afterwards, Epoch the counter of its epoch and
	// Revision its revision.
	State           [32]byte
	Epoch, Revision uint64
	// Effective tells that the command has raised the revision.
	Effective bool
	Restored  bool
}
