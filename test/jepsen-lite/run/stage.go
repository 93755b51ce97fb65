package run

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"time"

	"github.com/holdfast-dev/holdfast/test/jepsen-lite/clock"
	"github.com/holdfast-dev/holdfast/test/jepsen-lite/disk"
	"github.com/holdfast-dev/holdfast/test/jepsen-lite/fabric"
	"github.com/holdfast-dev/holdfast/test/jepsen-lite/history"
	"github.com/holdfast-dev/holdfast/test/jepsen-lite/nemesis"
	"github.com/holdfast-dev/holdfast/test/jepsen-lite/process"
)

// stage is everything that takes part in a run.
type stage struct {
	o        Options
	run      *history.Run
	out      io.Writer
	began    time.Time
	recorder *history.Recorder
	network  fabric.Fabric         // nil without one
	disks    map[string]*disk.Disk // by server, where the run breaks them
	clocks   map[string]*clock.Clock
	cluster  *process.Cluster
	env      *nemesis.Env
	crew     *crew
}

// open starts everybody. What it has opened when it fails, it closes.
func open(ctx context.Context, o Options, run *history.Run) (_ *stage, err error) {
	if err := emptyDir(o.Dir); err != nil {
		return nil, err
	}
	s := &stage{o: o, run: run, out: os.Stderr, began: time.Now()}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.close())
		}
	}()
	if err := os.Mkdir(filepath.Join(o.Dir, "history"), 0o755); err != nil {
		return nil, fmt.Errorf("make the run's directory: %w", err)
	}
	if s.recorder, err = history.NewRecorder(filepath.Join(o.Dir, "history", "run.jsonl")); err != nil {
		return nil, err
	}
	*run = history.Run{
		Scenario: o.Scenario.Name, Profile: o.Profile.Name, Seed: o.Seed, Began: history.Now(),
		Versions: map[string]string{"go": runtime.Version()}, Settings: map[string]string{},
	}
	starting, cancel := context.WithTimeout(ctx, startLimit)
	defer cancel()
	if err := s.openNetwork(starting); err != nil {
		return nil, err
	}
	if err := s.openDisks(); err != nil {
		return nil, err
	}
	if err := s.openClocks(); err != nil {
		return nil, err
	}
	if err := s.openServers(starting); err != nil {
		return nil, err
	}
	if s.crew, err = s.openCrew(starting); err != nil {
		return nil, err
	}
	s.env = &nemesis.Env{
		Cluster: s.cluster, Network: s.network, Cuts: &nemesis.Cuts{Network: s.network}, Disks: s.disks, Clocks: s.clocks,
		Instances: s.instanceNodes(), Clients: clientNodes(),
		LowSnapshots: o.Scenario.LowSnapshots, Restores: o.Scenario.Restores, Record: s.recorder.Add,
	}
	s.env.Agreed = s.crew.agreed
	s.env.Dependency, s.env.DependencyNode = s.crew.dependency, dependencyNode
	for _, m := range s.crew.instances {
		s.env.Members = append(s.env.Members, m)
	}
	if o.Scenario.Previous && o.Programs.Previous != "" {
		s.env.Upgrade = o.Programs.Server
	}
	s.say("everybody has started")
	return s, nil
}

func serverNodes() []fabric.Node {
	all := make([]fabric.Node, servers)
	for i := range all {
		all[i] = fabric.Node(fmt.Sprintf("s%d", i+1))
	}
	return all
}

func (s *stage) instanceNodes() []fabric.Node {
	all := make([]fabric.Node, s.o.Profile.Instances)
	for i := range all {
		all[i] = fabric.Node(fmt.Sprintf("i%d", i+1))
	}
	return all
}

func (s *stage) openNetwork(ctx context.Context) (err error) {
	all := append(append(serverNodes(), s.instanceNodes()...), clientNodes()...)
	all = append(all, dependencyNode)
	ports := fabric.Ports{process.PortAPI, process.PortHTTP, process.PortRaft, process.PortGossip, instanceGossipPort, dependencyPort}
	if s.network, err = fabric.Open(ctx, s.o.Driver, all, ports); err != nil {
		return fmt.Errorf("open the network: %w", err)
	}
	caps := s.network.Caps()
	s.run.Settings["network"] = caps.Driver
	if caps.Why != "" {
		s.run.Settings["network lacks"] = caps.Why
	}
	return nil
}

func (s *stage) openDisks() error {
	if !s.o.Scenario.Disks {
		return nil
	}
	s.disks = make(map[string]*disk.Disk, servers)
	for _, n := range serverNodes() {
		d, err := disk.Open(filepath.Join(s.o.Dir, "data", string(n)))
		if err != nil {
			return fmt.Errorf("open the disk of %s: %w", n, err)
		}
		s.disks[string(n)] = d
		if why := d.Caps().Why; why != "" {
			s.run.Settings["disks lack"] = why
		}
	}
	return nil
}

// openClocks gives each server a wall clock of its own, where the program reads one.
func (s *stage) openClocks() error {
	dir := filepath.Join(s.o.Dir, "clock")
	if err := os.Mkdir(dir, 0o755); err != nil {
		return fmt.Errorf("make clocks: %w", err)
	}
	s.clocks = make(map[string]*clock.Clock, servers)
	for _, n := range serverNodes() {
		c, err := clock.New(filepath.Join(dir, string(n)))
		if err != nil {
			return err
		}
		s.clocks[string(n)] = c
	}
	return nil
}

// dataDir is below the directory of a disk, so that it can be lost without the disk.
func (s *stage) dataDir(id string) string {
	if d := s.disks[id]; d != nil {
		return filepath.Join(d.Dir(), "data")
	}
	return filepath.Join(s.o.Dir, "data", id, "data")
}

func (s *stage) openServers(ctx context.Context) (err error) {
	program := s.o.Programs.Server
	if s.o.Scenario.Previous && s.o.Programs.Previous != "" {
		program = s.o.Programs.Previous
		s.run.Versions["previous server"] = s.o.Programs.PreviousVersion
	}
	var ips, advertised []netip.Addr
	for _, n := range serverNodes() {
		ips, advertised = append(ips, s.network.IP(n)), append(advertised, s.network.Advertised(n))
	}
	s.cluster, err = process.New(process.Config{
		Dir: s.o.Dir, Program: program, IPs: ips, Advertised: advertised, Args: s.o.Scenario.args(),
		DataDir: s.dataDir, ServerEnv: func(id string) []string { return []string{s.clocks[id].Env()} },
		Tell: func(id, event string, code int, what string) {
			s.recorder.Add(history.Server{ID: id, T: history.Now(), Event: event, Code: code, What: what})
		},
	})
	if err != nil {
		return err
	}
	if err := s.cluster.Start(ctx); err != nil {
		return fmt.Errorf("start the servers: %w; see %s", err, filepath.Join(s.o.Dir, "logs"))
	}
	s.run.Servers = s.cluster.IDs()
	if st, err := s.cluster.Servers[0].Status(ctx); err == nil {
		s.run.Versions["server"] = st.GetVersion()
	}
	return nil
}

// close ends everybody, in the order that lets each record its last words.
func (s *stage) close() error {
	var errs []error
	if s.crew != nil {
		errs = append(errs, s.crew.close())
	}
	if s.cluster != nil {
		s.cluster.Close()
	}
	for _, d := range s.disks {
		errs = append(errs, d.Close())
	}
	for _, c := range s.clocks {
		errs = append(errs, c.Close())
	}
	if s.network != nil {
		errs = append(errs, s.network.Close())
	}
	if s.recorder != nil {
		if s.run.Ended > 0 {
			s.recorder.Add(*s.run)
		}
		errs = append(errs, s.recorder.Close())
	}
	return errors.Join(errs...)
}

// say tells on the terminal how far the run is.
func (s *stage) say(what string, args ...any) {
	_, _ = fmt.Fprintf(s.out, "%6.1fs %s", time.Since(s.began).Seconds(), what)
	for i := 0; i+1 < len(args); i += 2 {
		_, _ = fmt.Fprintf(s.out, " %v=%v", args[i], args[i+1])
	}
	_, _ = fmt.Fprintln(s.out)
}

func save(path string, what any) error {
	data, err := json.MarshalIndent(what, "", "\t")
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	if err := os.WriteFile(path, append(data, '\n'), 0o644); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return nil
}
