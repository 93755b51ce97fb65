package nemesis

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/holdfast-dev/holdfast/test/jepsen-lite/disk"
	"github.com/holdfast-dev/holdfast/test/jepsen-lite/process"
)

// biteLimit is how long a broken disk may go untouched by a server that is at work.
const biteLimit = 5 * time.Second

func disked(can func(disk.Caps) bool) func(*Env) error {
	return func(e *Env) error {
		if len(e.Disks) == 0 {
			return errors.New("the disks of this run cannot break")
		}
		for _, d := range e.Disks {
			if caps := d.Caps(); !can(caps) {
				return errors.New(caps.Why)
			}
		}
		return nil
	}
}

// breakDisk breaks the disk of a server. A server that gives up because of it, as it
// should, is started again when the disk is whole.
func breakDisk(name string, hold Span, f disk.Fault, can func(disk.Caps) bool, pick Pick) Fault {
	return Fault{
		Name: "disk-" + name, Hold: hold, Able: disked(can),
		Do: func(ctx context.Context, s *Strike) (func(context.Context) error, error) {
			servers, err := pick(ctx, s)
			if err != nil {
				return nil, err
			}
			server := servers[0]
			d := s.Disks[server.ID]
			s.Aim(server.ID)
			if err := d.Break(f); err != nil {
				return nil, fmt.Errorf("break the disk of %s: %w", server.ID, err)
			}
			end := func(ctx context.Context) error {
				if err := d.Heal(); err != nil {
					return fmt.Errorf("heal the disk of %s: %w", server.ID, err)
				}
				return revive(ctx, server)
			}
			short, cancel := context.WithTimeout(ctx, biteLimit)
			defer cancel()
			if err := process.Poll(short, func() error {
				if d.Bites() == 0 {
					return fmt.Errorf("%w: %s has not touched its disk", errToothless, server.ID)
				}
				return nil
			}); err != nil {
				return end, err
			}
			s.Prove("%d operations of %s were hit", d.Bites(), server.ID)
			return end, nil
		},
	}
}

// revive starts a server that is about to give up, if it does.
func revive(ctx context.Context, server *process.Server) error {
	const givesUp = 2 * time.Second
	select {
	case <-server.Exited():
	case <-time.After(givesUp):
	case <-ctx.Done():
	}
	if server.Alive() {
		return nil
	}
	return server.Start()
}

// powerLoss takes the power from servers in the middle of an fsync of theirs: what no
// fsync has confirmed is gone, and with torn any part of it may be there.
func powerLoss(name string, torn bool, pick Pick) Fault {
	return Fault{
		Name: "power-" + name, Hold: Span{200 * time.Millisecond, 2 * time.Second},
		Able: disked(func(c disk.Caps) bool { return c.PowerLoss }),
		Do: func(ctx context.Context, s *Strike) (func(context.Context) error, error) {
			servers, err := pick(ctx, s)
			if err != nil {
				return nil, err
			}
			s.Aim(ids(servers)...)
			end := func(context.Context) error {
				var errs []error
				for _, server := range servers {
					errs = append(errs, s.Disks[server.ID].Heal())
				}
				return errors.Join(append(errs, startAll(servers))...)
			}
			if err := syncing(ctx, s, servers); err != nil {
				return end, err
			}
			if err := killAll(s, servers, "power-"+name); err != nil {
				return end, err
			}
			lost := 0
			for _, server := range servers {
				loss, err := s.Disks[server.ID].PowerLoss(s.Rand.Uint64(), torn)
				if err != nil {
					return end, fmt.Errorf("take the power from %s: %w", server.ID, err)
				}
				lost += loss.Sectors + loss.Names
				s.Prove("%s lost %d sectors and %d names", server.ID, loss.Sectors, loss.Names)
			}
			if lost == 0 {
				return end, fmt.Errorf("%w: everything had been synced", errToothless)
			}
			return end, nil
		},
	}
}

// syncing returns while one of the servers is in the middle of an fsync, which does not
// end before its disk is healed. The others may be idle.
func syncing(ctx context.Context, s *Strike, servers []*process.Server) error {
	for _, server := range servers {
		if err := s.Disks[server.ID].Break(disk.Fault{Kind: disk.Hang, Ops: disk.Fsync}); err != nil {
			return fmt.Errorf("hold the fsyncs of %s: %w", server.ID, err)
		}
	}
	ctx, cancel := context.WithTimeout(ctx, biteLimit)
	defer cancel()
	return process.Poll(ctx, func() error {
		for _, server := range servers {
			if s.Disks[server.ID].Bites() > 0 {
				return nil
			}
		}
		return fmt.Errorf("%w: nobody syncs", errToothless)
	})
}
