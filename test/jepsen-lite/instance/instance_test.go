package instance_test

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/holdfast-dev/holdfast/test/cluster"
	"github.com/holdfast-dev/holdfast/test/jepsen-lite/check"
	"github.com/holdfast-dev/holdfast/test/jepsen-lite/history"
	"github.com/holdfast-dev/holdfast/test/jepsen-lite/instance"
	"github.com/holdfast-dev/holdfast/test/jepsen-lite/process"
	"github.com/holdfast-dev/holdfast/test/jepsen-lite/workload"
)

// roleEnv lets this program be an instance.
const roleEnv = "JEPSEN_TEST_INSTANCE"

func TestMain(m *testing.M) {
	if os.Getenv(roleEnv) == "" {
		os.Exit(m.Run())
	}
	if err := instance.Main(context.Background(), os.Args[1:], os.Stdin); err != nil {
		_, _ = fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// world is three servers, two instances, what they call, and all clients.
type world struct {
	dir        string
	network    [3]byte // of the addresses, one for each test process
	cluster    *process.Cluster
	load       *workload.Load
	recorder   *history.Recorder
	dependency netip.AddrPort
	sick       atomic.Bool
	called     atomic.Int64
	instances  []*process.Proc
	orders     []io.WriteCloser
	run        history.Run
}

func (w *world) ip(last byte) netip.Addr {
	return netip.AddrFrom4([4]byte{w.network[0], w.network[1], w.network[2], last})
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func within(t *testing.T, limit time.Duration) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	t.Cleanup(cancel)
	return ctx
}

func begin(t *testing.T) *world {
	t.Helper()
	pid := os.Getpid()
	w := &world{dir: t.TempDir(), network: [3]byte{127, byte(64 + pid%128), byte(pid >> 7)}}
	must(t, os.Mkdir(filepath.Join(w.dir, "history"), 0o700))
	bin, err := cluster.BuildServer(t.Context(), t.TempDir(), "-tags", "faults")
	must(t, err)
	w.recorder, err = history.NewRecorder(filepath.Join(w.dir, "history", "run.jsonl"))
	must(t, err)
	w.run = history.Run{Scenario: "test", Seed: 1, Began: history.Now(), Servers: []string{"s1", "s2", "s3"}, Instances: []string{"i1", "i2"}}
	w.cluster, err = process.New(process.Config{
		Dir: w.dir, Program: bin, IPs: []netip.Addr{w.ip(1), w.ip(2), w.ip(3)},
		Tell: func(id, event string, code int, what string) {
			w.recorder.Add(history.Server{ID: id, T: history.Now(), Event: event, Code: code, What: what})
		},
	})
	must(t, err)
	t.Cleanup(func() {
		w.cluster.Close()
		if t.Failed() {
			logs, _ := filepath.Glob(filepath.Join(w.dir, "logs", "*"))
			for _, log := range logs {
				data, _ := os.ReadFile(log) //nolint:gosec // a file of the test
				t.Logf("%s:\n%s", log, data[max(0, len(data)-4000):])
			}
		}
	})
	must(t, w.cluster.Start(within(t, 30*time.Second)))
	w.startDependency(t)
	w.startLoad(t)
	for i := range w.run.Instances {
		w.startInstance(t, i)
	}
	return w
}

func (w *world) startDependency(t *testing.T) {
	t.Helper()
	w.dependency = netip.AddrPortFrom(w.ip(20), 7600)
	listener, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", w.dependency.String())
	must(t, err)
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(answer http.ResponseWriter, _ *http.Request) {
		w.called.Add(1)
		if w.sick.Load() {
			answer.WriteHeader(http.StatusServiceUnavailable)
		}
	}))
	must(t, server.Listener.Close())
	server.Listener = listener
	server.Start()
	t.Cleanup(server.Close)
}

func (w *world) startLoad(t *testing.T) {
	t.Helper()
	config := workload.Config{
		Record: w.recorder.Add, Seed: 1,
		Dial: func(ctx context.Context, node, addr string) (net.Conn, error) {
			at := w.ip(byte(40 + slices.Index(workload.Nodes(), node)))
			return (&net.Dialer{LocalAddr: &net.TCPAddr{IP: at.AsSlice()}}).DialContext(ctx, "tcp", addr)
		},
	}
	for _, s := range w.cluster.Servers {
		config.Servers = append(config.Servers, workload.Endpoint{ID: s.ID, Addr: s.Addr()})
	}
	var err error
	w.load, err = workload.Start(within(t, 30*time.Second), config)
	must(t, err)
	t.Cleanup(w.load.Close)
}

func (w *world) startInstance(t *testing.T, i int) {
	t.Helper()
	var servers []string
	for _, s := range w.cluster.Servers {
		servers = append(servers, s.ID+"="+s.Addr())
	}
	in, orders, err := os.Pipe()
	must(t, err)
	defer in.Close() // the process has its own
	id, file := w.run.Instances[i], w.run.Instances[i]+".1.jsonl"
	p, err := process.Start(process.Command{
		ID: id, Program: "/proc/self/exe", Log: filepath.Join(w.dir, "logs", id+".log"), Input: in, Env: []string{roleEnv + "=1"},
		Args: []string{
			"-id", id, "-ip", w.ip(byte(10 + i)).String(), "-advertise", w.ip(byte(10 + i)).String(), "-servers", strings.Join(servers, ","),
			"-cache", filepath.Join(w.dir, "data", id), "-history", filepath.Join(w.dir, "history", file), "-dependency", w.dependency.String(),
		},
	})
	must(t, err)
	t.Cleanup(p.Kill)
	w.recorder.Add(history.Server{ID: id, T: history.Now(), Event: history.ProcessStart})
	w.instances, w.orders = append(w.instances, p), append(w.orders, orders)
}

// settle ends everybody and loads what was recorded.
func (w *world) settle(t *testing.T) *history.History {
	t.Helper()
	w.run.Healed = history.Now()
	time.Sleep(time.Second) // writes after the heal, by way of every server
	w.load.Stop()
	newest := w.load.Settle(within(t, 20*time.Second))
	for i, p := range w.instances {
		_, err := io.WriteString(w.orders[i], instance.Settle(newest, 10*time.Second))
		must(t, err)
		select {
		case <-p.Exited():
			if p.Code() != 0 {
				t.Errorf("%s exited with code %d", w.run.Instances[i], p.Code())
			}
		case <-time.After(20 * time.Second):
			t.Fatalf("%s does not end", w.run.Instances[i])
		}
		_ = w.orders[i].Close()
	}
	w.load.Close()
	w.run.Settled, w.run.Ended = history.Now(), history.Now()
	w.recorder.Add(w.run)
	must(t, w.recorder.Close())
	h, err := history.Load(w.dir)
	must(t, err)
	return h
}

// All clients and instances together, against real servers and without a fault: every
// kind of record is there, and no rule finds anything wrong with them.
func TestEverybodyTogether(t *testing.T) {
	if testing.Short() {
		t.Skip("starts real servers; not with -short")
	}
	w := begin(t)
	time.Sleep(3 * time.Second)
	w.ownAddresses(t)
	w.sick.Store(true)
	time.Sleep(2 * time.Second)
	w.sick.Store(false)
	time.Sleep(3 * time.Second)
	h := w.settle(t)

	count := map[string]int{}
	for i := range h.Ops {
		op := &h.Ops[i]
		count["op "+op.F]++
		if op.Outcome == history.OK && op.Duplicate {
			count["answered duplicate"]++
		}
		if op.Probe {
			count["probe"]++
		}
		if op.Local && op.MinRevision > 0 {
			count["local read of a revision"]++
		}
		if op.Code == history.CodeMismatch {
			count["mismatch"]++
		}
	}
	for i := range h.Watches {
		count["watch "+h.Watches[i].Event]++
	}
	for i := range h.Updates {
		if h.Updates[i].Override != "" {
			count["override obeyed"]++
		}
	}
	for i := range h.Guards {
		count["breaker to "+h.Guards[i].To]++
	}
	decided := 0
	for i := range h.Decisions {
		d := &h.Decisions[i]
		decided += d.N
		for _, n := range d.Took {
			count["times taken"] += n
		}
		count["decided by "+d.Key]++
		if len(d.Pair) != 2 || d.Err != "" {
			t.Errorf("a decision without its pair, or with an error: %+v", d)
		}
	}
	for i := range h.Calls {
		c := &h.Calls[i]
		count["call sent"] += c.Sent
		count["call good"] += c.Good
		count["call bad"] += c.Bad
		count["call rejected"] += c.Rejected
	}
	for i := range h.Ends {
		count["end of "+h.Ends[i].Who]++
	}
	for i := range h.Usages {
		count["usage "+h.Usages[i].When]++
		count["packets sent"] += int(h.Usages[i].Packets)
	}
	want := []string{
		"op get", "op put", "op cas", "op delete", "op txn", "op override", "answered duplicate", "probe", "local read of a revision", "mismatch",
		"watch open", "watch snapshot", "watch delta", "watch progress", "override obeyed", "breaker to open", "breaker to closed",
		"call sent", "call good", "call bad", "call rejected", "end of server", "end of instance", "end of watcher", "usage base", "usage run", "usage end", "packets sent", "times taken",
	}
	for _, key := range workload.DecisionKeys() {
		want = append(want, "decided by "+key)
	}
	for _, what := range want {
		if count[what] == 0 {
			t.Errorf("there is no %q", what)
		}
	}
	t.Logf("%d decisions; %v", decided, count)
	if took := time.Duration(h.Run.Ended - h.Run.Began).Seconds(); float64(decided) < 1000*took {
		t.Errorf("%d decisions in %.0f s by two instances, want thousands a second", decided, took)
	}
	if sent, called := count["call sent"], int(w.called.Load()); called < sent/2 {
		t.Errorf("instances say that they sent %d calls, of which %d arrived", sent, called)
	}
	for _, v := range check.Judge(h, check.Defaults()) {
		if v.Result == check.Fail || v.Result == check.Invalid {
			t.Errorf("%s is %s: %s\n%s", v.Rule, v.Result, v.Why, strings.Join(v.Evidence, "\n"))
		}
	}
}
