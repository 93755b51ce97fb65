package cluster

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
)

// Options describe a cluster. Server is required.
type Options struct {
	// Server is the program, of BuildServer.
	Server string
	// Servers is how many; 0 means 3. One server gets no --expect and --join.
	Servers int
	// Dir is where data and logs go; empty means a temporary directory that
	// Close removes.
	Dir string
	// Args are added to every server's command line.
	Args []string
	// Configure adds to the command line and environment of server i.
	Configure func(c *Cluster, i int) (args, env []string)
	// Credentials are used by the clients; nil means plaintext.
	Credentials credentials.TransportCredentials
	// Unready leaves out the wait until every server serves.
	Unready bool
}

// Cluster is a set of server processes that share a cluster. Servers are named
// by their number from 0. Its methods may be called concurrently, except that
// one server must not be started and ended at the same time.
type Cluster struct {
	opts    Options
	dir     string
	ownDir  bool
	servers []*server
}

type server struct {
	lease *PortLease
	dir   string
	log   string
	conn  *grpc.ClientConn

	mu   sync.Mutex // guards proc
	proc *Process
}

// Start starts the servers and waits until all of them vote and serve. On an
// error nothing is left running.
func Start(ctx context.Context, opts Options) (*Cluster, error) {
	if opts.Servers == 0 {
		opts.Servers = 3
	}
	c := &Cluster{opts: opts, dir: opts.Dir}
	if c.dir == "" {
		dir, err := os.MkdirTemp("", "holdfast-cluster-")
		if err != nil {
			return nil, fmt.Errorf("make directory: %w", err)
		}
		c.dir, c.ownDir = dir, true
	}
	if err := c.start(ctx); err != nil {
		var logs strings.Builder
		c.Logs(&logs)
		c.Close()
		return nil, fmt.Errorf("start cluster: %w\n%s", err, logs.String())
	}
	return c, nil
}

func (c *Cluster) start(ctx context.Context) error {
	for i := range c.opts.Servers {
		lease, err := LeasePorts()
		if err != nil {
			return err
		}
		s := &server{
			lease: lease,
			dir:   filepath.Join(c.dir, fmt.Sprintf("data-%d", i)),
			log:   filepath.Join(c.dir, fmt.Sprintf("server-%d.log", i)),
		}
		c.servers = append(c.servers, s)
		if s.conn, err = dial(hostPort(lease.Base), c.opts.Credentials); err != nil {
			return err
		}
	}
	for i := range c.servers {
		if err := c.Restart(i); err != nil {
			return err
		}
	}
	if c.opts.Unready {
		return nil
	}
	return c.WaitVoters(ctx, len(c.servers))
}

// Close kills every server, also stopped ones, and removes the directory if the
// cluster made it.
func (c *Cluster) Close() {
	for i, s := range c.servers {
		_ = c.Kill(i)
		if s.conn != nil {
			_ = s.conn.Close()
		}
		s.lease.Release()
	}
	if c.ownDir {
		_ = os.RemoveAll(c.dir)
	}
}

// Len is the number of servers, running or not.
func (c *Cluster) Len() int { return len(c.servers) }

// Addr is the API address of server i.
func (c *Cluster) Addr(i int) string { return hostPort(c.servers[i].lease.Base) }

// HTTPAddr is the HTTP address of server i.
func (c *Cluster) HTTPAddr(i int) string { return hostPort(c.servers[i].lease.Base + 1) }

// RaftAddr is the Raft address of server i.
func (c *Cluster) RaftAddr(i int) string { return hostPort(c.servers[i].lease.Base + 2) }

// GossipAddr is the address of server i in the server pool.
func (c *Cluster) GossipAddr(i int) string { return hostPort(c.servers[i].lease.Base + 3) }

// DataDir is where server i keeps its data.
func (c *Cluster) DataDir(i int) string { return c.servers[i].dir }

// PID is the process id of the last run of server i.
func (c *Cluster) PID(i int) int { return c.last(i).PID() }

// Args is the command line of server i: the same for every start.
func (c *Cluster) Args(i int) []string {
	args := []string{
		"--data-dir", c.servers[i].dir, "--bind", "127.0.0.1",
		"--port-base", fmt.Sprint(c.servers[i].lease.Base),
	}
	if len(c.servers) > 1 {
		peers := make([]string, 0, len(c.servers))
		for p := range c.servers {
			peers = append(peers, c.GossipAddr(p))
		}
		args = append(args, "--expect", fmt.Sprint(len(c.servers)), "--join", strings.Join(peers, ","))
	}
	return append(args, c.opts.Args...)
}

// Restart starts server i, which must not be running. It does not wait.
func (c *Cluster) Restart(i int) error {
	s := c.servers[i]
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.proc != nil && s.proc.Alive() {
		return fmt.Errorf("server %d is running", i)
	}
	args, env := c.Args(i), []string(nil)
	if c.opts.Configure != nil {
		var more []string
		more, env = c.opts.Configure(c, i)
		args = append(args, more...)
	}
	p, err := StartProcess(c.opts.Server, args, env, s.log)
	if err != nil {
		return err
	}
	s.proc = p
	// Let the client forget the back-off that it gathered while nobody listened.
	s.conn.ResetConnectBackoff()
	return nil
}

// Upgrade has servers that are started from now on run another program. No server
// may be starting.
func (c *Cluster) Upgrade(server string) { c.opts.Server = server }

// Kill ends server i with SIGKILL and waits until the process is gone.
func (c *Cluster) Kill(i int) error {
	p := c.last(i)
	if p == nil || !p.Alive() {
		return nil
	}
	p.Kill()
	return nil
}

// Stop ends server i with SIGTERM and returns its exit code. A server that
// takes longer than 20 s is killed, which is an error.
func (c *Cluster) Stop(i int) (int, error) {
	if err := c.Signal(i, syscall.SIGTERM); err != nil {
		return 0, err
	}
	code, ok := c.WaitExit(i, 20*time.Second)
	if !ok {
		_ = c.Kill(i)
		return 0, fmt.Errorf("server %d did not stop within 20 s of SIGTERM", i)
	}
	return code, nil
}

// Pause stops the process of server i as a hung virtual machine would.
func (c *Cluster) Pause(i int) error { return c.Signal(i, syscall.SIGSTOP) }

// Resume lets a paused server go on.
func (c *Cluster) Resume(i int) error { return c.Signal(i, syscall.SIGCONT) }

// Signal sends a signal to server i.
func (c *Cluster) Signal(i int, s syscall.Signal) error {
	p := c.last(i)
	if p == nil {
		return fmt.Errorf("server %d was never started", i)
	}
	return p.Signal(s)
}

// WaitExit waits until the process of server i has ended and returns its exit
// code, -1 when a signal ended it.
func (c *Cluster) WaitExit(i int, limit time.Duration) (code int, ended bool) {
	p := c.last(i)
	select {
	case <-p.exited:
		return p.code, true
	case <-time.After(limit):
		return 0, false
	}
}

// Alive tells whether the process of server i runs.
func (c *Cluster) Alive(i int) bool {
	p := c.last(i)
	return p != nil && p.Alive()
}

// Wipe removes the data of server i, as the loss of its disk would. It must not
// be running.
func (c *Cluster) Wipe(i int) error {
	if c.Alive(i) {
		return fmt.Errorf("server %d is running", i)
	}
	if err := os.RemoveAll(c.servers[i].dir); err != nil {
		return fmt.Errorf("wipe server %d: %w", i, err)
	}
	return nil
}

// Others are the numbers of all servers but those given.
func (c *Cluster) Others(not ...int) []int {
	var others []int
	for i := range c.servers {
		if !slices.Contains(not, i) {
			others = append(others, i)
		}
	}
	return others
}

// RunLog is what the last run of server i has printed so far.
func (c *Cluster) RunLog(i int) string {
	data, err := os.ReadFile(c.servers[i].log)
	if err != nil {
		return err.Error()
	}
	from := min(c.last(i).logFrom, int64(len(data)))
	return string(data[from:])
}

// FullLog is what all runs of server i have printed so far.
func (c *Cluster) FullLog(i int) string {
	data, err := os.ReadFile(c.servers[i].log)
	if err != nil {
		return err.Error()
	}
	return string(data)
}

// Logs writes the end of every server's log, for a failed test.
func (c *Cluster) Logs(w io.Writer) {
	const keep = 12 << 10
	for i, s := range c.servers {
		data, err := os.ReadFile(s.log)
		if err != nil {
			if !errors.Is(err, os.ErrNotExist) {
				_, _ = fmt.Fprintf(w, "=== server %d: %v\n", i, err)
			}
			continue
		}
		cut := ""
		if len(data) > keep {
			data, cut = data[len(data)-keep:], "(cut) "
		}
		_, _ = fmt.Fprintf(w, "=== server %d %s%s\n%s\n", i, cut, c.Addr(i), data)
	}
}

func (c *Cluster) last(i int) *Process {
	s := c.servers[i]
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.proc
}
