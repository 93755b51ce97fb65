package nemesis

import (
	"context"
	"time"

	"github.com/holdfast-dev/holdfast/test/jepsen-lite/clock"
	"github.com/holdfast-dev/holdfast/test/jepsen-lite/disk"
	"github.com/holdfast-dev/holdfast/test/jepsen-lite/fabric"
	"github.com/holdfast-dev/holdfast/test/jepsen-lite/history"
	"github.com/holdfast-dev/holdfast/test/jepsen-lite/process"
)

// Instance is a process with the SDK.
type Instance interface {
	ID() string
	PID() int
	// Start starts it with the cache that it had, unless it runs.
	Start() error
	Kill(why string)
	Pause(why string) (proof string, err error)
	Resume() error
}

// Env is what faults disturb. What a run does not have is nil, and the faults of it
// are skipped.
type Env struct {
	Cluster *process.Cluster
	Network fabric.Fabric
	Cuts    *Cuts
	Disks   map[string]*disk.Disk   // by server
	Clocks  map[string]*clock.Clock // by server
	// Instances and Clients are the nodes of SDK processes and of clients.
	Instances, Clients []fabric.Node
	// Members are the processes of Instances.
	Members []Instance
	// Dependency is what they call.
	Dependency     Dependency
	DependencyNode fabric.Node
	// Upgrade is the program that a rolling upgrade ends with; empty where the run began
	// with it.
	Upgrade string
	// LowSnapshots: the servers make snapshots so often that a short absence needs one.
	LowSnapshots bool
	// Restores: the state may go back.
	Restores bool
	// Agreed waits until everybody is connected and has come to a place.
	Agreed func(ctx context.Context, at history.Place) error
	// Record adds to the history.
	Record func(record any)
}

// wait waits, for less if ctx ends.
func wait(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	}
}
