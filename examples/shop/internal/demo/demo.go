// Package demo runs the whole shop with its control plane on loopback: three
// servers, two instances of each service, and customers. Script plays what the
// README describes and checks what it promises.
package demo

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc"

	"github.com/holdfast-dev/holdfast/examples/shop/internal/dial"
	"github.com/holdfast-dev/holdfast/examples/shop/internal/fleet"
	"github.com/holdfast-dev/holdfast/examples/shop/internal/load"
	"github.com/holdfast-dev/holdfast/examples/shop/internal/service"
	"github.com/holdfast-dev/holdfast/examples/shop/shoppb"
)

// DefaultRate is how many calls customers make per second.
const DefaultRate = 40

// controlPlane is the kind of the servers.
const controlPlane = "controlplane"

// How long the parts may take to begin.
const (
	serversWithin   = 60 * time.Second
	instancesWithin = 30 * time.Second
	commandWithin   = 30 * time.Second
)

// Options say how to run the demo.
type Options struct {
	// Programs is the directory of controlplane, holdfast and shop.
	Programs string
	// PortBase is where the ports begin; 0 draws a free block.
	PortBase int
	// Dir is where data and logs go; empty means a temporary one that Close removes.
	Dir string
	// Rate is how many calls customers make per second.
	Rate float64
	// Definitions are the documents that `holdfast apply` gets, by file name.
	Definitions map[string][]byte
	// Progress is told what goes on.
	Progress io.Writer
}

// Demo is the shop while it runs.
type Demo struct {
	options Options
	dir     string
	ports   *ports
	began   time.Time

	Processes *Supervisor
	Fleet     *fleet.Fleet
	Customers *load.Load

	storefront *grpc.ClientConn
	control    *grpc.Server
	background sync.WaitGroup
	endLoad    context.CancelFunc
}

// Start starts everything and waits until it works. On an error nothing is left.
func Start(ctx context.Context, options Options) (d *Demo, err error) {
	d = &Demo{options: options, dir: options.Dir, began: time.Now(), endLoad: func() {}}
	if d.ports, err = takePorts(options.PortBase); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, d.Close())
		}
	}()
	if d.dir == "" {
		if d.dir, err = os.MkdirTemp("", "holdfast-shop-"); err != nil {
			return d, fmt.Errorf("make a directory for the data: %w", err)
		}
	} else if err = os.MkdirAll(d.dir, 0o700); err != nil {
		return d, fmt.Errorf("make the directory for the data: %w", err)
	}
	d.Processes = NewSupervisor(d.dir)
	d.serveControl()
	for _, step := range []func(context.Context) error{d.startServers, d.apply, d.startInstances, d.startCustomers} {
		if err = step(ctx); err != nil {
			return d, err
		}
	}
	return d, nil
}

// Close ends everything: customers, services, servers. The error says what did not
// end well.
func (d *Demo) Close() error {
	d.endLoad()
	var errs []error
	if d.control != nil {
		d.control.Stop()
	}
	d.background.Wait()
	if d.Processes != nil {
		errs = append(errs, d.Processes.Stop())
	}
	_ = d.ports.control.Close()
	if d.Fleet != nil {
		d.Fleet.Close()
	}
	if d.storefront != nil {
		_ = d.storefront.Close()
	}
	if d.options.Dir == "" && d.dir != "" {
		errs = append(errs, os.RemoveAll(d.dir))
	}
	return errors.Join(errs...)
}

func (d *Demo) say(format string, args ...any) {
	_, _ = fmt.Fprintf(d.options.Progress, format+"\n", args...)
}

func (d *Demo) program(name string) string { return filepath.Join(d.options.Programs, name) }

// ServerAddrs are the addresses of the control plane's API.
func (d *Demo) ServerAddrs() []string {
	var addrs []string
	for i := range servers {
		addrs = append(addrs, address(d.ports.server(i)))
	}
	return addrs
}

// startServers starts the control plane and waits until every server serves.
func (d *Demo) startServers(ctx context.Context) error {
	d.say("starting %d servers of the control plane …", servers)
	var join []string
	for i := range servers {
		join = append(join, address(d.ports.server(i)+3))
	}
	for i := range servers {
		name := fmt.Sprintf("server-%d", i)
		err := d.Processes.Run(Spec{
			Name: name, Kind: controlPlane, Program: d.program("controlplane"),
			Args: []string{
				"--data-dir", filepath.Join(d.dir, name), "--bind", "127.0.0.1", "--port-base", fmt.Sprint(d.ports.server(i)),
				"--expect", fmt.Sprint(servers), "--join", strings.Join(join, ","),
			},
		})
		if err != nil {
			return err
		}
	}
	return d.WaitServers(ctx)
}

// WaitServers waits until every server serves.
func (d *Demo) WaitServers(ctx context.Context) error {
	for i := range servers {
		err := poll(ctx, serversWithin, func(ctx context.Context) error { return ready(ctx, d.ports.server(i)+1) })
		if err != nil {
			name := fmt.Sprintf("server-%d", i)
			return fmt.Errorf("%s is not ready %w\n%s", name, err, d.Processes.Tail(name))
		}
	}
	return nil
}

// ready asks a server whether it serves.
func ready(ctx context.Context, port int) error {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+address(port)+"/readyz", nil)
	if err != nil {
		return err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	_ = resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("it answers %s", resp.Status)
	}
	return nil
}

// Holdfast runs a command of the operator and returns what it printed.
func (d *Demo) Holdfast(ctx context.Context, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, commandWithin)
	defer cancel()
	cmd := exec.CommandContext(ctx, d.program("holdfast"), args...)
	cmd.Env = append(environ(), "HOLDFAST_ADDR="+strings.Join(d.ServerAddrs(), ","),
		"HOLDFAST_CLI_CONFIG="+filepath.Join(d.dir, "cli.yaml"))
	out, err := cmd.CombinedOutput()
	if err != nil {
		return string(out), fmt.Errorf("holdfast %s: %w\n%s", strings.Join(args, " "), err, out)
	}
	return string(out), nil
}

// apply applies the definitions.
func (d *Demo) apply(ctx context.Context) error {
	d.say("applying the definitions …")
	dir := filepath.Join(d.dir, "definitions")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("write definitions: %w", err)
	}
	for name, text := range d.options.Definitions {
		if err := os.WriteFile(filepath.Join(dir, name), text, 0o600); err != nil {
			return fmt.Errorf("write definitions: %w", err)
		}
	}
	_, err := d.Holdfast(ctx, "apply", "-f", dir, "--reason", "the demo begins", "--wait")
	return err
}

// startInstances starts the services and waits until every instance answers.
func (d *Demo) startInstances(ctx context.Context) error {
	d.say("starting %d instances of each of %s …", perService, strings.Join(service.Names(), ", "))
	var places []fleet.Place
	peers := map[string][]string{}
	for n, name := range service.Names() {
		for i := range perService {
			place := fleet.Place{Instance: fmt.Sprintf("%s-%d", name, i+1), Addr: address(d.ports.instance(n, i))}
			places = append(places, place)
			peers[name] = append(peers[name], place.Addr)
		}
	}
	var err error
	if d.Fleet, err = fleet.New(places); err != nil {
		return err
	}
	if d.storefront, err = dial.Service(service.Storefront, peers[service.Storefront]); err != nil {
		return err
	}
	// Those that others call first, so that the last to stop are those called.
	for _, name := range slices.Backward(service.Names()) {
		for i, addr := range peers[name] {
			instance := fmt.Sprintf("%s-%d", name, i+1)
			args := []string{
				name, "--instance", instance, "--zone", fmt.Sprintf("eu-%d", i+1), "--listen", addr,
				"--servers", strings.Join(d.ServerAddrs(), ","), "--cache-dir", filepath.Join(d.dir, instance),
			}
			for _, peer := range service.Names() {
				args = append(args, "--"+peer, strings.Join(peers[peer], ","))
			}
			if err := d.Processes.Run(Spec{Name: instance, Kind: name, Program: d.program("shop"), Args: args}); err != nil {
				return err
			}
		}
	}
	return poll(ctx, instancesWithin, func(ctx context.Context) error {
		for _, i := range d.Fleet.Ask(ctx) {
			if !i.Up() {
				return fmt.Errorf("%s does not answer: %w; the end of its log:\n%s", i.Name, i.Err, d.Processes.Tail(i.Name))
			}
		}
		return nil
	})
}

// startCustomers lets the customers in.
func (d *Demo) startCustomers(ctx context.Context) error {
	ctx, d.endLoad = context.WithCancel(ctx)
	d.Customers = load.New(d.storefront, d.options.Rate)
	d.background.Go(func() { d.Customers.Run(ctx) })
	return nil
}

// Look takes a picture of the shop.
func (d *Demo) Look(ctx context.Context) fleet.Frame {
	alive, all := d.Processes.Alive(controlPlane)
	return fleet.Look(time.Since(d.began), fmt.Sprintf("control plane: %d of %d servers up", alive, all), d.Customers, d.Fleet.Ask(ctx))
}

// serveControl lets `shop kill` and `shop start` reach the processes.
func (d *Demo) serveControl() {
	d.control = grpc.NewServer()
	shoppb.RegisterProcessesServer(d.control, &control{processes: d.Processes})
	d.background.Go(func() { _ = d.control.Serve(d.ports.control) }) // ends with Stop
}
