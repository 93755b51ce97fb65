package client

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/holdfast-dev/holdfast/internal/guard"
)

func TestRemainingTravelsInAMessage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		if d, ok := Remaining(t.Context()); ok || d != 0 {
			t.Errorf("without a deadline %v are left (%v)", d, ok)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		time.Sleep(100 * time.Millisecond) //nolint:forbidigo // virtual time
		left, ok := Remaining(ctx)
		if want := 900*time.Millisecond - 5*time.Millisecond; !ok || left != want {
			t.Errorf("%v are left (%v), want %v: what is left less the margin", left, ok, want)
		}
		received, stop := WithRemaining(context.Background(), left)
		defer stop()
		if deadline, ok := received.Deadline(); !ok || time.Until(deadline) != left || !guard.IsHop(received) {
			t.Errorf("the receiver has %v (%v), hop %v; want %v", time.Until(deadline), ok, guard.IsHop(received), left)
		}
		time.Sleep(time.Second) //nolint:forbidigo // virtual time
		if left, ok := Remaining(ctx); !ok || left != 0 {
			t.Errorf("after the deadline %v are left (%v), want none", left, ok)
		}
	})
}
