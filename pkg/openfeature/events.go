package openfeature

import (
	"context"
	"fmt"
	"time"

	of "github.com/open-feature/go-sdk/openfeature"

	"github.com/holdfast-dev/holdfast/pkg/client"
)

const (
	// staleAfter is how long an instance may be without a session before its flags
	// count as stale: longer than it takes to move to another server.
	staleAfter = 15 * time.Second
	// settleTime is what OpenFeature gets to note that Init has failed. It does so after
	// Init has returned, and would take back a READY that was told before.
	settleTime = 100 * time.Millisecond
)

// Init begins to tell events. It waits for nothing: where there is no view yet it
// fails, and PROVIDER_READY follows as soon as there is one; evaluations meanwhile
// have the default of the code and PROVIDER_NOT_READY. It may be called again.
func (p *Provider) Init(about of.EvaluationContext) error {
	return p.InitWithContext(context.Background(), about)
}

// InitWithContext is Init. What ctx does later means nothing to the provider.
func (p *Provider) InitWithContext(ctx context.Context, _ of.EvaluationContext) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("initialize provider: %w", err)
	}
	following, stop := context.WithCancel(context.Background())
	events := p.client.Events(following)
	status := p.client.Status()
	f := newFollower(&status, p.events, p.client.Status)
	p.mu.Lock()
	p.end()
	p.stop = stop
	p.stopped.Go(func() { f.follow(following, events) })
	p.mu.Unlock()
	if !hasView(&status) {
		return &of.ProviderInitError{ErrorCode: of.ProviderNotReadyCode, Message: noView(&status)}
	}
	return nil
}

// Shutdown ends the telling of events and waits for that. The client goes on, and so
// do evaluations.
func (p *Provider) Shutdown() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.end()
}

// ShutdownWithContext is Shutdown, which is always quick.
func (p *Provider) ShutdownWithContext(context.Context) error {
	p.Shutdown()
	return nil
}

// end stops the goroutine, if there is one. The caller holds mu.
func (p *Provider) end() {
	if p.stop != nil {
		p.stop()
		p.stopped.Wait()
		p.stop = nil
	}
}

// EventChannel returns the events of the provider: PROVIDER_READY when there is a
// view at last, or a session again; PROVIDER_STALE when there has been no session
// for 15 s, or the client is closed; PROVIDER_CONFIGURATION_CHANGED with the keys of
// the flags that changed, or without any where all of them may have.
func (p *Provider) EventChannel() <-chan of.Event { return p.events }

// follower turns the events of a client into those of a provider.
type follower struct {
	to     chan<- of.Event
	status func() client.Status

	ready, connected, stale bool
	// settled ends the time in which a READY may be lost; nil if none can be.
	settled *time.Timer
	// patience ends when the session has been gone for too long.
	patience *time.Timer
}

// newFollower returns one that knows how the client is after its events were
// subscribed to.
func newFollower(is *client.Status, to chan<- of.Event, status func() client.Status) *follower {
	f := &follower{to: to, status: status, ready: hasView(is), connected: is.Connected}
	f.patience = time.NewTimer(staleAfter)
	if is.Connected || is.Source == client.FromDefaults || is.Source == client.FromTest {
		f.patience.Stop()
	}
	if !f.ready {
		f.settled = time.NewTimer(settleTime)
	}
	return f
}

// follow tells events until ctx ends or the client is closed.
func (f *follower) follow(ctx context.Context, events <-chan client.Event) {
	defer f.patience.Stop()
	for ctx.Err() == nil {
		select {
		case <-ctx.Done():
		case e, open := <-events:
			if !open {
				f.becomeStale(ctx, "the client is closed: flags do not change any more")
				return
			}
			f.take(ctx, &e)
		case <-f.patience.C:
			f.becomeStale(ctx, fmt.Sprintf("no session with the control plane for %v: flags are what they were then", staleAfter))
		}
	}
}

func (f *follower) take(ctx context.Context, e *client.Event) {
	if e.Missed > 0 {
		f.connect(ctx, f.status().Connected)
		f.change(ctx, nil)
	}
	switch {
	case e.Connection != nil:
		f.connect(ctx, e.Connection.Connected)
	case e.View != nil && (e.View.Replaced || len(e.View.Flags) > 0):
		f.change(ctx, e.View.Flags)
	}
}

// connect notes that a session is there or not.
func (f *follower) connect(ctx context.Context, connected bool) {
	if connected == f.connected {
		return
	}
	f.connected = connected
	if !connected {
		f.patience.Reset(staleAfter)
		return
	}
	f.patience.Stop()
	if f.stale {
		f.stale = false
		f.tell(ctx, of.ProviderReady, of.ProviderEventDetails{Message: "there is a session with the control plane again"})
	}
}

// change notes that flags are others; without keys, that any may be.
func (f *follower) change(ctx context.Context, keys []string) {
	if f.ready {
		f.tell(ctx, of.ProviderConfigChange, of.ProviderEventDetails{Message: "flags changed", FlagChanges: keys})
		return
	}
	if is := f.status(); !hasView(&is) {
		return
	}
	f.ready = true
	if f.settled != nil {
		select {
		case <-f.settled.C:
		case <-ctx.Done():
		}
	}
	f.tell(ctx, of.ProviderReady, of.ProviderEventDetails{Message: "there is a view"})
}

// becomeStale tells that flags are old, once. Without a view there are none.
func (f *follower) becomeStale(ctx context.Context, why string) {
	if f.ready && !f.stale && ctx.Err() == nil {
		f.stale = true
		f.tell(ctx, of.ProviderStale, of.ProviderEventDetails{Message: why})
	}
}

func (f *follower) tell(ctx context.Context, kind of.EventType, details of.ProviderEventDetails) {
	select {
	case f.to <- of.Event{ProviderName: (*Provider)(nil).Metadata().Name, EventType: kind, ProviderEventDetails: details}:
	case <-ctx.Done():
	}
}
