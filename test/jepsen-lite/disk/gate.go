package disk

import (
	"context"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
)

// gate is where every operation passes, and where the fault is.
type gate struct {
	mu     sync.Mutex
	fault  Fault         // guarded by mu; the zero one lets everything pass
	healed chan struct{} // guarded by mu; closed when this fault is no more
	hits   atomic.Int64
}

func (g *gate) set(f Fault) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.healed != nil {
		close(g.healed)
	}
	g.fault, g.healed = f, make(chan struct{})
	if f.Kind != "" {
		g.hits.Store(0)
	}
}

// enter lets an operation pass, late or in vain, and tells the kind of the fault that
// hit it.
func (g *gate) enter(ctx context.Context, op Op) (Kind, syscall.Errno) {
	g.mu.Lock()
	if g.fault.Ops&op == 0 || g.fault.Kind == Full {
		g.mu.Unlock()
		return "", 0
	}
	if g.fault.Over > 0 {
		g.fault.Over--
		g.mu.Unlock()
		return "", 0
	}
	f, healed := g.fault, g.healed
	g.mu.Unlock()
	g.hits.Add(1)
	switch f.Kind {
	case EIO:
		return f.Kind, syscall.EIO
	case Slow:
		return f.Kind, wait(ctx, healed, f.Wait)
	case Hang:
		const forever = 1 << 62
		return f.Kind, wait(ctx, healed, forever)
	case Full, Lie:
	}
	return f.Kind, 0
}

// room takes up to so many bytes of what a full disk has left.
func (g *gate) room(want int64) int64 {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.fault.Kind != Full {
		return want
	}
	fits := min(want, g.fault.Room)
	if fits < want {
		g.hits.Add(1)
	}
	g.fault.Room -= fits
	return fits
}

// wait ends early when the fault does, or when the caller is being killed: the kernel
// keeps a process until its operation is answered.
func wait(ctx context.Context, healed <-chan struct{}, d time.Duration) syscall.Errno {
	end := time.NewTimer(d)
	defer end.Stop()
	look := time.NewTicker(20 * time.Millisecond)
	defer look.Stop()
	for {
		select {
		case <-end.C:
			return 0
		case <-healed:
			return 0
		case <-look.C:
			if caller, ok := fuse.FromContext(ctx); ok && dying(caller.Pid) {
				return syscall.EINTR
			}
		}
	}
}

// dying tells whether a SIGKILL waits for a thread. An interrupted operation is no
// sign of that: Go programs interrupt their own threads all the time.
func dying(thread uint32) bool {
	if thread == 0 {
		return false
	}
	status, err := os.ReadFile("/proc/" + strconv.Itoa(int(thread)) + "/status")
	if err != nil {
		return true
	}
	for line := range strings.Lines(string(status)) {
		name, mask, _ := strings.Cut(line, ":")
		if name != "SigPnd" && name != "ShdPnd" {
			continue
		}
		if pending, err := strconv.ParseUint(strings.TrimSpace(mask), 16, 64); err == nil && pending&(1<<(syscall.SIGKILL-1)) != 0 {
			return true
		}
	}
	return false
}
