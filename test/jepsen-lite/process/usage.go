package process

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/holdfast-dev/holdfast/test/cluster"
)

// Usage is what a process holds.
type Usage struct {
	Goroutines, FDs int
	RSS             int64
}

// Usage asks the kernel, and the server for its goroutines.
func (s *Server) Usage(ctx context.Context) (Usage, error) {
	u, err := UsageOf(s.PID())
	if err != nil {
		return u, err
	}
	goroutines, err := s.Metric(ctx, "go_goroutines")
	u.Goroutines = int(goroutines)
	return u, err
}

// UsageOf asks the kernel about a process.
func UsageOf(pid int) (Usage, error) {
	var u Usage
	fds, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
	if err != nil {
		return u, fmt.Errorf("count open files: %w", err)
	}
	rss, _, err := cluster.RSS(pid)
	u.FDs, u.RSS = len(fds), int64(rss)
	return u, err
}

// Metric is the value of a metric without labels.
func (s *Server) Metric(ctx context.Context, name string) (float64, error) {
	page, err := s.page(ctx, "/metrics")
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(page)) {
		if text, ok := strings.CutPrefix(line, name+" "); ok {
			value, err := strconv.ParseFloat(strings.TrimSpace(text), 64)
			if err != nil {
				return 0, fmt.Errorf("metric %s of %s: %w", name, s.ID, err)
			}
			return value, nil
		}
	}
	return 0, fmt.Errorf("%s has no metric %s", s.ID, name)
}

// Holdings tells what its goroutines do and which files it has open, for a reader.
func (s *Server) Holdings(ctx context.Context) ([]byte, error) {
	out, err := s.page(ctx, "/debug/pprof/goroutine?debug=1")
	if err != nil {
		return nil, err
	}
	links, _ := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", s.PID())) // the pattern is fine
	for _, link := range links {
		if target, err := os.Readlink(link); err == nil {
			out = fmt.Appendf(out, "fd %s %s\n", filepath.Base(link), target)
		}
	}
	sockets, err := os.ReadFile(fmt.Sprintf("/proc/%d/net/tcp", s.PID()))
	if err != nil {
		return nil, fmt.Errorf("connections of %s: %w", s.ID, err)
	}
	return append(out, sockets...), nil
}

// page is a page of its HTTP address.
func (s *Server) page(ctx context.Context, path string) ([]byte, error) {
	const limit = 8 << 20
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+netip.AddrPortFrom(s.IP, PortHTTP).String()+path, nil)
	if err != nil {
		return nil, fmt.Errorf("ask %s for %s: %w", s.ID, path, err)
	}
	req.Close = true // a connection that stays would be counted as the server's
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, fmt.Errorf("ask %s for %s: %w", s.ID, path, err)
	}
	defer func() { _ = resp.Body.Close() }()
	page, err := io.ReadAll(io.LimitReader(resp.Body, limit))
	if err != nil {
		return nil, fmt.Errorf("ask %s for %s: %w", s.ID, path, err)
	}
	return page, nil
}
