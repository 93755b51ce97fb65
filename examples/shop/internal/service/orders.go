package service

import (
	"context"
	"sync"
	"time"

	"google.golang.org/grpc"

	"github.com/holdfast-dev/holdfast/examples/shop/shoppb"
	"github.com/holdfast-dev/holdfast/pkg/client"
)

const (
	// pendingPayments is how many orders may wait for their payment; beyond it an
	// order is refused.
	pendingPayments = 10_000
	// settleEvery is how often the first of them is tried.
	settleEvery = 100 * time.Millisecond
	// delivery is what it costs, in cents.
	delivery = 490
)

// orders takes orders and sees them through.
type orders struct {
	shoppb.UnimplementedOrdersServer

	work          *work
	payments      shoppb.PaymentsClient
	inventory     shoppb.InventoryClient
	notifications shoppb.NotificationsClient
	later         *later
}

func newOrders(cp *client.Client, w *work, toPayments, toInventory, toNotifications *grpc.ClientConn) *orders {
	// A sale is worth more than money on the same day: the order is accepted and paid
	// once payments are back.
	cp.RegisterFallback(shoppb.Payments_Charge_FullMethodName, func(context.Context, client.Call) (any, error) {
		return &shoppb.ChargeResponse{Pending: true}, nil
	})
	cp.RegisterFallback(shoppb.Notifications_Send_FullMethodName, func(context.Context, client.Call) (any, error) {
		return &shoppb.SendResponse{Dropped: true}, nil
	})
	charge := shoppb.NewPaymentsClient(toPayments)
	return &orders{
		work: w, payments: charge, inventory: shoppb.NewInventoryClient(toInventory),
		notifications: shoppb.NewNotificationsClient(toNotifications), later: &later{payments: charge},
	}
}

// Quote says what an item costs with delivery.
func (o *orders) Quote(_ context.Context, req *shoppb.QuoteRequest) (*shoppb.QuoteResponse, error) {
	item, err := find(req.GetSku())
	if err != nil {
		return nil, err
	}
	return &shoppb.QuoteResponse{Cents: item.GetCents() + delivery, Days: 2}, nil
}

// Place reserves the item, takes the money or remembers to take it, and tells the
// customer.
func (o *orders) Place(ctx context.Context, req *shoppb.PlaceRequest) (*shoppb.PlaceResponse, error) {
	if err := o.work.take(ctx, 2*time.Millisecond); err != nil {
		return nil, err
	}
	reserved, err := o.inventory.Reserve(ctx, &shoppb.ReserveRequest{OrderId: req.GetOrderId(), Sku: req.GetSku()})
	if err != nil {
		return nil, err
	}
	order := &shoppb.Order{OrderId: req.GetOrderId(), Sku: req.GetSku(), State: shoppb.OrderState_ORDER_STATE_PAID}
	charge := &shoppb.ChargeRequest{OrderId: req.GetOrderId(), Cents: reserved.GetItem().GetCents() + delivery}
	charged, err := o.payments.Charge(ctx, charge)
	if err != nil {
		return nil, err
	}
	if charged.GetPending() {
		if err := o.later.add(charge); err != nil {
			return nil, err
		}
		order.State = shoppb.OrderState_ORDER_STATE_PAYMENT_PENDING
	}
	_, err = o.notifications.Send(client.WithPriority(ctx, client.Low), &shoppb.SendRequest{Customer: req.GetCustomer(), Text: "Thank you!"})
	return &shoppb.PlaceResponse{Order: order}, err
}

// later holds the payments that are still to be taken. A real shop would keep them
// in its database.
type later struct {
	payments shoppb.PaymentsClient

	mu    sync.Mutex // guards queue
	queue []*shoppb.ChargeRequest
}

func (l *later) add(charge *shoppb.ChargeRequest) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.queue) >= pendingPayments {
		return errTooManyPending
	}
	l.queue = append(l.queue, charge)
	return nil
}

func (l *later) count() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.queue)
}

// settle takes payments, the oldest first, until ctx ends: all that it can, then
// after a pause again. It needs no care of its own for a broken dependency: while
// the breaker is open, the fallback says so at once.
func (l *later) settle(ctx context.Context) {
	ticker := time.NewTicker(settleEvery)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
			for l.settleFirst(ctx) {
			}
		}
	}
}

// settleFirst tells whether it took a payment. The order's id lets a provider of
// payments recognise one that it has taken already.
func (l *later) settleFirst(ctx context.Context) bool {
	l.mu.Lock()
	if len(l.queue) == 0 || ctx.Err() != nil {
		l.mu.Unlock()
		return false
	}
	first := l.queue[0]
	l.mu.Unlock()
	charged, err := l.payments.Charge(ctx, first)
	if err != nil || charged.GetPending() {
		return false
	}
	// Nobody else removes, so the first is still the same.
	l.mu.Lock()
	defer l.mu.Unlock()
	l.queue = l.queue[1:]
	return true
}
