// Package load is the customers of the shop: they browse, fill baskets and check
// out, at a steady rate whatever the answers are, and know nothing of the control
// plane. What they get is counted by what it means to them.
package load

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/holdfast-dev/holdfast/examples/shop/shoppb"
	"github.com/holdfast-dev/holdfast/pkg/client"
)

// Op is something that customers do.
type Op uint8

// What they do.
const (
	Browse Op = iota
	Basket
	Checkout
	ops
)

// Ops lists them.
func Ops() []Op { return []Op{Browse, Basket, Checkout} }

// String returns the word.
func (o Op) String() string { return [...]string{"browse", "basket", "checkout"}[o] }

// share is that of the calls which are this.
func (o Op) share() float64 { return [...]float64{0.5, 0.25, 0.25}[o] }

// patience is how long a customer waits.
func (o Op) patience() time.Duration {
	return [...]time.Duration{5 * time.Second, 5 * time.Second, 10 * time.Second}[o]
}

// crowd is how many customers wait for one kind of answer at a time. Beyond it
// nobody else comes, which counts as a failure.
const crowd = 512

// Load makes calls. New makes one; Run starts it.
type Load struct {
	shop   shoppb.StorefrontClient
	rate   float64
	began  time.Time
	meters [ops]meter
	// doing has a place for each customer who may wait.
	doing [ops]chan struct{}

	mu        sync.Mutex // guards lastError
	lastError [ops]string
}

// New returns a load of so many calls per second on a connection to the storefront.
func New(storefront grpc.ClientConnInterface, perSecond float64) *Load {
	l := &Load{shop: shoppb.NewStorefrontClient(storefront), rate: perSecond, began: time.Now()}
	for o := range l.doing {
		l.doing[o] = make(chan struct{}, crowd)
	}
	return l
}

// Run makes calls until ctx ends, and waits for their ends.
func (l *Load) Run(ctx context.Context) {
	var running sync.WaitGroup
	for _, op := range Ops() {
		running.Go(func() { l.customers(ctx, op) })
	}
	running.Wait()
}

// customers come at a steady rate: a slow shop does not keep others away.
func (l *Load) customers(ctx context.Context, op Op) {
	every := time.Duration(float64(time.Second) / (l.rate * op.share()))
	ticker := time.NewTicker(every)
	defer ticker.Stop()
	var waiting sync.WaitGroup
	defer waiting.Wait()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		select {
		case l.doing[op] <- struct{}{}:
			waiting.Go(func() {
				defer func() { <-l.doing[op] }()
				_, _ = l.Call(ctx, op)
			})
		default:
			l.count(op, Failed, 0, fmt.Errorf("%d customers wait already", crowd))
		}
	}
}

// Call is one customer doing something. It is counted, unless it ended because
// ctx did. The error is the one the customer saw.
func (l *Load) Call(ctx context.Context, op Op) (Outcome, error) {
	limited, cancel := context.WithTimeout(ctx, op.patience())
	defer cancel()
	began := time.Now()
	var header metadata.MD
	err := l.do(limited, op, grpc.Header(&header))
	outcome := outcomeOf(header, err)
	if ctx.Err() == nil {
		l.count(op, outcome, time.Since(began), err)
	}
	return outcome, err
}

func (l *Load) do(ctx context.Context, op Op, options ...grpc.CallOption) (err error) {
	customer := fmt.Sprintf("customer-%d", rand.IntN(1000))
	sku := [...]string{"rope", "anchor", "lantern", "cleat"}[rand.IntN(4)]
	switch op {
	case Browse:
		_, err = l.shop.Browse(ctx, &shoppb.BrowseRequest{Customer: customer}, options...)
	case Basket:
		_, err = l.shop.Basket(ctx, &shoppb.BasketRequest{Sku: sku}, options...)
	default:
		_, err = l.shop.Checkout(ctx, &shoppb.CheckoutRequest{
			Customer: customer, OrderId: fmt.Sprintf("%016x", rand.Uint64()), Sku: sku,
		}, options...)
	}
	return err
}

// outcomeOf tells what an answer means to a customer.
func outcomeOf(header metadata.MD, err error) Outcome {
	switch {
	case err != nil && refused(err):
		return Refused
	case err != nil:
		return Failed
	case client.DegradedBy(header) != "":
		return Degraded
	default:
		return OK
	}
}

// refused tells whether a level of a mode decided that the call is not served.
func refused(err error) bool {
	for _, detail := range status.Convert(err).Details() {
		if info, ok := detail.(*errdetails.ErrorInfo); ok && info.GetDomain() == "holdfast" {
			return info.GetReason() == string(client.Degraded) || info.GetReason() == string(client.Shed)
		}
	}
	return false
}

func (l *Load) count(op Op, outcome Outcome, took time.Duration, err error) {
	l.meters[op].add(time.Since(l.began), outcome, took)
	if outcome == Failed {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.lastError[op] = status.Code(err).String() + ": " + status.Convert(err).Message()
	}
}

// Read shows what was counted for one kind of calls.
func (l *Load) Read(op Op) Reading { return l.meters[op].read(time.Since(l.began)) }

// LastError is why a call of a kind failed last; empty if none did.
func (l *Load) LastError(op Op) string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.lastError[op]
}
