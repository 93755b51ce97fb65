package demo

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"
)

// stopWithin is how long a process may take to end in an orderly way.
const stopWithin = 10 * time.Second

// Spec is a process: what it is called and its command line.
type Spec struct {
	// Name is such as "payments-1", Kind what it is one of, such as "payments".
	Name, Kind string
	Program    string
	Args       []string
}

// Supervisor runs processes. It starts none again by itself: who kills one wants
// to see what happens. Its methods may be called at the same time.
type Supervisor struct {
	logs string // directory

	mu      sync.Mutex // guards the rest
	specs   []Spec
	running map[string]*process
	stopped bool
}

// NewSupervisor returns a supervisor whose processes write NAME.log into a
// directory.
func NewSupervisor(logs string) *Supervisor {
	return &Supervisor{logs: logs, running: map[string]*process{}}
}

var errStopped = errors.New("everything is being stopped")

// Run starts a process that is new.
func (s *Supervisor) Run(spec Spec) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if slices.ContainsFunc(s.specs, func(have Spec) bool { return have.Name == spec.Name }) {
		return fmt.Errorf("there is a process %q already", spec.Name)
	}
	s.specs = append(s.specs, spec)
	return s.start(spec)
}

func (s *Supervisor) start(spec Spec) error {
	if s.stopped {
		return errStopped
	}
	p, err := startProcess(spec, filepath.Join(s.logs, spec.Name+".log"))
	if err != nil {
		return fmt.Errorf("start %s: %w", spec.Name, err)
	}
	s.running[spec.Name] = p
	return nil
}

// Start starts those of a name or kind that do not run, and names them.
func (s *Supervisor) Start(name string) (started []string, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	specs, err := s.find(name)
	if err != nil {
		return nil, err
	}
	for _, spec := range specs {
		if s.running[spec.Name].alive() {
			continue
		}
		if err := s.start(spec); err != nil {
			return started, err
		}
		started = append(started, spec.Name)
	}
	return started, nil
}

// Kill ends those of a name or kind at once, waits until they are gone, and names
// them.
func (s *Supervisor) Kill(name string) (killed []string, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	specs, err := s.find(name)
	if err != nil {
		return nil, err
	}
	var dying []*process
	for _, spec := range specs {
		if p := s.running[spec.Name]; p.alive() {
			_ = p.cmd.Process.Kill() // fails only for one that has just ended
			dying, killed = append(dying, p), append(killed, spec.Name)
		}
	}
	for _, p := range dying {
		<-p.ended
	}
	return killed, nil
}

// End ends those of a name or kind in an orderly way, and names them.
func (s *Supervisor) End(name string) (ended []string, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	specs, err := s.find(name)
	if err != nil {
		return nil, err
	}
	for _, spec := range specs {
		if s.running[spec.Name].alive() {
			ended = append(ended, spec.Name)
		}
	}
	return ended, s.stopAll(specs)
}

// find returns the processes of a name or kind.
func (s *Supervisor) find(name string) ([]Spec, error) {
	var found []Spec
	for _, spec := range s.specs {
		if spec.Name == name || spec.Kind == name {
			found = append(found, spec)
		}
	}
	if len(found) == 0 {
		var names []string
		for _, spec := range s.specs {
			names = append(names, spec.Name)
		}
		return nil, fmt.Errorf("there is no process %q: choose one of %s, or all of a kind", name, strings.Join(names, ", "))
	}
	return found, nil
}

// Alive counts the processes of a name or kind that run, and all that there are.
func (s *Supervisor) Alive(name string) (alive, all int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	specs, _ := s.find(name)
	for _, spec := range specs {
		if s.running[spec.Name].alive() {
			alive++
		}
	}
	return alive, len(specs)
}

// Stop ends all processes in an orderly way, those of the last kind first, and
// kills what takes too long. Nothing starts after it. The error names what did not
// end well.
func (s *Supervisor) Stop() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stopped = true
	var errs []error
	for end := len(s.specs); end > 0; {
		begin := end - 1
		for begin > 0 && s.specs[begin-1].Kind == s.specs[end-1].Kind {
			begin--
		}
		errs = append(errs, s.stopAll(s.specs[begin:end]))
		end = begin
	}
	return errors.Join(errs...)
}

// stopAll ends processes together.
func (s *Supervisor) stopAll(specs []Spec) error {
	asked := map[string]*process{}
	for _, spec := range specs {
		if p := s.running[spec.Name]; p.alive() {
			if p.cmd.Process.Signal(syscall.SIGTERM) != nil {
				_ = p.cmd.Process.Kill() // where there are no signals
			}
			asked[spec.Name] = p
		}
	}
	limit := time.After(stopWithin)
	late := false
	var errs []error
	for name, p := range asked {
		if !late {
			select {
			case <-p.ended:
			case <-limit:
				late = true
			}
		}
		if late && p.alive() {
			_ = p.cmd.Process.Kill()
			<-p.ended
			errs = append(errs, fmt.Errorf("%s did not stop within %v and was killed", name, stopWithin))
		} else if p.code > 0 {
			errs = append(errs, fmt.Errorf("%s ended with code %d", name, p.code))
		}
	}
	return errors.Join(errs...)
}

// Ended returns an error with the end of the log of a process that runs no more.
func (s *Supervisor) Ended(name string) error {
	if alive, _ := s.Alive(name); alive > 0 {
		return nil
	}
	return fmt.Errorf("%s has ended; the end of its log:\n%s", name, s.Tail(name))
}

// Tail returns the end of a process's log.
func (s *Supervisor) Tail(name string) string {
	const keep = 3 << 10
	log, err := os.ReadFile(filepath.Join(s.logs, name+".log"))
	if err != nil {
		return err.Error()
	}
	if len(log) > keep {
		log = log[len(log)-keep:]
		log = log[bytes.IndexByte(log, '\n')+1:]
	}
	return string(log)
}

// Names lists the processes.
func (s *Supervisor) Names() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	names := make([]string, 0, len(s.specs))
	for _, spec := range s.specs {
		names = append(names, spec.Name)
	}
	return names
}

// process is one run. code is set when ended is closed: -1 after a signal.
type process struct {
	cmd   *exec.Cmd
	ended chan struct{}
	code  int
}

func startProcess(spec Spec, logPath string) (*process, error) {
	log, err := os.OpenFile(logPath, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	p := &process{cmd: exec.Command(spec.Program, spec.Args...), ended: make(chan struct{})}
	p.cmd.Stdout, p.cmd.Stderr = log, log
	p.cmd.Env = environ()
	p.cmd.SysProcAttr = apart()
	if err := p.cmd.Start(); err != nil {
		_ = log.Close()
		return nil, err
	}
	go func() {
		defer close(p.ended)
		_ = p.cmd.Wait() // says no more than the code
		_ = log.Close()
		p.code = p.cmd.ProcessState.ExitCode()
	}()
	return p, nil
}

func (p *process) alive() bool {
	if p == nil {
		return false
	}
	select {
	case <-p.ended:
		return false
	default:
		return true
	}
}

// environ is this process's environment without Holdfast's variables, which are
// about other clusters.
func environ() []string {
	return slices.DeleteFunc(os.Environ(), func(v string) bool { return strings.HasPrefix(v, "HOLDFAST_") })
}
