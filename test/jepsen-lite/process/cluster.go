package process

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// Ports of a server, all on its own address.
const (
	PortAPI    = 7400
	PortHTTP   = 7401
	PortRaft   = 7402
	PortGossip = 7403
)

// Config describes a cluster. Dir, Program and IPs are required.
type Config struct {
	// Dir is the directory of the run: data, logs, traces and failpoints lie below it.
	Dir string
	// Program is the server.
	Program string
	// IPs are the addresses of servers s1, s2 …; Advertised, if not nil, are those that
	// others reach them at.
	IPs, Advertised []netip.Addr
	// Args are added to every server's command line, Env to its environment.
	Args, Env []string
	// DataDir is where a server keeps its data; nil means Dir/data/ID.
	DataDir func(id string) string
	// ServerEnv adds what only one server gets, such as the file of its clock.
	ServerEnv func(id string) []string
	// Tell is told of each step in the life of a server: start, exit, kill, pause,
	// resume, wipe.
	Tell func(id, event string, code int, what string)
}

// Cluster is the servers of a run.
type Cluster struct {
	cfg     Config
	Servers []*Server
}

// New prepares servers and starts none.
func New(cfg Config) (*Cluster, error) {
	c := &Cluster{cfg: cfg}
	for _, sub := range []string{"data", "logs", "trace", "faults"} {
		if err := os.MkdirAll(filepath.Join(cfg.Dir, sub), 0o755); err != nil {
			return nil, fmt.Errorf("make a run's directory: %w", err)
		}
	}
	for i, ip := range cfg.IPs {
		s := &Server{ID: fmt.Sprintf("s%d", i+1), IP: ip, Advertised: ip, cluster: c, program: cfg.Program}
		if cfg.Advertised != nil {
			s.Advertised = cfg.Advertised[i]
		}
		var err error
		if s.conn, err = dial(netip.AddrPortFrom(ip, PortAPI).String()); err != nil {
			c.Close()
			return nil, err
		}
		c.Servers = append(c.Servers, s)
	}
	return c, nil
}

// Start starts all servers and waits until all of them vote and serve.
func (c *Cluster) Start(ctx context.Context) error {
	for _, s := range c.Servers {
		if err := s.Start(); err != nil {
			return err
		}
	}
	for _, s := range c.Servers {
		if err := s.WaitVoters(ctx, len(c.Servers)); err != nil {
			return fmt.Errorf("found the cluster: %w", err)
		}
	}
	return nil
}

// Close kills what still runs.
func (c *Cluster) Close() {
	for _, s := range c.Servers {
		s.Kill("the run has ended")
		s.watched.Wait()
		if s.conn != nil {
			_ = s.conn.Close()
		}
	}
}

// Server is the server with an id.
func (c *Cluster) Server(id string) *Server {
	for _, s := range c.Servers {
		if s.ID == id {
			return s
		}
	}
	return nil
}

// IDs are the ids of all servers.
func (c *Cluster) IDs() []string {
	ids := make([]string, len(c.Servers))
	for i, s := range c.Servers {
		ids[i] = s.ID
	}
	return ids
}

// Except are all servers but those given.
func (c *Cluster) Except(not ...*Server) []*Server {
	return slices.DeleteFunc(slices.Clone(c.Servers), func(s *Server) bool { return slices.Contains(not, s) })
}

// Revive resumes and starts whatever is paused or down.
func (c *Cluster) Revive() error {
	var errs []error
	for _, s := range c.Servers {
		if s.Paused() {
			errs = append(errs, s.Resume())
		}
		if !s.Alive() {
			errs = append(errs, s.Start())
		}
	}
	return errors.Join(errs...)
}

func (c *Cluster) seeds() string {
	seeds := make([]string, len(c.Servers))
	for i, s := range c.Servers {
		seeds[i] = netip.AddrPortFrom(s.Advertised, PortGossip).String()
	}
	return strings.Join(seeds, ",")
}

func (c *Cluster) tell(id, event string, code int, what string) {
	if c.cfg.Tell != nil {
		c.cfg.Tell(id, event, code, what)
	}
}
