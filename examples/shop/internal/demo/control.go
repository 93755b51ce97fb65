package demo

import (
	"context"
	"fmt"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/holdfast-dev/holdfast/examples/shop/internal/dial"
	"github.com/holdfast-dev/holdfast/examples/shop/shoppb"
)

// control lets somebody in another terminal hurt the demo.
type control struct {
	shoppb.UnimplementedProcessesServer

	processes *Supervisor
}

// Kill ends processes.
func (c *control) Kill(_ context.Context, req *shoppb.KillRequest) (*shoppb.KillResponse, error) {
	names, err := c.processes.Kill(req.GetName())
	if err != nil {
		return nil, status.Error(codes.NotFound, err.Error())
	}
	return &shoppb.KillResponse{Names: names}, nil
}

// Start starts processes.
func (c *control) Start(_ context.Context, req *shoppb.StartRequest) (*shoppb.StartResponse, error) {
	names, err := c.processes.Start(req.GetName())
	if err != nil {
		return nil, status.Error(codes.NotFound, err.Error())
	}
	return &shoppb.StartResponse{Names: names}, nil
}

// ControlAddr is where a demo with a base listens for Ask.
func ControlAddr(base int) string { return address(base + controlOffset) }

// Ask asks the demo at an address to kill or to start processes of a name or kind,
// and returns their names.
func Ask(ctx context.Context, addr, verb, name string) ([]string, error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	conn, err := dial.Service("demo", []string{addr})
	if err != nil {
		return nil, err
	}
	defer func() { _ = conn.Close() }()
	processes := shoppb.NewProcessesClient(conn)
	switch verb {
	case "kill":
		res, err := processes.Kill(ctx, &shoppb.KillRequest{Name: name})
		return res.GetNames(), asked(addr, err)
	case "start":
		res, err := processes.Start(ctx, &shoppb.StartRequest{Name: name})
		return res.GetNames(), asked(addr, err)
	default:
		return nil, fmt.Errorf("cannot %q processes: kill or start them", verb)
	}
}

func asked(addr string, err error) error {
	switch status.Code(err) {
	case codes.OK:
		return nil
	case codes.Unavailable:
		return fmt.Errorf("no demo listens on %s; start one with `shop demo`, or say where it listens with SHOP_DEMO", addr)
	default:
		return fmt.Errorf("%s", status.Convert(err).Message())
	}
}
