package nemesis

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"github.com/holdfast-dev/holdfast/test/jepsen-lite/process"
)

// catchUp is how long a server may take to serve again after a start, within a fault;
// how long the product promises is judged after the faults.
const catchUp = 40 * time.Second

func kill(name string, pick Pick) Fault {
	return Fault{
		Name: "kill-" + name, Hold: Span{300 * time.Millisecond, 3 * time.Second},
		Do: func(ctx context.Context, s *Strike) (func(context.Context) error, error) {
			servers, err := pick(ctx, s)
			if err != nil {
				return nil, err
			}
			s.Aim(ids(servers)...)
			if err := killAll(s, servers, "kill-"+name); err != nil {
				return nil, err
			}
			return func(context.Context) error { return startAll(servers) }, nil
		},
	}
}

// killAll kills servers at once, as nearly as one process can, and proves it.
func killAll(s *Strike, servers []*process.Server, why string) error {
	var all sync.WaitGroup
	for _, server := range servers {
		all.Go(func() { server.Kill(why) })
	}
	all.Wait()
	for _, server := range servers {
		if _, err := os.Stat(fmt.Sprintf("/proc/%d", server.PID())); !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("%w: process %d of %s is still there", errToothless, server.PID(), server.ID)
		}
		s.Prove("process %d of %s is gone", server.PID(), server.ID)
	}
	return nil
}

func startAll(servers []*process.Server) error {
	var errs []error
	for _, server := range servers {
		if !server.Alive() {
			errs = append(errs, server.Start())
		}
	}
	return errors.Join(errs...)
}

func stopLeader() Fault {
	return Fault{
		Name: "stop-leader", Hold: Span{300 * time.Millisecond, 2 * time.Second},
		Do: func(ctx context.Context, s *Strike) (func(context.Context) error, error) {
			servers, err := Leader(ctx, s)
			if err != nil {
				return nil, err
			}
			s.Aim(ids(servers)...)
			if err := servers[0].Stop("stop-leader"); err != nil {
				return nil, err
			}
			s.Prove("process %d of %s has ended", servers[0].PID(), servers[0].ID)
			return func(context.Context) error { return startAll(servers) }, nil
		},
	}
}

func pause(name string, hold Span, pick Pick) Fault {
	return Fault{
		Name: "pause-" + name, Hold: hold,
		Do: func(ctx context.Context, s *Strike) (func(context.Context) error, error) {
			servers, err := pick(ctx, s)
			if err != nil {
				return nil, err
			}
			s.Aim(ids(servers)...)
			resume := func(context.Context) error {
				var errs []error
				for _, server := range servers {
					errs = append(errs, server.Resume())
				}
				return errors.Join(errs...)
			}
			for _, server := range servers {
				proof, err := server.Pause("pause-" + name)
				if err != nil {
					return resume, err
				}
				s.Prove("%s: %s", server.ID, proof)
			}
			return resume, nil
		},
	}
}

// rolling restarts all servers one after the other; upgrade has each run the present
// version from then on.
func rolling(name string, upgrade bool) Fault {
	f := Fault{Name: "rolling-" + name}
	if upgrade {
		f.Able = func(e *Env) error {
			if e.Upgrade == "" {
				return errors.New("the run did not begin with the previous version")
			}
			return nil
		}
	}
	f.Do = func(ctx context.Context, s *Strike) (func(context.Context) error, error) {
		s.Aim(s.Cluster.IDs()...)
		for _, server := range s.Cluster.Servers {
			before := server.PID()
			if err := server.Stop("rolling-" + name); err != nil {
				return nil, err
			}
			if upgrade {
				server.Upgrade(s.Upgrade)
			}
			if err := server.Start(); err != nil {
				return nil, err
			}
			short, cancel := context.WithTimeout(ctx, catchUp)
			err := server.WaitCaughtUp(short)
			cancel()
			if err != nil {
				return nil, fmt.Errorf("after the restart of %s: %w", server.ID, err)
			}
			st, err := server.Status(ctx)
			if err != nil {
				return nil, err
			}
			s.Prove("%s: process %d is %d now, version %s", server.ID, before, server.PID(), st.GetVersion())
		}
		return nil, nil
	}
	return f
}

// replace loses the disk of a server, which comes back empty and joins anew.
func replace(name string, pick Pick) Fault {
	return Fault{
		Name: "replace-" + name, Hold: Span{500 * time.Millisecond, 2 * time.Second},
		Do: func(ctx context.Context, s *Strike) (func(context.Context) error, error) {
			servers, err := pick(ctx, s)
			if err != nil {
				return nil, err
			}
			server := servers[0]
			s.Aim(server.ID)
			old, err := server.NodeID(ctx)
			if err != nil {
				return nil, err
			}
			server.Kill("replace-" + name)
			end := func(ctx context.Context) error {
				if err := startAll(servers); err != nil {
					return err
				}
				short, cancel := context.WithTimeout(ctx, endLimit)
				defer cancel()
				return server.WaitVoters(short, len(s.Cluster.Servers))
			}
			if err := server.Wipe("replace-" + name); err != nil {
				return end, err
			}
			if _, err := os.Stat(server.DataDir()); !errors.Is(err, os.ErrNotExist) {
				return end, fmt.Errorf("%w: %s still has %s", errToothless, server.ID, server.DataDir())
			}
			s.Prove("%s was member %s and its data is gone", server.ID, old)
			return end, nil
		},
	}
}

// transfer hands the leadership on every 300 ms.
func transfer() Fault {
	const every = 300 * time.Millisecond
	return Fault{
		Name: "transfer-storm", Hold: Span{2 * time.Second, 4 * time.Second},
		Do: func(ctx context.Context, s *Strike) (func(context.Context) error, error) {
			servers, err := Leader(ctx, s)
			if err != nil {
				return nil, err
			}
			s.Aim(s.Cluster.IDs()...)
			if err := servers[0].TransferTo(ctx, ""); err != nil {
				return nil, fmt.Errorf("%w: %w", errToothless, err)
			}
			short, cancel := context.WithTimeout(ctx, leaderLimit)
			defer cancel()
			next, err := s.Cluster.WaitLeader(short, servers...)
			if err != nil {
				return nil, fmt.Errorf("%w: %w", errToothless, err)
			}
			s.Prove("%s handed over to %s", servers[0].ID, next.ID)
			storming, stop := context.WithCancel(context.WithoutCancel(ctx))
			var storm sync.WaitGroup
			storm.Go(func() {
				for storming.Err() == nil {
					// Refusals are part of it: the leader may be on its way.
					ask, cancel := context.WithTimeout(storming, every)
					_ = s.Cluster.Servers[0].TransferTo(ask, "")
					<-ask.Done()
					cancel()
				}
			})
			return func(context.Context) error { stop(); storm.Wait(); return nil }, nil
		},
	}
}

// install keeps a server away until the others have cut off the log that it needs,
// so that it has to be sent a snapshot.
func install() Fault {
	const installed, taken = "holdfast_raft_snapshots_installed_total", "holdfast_raft_snapshots_total"
	return Fault{
		Name: "snapshot-install",
		Able: func(e *Env) error {
			if !e.LowSnapshots {
				return errors.New("the servers of this run do not make snapshots often enough")
			}
			return nil
		},
		Do: func(ctx context.Context, s *Strike) (func(context.Context) error, error) {
			servers, err := Follower(ctx, s)
			if err != nil {
				return nil, err
			}
			victim := servers[0]
			s.Aim(victim.ID)
			victim.Kill("snapshot-install")
			end := func(context.Context) error { return startAll(servers) }
			short, cancel := context.WithTimeout(ctx, catchUp)
			defer cancel()
			leader, err := s.Cluster.WaitLeader(short)
			if err != nil {
				return end, err
			}
			before, err := leader.Metric(short, taken)
			if err != nil {
				return end, err
			}
			if err := process.Poll(short, func() error {
				now, err := leader.Metric(short, taken)
				if err == nil && now < before+2 {
					err = fmt.Errorf("%w: %s took %v snapshots while %s was away", errToothless, leader.ID, now-before, victim.ID)
				}
				return err
			}); err != nil {
				return end, err
			}
			if err := victim.Start(); err != nil {
				return nil, err
			}
			if err := victim.WaitCaughtUp(short); err != nil {
				return nil, err
			}
			n, err := victim.Metric(short, installed)
			if err != nil {
				return nil, err
			}
			if n == 0 {
				return nil, fmt.Errorf("%w: %s caught up without a snapshot", errToothless, victim.ID)
			}
			s.Prove("%s was sent %v snapshots", victim.ID, n)
			return nil, nil
		},
	}
}
