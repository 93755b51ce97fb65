package node

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/holdfast-dev/holdfast/internal/consensus"
)

func TestSettingsAreBounded(t *testing.T) {
	t.Parallel()
	for arg, want := range map[string]string{
		fmt.Sprintf("--expect=%d", maxFounders+1):        "must be between 1 and 9",
		"--node-id=" + strings.Repeat("x", maxIDBytes+1): "at most 64 bytes",
		"--snapshot-threshold=15":                        "must be at least 16",
		"--max-sessions=0":                               "must be at least 1",
		"--port-base=65532":                              "room for five ports",
		"--api-addr=127.0.0.1:65536":                     "up to 65535",
		"--drain-delay=-1s":                              "must not be negative",
	} {
		_, err := Load([]string{arg, "--join=127.0.0.1"}, nil)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.30s: %v, want %q", arg, err, want)
		}
	}
	fits := []string{
		fmt.Sprintf("--expect=%d", maxFounders), "--node-id=" + strings.Repeat("x", maxIDBytes),
		"--snapshot-threshold=16", "--max-sessions=1", "--port-base=65531", "--join=127.0.0.1",
	}
	if _, err := Load(fits, nil); err != nil {
		t.Errorf("the largest values: %v", err)
	}
}

func TestGossipKeysAreBounded(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "keys")
	for keys, ok := range map[int]bool{maxGossipKeys: true, maxGossipKeys + 1: false} {
		text := strings.Repeat("AAAAAAAAAAAAAAAAAAAAAA==\n", keys)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := loadGossipKeys(path); (err == nil) != ok {
			t.Errorf("%d keys: %v", keys, err)
		}
	}
}

// TestClusterIsBounded offers a full cluster one more server: it is neither
// joined nor promoted.
func TestClusterIsBounded(t *testing.T) {
	t.Parallel()
	var members []consensus.Member
	var servers []server
	for i := range maxMembers {
		id := fmt.Sprintf("%02d", i)
		members = append(members, member(id, i < maxFounders))
		servers = append(servers, here(id))
	}
	fresh := server{meta: meta{ID: "new", Raft: "at-new"}}
	if got := (planner{expect: 3, lineage: "l"}).plan(members, append(servers, fresh)); len(got) != 0 {
		t.Errorf("a full cluster: %v", got)
	}
	members[0].Voter = false
	got := planner{expect: 3, lineage: "l"}.plan(members[:maxMembers-1], append(servers[:maxMembers-1:maxMembers-1], fresh))
	if len(got) == 0 || got[0].what != "promote" || got[len(got)-1].what != "join" {
		t.Errorf("with room for one: %v", got)
	}
}

func TestLongAddressesAreRefused(t *testing.T) {
	t.Parallel()
	settings, err := Load([]string{
		"--data-dir=" + t.TempDir(), "--port-base=0", "--advertise=" + strings.Repeat("x", maxMetaBytes/2),
	}, nil)
	if err != nil {
		t.Fatal(err)
	}
	n := New(settings.Config, testLogger(t))
	if err := n.Start(context.Background()); err == nil || !strings.Contains(err.Error(), "use shorter names") {
		t.Errorf("Start = %v", err)
	}
	if err := n.Stop(context.Background()); err != nil {
		t.Error(err)
	}
}

// stuck is a collector that never ends.
type stuck struct {
	entered chan<- struct{}
	release <-chan struct{}
}

func (stuck) Describe(ch chan<- *prometheus.Desc) { ch <- desc("stuck", "Never told.") }

func (s stuck) Collect(chan<- prometheus.Metric) {
	s.entered <- struct{}{}
	<-s.release
}

// TestHTTPLimits asks for more than the HTTP port gives.
func TestHTTPLimits(t *testing.T) {
	t.Parallel()
	s := &site{args: []string{"--data-dir=" + t.TempDir(), "--port-base=0", "--drain-jitter=0s"}}
	s.start(t)

	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+s.HTTPAddr()+"/livez", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("X-Long", strings.Repeat("x", 32<<10))
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
	if resp.StatusCode != http.StatusRequestHeaderFieldsTooLarge {
		t.Errorf("long headers: %s", resp.Status)
	}

	entered, release := make(chan struct{}), make(chan struct{})
	s.registry.MustRegister(stuck{entered, release})
	scraped := make(chan struct{})
	for range 4 {
		go func() {
			defer func() { scraped <- struct{}{} }()
			if resp, err := http.Get("http://" + s.HTTPAddr() + "/metrics"); err == nil {
				_ = resp.Body.Close()
			}
		}()
		<-entered
	}
	if code, _ := get(t, s.HTTPAddr(), "/metrics"); code != http.StatusServiceUnavailable {
		t.Errorf("a fifth scrape: %d", code)
	}
	close(release)
	for range 4 {
		select {
		case <-scraped:
		case <-time.After(30 * time.Second):
			t.Fatal("a scrape does not end")
		}
	}
}

// TestHashesAreBounded hears of more servers than there can be.
func TestHashesAreBounded(t *testing.T) {
	t.Parallel()
	h := newHashes("self")
	for i := range 2 * maxHashServers {
		other := newHashes(fmt.Sprint(i))
		other.record(1, 1, [32]byte{1})
		h.Merge(other.Encode())
	}
	if len(h.reports) != maxHashServers {
		t.Errorf("%d reports are kept", len(h.reports))
	}
}
