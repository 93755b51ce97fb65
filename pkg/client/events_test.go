package client

import (
	"context"
	"testing"
	"testing/synctest"
)

func TestEventsAreDroppedNotWaitedFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var b bus
		ctx, cancel := context.WithCancel(t.Context())
		slow, quick := b.subscribe(ctx), b.subscribe(t.Context())
		for range eventBuffer + 10 {
			b.tell(Event{})
			<-quick
		}
		for range eventBuffer {
			if e := <-slow; e.Missed != 0 {
				t.Fatalf("missed %d before anything was dropped", e.Missed)
			}
		}
		b.tell(Event{})
		if e := <-slow; e.Missed != 10 || b.lost.Load() != 10 {
			t.Errorf("was told of %d missed events, %d in all; 10 were dropped", e.Missed, b.lost.Load())
		}
		cancel()
		synctest.Wait()
		if _, open := <-slow; open {
			t.Error("the context has ended, but the channel is open")
		}
		b.close()
		<-quick // the last event
		if _, open := <-quick; open {
			t.Error("the bus is closed, but a channel is open")
		}
		if _, open := <-b.subscribe(t.Context()); open {
			t.Error("a reader of a closed bus waits for ever")
		}
		b.tell(Event{})
	})
}
