package instance

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/holdfast-dev/holdfast/pkg/client"
	"github.com/holdfast-dev/holdfast/test/jepsen-lite/history"
	"github.com/holdfast-dev/holdfast/test/jepsen-lite/workload"
)

const (
	// callEvery is how often the dependency is called where nothing else is said.
	callEvery = 50 * time.Millisecond
	tellEvery = 250 * time.Millisecond
	callsMost = 64 // at once
)

// caller calls the dependency under its policy, and tells at short intervals what became
// of it.
type caller struct {
	id, url string
	every   time.Duration // between two calls, whether or not the first was answered
	cp      *client.Client
	http    *http.Client
	record  func(any)

	mu  sync.Mutex // guards now
	now history.Calls
}

func newCaller(c *config, cp *client.Client, record func(any)) *caller {
	from := &net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(c.ip)}}
	return &caller{
		id: c.id, url: "http://" + c.dependency + "/", every: c.callEvery, cp: cp, record: record,
		http: &http.Client{Transport: &http.Transport{DialContext: from.DialContext, MaxIdleConnsPerHost: 4}},
	}
}

func (c *caller) run(ctx context.Context) {
	defer c.http.CloseIdleConnections()
	var calls sync.WaitGroup
	defer calls.Wait()
	places := make(chan struct{}, callsMost)
	call, tell := time.NewTicker(c.every), time.NewTicker(tellEvery)
	defer call.Stop()
	defer tell.Stop()
	began := history.Now()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tell.C:
			began = c.tell(began)
		case <-call.C:
			select {
			case places <- struct{}{}:
				calls.Go(func() {
					defer func() { <-places }()
					c.call(ctx)
				})
			default: // too many wait already
			}
		}
	}
}

// call makes one call, of which the policy may make none.
func (c *caller) call(ctx context.Context) {
	sent := 0
	_, err := client.Do(ctx, c.cp, workload.Dependency, func(ctx context.Context) (struct{}, error) {
		sent++
		return struct{}{}, c.get(ctx)
	})
	if ctx.Err() != nil {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now.Sent += sent
	switch {
	case err == nil:
		c.now.Good++
	case sent == 0:
		c.now.Rejected++
	default:
		c.now.Bad++
	}
}

func (c *caller) get(ctx context.Context) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, c.url, nil)
	if err != nil {
		return fmt.Errorf("call the dependency: %w", err)
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return fmt.Errorf("call the dependency: %w", err)
	}
	defer func() { _ = resp.Body.Close() }()
	_, _ = io.Copy(io.Discard, io.LimitReader(resp.Body, 1<<10))
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("call the dependency: %s", resp.Status)
	}
	return nil
}

// tell records the calls since a time, and returns now.
func (c *caller) tell(since int64) int64 {
	c.mu.Lock()
	calls := c.now
	c.now = history.Calls{}
	c.mu.Unlock()
	calls.Instance, calls.Dependency, calls.T, calls.Until = c.id, workload.Dependency, since, history.Now()
	c.record(calls)
	return calls.Until
}
