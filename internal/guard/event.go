package guard

import (
	"context"
	"log/slog"
	"time"

	"github.com/holdfast-dev/holdfast/internal/breaker"
)

// BreakerEvent is a change of the state of a target's breaker.
type BreakerEvent struct {
	Dependency, Target string
	// Wall is when, by the wall clock.
	Wall time.Time
	// By names the override that forced it, or let it go, or says what others see that it
	// heeds; empty otherwise.
	By string
	breaker.Event
}

// event completes what a breaker tells, and counts it.
func (t *Target) event(e *breaker.Event, by string) BreakerEvent {
	switch e.Reason {
	case breaker.Forced, breaker.Released:
	case breaker.Fleet:
		by = t.dependency.heed.Load().why()
	default:
		by = ""
	}
	t.counters.add(transitions+counter(e.To), 1)
	return BreakerEvent{Dependency: t.dependency.name, Target: t.name, Wall: t.clock.Wall(), By: by, Event: *e}
}

// told is told by the breaker.
func (t *Target) told(e *breaker.Event, by string) {
	event := t.event(e, by)
	t.dependency.guard.tell(&event)
}

// tell tells the world.
func (g *Guard) tell(e *BreakerEvent) {
	if l := g.config.Logger; l != nil {
		level := slog.LevelInfo
		if e.To >= breaker.Open || e.To == breaker.Hearsay {
			level = slog.LevelWarn
		}
		g.safely(func() { l.LogAttrs(context.Background(), level, "circuit breaker changed", e.attrs()...) })
	}
	if g.config.OnEvent != nil {
		g.safely(func() { g.config.OnEvent(*e) })
	}
	if d, ok := (*g.dependencies.Load())[e.Dependency]; ok {
		d.changed()
	}
}

// safely calls a listener. A panic of it ends here.
func (g *Guard) safely(listener func()) {
	defer func() {
		if r := recover(); r != nil && g.config.Logger != nil {
			defer func() { _ = recover() }() // of the logger itself
			g.config.Logger.Error("a listener to changes of breakers panicked", "panic", r)
		}
	}()
	listener()
}

// attrs are what a line of the log says of a change.
func (e *BreakerEvent) attrs() []slog.Attr {
	attrs := []slog.Attr{
		slog.String("dependency", e.Dependency), slog.String("target", e.Target),
		slog.String("from", e.From.String()), slog.String("to", e.To.String()), slog.String("reason", e.Reason.String()),
		slog.Uint64("calls", e.Counts.Calls), slog.Uint64("failures", e.Counts.Failures), slog.Uint64("slow", e.Counts.Slow),
	}
	if e.By != "" {
		attrs = append(attrs, slog.String("by", e.By))
	}
	if e.OpenFor > 0 {
		attrs = append(attrs, slog.Duration("open_for", e.OpenFor))
	}
	return attrs
}
