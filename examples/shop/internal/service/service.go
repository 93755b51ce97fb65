// Package service holds the services of the shop. They keep no state that matters,
// so that any instance answers for any other, and everything that makes them
// survive each other's failures is the SDK's: a few lines in Run, and fallbacks
// where a service can do better than fail.
package service

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"

	"github.com/holdfast-dev/holdfast/examples/shop/internal/dial"
	"github.com/holdfast-dev/holdfast/examples/shop/shoppb"
	"github.com/holdfast-dev/holdfast/pkg/client"
)

// The services.
const (
	Storefront    = "storefront"
	Orders        = "orders"
	Payments      = "payments"
	Inventory     = "inventory"
	Notifications = "notifications"
)

// Mode is the name of the mode that says how the shop degrades.
const Mode = "storefront"

// Names lists the services in the order in which they call each other.
func Names() []string { return []string{Storefront, Orders, Payments, Inventory, Notifications} }

// stopWithin is how long calls that are under way may take at the end.
const stopWithin = 2 * time.Second

// Config says what an instance is and where the others are.
type Config struct {
	Service string
	// Instance is its id, Zone its label "zone".
	Instance, Zone string
	// Listen is its address.
	Listen string
	// Servers are those of the control plane, CacheDir where the SDK keeps its view.
	Servers  []string
	CacheDir string
	// Peers are the addresses of all instances, by service.
	Peers map[string][]string
}

// Run serves until ctx ends.
func Run(ctx context.Context, config Config, logger *slog.Logger) (err error) {
	if !slices.Contains(Names(), config.Service) {
		return fmt.Errorf("no service %q: choose one of %s", config.Service, strings.Join(Names(), ", "))
	}
	cp, err := client.Open(ctx, client.Config{
		Servers: config.Servers, Service: config.Service, InstanceID: config.Instance,
		Labels: map[string]string{"zone": config.Zone}, CacheDir: config.CacheDir, Logger: logger,
	})
	if err != nil {
		return fmt.Errorf("open the SDK: %w", err)
	}
	defer func() {
		closing, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopWithin)
		defer cancel()
		err = errors.Join(err, cp.Close(closing))
	}()
	in := &instance{cp: cp, config: config, work: newWork(cp, config.Service)}
	defer in.disconnect()

	srv := grpc.NewServer(append(cp.ServerOptions(), grpc.ChainUnaryInterceptor(in.work.intercept))...)
	background, err := in.register(srv)
	if err != nil {
		return err
	}
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", config.Listen)
	if err != nil {
		return fmt.Errorf("listen: %w", err)
	}
	return serve(ctx, srv, listener, background)
}

// serve serves, with what runs in the background, until ctx ends or either fails.
func serve(ctx context.Context, srv *grpc.Server, listener net.Listener, background func(context.Context)) error {
	ctx, cancel := context.WithCancel(ctx)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		background(ctx)
	}()
	defer func() {
		cancel()
		<-ended
	}()
	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		<-ctx.Done()
		late := time.AfterFunc(stopWithin, srv.Stop)
		defer late.Stop()
		srv.GracefulStop()
	}()
	err := srv.Serve(listener)
	cancel()
	<-stopped
	if err != nil {
		return fmt.Errorf("serve: %w", err)
	}
	return nil
}

// instance is one process of a service.
type instance struct {
	cp     *client.Client
	config Config
	work   *work
	conns  []*grpc.ClientConn
	// pending tells how many payments wait; nil where none ever do.
	pending func() int
}

// register registers the handlers of the service and returns what runs beside them.
func (in *instance) register(srv *grpc.Server) (background func(context.Context), err error) {
	background = func(context.Context) {}
	shoppb.RegisterInspectionServer(srv, &inspection{in: in})
	switch in.config.Service {
	case Storefront:
		var orders, inventory *grpc.ClientConn
		if orders, err = in.connect(Orders); err != nil {
			return nil, err
		}
		if inventory, err = in.connect(Inventory); err != nil {
			return nil, err
		}
		shoppb.RegisterStorefrontServer(srv, newStorefront(in.cp, orders, inventory))
	case Orders:
		var payments, inventory, notifications *grpc.ClientConn
		if payments, err = in.connect(Payments); err != nil {
			return nil, err
		}
		if inventory, err = in.connect(Inventory); err != nil {
			return nil, err
		}
		if notifications, err = in.connect(Notifications); err != nil {
			return nil, err
		}
		orders := newOrders(in.cp, in.work, payments, inventory, notifications)
		shoppb.RegisterOrdersServer(srv, orders)
		in.pending, background = orders.later.count, orders.later.settle
	case Payments:
		shoppb.RegisterPaymentsServer(srv, &payments{work: in.work})
	case Inventory:
		shoppb.RegisterInventoryServer(srv, &inventory{work: in.work})
	case Notifications:
		shoppb.RegisterNotificationsServer(srv, &notifications{work: in.work})
	}
	return background, nil
}

// connect connects to a service that this one depends on, under its policy.
func (in *instance) connect(service string) (*grpc.ClientConn, error) {
	options := append([]grpc.DialOption{grpc.WithChainUnaryInterceptor(passOn)}, in.cp.DialOptions(service)...)
	conn, err := dial.Service(service, in.config.Peers[service], options...)
	if err != nil {
		return nil, err
	}
	in.conns = append(in.conns, conn)
	return conn, nil
}

func (in *instance) disconnect() {
	for _, conn := range in.conns {
		_ = conn.Close()
	}
}

// passOn marks the answer that is being made as degraded where an answer that it
// is made of is: so the customer's client learns it from the storefront.
func passOn(ctx context.Context, method string, req, reply any, conn *grpc.ClientConn, invoke grpc.UnaryInvoker, options ...grpc.CallOption) error {
	var header metadata.MD
	err := invoke(ctx, method, req, reply, conn, slices.Concat(options, []grpc.CallOption{grpc.Header(&header)})...)
	if by := client.DegradedBy(header); err == nil && by != "" {
		// Outside of a handler there is no answer to mark.
		_ = client.MarkDegraded(ctx, by)
	}
	return err
}
