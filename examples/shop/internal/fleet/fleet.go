// Package fleet looks at the instances of the shop and shows them, with what
// customers get, on a terminal or as plain lines.
package fleet

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc"

	"github.com/holdfast-dev/holdfast/examples/shop/internal/dial"
	"github.com/holdfast-dev/holdfast/examples/shop/shoppb"
)

// answerWithin is how long an instance may take to tell how it is.
const answerWithin = time.Second

// Place is where an instance should be.
type Place struct{ Instance, Addr string }

// Fleet asks instances how they are.
type Fleet struct {
	instances []*instance
}

type instance struct {
	place Place
	conn  *grpc.ClientConn

	mu  sync.Mutex // guards now
	now Instance
}

// Instance is what is known of one.
type Instance struct {
	Name string
	// Report is what it told last, Err why it told nothing since.
	Report *shoppb.ReportResponse
	Err    error
	// TurnedAway is how many calls per second it does not make, by dependency,
	// because the dependency's breaker is open or its bulkhead full.
	TurnedAway map[string]float64
	// CutOff is for how long it has told that it has no server.
	CutOff time.Duration
	at     time.Time
	cutOff time.Time // since when; zero while connected
}

// Up tells whether it answers.
func (i Instance) Up() bool { return i.Report != nil && i.Err == nil }

// Open returns the dependencies and methods whose breakers are not closed, such as
// "payments Charge open".
func (i Instance) Open() []string {
	var open []string
	for _, d := range i.Report.GetDependencies() {
		for _, b := range d.GetBreakers() {
			if b.GetState() != "closed" {
				open = append(open, d.GetName()+" "+short(b.GetTarget())+" "+b.GetState())
			}
		}
	}
	return open
}

// short leaves of "/shop.Orders/Place" the last word.
func short(target string) string { return target[strings.LastIndexByte(target, '/')+1:] }

// New returns a fleet of instances. It connects when they are asked first.
func New(places []Place) (*Fleet, error) {
	f := &Fleet{}
	for _, place := range places {
		conn, err := dial.Service(place.Instance, []string{place.Addr})
		if err != nil {
			f.Close()
			return nil, fmt.Errorf("connect to %s: %w", place.Instance, err)
		}
		f.instances = append(f.instances, &instance{place: place, conn: conn, now: Instance{Name: place.Instance}})
	}
	return f, nil
}

// Close closes the connections.
func (f *Fleet) Close() {
	for _, i := range f.instances {
		_ = i.conn.Close()
	}
}

// Ask asks all instances and returns what is known of them, in the order of New.
func (f *Fleet) Ask(ctx context.Context) []Instance {
	all := make([]Instance, len(f.instances))
	var asking sync.WaitGroup
	for n, i := range f.instances {
		asking.Go(func() { all[n] = i.ask(ctx) })
	}
	asking.Wait()
	return all
}

// AskOne asks one instance.
func (f *Fleet) AskOne(ctx context.Context, name string) (Instance, error) {
	for _, i := range f.instances {
		if i.place.Instance == name {
			return i.ask(ctx), nil
		}
	}
	return Instance{}, fmt.Errorf("there is no instance %q", name)
}

func (i *instance) ask(ctx context.Context) Instance {
	ctx, cancel := context.WithTimeout(ctx, answerWithin)
	defer cancel()
	report, err := shoppb.NewInspectionClient(i.conn).Report(ctx, &shoppb.ReportRequest{})
	at := time.Now()
	i.mu.Lock()
	defer i.mu.Unlock()
	if err != nil {
		i.now.Err, i.now.TurnedAway = err, nil
		return i.now
	}
	i.now = i.now.next(report, at)
	return i.now
}

// next is what is known of an instance after another report.
func (i Instance) next(report *shoppb.ReportResponse, at time.Time) Instance {
	now := Instance{Name: i.Name, Report: report, at: at, TurnedAway: map[string]float64{}}
	if !report.GetConnected() {
		if now.cutOff = i.cutOff; now.cutOff.IsZero() {
			now.cutOff = at
		}
		now.CutOff = at.Sub(now.cutOff)
	}
	if span := at.Sub(i.at); i.Err == nil && i.Report != nil && span > 0 {
		was := turnedAway(i.Report)
		for dependency, n := range turnedAway(report) {
			if n > was[dependency] {
				now.TurnedAway[dependency] = float64(n-was[dependency]) / span.Seconds()
			}
		}
	}
	return now
}

// turnedAway counts the calls that an instance did not make, by dependency.
func turnedAway(report *shoppb.ReportResponse) map[string]uint64 {
	counts := map[string]uint64{}
	for _, d := range report.GetDependencies() {
		for _, b := range d.GetBreakers() {
			counts[d.GetName()] += b.GetRejected() + b.GetCrowdedOut()
		}
	}
	return counts
}

// Find returns an instance by name, and false if there is none.
func Find(instances []Instance, name string) (Instance, bool) {
	for _, i := range instances {
		if i.Name == name {
			return i, true
		}
	}
	return Instance{}, false
}
