package run

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"sync/atomic"
	"time"
)

// dependency is what instances call under a policy: a server that is well, refuses, or
// hangs. It implements nemesis.Dependency.
type dependency struct {
	server *http.Server
	served chan error
	sick   atomic.Pointer[string] // nil while it is well
	failed atomic.Int64
}

func openDependency(ctx context.Context, at netip.Addr) (*dependency, error) {
	d := &dependency{served: make(chan error, 1)}
	addr := netip.AddrPortFrom(at, dependencyPort).String()
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("start the dependency: %w", err)
	}
	d.server = &http.Server{Handler: d, ReadHeaderTimeout: time.Second}
	go func() { d.served <- d.server.Serve(listener) }()
	return d, nil
}

// ServeHTTP answers as the dependency is.
func (d *dependency) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	sick := d.sick.Load()
	switch {
	case sick == nil:
		return
	case *sick == "hang":
		d.failed.Add(1)
		<-r.Context().Done()
	default:
		d.failed.Add(1)
		w.WriteHeader(http.StatusServiceUnavailable)
	}
}

// Sicken makes it refuse ("refuse") or hang ("hang") from now on, and Cure ends that.
func (d *dependency) Sicken(how string) {
	d.failed.Store(0)
	d.sick.Store(&how)
}

// Cure makes it well.
func (d *dependency) Cure() { d.sick.Store(nil) }

// Failed is how many calls it has let down since it became sick.
func (d *dependency) Failed() int { return int(d.failed.Load()) }

func (d *dependency) close() error {
	err := d.server.Close()
	if served := <-d.served; !errors.Is(served, http.ErrServerClosed) {
		err = errors.Join(err, served)
	}
	if err != nil {
		return fmt.Errorf("end the dependency: %w", err)
	}
	return nil
}
