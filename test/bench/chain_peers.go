package main

import (
	"time"

	"github.com/failsafe-go/failsafe-go"
	"github.com/failsafe-go/failsafe-go/bulkhead"
	"github.com/failsafe-go/failsafe-go/failsafegrpc"
	"github.com/failsafe-go/failsafe-go/retrypolicy"
	failsafetimeout "github.com/failsafe-go/failsafe-go/timeout"
	"github.com/grpc-ecosystem/go-grpc-middleware/v2/interceptors/retry"
	"github.com/grpc-ecosystem/go-grpc-middleware/v2/interceptors/timeout"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/emptypb"
)

// What all chains do: up to three attempts, a breaker, at most 1,024 calls at once,
// 15 s. These are Holdfast's defaults.
const (
	chainAttempts   = 3
	chainConcurrent = 1024
	chainTimeout    = 15 * time.Second
	chainPause      = 100 * time.Millisecond
	chainMaxPause   = 2 * time.Second
)

// newFailsafeExecutor puts the policies in the order in which failsafe-go's own
// documents have them: each attempt passes the breaker and the bulkhead, and has the
// time limit to itself.
func newFailsafeExecutor[R any]() failsafe.Executor[R] {
	return failsafe.With[R](
		withPauses(retrypolicy.NewBuilder[R]()).Build(),
		newFailsafeBreaker[R](),
		bulkhead.New[R](chainConcurrent),
		failsafetimeout.New[R](chainTimeout),
	)
}

func withPauses[R any](b retrypolicy.Builder[R]) retrypolicy.Builder[R] {
	return b.WithMaxAttempts(chainAttempts).WithBackoff(chainPause, chainMaxPause).WithJitterFactor(1)
}

func failsafeInterceptor() grpc.UnaryClientInterceptor {
	type reply = *emptypb.Empty
	return failsafegrpc.NewUnaryClientInterceptor[reply](
		withPauses(failsafegrpc.NewRetryPolicyBuilder[reply]()).Build(),
		newFailsafeBreaker[reply](),
		bulkhead.New[reply](chainConcurrent),
		failsafetimeout.New[reply](chainTimeout),
	)
}

func middlewareInterceptors() []grpc.UnaryClientInterceptor {
	return []grpc.UnaryClientInterceptor{
		timeout.UnaryClientInterceptor(chainTimeout),
		retry.UnaryClientInterceptor(retry.WithMax(chainAttempts),
			retry.WithBackoff(retry.BackoffExponentialWithJitterBounded(chainPause, 1, chainMaxPause))),
	}
}
