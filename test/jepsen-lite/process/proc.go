package process

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"

	"github.com/holdfast-dev/holdfast/test/cluster"
)

// Command describes a process to start.
type Command struct {
	ID      string // for messages
	Program string
	Args    []string
	Env     []string // beside the environment, without any settings of Holdfast in it
	Log     string   // file that its output is appended to
	Input   *os.File // nil for none
}

// Proc is one run of a program. It dies with the process that started it.
type Proc struct {
	cmd    *exec.Cmd
	exited chan struct{}
	code   int
}

// Start starts a command.
func Start(c Command) (*Proc, error) {
	log, err := os.OpenFile(c.Log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, fmt.Errorf("start %s: open its log: %w", c.ID, err)
	}
	defer func() { _ = log.Close() }()
	_, _ = fmt.Fprintf(log, "--- %s %s %s\n", time.Now().Format(time.TimeOnly+".000"), c.Program, strings.Join(c.Args, " "))
	cmd := exec.Command(c.Program, c.Args...)
	cmd.Stdout, cmd.Stderr = log, log
	if c.Input != nil {
		cmd.Stdin = c.Input
	}
	cmd.Env = append(cluster.Environ(), c.Env...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", c.ID, err)
	}
	p := &Proc{cmd: cmd, exited: make(chan struct{})}
	go func() {
		defer close(p.exited)
		_ = cmd.Wait()
		p.code = cmd.ProcessState.ExitCode() // -1 when a signal ended it
	}()
	return p, nil
}

// PID is its process id.
func (p *Proc) PID() int { return p.cmd.Process.Pid }

// Exited is closed when it is gone; Code tells how it ended then.
func (p *Proc) Exited() <-chan struct{} { return p.exited }

// Code is the exit code of a process that has ended, -1 when a signal ended it.
func (p *Proc) Code() int { return p.code }

// Alive tells whether it runs, also when it is paused.
func (p *Proc) Alive() bool {
	select {
	case <-p.exited:
		return false
	default:
		return true
	}
}

// Kill ends it with SIGKILL, also while it is paused, and waits until it is gone.
func (p *Proc) Kill() {
	_ = p.cmd.Process.Kill()
	<-p.exited
}

// Terminate ends it with SIGTERM and waits until it is gone. One that takes longer
// than the limit is killed, which is an error.
func (p *Proc) Terminate(limit time.Duration) error {
	_ = p.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-p.exited:
		return nil
	case <-time.After(limit):
		p.Kill()
		return fmt.Errorf("process %d did not end within %v of SIGTERM", p.PID(), limit)
	}
}

// Pause stops it as a hung machine would, and returns once every thread has
// stopped, with what the kernel says of it.
func (p *Proc) Pause() (proof string, err error) {
	return p.signalUntil(syscall.SIGSTOP, func(state byte) bool { return state == 'T' })
}

// Resume lets a paused process go on.
func (p *Proc) Resume() error {
	_, err := p.signalUntil(syscall.SIGCONT, func(state byte) bool { return state != 'T' })
	return err
}

func (p *Proc) signalUntil(s syscall.Signal, reached func(state byte) bool) (string, error) {
	if err := p.cmd.Process.Signal(s); err != nil {
		return "", fmt.Errorf("send %v to process %d: %w", s, p.PID(), err)
	}
	var last string
	for deadline := time.Now().Add(2 * time.Second); time.Now().Before(deadline); time.Sleep(2 * time.Millisecond) {
		states, err := threadStates(p.PID())
		if err != nil {
			return "", err
		}
		last = states
		all := true
		for i := range len(states) {
			all = all && reached(states[i])
		}
		if all {
			return fmt.Sprintf("/proc/%d/task/*/stat: %s", p.PID(), states), nil
		}
	}
	return "", fmt.Errorf("process %d did not obey %v within 2 s: its threads are %s", p.PID(), s, last)
}

// threadStates is the state of each thread of a process, a letter each.
func threadStates(pid int) (string, error) {
	dir := fmt.Sprintf("/proc/%d/task", pid)
	threads, err := os.ReadDir(dir)
	if err != nil {
		return "", fmt.Errorf("read the state of process %d: %w", pid, err)
	}
	var states strings.Builder
	for _, t := range threads {
		data, err := os.ReadFile(dir + "/" + t.Name() + "/stat")
		if err != nil {
			continue // the thread has ended
		}
		// The name in parentheses may contain anything; the state follows the last one.
		if i := strings.LastIndex(string(data), ") "); i >= 0 && i+2 < len(data) {
			states.WriteByte(data[i+2])
		}
	}
	return states.String(), nil
}
