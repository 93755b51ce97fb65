package node

import (
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/http/pprof"
	"slices"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/holdfast-dev/holdfast/internal/version"
)

// maxReadyLag is how far behind the leader a ready server may be.
const maxReadyLag = 10 * time.Second

// check is one condition of readiness.
type check struct {
	name string
	err  error
}

// readiness are the conditions under which a load balancer may send requests.
func (n *Node) readiness() []check {
	checks := []check{{name: "draining"}, {name: "fenced"}, {name: "state"}, {name: "leader"}, {name: "lag"}, {name: "clock"}}
	if n.draining.Load() {
		checks[0].err = fmt.Errorf("the server is stopping")
	}
	if reason := n.fenced.Load(); reason != nil {
		checks[1].err = fmt.Errorf("%s", *reason)
	}
	checks[2].err = n.Serving()
	if id, _ := n.Leader(); id == "" {
		checks[3].err = fmt.Errorf("no leader is known")
	}
	if lag := n.Staleness(); lag > maxReadyLag {
		checks[4].err = fmt.Errorf("more than %v behind the leader", maxReadyLag)
	}
	if !n.clock.known() {
		checks[5].err = fmt.Errorf("no leader has told the time since the start; ends of overrides would seem later than they are")
	}
	return checks
}

// handler serves health and metrics, and profiles where only this host can ask.
func (n *Node) handler(local bool) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /livez", func(w http.ResponseWriter, r *http.Request) {
		// Whether the process is worth keeping: never a question of quorum.
		writeChecks(w, r, []check{{name: "process"}})
	})
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, r *http.Request) {
		writeChecks(w, r, n.readiness())
	})
	mux.Handle("GET /metrics", promhttp.HandlerFor(n.registry, promhttp.HandlerOpts{
		Registry: n.registry, MaxRequestsInFlight: 4, Timeout: 10 * time.Second,
	}))
	mux.HandleFunc("GET /version", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(map[string]any{
			"version": version.Version, "id": n.id, "command_version": n.commandVersion,
		}) // the client is gone if it fails
	})
	if local {
		mux.HandleFunc("/debug/pprof/", pprof.Index)
		mux.HandleFunc("/debug/pprof/cmdline", pprof.Cmdline)
		mux.HandleFunc("/debug/pprof/profile", pprof.Profile)
		mux.HandleFunc("/debug/pprof/symbol", pprof.Symbol)
		mux.HandleFunc("/debug/pprof/trace", pprof.Trace)
	}
	return mux
}

// writeChecks answers 200 when all checks pass and 503 otherwise. ?exclude=name
// leaves a check out; ?verbose lists them also when all pass.
func writeChecks(w http.ResponseWriter, r *http.Request, checks []check) {
	query := r.URL.Query()
	var body strings.Builder
	failed := 0
	for _, c := range checks {
		switch {
		case slices.Contains(query["exclude"], c.name):
			fmt.Fprintf(&body, "[+]%s excluded: ok\n", c.name)
		case c.err != nil:
			failed++
			fmt.Fprintf(&body, "[-]%s failed: %v\n", c.name, c.err)
		default:
			fmt.Fprintf(&body, "[+]%s ok\n", c.name)
		}
	}
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store")
	if failed > 0 {
		w.WriteHeader(http.StatusServiceUnavailable)
	} else if !query.Has("verbose") {
		body.Reset()
	}
	if failed == 0 {
		body.WriteString("ok\n")
	}
	_, _ = w.Write([]byte(body.String())) // the client is gone if it fails
}

// loopbackListener tells whether only this host reaches the listener.
func loopbackListener(l net.Listener) bool {
	addr, ok := l.Addr().(*net.TCPAddr)
	return ok && addr.IP.IsLoopback()
}
