package service

import (
	"context"
	"math/rand/v2"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/holdfast-dev/holdfast/pkg/client"
)

// work is what a service pretends to do, as badly as its two flags say:
// "SERVICE-broken" and "SERVICE-slow", in milliseconds.
type work struct {
	service string
	broken  *client.BoolFlag
	slow    *client.IntFlag
}

func newWork(cp *client.Client, service string) *work {
	return &work{service: service, broken: cp.Bool(service+"-broken", false), slow: cp.Int(service+"-slow", 0)}
}

// intercept fails every call of a broken service but those that tell how it is.
func (w *work) intercept(ctx context.Context, req any, info *grpc.UnaryServerInfo, handle grpc.UnaryHandler) (any, error) {
	if w.broken.Get() && !strings.HasPrefix(info.FullMethod, "/shop.Inspection/") {
		return nil, status.Errorf(codes.Unavailable, "%s is broken: the flag %s-broken is on", w.service, w.service)
	}
	return handle(ctx, req)
}

// take takes about the typical time, or longer where the service is slow, unless
// the caller loses patience.
func (w *work) take(ctx context.Context, typical time.Duration) error {
	span := typical/2 + rand.N(typical) + time.Duration(w.slow.Get())*time.Millisecond
	timer := time.NewTimer(span)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return status.FromContextError(ctx.Err()).Err()
	}
}
