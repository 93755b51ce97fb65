package workload

import (
	"context"
	"errors"
	"math/rand/v2"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	holdfastv1 "github.com/holdfast-dev/holdfast/proto/holdfast/v1"
	"github.com/holdfast-dev/holdfast/test/jepsen-lite/history"
)

// script is a server that answers writes as a test says, one answer after the other.
type script struct {
	holdfastv1.StateServiceClient
	answers []error // nil: applied
	asked   []*holdfastv1.ApplyRequest
}

func (s *script) Apply(_ context.Context, r *holdfastv1.ApplyRequest, _ ...grpc.CallOption) (*holdfastv1.ApplyResponse, error) {
	s.asked = append(s.asked, proto.CloneOf(r))
	answer := s.answers[min(len(s.asked), len(s.answers))-1]
	if answer != nil {
		return nil, answer
	}
	return &holdfastv1.ApplyResponse{Revision: 7, Duplicate: len(s.asked) > 1, Header: &holdfastv1.Header{Revision: 8}}, nil
}

func refusal(t *testing.T, code codes.Code, reason, outcome string) error {
	t.Helper()
	st, err := status.New(code, reason).WithDetails(&errdetails.ErrorInfo{
		Domain: "holdfast", Reason: reason, Metadata: map[string]string{"outcome": outcome, "revision": "5"},
	})
	if err != nil {
		t.Fatal(err)
	}
	return st.Err()
}

// What a client says of a write decides what checkers can conclude: it is unknown as soon
// as one attempt may have had an effect, and certain only if all the answers are.
func TestOutcomes(t *testing.T) {
	t.Parallel()
	lost := status.Error(codes.DeadlineExceeded, "no answer")
	noLeader := refusal(t, codes.Unavailable, "NO_LEADER", "definite")
	unknown := refusal(t, codes.Unavailable, "UNKNOWN_OUTCOME", "unknown")
	mismatch := refusal(t, codes.FailedPrecondition, history.CodeMismatch, "definite")
	tooOld := refusal(t, codes.FailedPrecondition, "REQUEST_TOO_OLD", "unknown")
	invalid := refusal(t, codes.InvalidArgument, "INVALID_REQUEST", "definite")
	unsent := status.Error(codes.Unavailable, `connection error: desc = "transport: Error while dialing: connection refused"`)
	broken := status.Error(codes.Unavailable, "error reading from server: EOF")
	for name, c := range map[string]struct {
		answers  []error
		outcome  history.Outcome
		attempts int // 0: until its patience ends
		deaf     int
	}{
		"applied":                           {answers: []error{nil}, outcome: history.OK, attempts: 1},
		"applied after a refusal":           {answers: []error{noLeader, nil}, outcome: history.OK, attempts: 2},
		"applied after a loss":              {answers: []error{lost, nil}, outcome: history.OK, attempts: 2},
		"never sent":                        {answers: []error{unsent}, outcome: history.Failed},
		"no leader all the time":            {answers: []error{noLeader}, outcome: history.Failed},
		"lost once, then refused":           {answers: []error{lost, noLeader}, outcome: history.Unknown},
		"the connection broke":              {answers: []error{broken, noLeader}, outcome: history.Unknown},
		"the server does not know":          {answers: []error{unknown, noLeader}, outcome: history.Unknown},
		"refused by the state":              {answers: []error{mismatch}, outcome: history.Failed, attempts: 1},
		"refused by the state, at last":     {answers: []error{lost, mismatch}, outcome: history.Failed, attempts: 2},
		"invalid":                           {answers: []error{invalid}, outcome: history.Failed, attempts: 1},
		"too old to know":                   {answers: []error{lost, tooOld, noLeader}, outcome: history.Unknown},
		"the answer was lost on its way":    {answers: []error{nil, nil}, deaf: 1, outcome: history.OK, attempts: 2},
		"the refusal was lost on its way":   {answers: []error{mismatch, noLeader}, deaf: 1, outcome: history.Unknown},
		"an applied write's answer is lost": {answers: []error{nil, noLeader}, deaf: 1, outcome: history.Unknown},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				server := &script{answers: c.answers}
				var records []any
				s := session{
					base: "c", links: &links{servers: []Endpoint{{ID: "s1"}}}, record: func(r any) { records = append(records, r) },
					attempt: time.Millisecond, patient: 60 * time.Millisecond, deaf: c.deaf,
				}
				s.apply = server.Apply
				was := s.name()
				op := s.write(t.Context(), history.Op{F: history.Put}, "test", put("x", "v"))
				if op.Outcome != c.outcome {
					t.Errorf("the outcome is %s %s, want %s", op.Outcome, op.Code, c.outcome)
				}
				if c.attempts > 0 && op.Attempts != c.attempts || c.attempts == 0 && op.Attempts < 2 {
					t.Errorf("%d attempts, want %d (0: several)", op.Attempts, c.attempts)
				}
				for i, r := range server.asked {
					if string(r.GetRequestId()) != string(server.asked[0].GetRequestId()) || (i > 0) != (r.GetAge() != nil) {
						t.Errorf("attempt %d has id %x and age %v", i+1, r.GetRequestId(), r.GetAge())
					}
				}
				if renamed := s.name() != was; renamed != (c.outcome == history.Unknown) {
					t.Errorf("after %s the client's name went from %s to %s", c.outcome, was, s.name())
				}
				if len(records) != 1 {
					t.Errorf("%d records, want 1", len(records))
				}
			})
		})
	}
}

// Who has no patience takes the first answer, also where a repetition would help.
func TestOnceIsOnce(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		server := &script{answers: []error{refusal(t, codes.Unavailable, "NO_LEADER", "definite"), nil}}
		s := session{base: "c", links: &links{servers: []Endpoint{{ID: "s1"}}}, record: func(any) {}, attempt: time.Second, apply: server.Apply}
		op := s.write(t.Context(), history.Op{F: history.Put}, "test", put("x", "v"))
		if op.Outcome != history.Failed || op.Attempts != 1 {
			t.Errorf("%s after %d attempts, want a failure after one", op.Outcome, op.Attempts)
		}
	})
}

// Registers give way to fresh ones, or checkers drown in one.
func TestRegistersGiveWay(t *testing.T) {
	t.Parallel()
	r, random := &registers{}, rand.New(rand.NewPCG(1, 2))
	count := map[string]int{}
	for range 3 * registerCount * opsPerRegister {
		count[r.take(random)]++
	}
	for name, n := range count {
		if n > opsPerRegister {
			t.Errorf("%s was used %d times", name, n)
		}
	}
	if len(count) <= 2*registerCount {
		t.Errorf("there were %d registers", len(count))
	}
	name := r.take(random)
	for range unknownsPerRegister {
		r.unknown(name)
	}
	for range 40 * registerCount {
		if r.take(random) == name {
			t.Fatalf("%s is in use after %d unknown writes", name, unknownsPerRegister)
		}
	}
}

func TestValues(t *testing.T) {
	t.Parallel()
	if got := valueOf(definition(`a"b`)); got != `a"b` {
		t.Errorf("the value is %q", got)
	}
	if got := valueOf([]byte(`{"variants":{"other":"x"}}`)); !strings.HasPrefix(got, "unreadable") {
		t.Errorf("a definition that no client wrote reads as %q", got)
	}
	if f := explain(errors.New("whatever")); f.definite || f.final {
		t.Errorf("an error that says nothing counts as %+v", f)
	}
}
