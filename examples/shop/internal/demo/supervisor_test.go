package demo

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"

	"github.com/holdfast-dev/holdfast/examples/shop/shoppb"
)

// shell returns a process that runs a script for sh.
func shell(t *testing.T, name, kind, script string) Spec {
	t.Helper()
	sh, err := exec.LookPath("sh")
	if err != nil {
		t.Skip("there is no sh")
	}
	return Spec{Name: name, Kind: kind, Program: sh, Args: []string{"-c", script}}
}

// forever says that it is ready, and when it is told to end.
const forever = `trap 'echo ends; exit 0' TERM; echo ready; while :; do sleep 0.05; done`

// supervised starts processes and waits until they are ready.
func supervised(t *testing.T, specs ...Spec) *Supervisor {
	t.Helper()
	s := NewSupervisor(t.TempDir())
	t.Cleanup(func() {
		for _, name := range s.Names() {
			_, _ = s.Kill(name)
		}
	})
	for _, spec := range specs {
		if err := s.Run(spec); err != nil {
			t.Fatal(err)
		}
		waitFor(t, spec.Name+" is ready", func() bool { return strings.Contains(s.Tail(spec.Name), "ready") })
	}
	return s
}

func waitFor(t *testing.T, what string, ok func() bool) {
	t.Helper()
	err := poll(t.Context(), 20*time.Second, func(context.Context) error {
		if !ok() {
			return errors.New("not yet: " + what)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestSupervisorKillsAndStarts(t *testing.T) {
	s := supervised(t, shell(t, "a-1", "a", forever), shell(t, "a-2", "a", forever), shell(t, "b-1", "b", forever))
	for _, step := range []struct {
		do   func(string) ([]string, error)
		name string
		want []string
		a, b int // alive after it
	}{
		{s.Kill, "a", []string{"a-1", "a-2"}, 0, 1},
		{s.Kill, "a", nil, 0, 1},
		{s.Start, "a-2", []string{"a-2"}, 1, 1},
		{s.Start, "a", []string{"a-1"}, 2, 1},
		{s.Kill, "b-1", []string{"b-1"}, 2, 0},
		{s.End, "a-2", []string{"a-2"}, 1, 0},
		{s.End, "a", []string{"a-1"}, 0, 0},
	} {
		names, err := step.do(step.name)
		if err != nil || !slices.Equal(names, step.want) {
			t.Errorf("%s: %v, %v, want %v", step.name, names, err, step.want)
		}
		if a, all := s.Alive("a"); a != step.a || all != 2 {
			t.Errorf("%d of %d of a run, want %d", a, all, step.a)
		}
		if b, _ := s.Alive("b"); b != step.b {
			t.Errorf("%d of b run, want %d", b, step.b)
		}
	}
	if _, err := s.Kill("c"); err == nil || !strings.Contains(err.Error(), "a-1, a-2, b-1") {
		t.Errorf("an unknown name: %v", err)
	}
	if err := s.Run(shell(t, "a-1", "a", forever)); err == nil {
		t.Error("a name was taken twice")
	}
}

// The last kind ends first, and nothing runs or starts after Stop.
func TestSupervisorStopsInOrder(t *testing.T) {
	dir := t.TempDir()
	ends := func(name string) string {
		return fmt.Sprintf(`trap 'echo %s >> %s/order; exit 0' TERM; echo ready; while :; do sleep 0.05; done`, name, dir)
	}
	s := supervised(t, shell(t, "plane-1", "plane", ends("plane")), shell(t, "plane-2", "plane", ends("plane")),
		shell(t, "shop-1", "shop", ends("shop")), shell(t, "bad-1", "bad", `trap 'exit 3' TERM; echo ready; while :; do sleep 0.05; done`))
	if err := s.Stop(); err == nil || err.Error() != "bad-1 ended with code 3" {
		t.Errorf("stop: %v", err)
	}
	out, err := exec.Command("cat", dir+"/order").Output()
	if err != nil || string(out) != "shop\nplane\nplane\n" {
		t.Errorf("ended in the order %q, %v", out, err)
	}
	for _, name := range s.Names() {
		if alive, _ := s.Alive(name); alive != 0 {
			t.Errorf("%s still runs", name)
		}
	}
	if _, err := s.Start("plane"); !errors.Is(err, errStopped) {
		t.Errorf("start after the end: %v", err)
	}
}

func TestSupervisorTellsWhyOneEnded(t *testing.T) {
	s := supervised(t, shell(t, "a-1", "a", `echo ready; echo "no such disk"; exit 1`))
	waitFor(t, "the end", func() bool { return s.Ended("a-1") != nil })
	if err := s.Ended("a-1"); !strings.Contains(err.Error(), "no such disk") {
		t.Errorf("got %v", err)
	}
	if err := s.Run(Spec{Name: "none", Program: "/nonexistent/program"}); err == nil || !strings.Contains(err.Error(), "start none") {
		t.Errorf("a program that is missing: %v", err)
	}
}

// A block of ports belongs to one demo at a time.
func TestPorts(t *testing.T) {
	first, err := takePorts(0)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = first.control.Close() }()
	if _, err := takePorts(first.base); err == nil || !strings.Contains(err.Error(), "--port-base") {
		t.Errorf("the same block twice: %v", err)
	}
	seen := map[int]bool{first.base + controlOffset: true}
	for _, port := range first.all() {
		if seen[port] || port < first.base || port >= first.base+baseStride {
			t.Errorf("port %d is taken twice, or out of the block of %d", port, first.base)
		}
		seen[port] = true
	}
	if len(seen) != servers*portsPerServer+5*perService+1 {
		t.Errorf("%d ports", len(seen))
	}
	_ = first.control.Close()
	busy, err := net.Listen("tcp", address(first.server(1)+2))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = busy.Close() }()
	if _, err := takePorts(first.base); err == nil || !strings.Contains(err.Error(), fmt.Sprint(first.server(1)+2)) {
		t.Errorf("a port in use: %v", err)
	}
}

// What `shop kill` and `shop start` say.
func TestControl(t *testing.T) {
	s := supervised(t, shell(t, "a-1", "a", forever))
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	srv := grpc.NewServer()
	shoppb.RegisterProcessesServer(srv, &control{processes: s})
	go func() { _ = srv.Serve(listener) }()
	defer srv.Stop()
	addr := listener.Addr().String()
	if names, err := Ask(t.Context(), addr, "kill", "a"); err != nil || !slices.Equal(names, []string{"a-1"}) {
		t.Errorf("kill: %v, %v", names, err)
	}
	if alive, _ := s.Alive("a"); alive != 0 {
		t.Error("it still runs")
	}
	if names, err := Ask(t.Context(), addr, "start", "a-1"); err != nil || !slices.Equal(names, []string{"a-1"}) {
		t.Errorf("start: %v, %v", names, err)
	}
	if _, err := Ask(t.Context(), addr, "kill", "z"); err == nil || !strings.HasPrefix(err.Error(), `there is no process "z"`) {
		t.Errorf("unknown: %v", err)
	}
	srv.Stop()
	if _, err := Ask(t.Context(), addr, "kill", "a"); err == nil || !strings.Contains(err.Error(), "no demo listens on "+addr) {
		t.Errorf("without a demo: %v", err)
	}
}
