package session

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/holdfast-dev/holdfast/internal/mirror"
)

// TestRotation tries every server before any is tried again, its own first, and
// never the same twice while there is another.
func TestRotation(t *testing.T) {
	first := map[string]int{}
	for range 200 {
		r := rotation{configured: []string{"a:1", "b:1", "c:1"}}
		before := ""
		for round := range 4 {
			seen := map[string]bool{}
			for i := range 3 + 2*min(round, 1) {
				addr := r.next()
				if round == 0 && i == 0 {
					first[addr]++
				}
				if addr == before || seen[addr] || (i < 3) != slices.Contains(r.configured, addr) {
					t.Fatalf("%s after %s in round %d, seen %v", addr, before, round, seen)
				}
				before, seen[addr] = addr, true
			}
			r.learn([]string{"x:1", "a:1", "y:1", "x:1", "junk"})
		}
	}
	for _, addr := range []string{"a:1", "b:1", "c:1"} {
		if first[addr] < 30 {
			t.Errorf("%s was first %d of 200 times", addr, first[addr])
		}
	}
	one := rotation{configured: []string{"a:1"}}
	for range 2 {
		if addr := one.next(); addr != "a:1" {
			t.Errorf("of one server the next is %s", addr)
		}
	}
}

// TestLearnedServersAreBounded keeps no more addresses than the limit.
func TestLearnedServersAreBounded(t *testing.T) {
	r, all := rotation{configured: []string{"a:1"}}, []string{}
	for i := range 100 {
		all = append(all, fmt.Sprintf("n%d:1", i))
	}
	if r.learn(all); len(r.learned) != maxLearned {
		t.Errorf("learned %d", len(r.learned))
	}
	if r.learn(nil); len(r.learned) != 0 {
		t.Errorf("kept %d that are gone", len(r.learned))
	}
}

// longest returns the longest of many pauses with a state.
func longest(b backoff, lasted time.Duration, err error) (shortest, longest time.Duration) {
	shortest = time.Hour
	for range 2000 {
		b := b
		p := b.pause(lasted, err)
		shortest, longest = min(shortest, p), max(longest, p)
	}
	return shortest, longest
}

func TestBackoff(t *testing.T) {
	down := status.Error(codes.Unavailable, "connection refused")
	wrong := fmt.Errorf("wrapped: %w", status.Error(codes.FailedPrecondition, "FORKED_EPOCH"))
	asks, err := status.New(codes.ResourceExhausted, "full").WithDetails(&errdetails.RetryInfo{RetryDelay: durationpb.New(10 * time.Second)})
	if err != nil {
		t.Fatal(err)
	}
	greedy, err := status.New(codes.Unavailable, "full").WithDetails(&errdetails.RetryInfo{RetryDelay: durationpb.New(10 * time.Hour)})
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		state    backoff
		lasted   time.Duration
		err      error
		from, to time.Duration
	}{
		"first":                     {backoff{}, 0, down, 0, 100 * time.Millisecond},
		"third":                     {backoff{failures: 2}, 0, down, 0, 400 * time.Millisecond},
		"many":                      {backoff{failures: 6}, 0, down, 0, 5 * time.Second},
		"very many":                 {backoff{failures: 1 << 40}, 0, down, 0, 5 * time.Second},
		"after a short stream":      {backoff{failures: 6}, 9 * time.Second, down, 0, 5 * time.Second},
		"after a long stream":       {backoff{failures: 6, refusals: 6}, steady, down, 0, 100 * time.Millisecond},
		"refused first":             {backoff{failures: 6}, 0, wrong, 0, 100 * time.Millisecond},
		"refused often":             {backoff{refusals: 10}, 0, wrong, 0, time.Minute},
		"a bad root, often":         {backoff{refusals: 10}, 0, fmt.Errorf("x: %w", mirror.ErrRoot), 0, time.Minute},
		"asked for time":            {backoff{}, 0, asks.Err(), 10 * time.Second, 20*time.Second + 100*time.Millisecond},
		"asked for too much":        {backoff{}, 0, greedy.Err(), time.Minute, 2*time.Minute + 100*time.Millisecond},
		"the session ends":          {backoff{}, 0, nil, 0, 100 * time.Millisecond},
		"asked for time by another": {backoff{}, 0, fmt.Errorf("wrapped: %w", asks.Err()), 10 * time.Second, 20*time.Second + 100*time.Millisecond},
	} {
		t.Run(name, func(t *testing.T) {
			from, to := longest(c.state, c.lasted, c.err)
			margin := (c.to - c.from) / 50
			if from < c.from || from > c.from+margin || to > c.to || to < c.to-max(margin, (c.to-c.from)/10) {
				t.Errorf("between %v and %v, want %v to %v", from, to, c.from, c.to)
			}
		})
	}
	var b backoff
	b.pause(0, wrong)
	b.pause(0, wrong)
	if b.pause(0, down); b.refusals != 0 || b.failures != 3 {
		t.Errorf("a failure that may pass leaves %+v", b)
	}
}
