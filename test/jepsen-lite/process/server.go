package process

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc"
)

// terminateLimit is how long a server may take to stop when it is asked to.
const terminateLimit = 20 * time.Second

// Server is a place where a server runs: an address and a disk. Its methods may be
// called concurrently.
type Server struct {
	ID string
	// IP is what it listens on and dials from, Advertised what others dial.
	IP, Advertised netip.Addr

	cluster *Cluster
	conn    *grpc.ClientConn

	mu          sync.Mutex // guards the fields below
	program     string
	proc        *Proc
	paused      bool
	incarnation int
	watched     sync.WaitGroup
}

// Addr is the address of its API for others.
func (s *Server) Addr() string { return netip.AddrPortFrom(s.Advertised, PortAPI).String() }

// DataDir is where it keeps its data.
func (s *Server) DataDir() string {
	if s.cluster.cfg.DataDir != nil {
		return s.cluster.cfg.DataDir(s.ID)
	}
	return filepath.Join(s.cluster.cfg.Dir, "data", s.ID)
}

// FaultsFile is the file of its failpoints.
func (s *Server) FaultsFile() string { return filepath.Join(s.cluster.cfg.Dir, "faults", s.ID) }

// Start starts it. It does not wait until it serves.
func (s *Server) Start() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.proc != nil && s.proc.Alive() {
		return fmt.Errorf("server %s runs already", s.ID)
	}
	s.incarnation++
	cfg := s.cluster.cfg
	env := append([]string{
		"HOLDFAST_TRACE=" + filepath.Join(cfg.Dir, "trace", fmt.Sprintf("%s.%d.jsonl", s.ID, s.incarnation)),
		"HOLDFAST_FAULTS=" + s.FaultsFile(),
	}, cfg.Env...)
	if cfg.ServerEnv != nil {
		env = append(env, cfg.ServerEnv(s.ID)...)
	}
	proc, err := Start(Command{
		ID: s.ID, Program: s.program, Args: s.args(), Env: env,
		Log: filepath.Join(cfg.Dir, "logs", s.ID+".log"),
	})
	if err != nil {
		return err
	}
	s.proc, s.paused = proc, false
	s.cluster.tell(s.ID, "start", 0, filepath.Base(filepath.Dir(s.program))+"/"+filepath.Base(s.program))
	s.conn.ResetConnectBackoff()
	s.watched.Go(func() { // ends with the process, whoever ends that
		<-proc.Exited()
		s.cluster.tell(s.ID, "exit", proc.Code(), "")
	})
	return nil
}

func (s *Server) args() []string {
	ip := s.IP.String()
	args := []string{
		"--data-dir", s.DataDir(), "--bind", ip, "--source-ip", ip, "--port-base", fmt.Sprint(PortAPI),
		"--drain-jitter", "0s",
	}
	if s.Advertised != s.IP {
		args = append(args, "--advertise", s.Advertised.String())
	}
	if n := len(s.cluster.cfg.IPs); n > 1 {
		args = append(args, "--expect", fmt.Sprint(n), "--join", s.cluster.seeds())
	}
	return append(args, s.cluster.cfg.Args...)
}

// Upgrade has the next start run another program.
func (s *Server) Upgrade(program string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.program = program
}

// Alive tells whether its process is there, paused or not.
func (s *Server) Alive() bool {
	p := s.process()
	return p != nil && p.Alive()
}

// Paused tells whether it was paused and not resumed.
func (s *Server) Paused() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.paused && s.proc.Alive()
}

// PID is the process id of its last run, 0 if there was none.
func (s *Server) PID() int {
	if p := s.process(); p != nil {
		return p.PID()
	}
	return 0
}

// Exited is closed when the present run has ended.
func (s *Server) Exited() <-chan struct{} {
	if p := s.process(); p != nil {
		return p.Exited()
	}
	gone := make(chan struct{})
	close(gone)
	return gone
}

func (s *Server) process() *Proc {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.proc
}

// Kill ends it with SIGKILL.
func (s *Server) Kill(why string) {
	if p := s.process(); p != nil && p.Alive() {
		s.cluster.tell(s.ID, "kill", 0, why)
		p.Kill()
	}
}

// Stop asks it to end and waits.
func (s *Server) Stop(why string) error {
	p := s.process()
	if p == nil || !p.Alive() {
		return nil
	}
	s.cluster.tell(s.ID, "stop", 0, why)
	if err := p.Terminate(terminateLimit); err != nil {
		return fmt.Errorf("stop server %s: %w", s.ID, err)
	}
	if p.Code() != 0 {
		return fmt.Errorf("server %s ended with %d when it was asked to stop; see its log", s.ID, p.Code())
	}
	return nil
}

// Pause stops its process and returns the kernel's word for it.
func (s *Server) Pause(why string) (proof string, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.proc == nil || !s.proc.Alive() {
		return "", fmt.Errorf("pause %s: it does not run", s.ID)
	}
	s.cluster.tell(s.ID, "pause", 0, why)
	s.paused = true
	return s.proc.Pause()
}

// Resume lets it go on.
func (s *Server) Resume() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.paused || !s.proc.Alive() {
		s.paused = false
		return nil
	}
	s.paused = false
	s.cluster.tell(s.ID, "resume", 0, "")
	return s.proc.Resume()
}

// Wipe loses its disk. It must not run.
func (s *Server) Wipe(why string) error {
	if s.Alive() {
		return fmt.Errorf("wipe %s: it runs", s.ID)
	}
	s.cluster.tell(s.ID, "wipe", 0, why)
	if err := os.RemoveAll(s.DataDir()); err != nil {
		return fmt.Errorf("wipe %s: %w", s.ID, err)
	}
	return nil
}

// Fail arms failpoints, one a line as package seam of the product reads them; none
// disarms all.
func (s *Server) Fail(points ...string) error {
	tmp := s.FaultsFile() + ".new"
	if err := os.WriteFile(tmp, []byte(strings.Join(points, "\n")+"\n"), 0o644); err != nil {
		return fmt.Errorf("arm failpoints of %s: %w", s.ID, err)
	}
	if err := os.Rename(tmp, s.FaultsFile()); err != nil {
		return fmt.Errorf("arm failpoints of %s: %w", s.ID, err)
	}
	return nil
}
