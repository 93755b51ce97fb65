package workload

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/durationpb"

	holdfastv1 "github.com/holdfast-dev/holdfast/proto/holdfast/v1"
	"github.com/holdfast-dev/holdfast/test/jepsen-lite/history"
)

// session is one client: a name under which it has one operation at a time, its
// connections, and how patient it is. One goroutine uses it.
type session struct {
	base    string
	links   *links
	record  func(record any)
	pinned  bool          // it asks server at only
	at      int           // the server that is asked next
	attempt time.Duration // how long it waits for one answer
	patient time.Duration // how long it repeats a write
	// deaf is how many answers of each write it pretends to have lost.
	deaf int
	// apply sends a write to the present server; nil means over links. Tests have their own.
	apply func(context.Context, *holdfastv1.ApplyRequest, ...grpc.CallOption) (*holdfastv1.ApplyResponse, error)

	unknowns int    // writes whose outcome it never learnt
	values   uint64 // that it has drawn
}

// name is the client's present name: after a write with an unknown outcome, which may
// still happen, it goes on under a new one.
func (s *session) name() string { return fmt.Sprintf("%s.%d", s.base, s.unknowns) }

// value draws one that nobody has written before.
func (s *session) value() string {
	s.values++
	return fmt.Sprintf("%s.%d", s.base, s.values)
}

// server is the id of the one that is asked.
func (s *session) server() string { return s.links.servers[s.at].ID }

// next goes on to another server, if the client may.
func (s *session) next() {
	if !s.pinned {
		s.at = (s.at + 1) % len(s.links.servers)
	}
}

// between is how long a client waits before it repeats a write.
const between = 10 * time.Millisecond

// write applies a transaction and records it; op tells what it is about.
func (s *session) write(ctx context.Context, op history.Op, reason string, ops ...*holdfastv1.Operation) history.Op {
	id := make([]byte, 16)
	_, _ = rand.Read(id) // never fails
	request := &holdfastv1.ApplyRequest{RequestId: id, Operations: ops, Reason: reason, ClaimedActor: s.base}
	op.Client, op.Request, op.Outcome = s.name(), hex.EncodeToString(id), history.Failed
	op.Call = history.Now()
	s.repeat(ctx, &op, request)
	op.Return = history.Now()
	s.record(op)
	if op.Outcome == history.Unknown {
		s.unknowns++
	}
	return op
}

// repeat tries until there is an answer, or the client's patience has ended.
func (s *session) repeat(ctx context.Context, op *history.Op, request *holdfastv1.ApplyRequest) {
	began := time.Now()
	for {
		op.Attempts++
		if op.Attempts > 1 {
			request.Age = durationpb.New(time.Since(began))
		}
		op.Server = s.server()
		response, err := s.try(ctx, request)
		heard := op.Attempts > s.deaf
		switch {
		case err == nil && heard:
			answered(op, response)
			return
		case err == nil:
			op.Outcome = history.Unknown
			// The answer is lost for longer than the client waits for it.
			pause(ctx, s.attempt)
		default:
			f := explain(err)
			op.Code = f.code
			if f.decided() && heard {
				op.Outcome, op.Store = history.Failed, f.revision
				return
			}
			if !f.definite || f.decided() {
				op.Outcome = history.Unknown
			}
			if f.final && !f.decided() {
				return
			}
			pause(ctx, between)
		}
		if ctx.Err() != nil || time.Since(began) > s.patient {
			return
		}
		s.next()
	}
}

// try sends a write once.
func (s *session) try(ctx context.Context, request *holdfastv1.ApplyRequest) (*holdfastv1.ApplyResponse, error) {
	ctx, cancel := context.WithTimeout(ctx, s.attempt)
	defer cancel()
	if s.apply != nil {
		return s.apply(ctx, request)
	}
	state, conn, err := s.links.state(s.at)
	if err != nil {
		return nil, err
	}
	response, err := state.Apply(ctx, request)
	if err != nil && explain(err).silent {
		s.links.renew(s.at, conn)
	}
	return response, err //nolint:wrapcheck // explain reads its details
}

// answered fills in what a server says of a write.
func answered(op *history.Op, response *holdfastv1.ApplyResponse) {
	op.Outcome, op.Code = history.OK, ""
	op.Revision, op.Duplicate = response.GetRevision(), response.GetDuplicate()
	op.Store, op.Epoch = response.GetHeader().GetRevision(), response.GetHeader().GetEpoch().GetCounter()
	if op.F == history.Delete || op.F == history.Release {
		for _, change := range response.GetChanges() {
			if change.GetType() == holdfastv1.ChangeType_CHANGE_TYPE_ABSENT {
				op.Outcome, op.Code, op.Revision = history.Failed, history.CodeNotFound, 0
			}
		}
	}
}

// read gets a register and records that.
func (s *session) read(ctx context.Context, op history.Op) history.Op {
	op.Client, op.Server, op.F = s.name(), s.server(), history.Get
	op.Call = history.Now()
	state, conn, err := s.links.state(s.at)
	if err == nil {
		err = get(ctx, state, s.attempt, &op)
	}
	op.Return = history.Now()
	if err != nil {
		f := explain(err)
		op.Outcome, op.Code = history.Failed, f.code
		if f.silent {
			s.links.renew(s.at, conn)
		}
		s.next()
	}
	s.record(op)
	return op
}

// get asks a server for the register of an operation.
func get(ctx context.Context, state holdfastv1.StateServiceClient, limit time.Duration, op *history.Op) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	options := &holdfastv1.ReadOptions{Consistency: holdfastv1.Consistency_CONSISTENCY_LINEARIZABLE, MinRevision: op.MinRevision}
	if op.Local {
		options.Consistency = holdfastv1.Consistency_CONSISTENCY_LOCAL
	}
	cell := &op.Cells[0]
	response, err := state.Get(ctx, &holdfastv1.GetRequest{Key: flagKey(cell.Key), Read: options})
	if f := explain(err); err != nil && f.code == history.CodeNotFound {
		op.Outcome, op.Store, cell.Absent = history.OK, f.revision, true
		return nil
	}
	if err != nil {
		return err //nolint:wrapcheck // explain reads its details
	}
	op.Outcome = history.OK
	op.Store, op.Epoch = response.GetHeader().GetRevision(), response.GetHeader().GetEpoch().GetCounter()
	cell.Value, cell.Revision = valueOf(response.GetResource().GetSpec()), response.GetResource().GetModRevision()
	return nil
}

// pause waits, unless ctx ends.
func pause(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	}
}
