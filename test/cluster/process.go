package cluster

import (
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"time"
)

// Process is one run of a server. Its output goes to a log file that outlives
// it; exited is closed when it is gone, and code is set by then.
type Process struct {
	cmd     *exec.Cmd
	exited  chan struct{}
	code    int
	started time.Time
	logFrom int64 // where this run's output begins in the log
}

// StartProcess starts a program whose output is appended to a log file and which
// does not outlive this process (where the kernel can see to that).
func StartProcess(binary string, args, env []string, logPath string) (*Process, error) {
	log, err := os.OpenFile(logPath, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open log: %w", err)
	}
	info, err := log.Stat()
	if err != nil {
		return nil, fmt.Errorf("stat log: %w", err)
	}
	_, _ = fmt.Fprintf(log, "--- %s %s %s\n", time.Now().Format(time.TimeOnly+".000"), binary, strings.Join(args, " "))
	cmd := exec.Command(binary, args...)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.Env = append(Environ(), env...)
	cmd.SysProcAttr = dieWithParent()
	p := &Process{cmd: cmd, exited: make(chan struct{}), started: time.Now(), logFrom: info.Size()}
	if err := cmd.Start(); err != nil {
		_ = log.Close()
		return nil, fmt.Errorf("start server: %w", err)
	}
	go func() {
		defer close(p.exited)
		defer func() { _ = log.Close() }()
		_ = cmd.Wait()
		p.code = cmd.ProcessState.ExitCode() // -1 when a signal ended it
	}()
	return p, nil
}

// Alive tells whether it runs.
func (p *Process) Alive() bool {
	select {
	case <-p.exited:
		return false
	default:
		return true
	}
}

// Signal is an error only when the process is gone already.
func (p *Process) Signal(s syscall.Signal) error {
	if err := p.cmd.Process.Signal(s); err != nil {
		return fmt.Errorf("signal %v: %w", s, err)
	}
	return nil
}

// Kill ends the process and waits until it is gone; a stopped one as well.
func (p *Process) Kill() {
	_ = p.cmd.Process.Kill()
	<-p.exited
}

// PID is its process id.
func (p *Process) PID() int { return p.cmd.Process.Pid }

// Environ is the environment without the settings of Holdfast programs: they are
// to get what the test says, and a server refuses variables it does not know.
func Environ() []string {
	return slices.DeleteFunc(os.Environ(), func(v string) bool { return strings.HasPrefix(v, "HOLDFAST_") })
}
