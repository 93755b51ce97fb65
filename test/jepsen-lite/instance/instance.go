// Package instance is a process with the SDK that decides all the time, and records by
// what, from when and how fast.
package instance

import (
	"bufio"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/holdfast-dev/holdfast/pkg/client"
	"github.com/holdfast-dev/holdfast/test/jepsen-lite/history"
	"github.com/holdfast-dev/holdfast/test/jepsen-lite/process"
	"github.com/holdfast-dev/holdfast/test/jepsen-lite/workload"
)

const (
	decideEvery = time.Millisecond
	// perTurn is how often a flag is decided in a turn.
	perTurn    = 4
	closeLimit = 5 * time.Second
	// usedAtFirst is when an instance has connected to everybody it works with, usageEvery
	// how often it tells after that what it uses.
	usedAtFirst = time.Second
	usageEvery  = 2 * time.Second
	// restFor is how long it goes on when all is done, for what it costs to do nothing.
	restFor = 1500 * time.Millisecond
)

// config is what the command line says.
type config struct {
	id, ip, advertise, servers, cache, file, gossip, dependency string
	gossipPort                                                  int
	callEvery                                                   time.Duration
}

// Main is the program. It decides until it reads a line "settle EPOCH REVISION": then
// it waits, for a limited time, until it has come so far, tells what it has, and ends.
// It also ends when its input does.
func Main(ctx context.Context, args []string, in io.Reader) error {
	var c config
	flags := flag.NewFlagSet("instance", flag.ContinueOnError)
	flags.StringVar(&c.id, "id", "", "its name")
	flags.StringVar(&c.ip, "ip", "", "its address")
	flags.StringVar(&c.advertise, "advertise", "", "the address that others reach it at")
	flags.StringVar(&c.servers, "servers", "", "ID=ADDRESS of each server, comma-separated")
	flags.StringVar(&c.cache, "cache", "", "directory of its cache")
	flags.StringVar(&c.file, "history", "", "file to record to")
	flags.StringVar(&c.gossip, "gossip", client.GossipDirect, "how it gossips")
	flags.StringVar(&c.dependency, "dependency", "", "address of what it calls")
	flags.DurationVar(&c.callEvery, "call-every", callEvery, "time between two calls to the dependency")
	flags.IntVar(&c.gossipPort, "gossip-port", 7500, "where it gossips")
	if err := flags.Parse(args); err != nil {
		return fmt.Errorf("instance: %w", err)
	}
	if c.callEvery <= 0 {
		return fmt.Errorf("instance: -call-every %v: a time above 0 is needed", c.callEvery)
	}
	recorder, err := history.NewRecorder(c.file)
	if err != nil {
		return err
	}
	return errors.Join(run(ctx, &c, recorder, in), recorder.Close())
}

// run is the life of the instance between the opening and the closing of its record.
func run(ctx context.Context, c *config, recorder *history.Recorder, in io.Reader) error {
	names := make(map[string]string)
	var addrs []string
	for pair := range strings.SplitSeq(c.servers, ",") {
		id, addr, _ := strings.Cut(pair, "=")
		names[addr] = id
		addrs = append(addrs, addr)
	}
	port := strconv.Itoa(c.gossipPort)
	open := client.Config{
		Servers: addrs, Service: "jepsen", InstanceID: c.id, CacheDir: c.cache, LocalAddr: c.ip,
		Gossip: c.gossip, GossipAddr: c.ip + ":" + port, Logger: slog.New(slog.NewTextHandler(os.Stderr, nil)),
	}
	if c.advertise != c.ip {
		open.GossipAdvertise = c.advertise + ":" + port
	}
	cp, err := client.Open(ctx, open)
	if err != nil {
		return fmt.Errorf("open the client: %w", err)
	}
	deciding, stop := context.WithCancel(ctx)
	d := newDecider(c.id, cp, names, recorder.Add)
	var all sync.WaitGroup
	all.Go(func() { d.run(deciding) })
	all.Go(func() { breakers(deciding, c.id, cp, recorder.Add) })
	all.Go(func() { newCaller(c, cp, recorder.Add).run(deciding) })
	all.Go(func() { usages(deciding, c.id, cp, recorder.Add) })

	if target, ok := orders(in); ok {
		recorder.Add(settle(ctx, c.id, cp, target))
		usage(c.id, history.UsageRun, cp, recorder.Add)
		select {
		case <-ctx.Done():
		case <-time.After(restFor):
		}
		usage(c.id, history.UsageEnd, cp, recorder.Add)
	}
	stop()
	all.Wait()
	closing, cancel := context.WithTimeout(context.WithoutCancel(ctx), closeLimit)
	defer cancel()
	if err := cp.Close(closing); err != nil {
		return fmt.Errorf("close the client: %w", err)
	}
	return nil
}

// order is what to do at the end.
type order struct {
	place history.Place
	limit time.Duration
}

// Settle is the line that lets an instance come to its end.
func Settle(place history.Place, limit time.Duration) string {
	return fmt.Sprintf("settle %d %d %d\n", place.Epoch, place.Revision, limit)
}

// orders waits for a line of Settle; not ok means that the input ended without one.
func orders(in io.Reader) (o order, ok bool) {
	for lines := bufio.NewScanner(in); lines.Scan(); {
		if _, err := fmt.Sscanf(lines.Text(), "settle %d %d %d", &o.place.Epoch, &o.place.Revision, &o.limit); err == nil {
			return o, true
		}
	}
	return o, false
}

// settle waits until the client has come as far as ordered, and tells what it has.
func settle(ctx context.Context, id string, cp *client.Client, o order) history.End {
	ctx, cancel := context.WithTimeout(ctx, o.limit)
	defer cancel()
	var view client.View
	var at history.Place
	end := history.End{Who: history.WhoInstance, ID: id}
	if err := process.Poll(ctx, func() error {
		var ok bool
		if view, at, ok = now(cp); !ok || at.Before(o.place) {
			return fmt.Errorf("it is at %v and does not come to %v; its status is %+v", at, o.place, cp.Status())
		}
		return nil
	}); err != nil {
		end.Err = err.Error()
	}
	end.T, end.Epoch, end.Revision = history.Now(), at.Epoch, at.Revision
	for _, key := range workload.DecisionKeys() {
		if cell := decide(view, key); !cell.Absent {
			end.Cells = append(end.Cells, cell)
		}
	}
	return end
}

// now is what the client obeys and where in the history that is; not ok in the moment
// in which it changes.
func now(cp *client.Client) (client.View, history.Place, bool) {
	status, view := cp.Status(), cp.View()
	return view, history.Place{Epoch: epoch(status), Revision: view.Revision()}, status.Revision == view.Revision()
}

// epoch is the counter at the end of what a status says.
func epoch(s client.Status) uint64 {
	_, counter, _ := strings.Cut(s.Epoch, "/")
	n, _ := strconv.ParseUint(counter, 10, 64) // 0 without a view
	return n
}

// decide is what a view says of a flag.
func decide(view client.View, key string) history.Cell {
	if value, ok := view.Evaluate(key).Value.AsString(); ok {
		return history.Cell{Key: key, Value: value}
	}
	return history.Cell{Key: key, Value: history.CodeDefault, Absent: true}
}

// usages records what the process uses, at first and at times.
func usages(ctx context.Context, id string, cp *client.Client, record func(any)) {
	when := history.UsageBase
	timer := time.NewTimer(usedAtFirst)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
			usage(id, when, cp, record)
			when = history.UsageRun
			timer.Reset(usageEvery)
		}
	}
}

// usage records what the process uses, and what it has sent to others.
func usage(id, when string, cp *client.Client, record func(any)) {
	u, err := process.UsageOf(os.Getpid())
	if err != nil {
		return // without /proc nothing is known
	}
	fleet := cp.Stats().Fleet
	record(history.Usage{
		ID: id, T: history.Now(), When: when, Goroutines: runtime.NumGoroutine(), FDs: u.FDs, RSS: u.RSS,
		Packets: int64(fleet.SentPackets), Bytes: int64(fleet.SentBytes),
	})
}

// breakers records each change of a breaker.
func breakers(ctx context.Context, id string, cp *client.Client, record func(any)) {
	for event := range cp.Events(ctx) {
		if b := event.Breaker; b != nil {
			record(history.Guard{Instance: id, T: history.Now(), Dependency: b.Dependency, Target: b.Target, From: b.From, To: b.To})
		}
	}
}
