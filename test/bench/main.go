// Command bench measures Holdfast: clusters beside a three-member etcd, where
// every server is a process of its own and every write is on three disks before it
// is acknowledged; instances with the SDK that such a cluster tells what to obey;
// and, in this process, decisions and guarded calls beside other libraries.
//
//	go run . write      throughput and latency of writes, beside etcd
//	go run . watch      commit to watch on another server, nudge on and off, beside etcd
//	go run . failover   time without acknowledged writes after kill -9 of the leader, beside etcd
//	go run . flags      100,000 flags: load, memory, restart, latency against 1,000 flags
//	go run . watchers   1,000 watchers on one server, one of which hardly reads
//	go run . obeyed     a changed mode to the moment that 1, 100, 1,000 instances obey, beside etcd's watch
//	go run . herd       1,000 instances, all servers killed and back: who comes when
//	go run . evaluate   decisions of flags, beside flagd core, LaunchDarkly and others
//	go run . change     one changed flag among many, beside flagd core
//	go run . breaker    a breaker around a call, and rejecting it, beside gobreaker and failsafe-go
//	go run . chain      all client interceptors, beside failsafe-go and go-grpc-middleware
//	go run . all        all of them, the last four with short rounds
//
// Figures depend on the machine and on what else it does: the ratio to the
// neighbour of the same run is what to read.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"runtime/pprof"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/holdfast-dev/holdfast/test/cluster"
)

// config is what the command line says.
type config struct {
	round     time.Duration
	benchtime time.Duration
	rounds    int
	kills     int
	writes    int
	flags     int
	watchers  int
	instances string
	widths    string
	systems   string
	dir       string
	profile   string
	server    string
	other     string
}

type benchmark struct {
	name string
	run  func(context.Context, config) error
	// inProcess benchmarks need no server.
	inProcess bool
}

func benchmarks() []benchmark {
	return []benchmark{
		{name: "write", run: runWrite},
		{name: "watch", run: runWatch},
		{name: "failover", run: runFailover},
		{name: "flags", run: runFlags},
		{name: "watchers", run: runWatchers},
		{name: "obeyed", run: runObeyed},
		{name: "herd", run: runHerd},
		{name: "evaluate", run: runEvaluate, inProcess: true},
		{name: "change", run: runChange, inProcess: true},
		{name: "breaker", run: runBreaker, inProcess: true},
		{name: "chain", run: runChain, inProcess: true},
	}
}

func main() {
	if len(os.Args) > 1 && os.Args[1] == etcdMemberCommand {
		runEtcdMember(os.Args[2:])
		return
	}
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run() error {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	var c config
	set := flag.NewFlagSet("bench", flag.ExitOnError)
	set.DurationVar(&c.round, "round", 4*time.Second, "length of one measured round of writes")
	set.DurationVar(&c.benchtime, "benchtime", 0, "length of one measured round of what runs in this process; 0 means 1s, as a part of all 100ms")
	set.IntVar(&c.rounds, "rounds", 3, "interleaved rounds per system and width")
	set.IntVar(&c.kills, "kills", 20, "kills per system of failover")
	set.IntVar(&c.writes, "writes", 400, "writes per row of watch, flags and obeyed")
	set.IntVar(&c.flags, "flags", 100_000, "how many flags to load")
	set.IntVar(&c.watchers, "watchers", 1000, "how many watchers")
	set.StringVar(&c.instances, "instances", "1,100,1000", "how many instances obey; the largest number is that of herd")
	set.StringVar(&c.widths, "widths", "1,16,64,256", "how many concurrent clients write")
	set.StringVar(&c.systems, "systems", "holdfast,etcd", "what to measure where there is a choice")
	set.StringVar(&c.other, "beside", "", "another build of the server, measured beside this one by write")
	set.StringVar(&c.profile, "cpuprofile", "", "where a profile of this process goes, not of the servers; empty means none")
	set.StringVar(&c.dir, "dir", "", "where the data goes; empty means the directory for temporary files")
	if len(os.Args) < 2 {
		return fmt.Errorf("say what to measure: %s", choices())
	}
	if err := set.Parse(os.Args[2:]); err != nil {
		return err
	}
	all := os.Args[1] == "all"
	wanted := slices.DeleteFunc(benchmarks(), func(b benchmark) bool { return !all && b.name != os.Args[1] })
	if len(wanted) == 0 {
		return fmt.Errorf("%q is nothing to measure; say %s", os.Args[1], choices())
	}
	if c.benchtime == 0 && all {
		c.benchtime = shortBenchtime
	}
	dir, err := os.MkdirTemp(c.dir, "holdfast-bench-")
	if err != nil {
		return fmt.Errorf("make directory: %w", err)
	}
	defer func() { _ = os.RemoveAll(dir) }()
	c.dir = dir
	needsServer := slices.ContainsFunc(wanted, func(b benchmark) bool { return !b.inProcess })
	if needsServer && strings.Contains(c.systems, "holdfast") {
		if c.server, err = cluster.BuildServer(ctx, filepath.Join(dir, "bin")); err != nil {
			return err
		}
	}
	stopProfile, err := startProfile(c.profile)
	if err != nil {
		return err
	}
	defer stopProfile()
	fmt.Printf("%s/%s, %d CPUs, load before: %s\n", runtime.GOOS, runtime.GOARCH, runtime.NumCPU(), loadAverage())
	for _, b := range wanted {
		fmt.Printf("\n== %s\n", b.name)
		if err := b.run(ctx, c); err != nil {
			return fmt.Errorf("%s: %w", b.name, err)
		}
	}
	return nil
}

// startProfile writes a profile until it is stopped.
func startProfile(path string) (stop func(), err error) {
	if path == "" {
		return func() {}, nil
	}
	file, err := os.Create(path)
	if err != nil {
		return nil, fmt.Errorf("make profile: %w", err)
	}
	if err := pprof.StartCPUProfile(file); err != nil {
		return nil, errors.Join(fmt.Errorf("profile: %w", err), file.Close())
	}
	return func() {
		pprof.StopCPUProfile()
		_ = file.Close()
	}, nil
}

// choices lists what can be measured.
func choices() string {
	var names strings.Builder
	for _, b := range benchmarks() {
		names.WriteString(b.name + ", ")
	}
	return names.String() + "or all"
}

// loadAverage tells how quiet the machine is; unknown where there is no /proc.
func loadAverage() string {
	data, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return "unknown"
	}
	return string(data[:min(14, len(data))])
}
