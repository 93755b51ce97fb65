package client

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/holdfast-dev/holdfast/internal/document"
)

func TestPoolIsBoundedByThePolicy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := opened(t, map[string]string{"thumbnails": `{"bulkhead":{"workers":2,"max_queue":1}}`})
		p := c.Pool("thumbnails")
		if p != c.Pool("thumbnails") || p == c.Pool("other") {
			t.Error("each dependency has a pool of its own")
		}
		free := make(chan struct{})
		var done atomic.Int32
		work := func(context.Context) { <-free; done.Add(1) }
		for range 3 {
			if err := p.Submit(t.Context(), work); err != nil {
				t.Fatal(err)
			}
		}
		synctest.Wait()
		if use := p.Use(); use.Running != 2 || use.Queued != 1 {
			t.Errorf("%+v, want two that run and one that waits", use)
		}
		err := p.Submit(t.Context(), work)
		var rejection *Rejection
		if !errors.Is(err, BulkheadFull) || !errors.As(err, &rejection) || rejection.Dependency != "thumbnails" {
			t.Errorf("more than there is room for: %v", err)
		}
		c.put(document.Policy, "thumbnails", `{"bulkhead":{"workers":3,"max_queue":1}}`)
		if err := p.Submit(t.Context(), work); err != nil {
			t.Errorf("after the policy allows more: %v", err)
		}
		synctest.Wait()
		if use := p.Use(); use.Workers != 3 || use.Running != 3 || use.Queued != 1 {
			t.Errorf("%+v, want three that run and one that waits", use)
		}
		for range 4 {
			free <- struct{}{}
		}
		synctest.Wait()
		if done.Load() != 4 {
			t.Errorf("%d functions ran, want 4", done.Load())
		}
	})
}

func TestPoolContainsPanics(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		c := openedWith(t, Config{Logger: slog.New(slog.NewTextHandler(&log, nil))})
		if err := c.Pool("thumbnails").Submit(t.Context(), func(context.Context) { panic("boom") }); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if !strings.Contains(log.String(), "boom") || !strings.Contains(log.String(), "thumbnails") || !strings.Contains(log.String(), "pool_test.go") {
			t.Errorf("the log says %s", log.String())
		}
	})
}

func TestCloseWaitsForWork(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := opened(t, nil)
		ended := false
		if err := c.Pool("thumbnails").Submit(t.Context(), func(ctx context.Context) {
			select {
			case <-ctx.Done():
				t.Error("the work was cut off")
			case <-time.After(time.Second):
			}
			ended = true
		}); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if err := c.Close(ctx); err != nil || !ended {
			t.Errorf("close: %v; the work had ended: %v", err, ended)
		}
		for _, name := range []string{"thumbnails", "new"} {
			if err := c.Pool(name).Submit(t.Context(), func(context.Context) { t.Error("ran") }); err == nil {
				t.Error("work was taken after the client was closed")
			}
		}
	})
}

func TestCloseEndsWorkWhenItsTimeIsUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := openedWith(t, Config{})
		ended := make(chan struct{})
		if err := c.Pool("thumbnails").Submit(t.Context(), func(ctx context.Context) { <-ctx.Done(); close(ended) }); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := c.resources.close(ctx); err == nil {
			t.Error("nobody was told that the work was cut off")
		}
		<-ended
	})
}
