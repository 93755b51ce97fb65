package cluster_test

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	holdfastv1 "github.com/holdfast-dev/holdfast/proto/holdfast/v1"
	"github.com/holdfast-dev/holdfast/test/cluster"
)

// strict is a writer whose every write would betray that it was applied twice,
// or not at all:
//
//   - counting: each write puts the same override, which is never "unchanged",
//     so its version must be the number of writes in the end;
//   - creating: each write creates a key of its own, which must not be there, so
//     the second application of one that is not recognised is a refusal;
//   - chaining: each write expects the revision of the one before.
//
// Every few writes it sends the same request through two servers at once.
type strict struct {
	id     int
	w      *cluster.Writer
	acks   []cluster.Ack
	names  []string // of the resources, one per ack
	hedged *atomic.Int64
	dup    *atomic.Int64
}

func (s *strict) run(ctx context.Context, c *cluster.Cluster) error {
	var last uint64
	for n := 0; ctx.Err() == nil; n++ {
		name, op := s.operation(n, last)
		limit, cancel := context.WithTimeout(context.WithoutCancel(ctx), 40*time.Second)
		ack, err := s.send(limit, c, n, op)
		cancel()
		if err != nil {
			return fmt.Errorf("writer %d, write %d, first tried %v ago: %w", s.id, n, time.Since(ack.Began), err)
		}
		if rev := ack.Response.GetRevision(); rev <= last {
			return fmt.Errorf("writer %d: revision %d acknowledged after %d", s.id, rev, last)
		}
		last = ack.Response.GetRevision()
		s.acks, s.names = append(s.acks, ack), append(s.names, name)
		time.Sleep(25 * time.Millisecond)
	}
	return nil
}

func (s *strict) operation(n int, last uint64) (string, *holdfastv1.Operation) {
	text := fmt.Sprintf("%d-%d", s.id, n)
	switch s.id % 3 {
	case 0:
		name := fmt.Sprintf("count-%d", s.id)
		return name, cluster.Override("", name, time.Hour)
	case 1:
		name := "create-" + text
		return name, cluster.Create(cluster.Flag("", name, text))
	default:
		name := fmt.Sprintf("chain-%d", s.id)
		return name, cluster.Expect(cluster.Flag("", name, text), last)
	}
}

func (s *strict) send(ctx context.Context, c *cluster.Cluster, n int, op *holdfastv1.Operation) (cluster.Ack, error) {
	req, began := s.w.NewRequest("strict", op), time.Now()
	if n%8 != 5 {
		ack, err := s.w.Send(ctx, req, began)
		if err == nil && ack.Response.GetDuplicate() {
			s.dup.Add(1)
		}
		return ack, err
	}
	s.hedged.Add(1)
	type answer struct {
		ack cluster.Ack
		err error
	}
	second := make(chan answer, 1)
	other := c.Writer(s.id+1+n%2, s.w.Attempt)
	twin := proto.CloneOf(req)
	go func() {
		ack, err := other.Send(ctx, twin, began)
		second <- answer{ack, err}
	}()
	ack, err := s.w.Send(ctx, req, began)
	b := <-second
	if err != nil {
		return ack, err
	}
	if b.err != nil {
		return ack, fmt.Errorf("twin of an acknowledged write: %w", b.err)
	}
	if x, y := ack.Response, b.ack.Response; x.GetRevision() != y.GetRevision() {
		return ack, fmt.Errorf("one request was answered with revision %d and %d", x.GetRevision(), y.GetRevision())
	} else if !x.GetDuplicate() && !y.GetDuplicate() {
		return ack, fmt.Errorf("one request was applied twice at revision %d", x.GetRevision())
	}
	s.dup.Add(1)
	return ack, nil
}

// check compares what the writer was told with what is there.
func (s *strict) check(have map[string]*holdfastv1.Resource, audit map[string][]*holdfastv1.AuditRecord) error {
	for n, ack := range s.acks {
		records := audit[string(ack.Request.GetRequestId())]
		if len(records) != 1 || records[0].GetRevision() != ack.Response.GetRevision() {
			return fmt.Errorf("write %s acknowledged at revision %d after %d attempts is %d times in the audit: %v",
				s.names[n], ack.Response.GetRevision(), ack.Attempts, len(records), records)
		}
	}
	if len(s.acks) == 0 {
		return fmt.Errorf("writer %d wrote nothing", s.id)
	}
	last := len(s.acks) - 1
	switch s.id % 3 {
	case 0:
		r := have[cluster.ResourceName(holdfastv1.Kind_KIND_OVERRIDE, s.names[last])]
		return s.expect(r, uint64(len(s.acks)), last)
	case 1:
		for n := range s.acks {
			if err := s.expect(have[cluster.ResourceName(holdfastv1.Kind_KIND_FLAG, s.names[n])], 1, n); err != nil {
				return err
			}
		}
		return nil
	default:
		return s.expect(have[cluster.ResourceName(holdfastv1.Kind_KIND_FLAG, s.names[last])], uint64(len(s.acks)), last)
	}
}

func (s *strict) expect(r *holdfastv1.Resource, version uint64, ack int) error {
	if r.GetVersion() != version || r.GetModRevision() != s.acks[ack].Response.GetRevision() {
		return fmt.Errorf("%s: version %d at revision %d, want version %d at revision %d", s.names[ack],
			r.GetVersion(), r.GetModRevision(), version, s.acks[ack].Response.GetRevision())
	}
	return nil
}

// The leader is killed again and again under 64 writers that retry with short
// patience. Every write is applied exactly once.
func TestLeaderKillsUnderWritersApplyEachWriteOnce(t *testing.T) {
	c := start(t, cluster.Options{})
	var (
		hedged, dup atomic.Int64
		group       sync.WaitGroup
		writers     []*strict
		failures    = make(chan error, 64)
	)
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	for id := range 64 {
		s := &strict{id: id, w: c.Writer(id, 250*time.Millisecond), hedged: &hedged, dup: &dup}
		writers = append(writers, s)
		group.Go(func() {
			if err := s.run(ctx, c); err != nil {
				failures <- err
			}
		})
	}
	audit := &auditor{}
	var gaps cluster.Durations
	for range *kills {
		time.Sleep(time.Second) // of writing in peace
		old := leader(t, c)
		gaps = append(gaps, outage(t, c, func() error { return c.Kill(old) }, c.Others(old)...))
		restart(t, c, old)
		must(t, audit.collect(within(t, 20*time.Second), c.Client(old)))
	}
	stop()
	group.Wait()
	close(failures)
	for err := range failures {
		t.Error(err)
	}
	get[*holdfastv1.GetStatusResponse](t)(c.Agree(within(t, 20*time.Second)))
	must(t, audit.collect(within(t, 20*time.Second), c.Client(0)))
	have, byRequest := listAll(t, c, ""), audit.byRequest()
	total, attempts := 0, 0
	for _, s := range writers {
		if err := s.check(have, byRequest); err != nil {
			t.Error(err)
		}
		for _, ack := range s.acks {
			total, attempts = total+1, attempts+ack.Attempts
		}
	}
	t.Logf("%d kills of the leader; %d writes acknowledged in %d attempts, %d sent twice at once, %d answered as duplicates",
		len(gaps), total, attempts, hedged.Load(), dup.Load())
	t.Logf("kill -9 of the leader to the first acknowledged write, with 64 writers: %v", gaps)
	if attempts == total || dup.Load() == 0 {
		t.Error("nothing was retried: the test has shown nothing")
	}
}
