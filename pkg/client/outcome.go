package client

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"net"
	"strconv"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/holdfast-dev/holdfast/internal/breaker"
	"github.com/holdfast-dev/holdfast/internal/guard"
)

// Outcome is what an error says about the dependency.
type Outcome uint8

// The outcomes. Unclassified leaves it to the gRPC code of the error, or to what
// comes nearest.
const (
	Unclassified   Outcome = iota
	Success                // it answered, though not with what was hoped for
	Failure                // tried again where calls may be repeated
	FailureNoRetry         // never tried again
	Neutral                // says nothing about it
	Overload               // it refuses work that it could do at another time
)

// result tells what the error of an attempt, not nil, means.
func (o *callOptions) result(s *guard.Setting, err error) guard.Result {
	r := resultOf(err)
	outcome := Unclassified
	if o.classify != nil && !isRejection(err) {
		outcome = judge(o.classify, err)
	}
	switch outcome {
	case Success:
		return decided(r, breaker.Success, false)
	case Failure:
		return decided(r, breaker.Failure, s.Idempotent)
	case FailureNoRetry:
		return decided(r, breaker.Failure, false)
	case Neutral:
		return decided(r, breaker.Neutral, false)
	case Overload:
		return decided(r, breaker.Overload, s.Idempotent && s.Policy.Retry.Retryable.Has(uint32(r.Code)))
	default:
		return r
	}
}

func decided(r guard.Result, class breaker.Class, retry bool) guard.Result {
	r.Class, r.Classified, r.Retry, r.RetryKnown = class, true, retry, true
	return r
}

// judge asks a classifier; its panic is no answer.
func judge(classify func(error) Outcome, err error) (outcome Outcome) {
	defer func() {
		if recover() != nil {
			outcome = Unclassified
		}
	}()
	return classify(err)
}

func isRejection(err error) bool {
	_, ok := errors.AsType[*guard.Rejection](err)
	return ok
}

// resultOf tells what an error, which may be nil, means without a classifier.
func resultOf(err error) guard.Result {
	if err == nil {
		return guard.Result{}
	}
	if own, ok := errors.AsType[*guard.Rejection](err); ok { // of a dependency that is called on the way
		return decided(guard.Result{Code: own.Code}, breaker.Neutral, false)
	}
	s, ok := statusOf(err)
	if !ok {
		return guard.Result{Code: codeOf(err)}
	}
	r := guard.Result{Code: s.Code()}
	var why guard.Reason
	for _, detail := range s.Details() {
		switch detail := detail.(type) {
		case *errdetails.RetryInfo:
			if delay := detail.GetRetryDelay(); delay.IsValid() && delay.AsDuration() >= 0 {
				r.PushedBack, r.PushBack = true, delay.AsDuration()
			}
		case *errdetails.ErrorInfo:
			why = refusal(detail)
		}
	}
	ruledOut(&r, why)
	return r
}

// ruledOut takes in that a server refused by rules of its own, for a reason. It is
// alive then, and would refuse the next try as well.
func ruledOut(r *guard.Result, reason guard.Reason) {
	switch reason {
	case guard.Degraded, guard.Shed, guard.DeadlineTooNear:
		*r = decided(*r, breaker.Neutral, false)
	case guard.BulkheadFull, guard.BulkheadTimeout:
		*r = decided(*r, breaker.Overload, false)
	case guard.BreakerOpen, guard.Rejected:
		// It passes on what happens behind it. The code tells how bad that is; the pause is
		// not the server's own, and would let one open breaker open all those before it.
		*r = guard.Result{Code: r.Code, RetryKnown: true}
	}
}

// isPassedOn tells whether ruledOut found that a server passes on what happens
// behind it.
func isPassedOn(r *guard.Result) bool { return r.RetryKnown && !r.Classified }

// notMade tells whether an error says that rules of this or the other side refused
// the call.
func notMade(err error) bool {
	if isRejection(err) {
		return true
	}
	s, ok := statusOf(err)
	if !ok {
		return false
	}
	for _, detail := range s.Details() {
		if info, ok := detail.(*errdetails.ErrorInfo); ok && refusal(info) != "" {
			return true
		}
	}
	return false
}

// refusal returns the reason for which rules refused a call. It is empty for all
// else, which may come from a server of the control plane.
func refusal(info *errdetails.ErrorInfo) guard.Reason {
	reason := guard.Reason(info.GetReason())
	switch reason {
	case guard.BreakerOpen, guard.BulkheadFull, guard.BulkheadTimeout, guard.DeadlineTooNear, guard.Shed, guard.Degraded, guard.Rejected:
		if info.GetDomain() == guard.Domain {
			return reason
		}
	}
	return ""
}

// statusOf returns the gRPC status in an error, if there is one.
func statusOf(err error) (*status.Status, bool) {
	if s, ok := errors.AsType[interface {
		error
		GRPCStatus() *status.Status
	}](err); ok {
		if st := s.GRPCStatus(); st != nil {
			return st, true
		}
	}
	return nil, false
}

// codeOf returns the code that comes nearest to an error without a status.
func codeOf(err error) codes.Code {
	var network net.Error
	switch {
	case errors.Is(err, context.Canceled):
		return codes.Canceled
	case errors.Is(err, context.DeadlineExceeded):
		return codes.DeadlineExceeded
	case errors.Is(err, sql.ErrNoRows):
		return codes.NotFound
	case errors.Is(err, driver.ErrBadConn):
		return codes.Unavailable
	case errors.As(err, &network) && network.Timeout():
		return codes.DeadlineExceeded
	case errors.As(err, &network):
		return codes.Unavailable
	default:
		return codes.Unknown
	}
}

// pushBackKey is the trailer by which a gRPC server says when to try again.
const pushBackKey = "grpc-retry-pushback-ms"

// readPushBack takes in what a trailer says. As gRPC has it, a value that is no
// number of milliseconds, or several, mean never.
func readPushBack(r *guard.Result, trailer metadata.MD) {
	values := trailer[pushBackKey]
	if len(values) == 0 || isPassedOn(r) {
		return
	}
	r.PushedBack, r.PushBack = true, -1
	const digits = 32
	if ms, err := strconv.ParseInt(values[0], 10, digits); err == nil && ms >= 0 && len(values) == 1 {
		r.PushBack = time.Duration(ms) * time.Millisecond
	}
}
