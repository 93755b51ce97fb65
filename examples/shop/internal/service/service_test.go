package service

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/holdfast-dev/holdfast/examples/shop/internal/dial"
	"github.com/holdfast-dev/holdfast/examples/shop/shoppb"
	"github.com/holdfast-dev/holdfast/pkg/client"
	"github.com/holdfast-dev/holdfast/pkg/client/clienttest"
)

// shop is one instance of each service in this process, each with the SDK, and no
// control plane.
type shop struct {
	planes map[string]*clienttest.Plane
	conns  map[string]*grpc.ClientConn
}

func start(t *testing.T) *shop {
	t.Helper()
	s := &shop{planes: map[string]*clienttest.Plane{}, conns: map[string]*grpc.ClientConn{}}
	peers := map[string][]string{}
	for _, name := range slices.Backward(Names()) {
		plane := clienttest.New(t, clienttest.Config(client.Config{Service: name, InstanceID: name + "-1"}))
		s.planes[name] = plane
		in := &instance{cp: plane.Client(), config: Config{Service: name, Peers: peers}, work: newWork(plane.Client(), name)}
		srv := grpc.NewServer(append(plane.Client().ServerOptions(), grpc.ChainUnaryInterceptor(in.work.intercept))...)
		background, err := in.register(srv)
		if err != nil {
			t.Fatal(err)
		}
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		peers[name] = []string{listener.Addr().String()}
		ctx, stop := context.WithCancel(context.Background())
		ended := make(chan error, 1)
		go func() { ended <- serve(ctx, srv, listener, background) }()
		t.Cleanup(func() {
			stop()
			if err := <-ended; err != nil {
				t.Errorf("%s: %v", name, err)
			}
			in.disconnect()
		})
		conn, err := dial.Service(name, peers[name])
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = conn.Close() })
		s.conns[name] = conn
	}
	return s
}

// checkout orders a rope, and returns what became of it and what marks the answer.
func (s *shop) checkout(t *testing.T) (state shoppb.OrderState, degradedBy string) {
	t.Helper()
	var header metadata.MD
	res, err := shoppb.NewStorefrontClient(s.conns[Storefront]).Checkout(t.Context(),
		&shoppb.CheckoutRequest{Customer: "ada", OrderId: "1", Sku: "rope"}, grpc.Header(&header))
	if err != nil {
		t.Fatal(err)
	}
	return res.GetOrder().GetState(), client.DegradedBy(header)
}

func (s *shop) report(t *testing.T, service string) *shoppb.ReportResponse {
	t.Helper()
	report, err := shoppb.NewInspectionClient(s.conns[service]).Report(t.Context(), &shoppb.ReportRequest{})
	if err != nil {
		t.Fatal(err)
	}
	return report
}

// state is that of the breaker of a method of a dependency.
func state(report *shoppb.ReportResponse, dependency, method string) string {
	for _, d := range report.GetDependencies() {
		for _, b := range d.GetBreakers() {
			if d.GetName() == dependency && b.GetTarget() == method {
				return b.GetState()
			}
		}
	}
	return "unknown"
}

// until waits for a condition.
func until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	limit := time.After(20 * time.Second)
	for !ok() {
		select {
		case <-limit:
			t.Fatalf("not within 20 s: %s", what)
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// While payments are broken orders are accepted, customers are told, and the money
// is taken afterwards.
func TestPaymentPending(t *testing.T) {
	s := start(t)
	s.planes[Orders].SetPolicy(Payments, `{"circuit_breaker": {"failure_threshold": 3, "timeout": "1s", "ramp": [0.5], "ramp_step": "100ms"}}`)
	if state, by := s.checkout(t); state != shoppb.OrderState_ORDER_STATE_PAID || by != "" {
		t.Fatalf("while all works: %v, degraded by %q", state, by)
	}
	s.planes[Payments].SetFlag("payments-broken", true)
	for range 4 {
		if state, by := s.checkout(t); state != shoppb.OrderState_ORDER_STATE_PAYMENT_PENDING || by == "" {
			t.Fatalf("while payments are broken: %v, degraded by %q", state, by)
		}
	}
	report := s.report(t, Orders)
	if got := state(report, Payments, shoppb.Payments_Charge_FullMethodName); got != "open" || report.GetPendingPayments() != 4 {
		t.Errorf("the breaker is %s and %d payments are pending, want open and 4", got, report.GetPendingPayments())
	}
	s.planes[Payments].SetFlag("payments-broken", false)
	until(t, "all payments are taken and the breaker is closed", func() bool {
		s.planes[Orders].Advance(500 * time.Millisecond)
		_, _ = s.checkout(t)
		report := s.report(t, Orders)
		return report.GetPendingPayments() == 0 && state(report, Payments, shoppb.Payments_Charge_FullMethodName) == "closed"
	})
	if state, by := s.checkout(t); state != shoppb.OrderState_ORDER_STATE_PAID || by != "" {
		t.Errorf("when all works again: %v, degraded by %q", state, by)
	}
}

// While orders are broken baskets are kept; what has no fallback says what is wrong.
func TestKeptBasket(t *testing.T) {
	s := start(t)
	s.planes[Orders].SetFlag("orders-broken", true)
	if state, by := s.checkout(t); state != shoppb.OrderState_ORDER_STATE_KEPT_IN_BASKET || by == "" {
		t.Errorf("checkout: %v, degraded by %q", state, by)
	}
	_, err := shoppb.NewStorefrontClient(s.conns[Storefront]).Basket(t.Context(), &shoppb.BasketRequest{Sku: "rope"})
	if status.Code(err) != codes.Unavailable {
		t.Errorf("basket: %v", err)
	}
	if shelf, err := shoppb.NewStorefrontClient(s.conns[Storefront]).Browse(t.Context(), &shoppb.BrowseRequest{Customer: "ada"}); err != nil ||
		len(shelf.GetItems()) != 4 || len(shelf.GetRecommended()) != 2 {
		t.Errorf("browse: %v, %v", shelf, err)
	}
}

// A message that cannot be sent fails no order.
func TestNotificationDropped(t *testing.T) {
	s := start(t)
	s.planes[Notifications].SetFlag("notifications-broken", true)
	if state, by := s.checkout(t); state != shoppb.OrderState_ORDER_STATE_PAID || by == "" {
		t.Errorf("checkout: %v, degraded by %q", state, by)
	}
}

func TestSlowServiceGivesUpWithItsCaller(t *testing.T) {
	plane := clienttest.New(t)
	plane.SetFlag("test-slow", 600_000)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := newWork(plane.Client(), "test").take(ctx, time.Millisecond); status.Code(err) != codes.Canceled {
		t.Errorf("got %v", err)
	}
}

// Payments beyond the limit are refused, and taken in order.
func TestPendingPaymentsAreBounded(t *testing.T) {
	pay := &till{refuse: true}
	l := &later{payments: pay}
	for i := range pendingPayments {
		if err := l.add(&shoppb.ChargeRequest{OrderId: fmt.Sprint(i)}); err != nil {
			t.Fatal(err)
		}
	}
	if err := l.add(&shoppb.ChargeRequest{}); status.Code(err) != codes.ResourceExhausted {
		t.Errorf("one more: %v", err)
	}
	if l.settleFirst(t.Context()) || l.count() != pendingPayments {
		t.Errorf("a payment that was refused is gone: %d left", l.count())
	}
	pay.refuse = false
	for range 3 {
		l.settleFirst(t.Context())
	}
	if want := []string{"0", "0", "1", "2"}; !slices.Equal(pay.asked, want) || l.count() != pendingPayments-3 {
		t.Errorf("charged %v, want %v; %d left", pay.asked, want, l.count())
	}
}

// till takes payments, or has them pending.
type till struct {
	refuse bool
	asked  []string
}

func (p *till) Charge(_ context.Context, req *shoppb.ChargeRequest, _ ...grpc.CallOption) (*shoppb.ChargeResponse, error) {
	p.asked = append(p.asked, req.GetOrderId())
	return &shoppb.ChargeResponse{Pending: p.refuse}, nil
}

func TestUnknownService(t *testing.T) {
	if err := Run(t.Context(), Config{Service: "shipping"}, slog.New(slog.DiscardHandler)); err == nil {
		t.Error("it runs")
	}
}
