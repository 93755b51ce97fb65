// Package history is what a run records: one JSON object a line, in files of which
// each process writes its own, so that a run can be judged again without being
// repeated. It knows nothing of the system under test.
//
// All times are nanoseconds of the machine's monotonic clock, which all processes
// share and which jumps of the wall clock do not touch.
package history

// Kind is what a record is about; it stands in the field "kind" of its line.
type Kind string

// The kinds. Each has a type below, and a slice of it in History.
const (
	KindRun      Kind = "run"
	KindOp       Kind = "op"
	KindWatch    Kind = "watch"
	KindDecision Kind = "decision"
	KindUpdate   Kind = "update"
	KindGuard    Kind = "guard"
	KindPeers    Kind = "peers"
	KindCalls    Kind = "calls"
	KindFault    Kind = "fault"
	KindServer   Kind = "server"
	KindApplied  Kind = "applied"
	KindLead     Kind = "lead"
	KindEnd      Kind = "end"
	KindUsage    Kind = "usage"
)

// History is everything that was recorded in a run, each slice in the order of
// time; records of one process at one time keep the order of its file.
type History struct {
	Run       Run
	Ops       []Op
	Watches   []Watch
	Decisions []Decision
	Updates   []Update
	Guards    []Guard
	Peers     []Peers
	Calls     []Calls
	Faults    []Fault
	Servers   []Server
	Applied   []Applied
	Leads     []Lead
	Ends      []End
	Usages    []Usage
	// Torn are the files whose last line was cut off, as a kill leaves them.
	Torn []string
}

// Run says what was run. One a history.
type Run struct {
	Scenario string `json:"scenario,omitempty"`
	Profile  string `json:"profile,omitempty"`
	Seed     uint64 `json:"seed,omitempty"`
	Began    int64  `json:"began,omitempty"`
	Ended    int64  `json:"ended,omitempty"`
	// Phases: load and faults from Began, all healed at Healed, everybody left to itself
	// until Settling, and asked for the last time at Settled (0 if that was never reached).
	Healed    int64             `json:"healed,omitempty"`
	Settling  int64             `json:"settling,omitempty"`
	Settled   int64             `json:"settled,omitempty"`
	Servers   []string          `json:"servers,omitempty"`   // ids s1, s2 …
	Instances []string          `json:"instances,omitempty"` // ids of SDK processes
	Versions  map[string]string `json:"versions,omitempty"`  // program → version and commit
	Settings  map[string]string `json:"settings,omitempty"`  // driver, timings, deadlines, whatever a reader wants to know
	Bug       string            `json:"bug,omitempty"`       // the seeded bug, empty without
}

// Outcome of an operation.
type Outcome string

// Outcomes: it happened; it certainly did not; nobody knows.
const (
	OK      Outcome = "ok"
	Failed  Outcome = "fail"
	Unknown Outcome = "unknown"
)

// What an operation does; its field F.
const (
	Get    = "get"
	Put    = "put"
	CAS    = "cas"
	Delete = "delete"
	Txn    = "txn"
	// Override begins an override: one cell with Key "override/MODE", the override's
	// id as Value. TTL, Level and, if it does not concern everybody, Scope tell what
	// it demands.
	Override = "override"
	// Release ends one before its time: the same cell, Absent.
	Release = "release"
	// Restore puts a backup in the place of the state. Epoch and Revision are those of
	// the state right after it, Backup is where the backup was taken.
	Restore = "restore"
)

// Codes that the rules know: a condition did not hold, or there is no such register.
// Both are certain, and tell something about the state.
const (
	CodeMismatch = "REVISION_MISMATCH"
	CodeNotFound = "NOT_FOUND"
)

// CodeDefault is the default of every string flag that instances decide by.
const CodeDefault = "code-default"

// Op is an operation of a client on registers: resources that hold one value. A
// client has one operation at a time; after an unknown write it goes on under a new
// name.
type Op struct {
	Client string `json:"client"`           // who
	Server string `json:"server,omitempty"` // which server was asked last
	F      string `json:"f"`
	Call   int64  `json:"call"`
	Return int64  `json:"return"` // of the answer, or when it was given up
	// A get that finds nothing is OK with an Absent cell; a delete that finds nothing
	// is Failed with CodeNotFound.
	Outcome Outcome `json:"outcome"`
	Code    string  `json:"code,omitempty"` // of the error: ErrorInfo's reason
	// Request is the id of a write in hex, the same for all its attempts.
	Request  string `json:"request,omitempty"`
	Attempts int    `json:"attempts,omitempty"`
	// Duplicate: the server said that an earlier attempt had been applied.
	Duplicate bool `json:"duplicate,omitempty"`
	// Cells: one for get, put, cas and delete; several for txn, which changes all or none.
	Cells []Cell `json:"cells,omitempty"`
	// Revision is the revision of the commit of a write that succeeded.
	Revision uint64 `json:"revision,omitempty"`
	// Store is the revision of the state that the answer reflects, Epoch the counter of
	// its epoch.
	Store uint64 `json:"store,omitempty"`
	Epoch uint64 `json:"epoch,omitempty"`
	// Local marks a read that need not be linearizable. MinRevision is what it asked for.
	Local       bool   `json:"local,omitempty"`
	MinRevision uint64 `json:"min_revision,omitempty"`
	// Probe marks the reads of the open-loop readers, which overlap: each is a client
	// of its own.
	Probe bool `json:"probe,omitempty"`
	// Of an override: how long it lasts in ns, the level it demands, and whom it concerns
	// ("" for everybody, else an instance).
	TTL   int64  `json:"ttl,omitempty"`
	Level string `json:"level,omitempty"`
	Scope string `json:"scope,omitempty"`
	// Backup is where the backup of a restore was taken.
	Backup *Place `json:"backup,omitempty"`
}

// Place is a point in the history of the state. Epochs are told apart by their
// counters; within one, revisions rise.
type Place struct {
	Epoch    uint64 `json:"epoch,omitempty"`
	Revision uint64 `json:"revision,omitempty"`
}

// Before tells whether p is earlier than q.
func (p Place) Before(q Place) bool {
	if p.Epoch != q.Epoch {
		return p.Epoch < q.Epoch
	}
	return p.Revision < q.Revision
}

// Cell is a register in an operation, a snapshot or a delta. Values are unique in a
// run: nothing writes one twice.
type Cell struct {
	// Key is the name of the register; one outside of the watched namespace begins with
	// that namespace and a colon.
	Key string `json:"key"`
	// Value that was written or read; empty with Absent.
	Value  string `json:"value,omitempty"`
	Absent bool   `json:"absent,omitempty"` // deleted, or read and not there
	// Expect is the mod revision that cas and txn demand, 0 for "must not exist";
	// Expects tells that there is a demand.
	Expect  uint64 `json:"expect,omitempty"`
	Expects bool   `json:"expects,omitempty"`
	// Revision is the mod revision that a read, snapshot or delta told, of a tombstone
	// the revision that removed it. 0 for Absent ones that told none.
	Revision uint64 `json:"revision,omitempty"`
}

// What happens to a watcher; the field Event of Watch.
const (
	WatchOpen     = "open"
	WatchSnapshot = "snapshot"
	WatchDelta    = "delta"
	WatchProgress = "progress"
	WatchError    = "error"
)

// Watch is one message to a watcher, after its chunks have been put together, or one
// thing that happened to it.
type Watch struct {
	Watcher string `json:"watcher"`
	Server  string `json:"server,omitempty"`
	T       int64  `json:"t"`
	// Event: open (Cursor is what it resumes from, 0 for none; Epoch that of the cursor),
	// snapshot, delta, progress, error (Code).
	Event  string `json:"event"`
	Cursor uint64 `json:"cursor,omitempty"`
	From   uint64 `json:"from,omitempty"` // deltas only
	To     uint64 `json:"to,omitempty"`
	Epoch  uint64 `json:"epoch,omitempty"`
	Root   string `json:"root,omitempty"` // hex, as told
	// Cells: those that belong to registers; deltas have Absent ones for tombstones.
	// A cell of another namespace than the one watched is recorded too.
	Cells []Cell `json:"cells,omitempty"`
	Code  string `json:"code,omitempty"`
	// Own is the root that the watcher computed or kept of what it installed, if it can.
	Own string `json:"own,omitempty"`
}

// Decision is a run of like decisions of one instance: N of them from T to Until.
// Whenever any field but the times changes, and at least every second, a new record
// begins.
type Decision struct {
	Instance string `json:"instance"`
	T        int64  `json:"t"`
	Until    int64  `json:"until"`
	N        int    `json:"n"`
	Slowest  int64  `json:"slowest,omitempty"` // ns of the slowest evaluation
	P99      int64  `json:"p99,omitempty"`     // ns
	// Took counts them by the ns that they stayed below: of four steps in each power of two
	// the first that they did not reach.
	Took map[int64]int `json:"took,omitempty"`
	Key  string        `json:"key"`
	// Value is what was decided by; CodeDefault with Absent.
	Value string `json:"value,omitempty"`
	// Absent: the default of the code was returned.
	Absent bool `json:"absent,omitempty"`
	// Revision of the view it was decided from, Source of the view (server, peer, disk,
	// defaults), Age it told in ns at T, Stale as told.
	Revision uint64 `json:"revision,omitempty"`
	Epoch    uint64 `json:"epoch,omitempty"`
	Source   string `json:"source,omitempty"`
	Age      int64  `json:"age,omitempty"`
	// Fresh is how long ago, as told at T, a leader vouched for the view; 0 for unknown.
	Fresh     int64  `json:"fresh,omitempty"`
	Stale     bool   `json:"stale,omitempty"`
	Connected bool   `json:"connected,omitempty"`
	Server    string `json:"server,omitempty"` // of the session
	Err       string `json:"err,omitempty"`    // a decision that was not answered
	// Pair are the values of registers that are always written together, taken from
	// one view.
	Pair []Cell `json:"pair,omitempty"`
}

// SourceDefaults is the source of a view that came from nowhere: only the code
// decides.
const SourceDefaults = "defaults"

// Update is a view that an instance began to obey, or a change of the override in
// force.
type Update struct {
	Instance string `json:"instance"`
	T        int64  `json:"t"`
	Revision uint64 `json:"revision,omitempty"`
	Epoch    uint64 `json:"epoch,omitempty"`
	Source   string `json:"source,omitempty"`
	Root     string `json:"root,omitempty"`
	Level    string `json:"level,omitempty"` // of the mode of the run, "" for none
	// Override is the id of the override in force, "" for none or where it is not known.
	Override string `json:"override,omitempty"`
}

// Guard is a change of a breaker of an instance.
type Guard struct {
	Instance   string `json:"instance"`
	T          int64  `json:"t"`
	Dependency string `json:"dependency"`
	Target     string `json:"target,omitempty"`
	// From and To are states as the SDK names them: closed, open, half-open, recovering …;
	// StateHearsay where only others find the dependency broken.
	From   string `json:"from,omitempty"`
	To     string `json:"to"`
	Reason string `json:"reason,omitempty"`
}

// StateHearsay is the state of a breaker that is open because of others.
const StateHearsay = "hearsay"

// Peers is a change of what an instance, or a server, sees of the pool or of the
// evidence in it. Either may be told alone: what is nil is as it was.
type Peers struct {
	Instance string `json:"instance"`
	T        int64  `json:"t"`
	// Members seen, sorted, itself included.
	Members []string `json:"members,omitempty"`
	// Evidence: who says what, by "ID/dependency"; its own is there too. "ID/" is all that
	// ID says.
	Evidence map[string]Said `json:"evidence"`
}

// Said is what somebody says of a dependency.
type Said struct {
	Incarnation uint64 `json:"incarnation,omitempty"` // of the process that says it
	Sequence    uint64 `json:"sequence,omitempty"`    // of what it says
	Opinion     string `json:"opinion,omitempty"`     // open, closed, ok …
}

// Calls are the guarded calls of an instance in a piece of time.
type Calls struct {
	Instance   string `json:"instance"`
	T          int64  `json:"t"`
	Until      int64  `json:"until"`
	Dependency string `json:"dependency"`
	Sent       int    `json:"sent,omitempty"` // reached the dependency's process
	Good       int    `json:"good,omitempty"`
	Bad        int    `json:"bad,omitempty"`
	Rejected   int    `json:"rejected,omitempty"` // by breakers
	P99        int64  `json:"p99,omitempty"`
}

// What happens to a fault; the field Event of Fault.
const (
	FaultBegin     = "begin"
	FaultBit       = "bit"
	FaultToothless = "toothless"
	FaultEnd       = "end"
	FaultSkipped   = "skipped"
)

// Fault is a step in the life of a fault.
type Fault struct {
	ID   int    `json:"id"`
	Name string `json:"name"`
	// Targets are the ids of all processes that it disturbs: of a cut those of the
	// smaller side.
	Targets []string `json:"targets,omitempty"`
	// Event: begin, bit (Proof says how that was seen), toothless (it could not be shown to
	// have bitten: the run is invalid), end, skipped (Proof says why).
	Event string `json:"event"`
	T     int64  `json:"t"`
	Proof string `json:"proof,omitempty"`
}

// What happens to a process; the field Event of Server.
const (
	ProcessStart  = "start"
	ProcessReady  = "ready"
	ProcessExit   = "exit"
	ProcessKill   = "kill" // the signal is about to be sent, as with stop
	ProcessStop   = "stop"
	ProcessPause  = "pause"
	ProcessResume = "resume"
	ProcessWipe   = "wipe"
)

// Server is a step in the life of a server's or an instance's process: start, ready, exit
// (Code), kill, stop, pause, resume, wipe.
type Server struct {
	ID    string `json:"id"`
	T     int64  `json:"t"`
	Event string `json:"event"`
	Code  int    `json:"code,omitempty"`
	What  string `json:"what,omitempty"` // version at start; reason otherwise
}

// Applied is a command that a server applied, from its trace.
type Applied struct {
	Server      string `json:"server"`
	Incarnation int    `json:"incarnation,omitempty"` // starts of this server's process, from 1
	T           int64  `json:"t"`
	Index       uint64 `json:"index"`
	Term        uint64 `json:"term,omitempty"`
	Command     string `json:"command,omitempty"` // hash
	State       string `json:"state,omitempty"`   // hash of the state after it
	Revision    uint64 `json:"revision,omitempty"`
	Epoch       uint64 `json:"epoch,omitempty"`
	Request     string `json:"request,omitempty"`   // hex, empty if the command is none of a client
	Effective   bool   `json:"effective,omitempty"` // it raised the revision
	Restored    bool   `json:"restored,omitempty"`  // not a command: the state was restored from a snapshot at Index
}

// Lead is a change of leadership as a server saw itself. Term is there with Leads.
type Lead struct {
	Server string `json:"server"`
	T      int64  `json:"t"`
	Term   uint64 `json:"term,omitempty"`
	Leads  bool   `json:"leads,omitempty"`
}

// Who holds what an End tells.
const (
	WhoServer   = "server"
	WhoInstance = "instance"
	WhoWatcher  = "watcher"
)

// End is what a server, instance or watcher holds after everything was healed.
type End struct {
	Who      string `json:"who"` // server, instance, watcher
	ID       string `json:"id"`
	T        int64  `json:"t"`
	Revision uint64 `json:"revision,omitempty"`
	Epoch    uint64 `json:"epoch,omitempty"`
	Index    uint64 `json:"index,omitempty"`
	Root     string `json:"root,omitempty"`
	// Cells are the registers that are there; with Complete, those that are not listed
	// are not there.
	Cells    []Cell `json:"cells,omitempty"`
	Complete bool   `json:"complete,omitempty"`
	Err      string `json:"err,omitempty"` // it could not be asked
}

// When a process's usage was taken; the field When of Usage.
const (
	UsageBase = "base"
	UsageRun  = "run"
	UsageEnd  = "end"
)

// Usage is what a process used: at the start ("base"), at times, and at the end.
type Usage struct {
	ID         string `json:"id"`
	T          int64  `json:"t"`
	When       string `json:"when"` // base, run, end
	Goroutines int    `json:"goroutines,omitempty"`
	FDs        int    `json:"fds,omitempty"`
	RSS        int64  `json:"rss,omitempty"`
	// Packets and Bytes that gossip has sent since the process started, Queue what waits
	// to be sent; 0 where that is not known.
	Packets int64 `json:"packets,omitempty"`
	Bytes   int64 `json:"bytes,omitempty"`
	Queue   int   `json:"queue,omitempty"`
}
