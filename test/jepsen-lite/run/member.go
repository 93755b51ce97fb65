package run

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/holdfast-dev/holdfast/test/jepsen-lite/fabric"
	"github.com/holdfast-dev/holdfast/test/jepsen-lite/history"
	"github.com/holdfast-dev/holdfast/test/jepsen-lite/process"
)

// callsRarely is how often the last instance calls the dependency: so rarely that it
// hears of an outage from the others before it has found out for itself.
const callsRarely = 400 * time.Millisecond

// member is an instance: a process with the SDK, its cache and its address. It
// implements nemesis.Instance. A member that is started again has the same cache.
type member struct {
	id    string
	stage *stage
	known string // the servers

	mu    sync.Mutex // guards the fields below
	proc  *process.Proc
	input *os.File // where it is told to come to its end
	lives int
	ended sync.WaitGroup
}

func newMember(s *stage, node fabric.Node) (*member, error) {
	m := &member{id: string(node), stage: s}
	var known []string
	for _, server := range s.cluster.Servers {
		known = append(known, server.ID+"="+server.Addr())
	}
	m.known = strings.Join(known, ",")
	if err := os.MkdirAll(m.cache(), 0o700); err != nil {
		return nil, fmt.Errorf("make the cache of %s: %w", m.id, err)
	}
	return m, m.Start()
}

func (m *member) cache() string { return filepath.Join(m.stage.o.Dir, "data", m.id) }

// ID is its id and node.
func (m *member) ID() string { return m.id }

// Start starts it, unless it runs.
func (m *member) Start() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.proc != nil && m.proc.Alive() {
		return nil
	}
	in, input, err := os.Pipe()
	if err != nil {
		return fmt.Errorf("start %s: %w", m.id, err)
	}
	defer func() { _ = in.Close() }()
	m.lives++
	dir, node, life := m.stage.o.Dir, fabric.Node(m.id), fmt.Sprintf("%s.%d.jsonl", m.id, m.lives)
	args := []string{
		"instance", "-id", m.id, "-ip", m.stage.network.IP(node).String(), "-advertise", m.stage.network.Advertised(node).String(),
		"-servers", m.known, "-cache", m.cache(), "-history", filepath.Join(dir, "history", life),
		"-gossip-port", strconv.Itoa(instanceGossipPort),
		"-dependency", netip.AddrPortFrom(m.stage.network.Advertised(dependencyNode), dependencyPort).String(),
	}
	if all := m.stage.instanceNodes(); node == all[len(all)-1] {
		args = append(args, "-call-every", callsRarely.String())
	}
	proc, err := process.Start(process.Command{
		ID: m.id, Program: m.stage.o.Programs.Instance, Log: filepath.Join(dir, "logs", m.id+".log"), Input: in,
		Env:  []string{"HOLDFAST_TRACE=" + filepath.Join(dir, "trace", life)},
		Args: args,
	})
	if err != nil {
		return errors.Join(err, input.Close())
	}
	if m.input != nil {
		_ = m.input.Close() // its reader is gone
	}
	m.proc, m.input = proc, input
	m.tell(history.ProcessStart, 0, "")
	m.ended.Go(func() { // ends with the process
		<-proc.Exited()
		m.tell(history.ProcessExit, proc.Code(), "")
	})
	return nil
}

func (m *member) tell(event string, code int, what string) {
	m.stage.recorder.Add(history.Server{ID: m.id, T: history.Now(), Event: event, Code: code, What: what})
}

// Kill ends it with SIGKILL.
func (m *member) Kill(why string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.proc.Alive() {
		m.tell(history.ProcessKill, 0, why)
		m.proc.Kill()
	}
}

// PID is the process id of its last run.
func (m *member) PID() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.proc.PID()
}

// Pause stops it and returns the kernel's word for it.
func (m *member) Pause(why string) (proof string, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.tell(history.ProcessPause, 0, why)
	return m.proc.Pause()
}

// Resume lets it go on.
func (m *member) Resume() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.tell(history.ProcessResume, 0, "")
	return m.proc.Resume()
}

// end tells it to come to its end, and waits for that.
func (m *member) end(order string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.tell(history.ProcessStop, 0, "the run is over")
	if _, err := m.input.WriteString(order); err != nil {
		return fmt.Errorf("instance %s does not listen: %w; see its log", m.id, err)
	}
	select {
	case <-m.proc.Exited():
		return nil
	case <-time.After(instanceLimit + endLimit):
		m.proc.Kill()
		return fmt.Errorf("instance %s did not end", m.id)
	}
}

// close ends it if nothing else has.
func (m *member) close() error {
	m.Kill("the run has ended")
	m.ended.Wait()
	if err := m.input.Close(); err != nil {
		return fmt.Errorf("close the input of %s: %w", m.id, err)
	}
	return nil
}
