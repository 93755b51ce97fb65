package consensus

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"
)

// reigns records which node led which term.
type reigns struct {
	t     *testing.T
	mu    sync.Mutex
	terms map[uint64]string
}

func (r *reigns) begin(id string, term uint64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if other, ok := r.terms[term]; ok {
		r.t.Errorf("term %d is led by %s and %s", term, other, id)
	}
	r.terms[term] = id
}

func (r *reigns) count() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.terms)
}

func TestOneLeaderPerTerm(t *testing.T) {
	t.Parallel()
	r := &reigns{t: t, terms: make(map[uint64]string)}
	c := newCluster(t, 3, func(cfg *Config) {
		id := cfg.ID
		cfg.Lead = func(ctx context.Context, term uint64) {
			r.begin(id, term)
			<-ctx.Done()
		}
	})
	const want = 4
	for i := 0; r.count() < want; i++ {
		if i == 20 {
			t.Fatalf("only %d leaderships in %d changes", r.count(), i)
		}
		leader := c.leader()
		if i%2 == 0 {
			c.isolate(leader)
			c.leader(leader)
			c.heal()
			continue
		}
		if err := leader.node.Transfer(testCtx(t), ""); err != nil {
			t.Log("no transfer:", err) // a busy machine takes too long
		}
	}
}

func TestLeadSeesEverythingBeforeItsTerm(t *testing.T) {
	t.Parallel()
	var nodes sync.Map // id → *site
	seen := make(chan bool, 100)
	c := newCluster(t, 3, func(cfg *Config) {
		id := cfg.ID
		cfg.Lead = func(ctx context.Context, _ uint64) {
			if s, ok := nodes.Load(id); ok {
				seen <- s.(*site).sm.has("acknowledged")
			}
			<-ctx.Done()
		}
	})
	leader := c.leader()
	leader.propose("acknowledged")
	for _, s := range c.sites {
		nodes.Store(s.cfg.ID, s)
	}
	leader.kill()
	c.leader(leader)
	if !<-seen {
		t.Error("Lead ran before an acknowledged command was applied")
	}
}

func TestLeadEndsWithTheLeadership(t *testing.T) {
	t.Parallel()
	begun, ended := make(chan string, 10), make(chan string, 10)
	c := newCluster(t, 3, func(cfg *Config) {
		id := cfg.ID
		cfg.Lead = func(ctx context.Context, _ uint64) {
			begun <- id
			<-ctx.Done()
			ended <- id
		}
	})
	leader := c.leader()
	for id := ""; id != leader.cfg.ID; {
		select {
		case id = <-begun:
		case <-testCtx(t).Done():
			t.Fatal("Lead does not begin")
		}
	}
	c.isolate(leader)
	select {
	case id := <-ended:
		if id != leader.cfg.ID {
			t.Errorf("%s ended", id)
		}
	case <-testCtx(t).Done():
		t.Fatal("Lead goes on without the leadership")
	}
}

func TestCloseWaitsForLead(t *testing.T) {
	t.Parallel()
	var ended bool // written by Lead, read after Close
	started, release := make(chan struct{}), make(chan struct{})
	c := newCluster(t, 1, func(cfg *Config) {
		cfg.Lead = func(ctx context.Context, _ uint64) {
			close(started)
			<-ctx.Done()
			<-release
			ended = true
		}
	})
	<-started
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if err := c.sites[0].node.Close(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("close while Lead runs: %v", err)
	}
	close(release)
	must(t, c.sites[0].node.Close(testCtx(t)))
	if !ended {
		t.Error("Close returned before Lead did")
	}
}
