package guard

import (
	"context"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/holdfast-dev/holdfast/internal/breaker"
)

// Invocation is a call that a Target makes, maybe several times.
type Invocation interface {
	// Invoke makes the call once; attempts count from 1. Its context ends when it
	// has returned.
	Invoke(ctx context.Context, attempt int) error
	// Result tells what the error of an attempt, which may be nil, means.
	Result(ctx context.Context, err error) Result
	// Twin returns a second invocation of the same call that may run at the same
	// time, for a hedge; nil if there can be none. It may be called on another
	// goroutine while Invoke runs, not while another Twin does.
	Twin() Invocation
	// Adopt takes the answer of a twin that was better. Nothing of the call runs
	// then. The twins whose answers are not adopted are left alone.
	Adopt(twin Invocation)
}

// Keeper is an Invocation whose answers may go on after Invoke, such as the body of
// an HTTP response.
type Keeper interface {
	Invocation
	// Keep hands over the places of the attempt whose answer Call returns, if its
	// Result says Keep; they have to be released. Those of an adopted twin go to the
	// invocation that adopted it.
	Keep(p Place)
}

// Result is what the end of an attempt says.
type Result struct {
	// Code is the gRPC code, or what comes nearest.
	Code codes.Code
	// Class is what it says about the dependency where Classified is true;
	// otherwise the policy decides by the code.
	Class      breaker.Class
	Classified bool
	// Retry tells whether another attempt makes sense where RetryKnown is true;
	// otherwise the policy decides by the code.
	Retry, RetryKnown bool
	// Keep tells that the answer goes on. Only a Keeper may say so.
	Keep bool
	// PushedBack tells that the server said when to come back: after PushBack, never
	// if that is negative.
	PushedBack bool
	PushBack   time.Duration
}

// plain tells whether the result is the one of nearly all calls.
func (r *Result) plain() bool { return r.Code == codes.OK && !r.Classified && !r.RetryKnown && !r.Keep }
