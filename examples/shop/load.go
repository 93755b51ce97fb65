package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/holdfast-dev/holdfast/examples/shop/internal/demo"
	"github.com/holdfast-dev/holdfast/examples/shop/internal/dial"
	"github.com/holdfast-dev/holdfast/examples/shop/internal/fleet"
	"github.com/holdfast-dev/holdfast/examples/shop/internal/load"
	"github.com/holdfast-dev/holdfast/examples/shop/internal/service"
)

// runLoad is the customers of a shop that runs, until ctx ends.
func runLoad(ctx context.Context, args []string, out, errOut io.Writer) error {
	flags, parse := newFlags("load", errOut)
	rate := flags.Float64("rate", demo.DefaultRate, "`calls` per second")
	peers := peerFlags(flags, service.Names()...)
	if err := parse(args); err != nil {
		return err
	}
	where := peers()
	if *rate <= 0 || len(where[service.Storefront]) == 0 {
		return usageError{errors.New("load needs --storefront HOST:PORT,... and a --rate above 0")}
	}
	conn, err := dial.Service(service.Storefront, where[service.Storefront])
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }()
	var places []fleet.Place
	for _, name := range service.Names() {
		for i, addr := range where[name] {
			places = append(places, fleet.Place{Instance: fmt.Sprintf("%s-%d", name, i+1), Addr: addr})
		}
	}
	instances, err := fleet.New(places)
	if err != nil {
		return err
	}
	defer instances.Close()
	customers, began := load.New(conn, *rate), time.Now()
	ctx, cancel := context.WithCancel(ctx)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		customers.Run(ctx)
	}()
	show(ctx, out, fleet.Above{}, func(ctx context.Context) fleet.Frame {
		return fleet.Look(time.Since(began), "", customers, instances.Ask(ctx))
	})
	cancel()
	<-ended
	return nil
}

// show shows frames until ctx ends.
func show(ctx context.Context, out io.Writer, above fleet.Above, look func(context.Context) fleet.Frame) {
	size, color := terminal(out)
	fleet.Show(ctx, out, size, color, above, look)
}
