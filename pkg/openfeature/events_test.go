package openfeature

import (
	"context"
	"errors"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	of "github.com/open-feature/go-sdk/openfeature"
	"github.com/open-feature/go-sdk/openfeature/isolated"
	"go.uber.org/goleak"

	"github.com/holdfast-dev/holdfast/pkg/client"
	"github.com/holdfast-dev/holdfast/pkg/client/clienttest"
)

// followed is a follower of events that a test makes, in virtual time.
type followed struct {
	t      *testing.T
	status client.Status
	events chan client.Event
	to     chan of.Event
	stop   context.CancelFunc
	ended  chan struct{}
}

// following begins to follow a client that is as status says.
func following(t *testing.T, status client.Status) *followed {
	t.Helper()
	ctx, stop := context.WithCancel(t.Context())
	f := &followed{t: t, status: status, events: make(chan client.Event), to: make(chan of.Event, 16), stop: stop, ended: make(chan struct{})}
	follower := newFollower(&status, f.to, func() client.Status { return f.status })
	go func() { defer close(f.ended); follower.follow(ctx, f.events) }()
	return f
}

func (f *followed) connect(is bool) {
	f.status.Connected = is
	f.events <- client.Event{Connection: &client.ConnectionChanged{Connected: is}}
}

// expect lets time pass and compares the events since the last time.
func (f *followed) expect(after time.Duration, want ...string) {
	f.t.Helper()
	time.Sleep(after) //nolint:forbidigo // virtual time
	synctest.Wait()
	var got []string
	for len(f.to) > 0 {
		e := <-f.to
		name := string(e.EventType)
		for _, key := range e.FlagChanges {
			name += " " + key
		}
		got = append(got, name)
		if e.ProviderName != "Holdfast" || e.Message == "" {
			f.t.Errorf("%+v", e)
		}
	}
	if !slices.Equal(got, want) {
		f.t.Errorf("got %v, want %v", got, want)
	}
}

func (f *followed) end() {
	f.stop()
	<-f.ended
}

// TestStaleWhenCutOff loses sessions for a short and for a long time.
func TestStaleWhenCutOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := following(t, client.Status{Source: client.FromServer, Connected: true})
		defer f.end()
		f.expect(time.Hour)
		for range 5 { // a server restarts, others refuse
			f.connect(false)
			f.expect(10 * time.Second)
			f.connect(true)
			f.expect(time.Minute)
		}
		f.connect(false)
		f.expect(14 * time.Second)
		f.connect(false) // another try failed: it does not begin anew
		f.expect(2*time.Second, "PROVIDER_STALE")
		f.connect(false)
		f.expect(time.Hour)
		f.connect(true)
		f.expect(0, "PROVIDER_READY")
		f.connect(true)
		f.expect(time.Hour)
	})
}

// TestStaleFromDisk starts while the control plane is away.
func TestStaleFromDisk(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := following(t, client.Status{Source: client.FromDisk})
		defer f.end()
		f.expect(14 * time.Second)
		f.expect(2*time.Second, "PROVIDER_STALE")
		f.connect(true)
		f.expect(0, "PROVIDER_READY")
	})
}

// TestNeverStaleWithoutServers has views that come from nobody.
func TestNeverStaleWithoutServers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, status := range []client.Status{{Source: client.FromTest}, {Source: client.FromDefaults, OverriddenBy: "file"}} {
			f := following(t, status)
			f.expect(time.Hour)
			f.end()
		}
	})
}

// TestChangesNameTheirFlags tells what changed, and nothing where only something
// else did.
func TestChangesNameTheirFlags(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := following(t, client.Status{Source: client.FromServer, Connected: true})
		defer f.end()
		f.events <- client.Event{View: &client.ViewChanged{Flags: []string{"a", "b"}}}
		f.expect(0, "PROVIDER_CONFIGURATION_CHANGED a b")
		f.events <- client.Event{View: &client.ViewChanged{Modes: []string{"m"}}}
		f.events <- client.Event{Breaker: &client.BreakerChanged{}}
		f.expect(0)
		f.events <- client.Event{View: &client.ViewChanged{Replaced: true}}
		f.expect(0, "PROVIDER_CONFIGURATION_CHANGED")
		f.status.Connected = false
		f.events <- client.Event{Breaker: &client.BreakerChanged{}, Missed: 3}
		f.expect(0, "PROVIDER_CONFIGURATION_CHANGED")
		f.expect(staleAfter, "PROVIDER_STALE") // that the session broke was missed, too
	})
}

// TestReadyAtLast has no view to begin with. A READY waits for OpenFeature to have
// noted that Init failed.
func TestReadyAtLast(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := following(t, client.Status{Source: client.FromDefaults})
		defer f.end()
		f.connect(true)
		f.connect(false)
		f.expect(time.Hour) // nothing that is not there gets old
		f.connect(true)
		f.events <- client.Event{View: &client.ViewChanged{Replaced: true}} // local overrides went away, say
		f.expect(0)
		f.status.Source = client.FromServer
		f.events <- client.Event{View: &client.ViewChanged{Replaced: true}}
		f.expect(0, "PROVIDER_READY")
		f.events <- client.Event{View: &client.ViewChanged{Flags: []string{"a"}}}
		f.expect(0, "PROVIDER_CONFIGURATION_CHANGED a")
	})
	synctest.Test(t, func(t *testing.T) {
		f := following(t, client.Status{Source: client.FromServer})
		f.end()
		f = following(t, client.Status{Source: client.FromDefaults})
		defer f.end()
		f.status = client.Status{Source: client.FromServer, Connected: true}
		f.connect(true)
		f.events <- client.Event{View: &client.ViewChanged{Replaced: true}}
		f.expect(settleTime - time.Millisecond)
		f.expect(time.Millisecond, "PROVIDER_READY")
	})
}

// TestClosedClient gets old at once, unless it is.
func TestClosedClient(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, cutOff := range []bool{false, true} {
			f := following(t, client.Status{Source: client.FromServer, Connected: !cutOff})
			if cutOff {
				f.expect(time.Minute, "PROVIDER_STALE")
				close(f.events)
				f.expect(0)
			} else {
				close(f.events)
				f.expect(0, "PROVIDER_STALE")
			}
			<-f.ended
			f.stop()
		}
	})
}

// TestLife sets, changes and shuts down a provider through OpenFeature. The client
// and its other readers stay as they are.
func TestLife(t *testing.T) {
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	plane := clienttest.New(t)
	plane.SetFlag("a", true)
	api := isolated.NewAPI()
	changed := make(chan of.EventDetails, 16)
	told := func(d of.EventDetails) { changed <- d }
	api.AddHandler(of.ProviderConfigChange, &told)
	stale := make(chan of.EventDetails, 1)
	toldStale := func(d of.EventDetails) { stale <- d }
	api.AddHandler(of.ProviderStale, &toldStale)
	p := NewProvider(plane.Client())
	for _, domain := range []string{"one", "two"} { // of.Init is called for each
		if err := api.SetProviderAndWait(t.Context(), p, of.WithDomain(domain)); err != nil {
			t.Fatal(err)
		}
		if state := api.NewClient(of.WithDomain(domain)).State(); state != of.ReadyState {
			t.Error(state)
		}
	}
	plane.SetFlag("a", false)
	if d := <-changed; d.ProviderName != "Holdfast" || !slices.Equal(d.FlagChanges, []string{"a"}) {
		t.Errorf("%+v", d)
	}
	if err := api.Shutdown(t.Context()); err != nil {
		t.Error(err)
	}
	p.Shutdown()
	plane.SetFlag("a", true)
	if d := p.BooleanEvaluation(t.Context(), "a", false, nil); !d.Value || d.Error() != nil {
		t.Errorf("after Shutdown: %+v", d)
	}
	again := isolated.NewAPI()
	again.AddHandler(of.ProviderStale, &toldStale)
	if err := again.SetProviderAndWait(t.Context(), p); err != nil {
		t.Fatal(err)
	}
	if err := plane.Client().Close(t.Context()); err != nil {
		t.Error(err)
	}
	if d := <-stale; d.Message == "" {
		t.Error(d)
	}
	if c := again.NewClient(); c.State() != of.StaleState || !c.Boolean(t.Context(), "a", false, of.EvaluationContext{}) {
		t.Error("a stale provider answers from what it has")
	}
	if err := again.Shutdown(t.Context()); err != nil {
		t.Error(err)
	}
}

// TestNobodyListens shuts down while an event waits for somebody to take it.
func TestNobodyListens(t *testing.T) {
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	plane := clienttest.New(t)
	p := NewProvider(plane.Client())
	for range 3 {
		if err := p.Init(of.EvaluationContext{}); err != nil {
			t.Fatal(err)
		}
		plane.SetFlag("a", true)
	}
	if err := p.ShutdownWithContext(t.Context()); err != nil {
		t.Error(err)
	}
	p.Shutdown()
	cancelled, cancel := context.WithCancel(t.Context())
	cancel()
	if err := p.InitWithContext(cancelled, of.EvaluationContext{}); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	if err := plane.Client().Close(t.Context()); err != nil {
		t.Error(err)
	}
}
