package service

import (
	"context"

	"google.golang.org/grpc"

	"github.com/holdfast-dev/holdfast/examples/shop/shoppb"
	"github.com/holdfast-dev/holdfast/pkg/client"
)

// storefront is what customers talk to.
type storefront struct {
	shoppb.UnimplementedStorefrontServer

	cp        *client.Client
	orders    shoppb.OrdersClient
	inventory shoppb.InventoryClient
	recommend *client.BoolFlag
	ranking   client.CallOption
}

func newStorefront(cp *client.Client, orders, inventory *grpc.ClientConn) *storefront {
	// A basket costs nothing to keep; it is a better answer than an error.
	cp.RegisterFallback(shoppb.Orders_Place_FullMethodName, func(_ context.Context, call client.Call) (any, error) {
		req, _ := call.Request.(*shoppb.PlaceRequest)
		return &shoppb.PlaceResponse{Order: &shoppb.Order{
			OrderId: req.GetOrderId(), Sku: req.GetSku(), State: shoppb.OrderState_ORDER_STATE_KEPT_IN_BASKET,
		}}, nil
	})
	cp.RegisterFallback("recommend", func(context.Context, client.Call) (any, error) { return []string(nil), nil })
	return &storefront{
		cp: cp, orders: shoppb.NewOrdersClient(orders), inventory: shoppb.NewInventoryClient(inventory),
		recommend: cp.Bool("recommendations", true), ranking: client.Operation("recommend"),
	}
}

// Browse shows the shelf, with recommendations where they are on.
func (s *storefront) Browse(ctx context.Context, req *shoppb.BrowseRequest) (*shoppb.BrowseResponse, error) {
	shelf, err := s.inventory.Items(ctx, &shoppb.ItemsRequest{})
	if err != nil {
		return nil, err
	}
	answer := &shoppb.BrowseResponse{Items: shelf.GetItems()}
	if !s.recommend.Get(client.Targeting(req.GetCustomer())) {
		return answer, nil
	}
	answer.Recommended, err = client.Do(ctx, s.cp, "recommendations", func(context.Context) ([]string, error) {
		return favourites(req.GetCustomer(), shelf.GetItems()), nil
	}, s.ranking)
	return answer, err
}

// favourites stands for something clever: two items that depend on the customer.
func favourites(customer string, items []*shoppb.Item) []string {
	if len(items) < 2 {
		return nil
	}
	first := len(customer) % len(items)
	return []string{items[first].GetName(), items[(first+1)%len(items)].GetName()}
}

// Basket says what an item costs and when it comes.
func (s *storefront) Basket(ctx context.Context, req *shoppb.BasketRequest) (*shoppb.BasketResponse, error) {
	quote, err := s.orders.Quote(ctx, &shoppb.QuoteRequest{Sku: req.GetSku()})
	if err != nil {
		return nil, err
	}
	return &shoppb.BasketResponse{Cents: quote.GetCents(), Days: quote.GetDays()}, nil
}

// Checkout places an order. While orders cannot take it, the basket is kept.
func (s *storefront) Checkout(ctx context.Context, req *shoppb.CheckoutRequest) (*shoppb.CheckoutResponse, error) {
	placed, err := s.orders.Place(client.WithPriority(ctx, client.High), &shoppb.PlaceRequest{
		Customer: req.GetCustomer(), OrderId: req.GetOrderId(), Sku: req.GetSku(),
	})
	if err != nil {
		return nil, err
	}
	return &shoppb.CheckoutResponse{Order: placed.GetOrder()}, nil
}
