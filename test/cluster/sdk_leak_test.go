package cluster_test

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"runtime"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/grpc"

	"github.com/holdfast-dev/holdfast/pkg/client"
	"github.com/holdfast-dev/holdfast/test/cluster"
)

const (
	openCycles = 1000
	// crowd sessions break and come back reconnects times: 1,000 in all, in the time
	// of few, as the pauses grow with each.
	crowd, reconnects = 200, 5
	// memoryNoise is what the memory in use may differ by without a leak.
	memoryNoise = 4 << 20
)

// Instances that are opened and closed, with and without a cache and a server, leave
// no goroutine and no memory behind.
func TestOpenAndCloseLeaveNothing(t *testing.T) {
	c := start(t, cluster.Options{Servers: 1})
	write(t, c, 0, storefront(), cluster.Flag("", "color", "red"))
	leader(t, c)
	dir := t.TempDir()
	cycle := func(i int) {
		var change []func(*client.Config)
		servers := addresses(c)
		switch i % 4 {
		case 1:
			change = append(change, keeping(dir))
		case 2:
			servers, change = []string{nobody}, append(change, atOnce)
		case 3:
			change = append(change, atOnce) // closed while it connects
		}
		use(t, servers, change...)
	}
	for i := range 8 {
		cycle(i)
	}
	known, before := goleak.IgnoreCurrent(), heap()
	for i := range openCycles {
		cycle(i)
	}
	if err := goleak.Find(known); err != nil {
		t.Errorf("after %d cycles: %v", openCycles, err)
	}
	wantMemory(t, before, openCycles)
}

// use opens an instance, uses it and closes it.
func use(t *testing.T, servers []string, change ...func(*client.Config)) {
	t.Helper()
	config := client.Config{Servers: servers, Service: "checkout", Logger: slog.New(slog.DiscardHandler)}
	for _, f := range change {
		f(&config)
	}
	sdk := get[*client.Client](t)(client.Open(t.Context(), config))
	events := sdk.Events(t.Context())
	sdk.String("color", codeValue).Get(client.Targeting("user"))
	_, _ = client.Do(t.Context(), sdk, "search", func(context.Context) (int, error) { return 1, nil })
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	must(t, sdk.Close(ctx))
	for range events {
		continue
	}
}

// Sessions that break and come back leave nothing behind either.
func TestReconnectsLeaveNothing(t *testing.T) {
	c := start(t, cluster.Options{Servers: 1})
	write(t, c, 0, storefront())
	leader(t, c)
	known := goleak.IgnoreCurrent()
	line := &wires{}
	var all []*instance
	for range crowd {
		all = append(all, openInstance(t, addresses(c), func(config *client.Config) {
			config.Logger = slog.New(slog.DiscardHandler)
			config.ServerDialOptions = []grpc.DialOption{grpc.WithContextDialer(line.dial)}
		}))
	}
	var before, goroutines uint64
	for i := range reconnects {
		line.cut()
		for _, in := range all {
			in.wait(t, "connected again", func(s client.Status) bool { return s.Connected && s.Reconnects > uint64(i) })
		}
		if i == 0 {
			before, goroutines = heap(), uint64(runtime.NumGoroutine())
		}
	}
	must(t, cluster.Poll(within(t, 10*time.Second), func() error { // streams end in a while
		if now := uint64(runtime.NumGoroutine()); now > goroutines {
			return fmt.Errorf("%d goroutines after %d reconnects, %d after the first", now, reconnects, goroutines)
		}
		return nil
	}))
	wantMemory(t, before, crowd*(reconnects-1))
	for _, in := range all {
		in.close(t)
	}
	if err := goleak.Find(known); err != nil {
		t.Errorf("after %d instances have been closed: %v", crowd, err)
	}
}

// idleGoroutines is what an instance that nobody asks anything runs: those of the
// SDK (upkeep, session, its stream and what that sends, disk; of fleet health, relayed, the
// member, its peers and the relay of documents) and of one gRPC connection.
const idleGoroutines = 15

// An instance that is connected and idle runs a handful of goroutines, and no more
// after it has been used.
func TestIdleInstancesCostLittle(t *testing.T) {
	c := start(t, cluster.Options{Servers: 1})
	write(t, c, 0, storefront())
	leader(t, c)
	before := runtime.NumGoroutine()
	in := openInstance(t, addresses(c), func(config *client.Config) {
		config.CacheDir, config.CoarseClock = t.TempDir(), true
	})
	in.wait(t, "connected", func(s client.Status) bool { return s.Connected && s.Revision > 0 })
	settled := func() error {
		if n := runtime.NumGoroutine() - before; n > idleGoroutines {
			return fmt.Errorf("an idle instance runs %d goroutines, more than %d", n, idleGoroutines)
		}
		return nil
	}
	must(t, cluster.Poll(within(t, 10*time.Second), settled))
	t.Logf("an idle instance runs %d goroutines", runtime.NumGoroutine()-before)
	for range 1000 {
		_, _ = client.Do(t.Context(), in.Client, "search", func(context.Context) (int, error) { return 1, nil })
	}
	must(t, cluster.Poll(within(t, 10*time.Second), settled))
	in.close(t)
}

// heap returns the bytes in use.
func heap() uint64 {
	runtime.GC()
	runtime.GC() // what the first one only found, such as pools
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// wantMemory requires that no more memory is in use than before some cycles.
func wantMemory(t *testing.T, before uint64, n int) {
	t.Helper()
	after := heap()
	t.Logf("%d cycles: %d KiB in use, %d KiB before", n, after>>10, before>>10)
	if after > before+memoryNoise {
		t.Errorf("%d bytes are in use after %d cycles, %d before", after, n, before)
	}
}

// wires are connections that can be cut together.
type wires struct {
	mu  sync.Mutex // guards all
	all []net.Conn
}

func (w *wires) dial(ctx context.Context, address string) (net.Conn, error) {
	var d net.Dialer
	conn, err := d.DialContext(ctx, "tcp", address)
	if err != nil {
		return nil, err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.all = append(w.all, conn)
	return conn, nil
}

func (w *wires) cut() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, conn := range w.all {
		_ = conn.Close()
	}
	w.all = nil
}
