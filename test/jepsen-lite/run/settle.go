package run

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/holdfast-dev/holdfast/test/jepsen-lite/history"
	"github.com/holdfast-dev/holdfast/test/jepsen-lite/process"
)

// heal ends whatever a fault may have left.
func (s *stage) heal() error {
	errs := []error{s.network.Heal()}
	for _, d := range s.disks {
		errs = append(errs, d.Heal())
	}
	for _, c := range s.clocks {
		c.Set(0)
	}
	for _, server := range s.cluster.Servers {
		errs = append(errs, server.Fail())
	}
	s.crew.dependency.Cure()
	for _, m := range s.crew.instances {
		errs = append(errs, m.Start())
	}
	return errors.Join(append(errs, s.cluster.Revive())...)
}

// settle waits until every server serves as one of all the voters, and has everybody
// asked for the last time. Who does not settle leaves no last word, or one with an
// error, and the rules judge that.
func (s *stage) settle(ctx context.Context) {
	var all sync.WaitGroup
	for _, server := range s.cluster.Servers {
		all.Go(func() {
			if err := server.WaitVoters(ctx, servers); err != nil {
				s.say("does not settle", "server", server.ID, "why", err)
			}
		})
	}
	all.Wait()
	s.crew.settle(ctx, s)
	s.say("settled")
}

// baseline records what every server uses before anything is broken; instances tell
// for themselves.
func (s *stage) baseline(ctx context.Context) map[string]process.Usage {
	base, err := s.used(ctx)
	if err != nil {
		s.say("usage unknown", "why", err)
	}
	for id, u := range base {
		s.recorder.Add(usage(id, history.UsageBase, u))
	}
	return base
}

// remains records what every server uses at the end, once all together are back to what
// they used at first or have had their time: the kernel keeps connections to where
// nothing arrived for about as long again as the network was cut.
func (s *stage) remains(ctx context.Context, base map[string]process.Usage) {
	ctx, cancel := context.WithTimeout(ctx, shrinkLimit)
	defer cancel()
	allowed, first := limits(s.o.Scenario), total(base)
	var last map[string]process.Usage
	err := process.Poll(ctx, func() error {
		now, err := s.used(ctx)
		if err != nil {
			return err
		}
		last = now
		if t := total(now); t.FDs > first.FDs+len(now)*allowed.FDs || t.Goroutines > first.Goroutines+len(now)*allowed.Goroutines {
			return fmt.Errorf("the servers use %+v, and used %+v", t, first)
		}
		return nil
	})
	for id, u := range last {
		s.recorder.Add(usage(id, history.UsageEnd, u))
	}
	if err != nil {
		s.say("does not shrink", "why", err)
		for _, server := range s.cluster.Servers {
			s.keepHoldings(server)
		}
	}
}

// used is what all servers use; an error if one does not tell.
func (s *stage) used(ctx context.Context) (map[string]process.Usage, error) {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	all := make(map[string]process.Usage, servers)
	for _, server := range s.cluster.Servers {
		u, err := server.Usage(ctx)
		if err != nil {
			return nil, fmt.Errorf("usage of %s: %w", server.ID, err)
		}
		all[server.ID] = u
	}
	return all, nil
}

func total(all map[string]process.Usage) process.Usage {
	var t process.Usage
	for _, u := range all {
		t.Goroutines, t.FDs, t.RSS = t.Goroutines+u.Goroutines, t.FDs+u.FDs, t.RSS+u.RSS
	}
	return t
}

// keepHoldings writes down what a server holds that holds too much.
func (s *stage) keepHoldings(server *process.Server) {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	holdings, err := server.Holdings(ctx)
	if err != nil {
		holdings = []byte(err.Error())
	}
	path := filepath.Join(s.o.Dir, "logs", server.ID+".holdings")
	if err := os.WriteFile(path, holdings, 0o644); err != nil {
		s.say("holdings not kept", "server", server.ID, "why", err)
	}
}

func usage(id, when string, u process.Usage) history.Usage {
	return history.Usage{ID: id, T: history.Now(), When: when, Goroutines: u.Goroutines, FDs: u.FDs, RSS: u.RSS}
}
