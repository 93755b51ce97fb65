package run

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"github.com/holdfast-dev/holdfast/test/jepsen-lite/fabric"
	"github.com/holdfast-dev/holdfast/test/jepsen-lite/instance"
	"github.com/holdfast-dev/holdfast/test/jepsen-lite/workload"
)

const (
	dependencyNode     = fabric.Node("d1")
	dependencyPort     = 7600
	instanceGossipPort = 7500
	// instanceLimit is how long an instance may take to come as far as the servers, and
	// endLimit how long after that to end.
	instanceLimit = 30 * time.Second
	endLimit      = 10 * time.Second
)

// crew is everybody who uses the cluster.
type crew struct {
	load       *workload.Load
	dependency *dependency
	instances  []*member
}

func clientNodes() []fabric.Node {
	var all []fabric.Node
	for _, n := range workload.Nodes() {
		all = append(all, fabric.Node(n))
	}
	return all
}

func (s *stage) openCrew(ctx context.Context) (_ *crew, err error) {
	config := workload.Config{
		Record: s.recorder.Add, Seed: s.o.Seed, Beats: s.o.Scenario.Measures,
		Dial: func(ctx context.Context, node, addr string) (net.Conn, error) {
			return fabric.Dial(ctx, s.network.IP(fabric.Node(node)), fabric.TCP, addr)
		},
	}
	if s.o.Scenario.Measures {
		config.Rate = measuredRate
	}
	for _, server := range s.cluster.Servers {
		config.Servers = append(config.Servers, workload.Endpoint{ID: server.ID, Addr: server.Addr()})
	}
	c := &crew{}
	if c.dependency, err = openDependency(ctx, s.network.IP(dependencyNode)); err != nil {
		return nil, err
	}
	if c.load, err = workload.Start(ctx, config); err != nil {
		return nil, errors.Join(fmt.Errorf("start the clients: %w", err), c.close())
	}
	for _, n := range s.instanceNodes() {
		m, err := newMember(s, n)
		if err != nil {
			return nil, errors.Join(err, c.close())
		}
		c.instances = append(c.instances, m)
		s.run.Instances = append(s.run.Instances, m.id)
	}
	return c, nil
}

// settle has everybody asked for the last time. Instances end with that.
func (c *crew) settle(ctx context.Context, s *stage) {
	c.load.Stop()
	newest := c.load.Settle(ctx)
	var all sync.WaitGroup
	for _, m := range c.instances {
		all.Go(func() {
			if err := m.end(instance.Settle(newest, instanceLimit)); err != nil {
				s.say("does not settle", "instance", m.id, "why", err)
			}
		})
	}
	all.Wait()
}

// close ends whoever has not ended.
func (c *crew) close() error {
	if c.load != nil {
		c.load.Close()
	}
	var errs []error
	for _, m := range c.instances {
		errs = append(errs, m.close())
	}
	return errors.Join(append(errs, c.dependency.close())...)
}
