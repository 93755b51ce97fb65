package nemesis

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/holdfast-dev/holdfast/test/jepsen-lite/disk"
	"github.com/holdfast-dev/holdfast/test/jepsen-lite/history"
	"github.com/holdfast-dev/holdfast/test/jepsen-lite/process"
)

// measured are faults that are struck at a cluster that is whole, so that what follows
// is theirs alone: the leader fails until another leads, or the network is cut for
// anything from seconds to a minute.
func measured(hangs func(disk.Caps) bool) []Fault {
	// On top of the time until another leads, so that it does not come back before.
	after := Span{3 * time.Second, 4 * time.Second}
	cuts := Span{2 * time.Second, 60 * time.Second}
	var all []Fault
	for _, f := range []Fault{
		kill("leader", Leader), pause("leader", Span{}, Leader), cut("isolate-leader", isolate(Leader)),
		breakDisk("hang", Span{}, disk.Fault{Kind: disk.Hang, Ops: disk.All}, hangs, Leader),
	} {
		all = append(all, untilAnotherLeads(f, after))
	}
	for i, name := range []string{"failover-kill", "failover-pause", "failover-isolate", "failover-disk-hang"} {
		all[i].Name = name
	}
	for _, f := range []Fault{
		cut("sdk-all", sdk(All, everyone)), cut("sdk-some", sdk(All, someone)),
		cut("minority", isolate(One)), cut("halves", halves),
	} {
		f.Name, f.Hold, f.EvenHolds = "partition-"+f.Name[len("net-"):], cuts, true
		all = append(all, f)
	}
	for i := range all {
		all[i] = whenWhole(all[i])
	}
	return all
}

// whenWhole waits with a fault until every server and every instance is back from what
// was before.
func whenWhole(f Fault) Fault {
	const steady = time.Second
	do := f.Do
	f.Do = func(ctx context.Context, s *Strike) (func(context.Context) error, error) {
		leader, err := Leader(ctx, s)
		if err != nil {
			return nil, err
		}
		var at history.Place
		for _, server := range append(leader, s.Cluster.Except(leader...)...) {
			if err := server.WaitCaughtUp(ctx); err != nil {
				return nil, fmt.Errorf("%s is not back before %s: %w", server.ID, f.Name, err)
			}
			if st, err := server.Status(ctx); err == nil {
				at = history.Place{Epoch: st.GetHeader().GetEpoch().GetCounter(), Revision: st.GetHeader().GetRevision()}
			}
		}
		if s.Agreed != nil {
			if err := s.Agreed(ctx, at); err != nil {
				return nil, fmt.Errorf("not everybody is back before %s: %w", f.Name, err)
			}
		}
		wait(ctx, steady)
		return do(ctx, s)
	}
	return f
}

// untilAnotherLeads has a fault of the leader last until there is another, and a while
// longer. A cluster that finds none has nothing to show.
func untilAnotherLeads(f Fault, after Span) Fault {
	do := f.Do
	f.Hold = after
	f.Do = func(ctx context.Context, s *Strike) (func(context.Context) error, error) {
		end, err := do(ctx, s)
		if err != nil {
			return end, err
		}
		var old []*process.Server
		for _, server := range s.Cluster.Servers {
			if len(s.targets) == 1 && server.ID == s.targets[0] {
				old = append(old, server)
			}
		}
		if len(old) == 0 {
			return end, errors.New("it is not known who led")
		}
		short, cancel := context.WithTimeout(ctx, leaderLimit)
		defer cancel()
		next, err := s.Cluster.WaitLeader(short, old...)
		if err != nil {
			return end, fmt.Errorf("%w: nobody else leads: %w", errToothless, err)
		}
		s.Prove("%s leads instead of %s", next.ID, old[0].ID)
		return end, nil
	}
	return f
}
