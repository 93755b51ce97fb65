package service

import (
	"context"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/holdfast-dev/holdfast/examples/shop/shoppb"
)

var errTooManyPending = status.Error(codes.ResourceExhausted, "too many orders wait for their payment")

// payments takes money.
type payments struct {
	shoppb.UnimplementedPaymentsServer

	work *work
}

// Charge takes money.
func (p *payments) Charge(ctx context.Context, _ *shoppb.ChargeRequest) (*shoppb.ChargeResponse, error) {
	if err := p.work.take(ctx, 8*time.Millisecond); err != nil {
		return nil, err
	}
	return &shoppb.ChargeResponse{}, nil
}

// inventory knows what there is.
type inventory struct {
	shoppb.UnimplementedInventoryServer

	work *work
}

// Items lists the shelf.
func (i *inventory) Items(ctx context.Context, _ *shoppb.ItemsRequest) (*shoppb.ItemsResponse, error) {
	if err := i.work.take(ctx, 2*time.Millisecond); err != nil {
		return nil, err
	}
	return &shoppb.ItemsResponse{Items: shelf()}, nil
}

// Reserve keeps an item for an order.
func (i *inventory) Reserve(ctx context.Context, req *shoppb.ReserveRequest) (*shoppb.ReserveResponse, error) {
	if err := i.work.take(ctx, 2*time.Millisecond); err != nil {
		return nil, err
	}
	item, err := find(req.GetSku())
	if err != nil {
		return nil, err
	}
	return &shoppb.ReserveResponse{Item: item}, nil
}

// notifications tells customers.
type notifications struct {
	shoppb.UnimplementedNotificationsServer

	work *work
}

// Send sends a message.
func (n *notifications) Send(ctx context.Context, _ *shoppb.SendRequest) (*shoppb.SendResponse, error) {
	if err := n.work.take(ctx, 4*time.Millisecond); err != nil {
		return nil, err
	}
	return &shoppb.SendResponse{}, nil
}

// shelf is what the shop sells.
func shelf() []*shoppb.Item {
	return []*shoppb.Item{
		{Sku: "rope", Name: "Rope, 20 m", Cents: 2490, InStock: 40},
		{Sku: "anchor", Name: "Anchor", Cents: 18900, InStock: 3},
		{Sku: "lantern", Name: "Storm lantern", Cents: 3950, InStock: 17},
		{Sku: "cleat", Name: "Cleat", Cents: 890, InStock: 120},
	}
}

func find(sku string) (*shoppb.Item, error) {
	for _, item := range shelf() {
		if item.GetSku() == sku {
			return item, nil
		}
	}
	return nil, status.Errorf(codes.NotFound, "nobody sells %q", sku)
}
