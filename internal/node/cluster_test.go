package node

import (
	"context"
	"io"
	"log/slog"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/holdfast-dev/holdfast/internal/document"
	holdfastv1 "github.com/holdfast-dev/holdfast/proto/holdfast/v1"

	peerv1 "github.com/holdfast-dev/holdfast/proto/holdfast/peer/v1"
)

type documentResource = document.Resource

const (
	flagKind     = holdfastv1.Kind_KIND_FLAG
	overrideKind = holdfastv1.Kind_KIND_OVERRIDE
)

func get(t *testing.T, addr, path string) (int, string) {
	t.Helper()
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Get("http://" + addr + path)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(body)
}

func TestSingleServerNeedsNoConfiguration(t *testing.T) {
	t.Parallel()
	s := &site{dir: t.TempDir() + "/data"}
	s.args = []string{"--data-dir=" + s.dir, "--port-base=0", "--drain-jitter=0s"}
	s.start(t)
	until(t, 20*time.Second, "serving", func() bool { return s.Serving() == nil })
	revision := put(t, s.APIAddr(), "first", 0)
	if code, body := get(t, s.HTTPAddr(), "/readyz?verbose"); code != http.StatusOK || !strings.Contains(body, "[+]leader ok") {
		t.Errorf("readyz: %d %s", code, body)
	}
	if code, _ := get(t, s.HTTPAddr(), "/livez"); code != http.StatusOK {
		t.Errorf("livez: %d", code)
	}
	if _, body := get(t, s.HTTPAddr(), "/metrics"); !strings.Contains(body, "holdfast_raft_leader 1") ||
		!strings.Contains(body, "holdfast_raft_store_seconds_count") || !strings.Contains(body, "holdfast_api_requests_total") {
		t.Errorf("metrics: %s", body)
	}
	if code, body := get(t, s.HTTPAddr(), "/debug/pprof/cmdline"); code != http.StatusOK || body == "" {
		t.Errorf("pprof on loopback: %d", code)
	}
	second := New(s.config, slog.New(slog.DiscardHandler))
	if err := second.Start(context.Background()); err == nil || !strings.Contains(err.Error(), "used by another process") {
		t.Errorf("a second server on the directory: %v", err)
	}
	if err := second.Stop(context.Background()); err != nil {
		t.Error(err)
	}
	id, lineage := s.ID(), lineageOf(s.View())
	s.stop(t)

	s.start(t)
	until(t, 20*time.Second, "serving again", func() bool { return s.Serving() == nil && s.View().Revision() >= revision })
	if s.ID() != id || lineageOf(s.View()) != lineage || !has(s, flagKind, "first") {
		t.Fatal("the restarted server is not the same")
	}
	if info, err := os.Stat(s.dir + "/node-id"); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("node-id: %v %v", info, err)
	}
}

func TestThreeServersWhateverTheOrder(t *testing.T) {
	t.Parallel()
	for _, order := range [][]int{{0, 1, 2}, {2, 0, 1}} {
		sites := newSites(t, 3, 3)
		sites[order[0]].start(t)
		sites[order[1]].start(t)
		until(t, 20*time.Second, "two know each other", func() bool { return len(sites[order[1]].servers()) == 2 })
		for _, i := range order[:2] {
			if sites[i].raft.HasState() {
				t.Fatal("a cluster of three was founded by two")
			}
		}
		sites[order[2]].start(t)
		until(t, 30*time.Second, "cluster", formed(sites, 3))
		revision := put(t, sites[order[0]].APIAddr(), "first", 0)
		for _, s := range sites {
			until(t, 10*time.Second, "applied everywhere", func() bool { return s.View().Revision() >= revision })
		}

		for _, s := range sites {
			s.stop(t)
		}
		startAll(t, sites)
		until(t, 30*time.Second, "cluster again", formed(sites, 3))
		if put(t, sites[order[2]].APIAddr(), "second", 0) <= revision || !has(sites[order[2]], flagKind, "first") {
			t.Fatal("the restarted cluster has lost something")
		}
		for _, s := range sites {
			s.stop(t)
		}
	}
}

func TestScaleUpAndWipedServer(t *testing.T) {
	t.Parallel()
	sites := newSites(t, 4, 3)
	startAll(t, sites[:3])
	until(t, 30*time.Second, "cluster", formed(sites[:3], 3))
	put(t, sites[0].APIAddr(), "first", 0)

	// The fourth has the same command line, and joins.
	sites[3].start(t)
	until(t, 30*time.Second, "four voters", formed(sites, 4))
	if !has(sites[3], flagKind, "first") {
		t.Fatal("the new server has no state")
	}

	// A follower loses its disk.
	wiped := sites[1]
	if leaderOf(t, sites) == wiped {
		wiped = sites[2]
	}
	old := wiped.ID()
	wiped.stop(t)
	if err := os.RemoveAll(wiped.dir); err != nil {
		t.Fatal(err)
	}
	wiped.start(t)
	if wiped.ID() == old {
		t.Fatal("a wiped server came back under its old name")
	}
	until(t, 40*time.Second, "the new name votes and the old is gone", func() bool {
		for _, s := range sites {
			if isMember(s.raft.Members(), old) || !isMember(s.raft.Members(), wiped.ID()) {
				return false
			}
		}
		return formed(sites, 4)()
	})
	if !has(wiped, flagKind, "first") {
		t.Fatal("the wiped server has no state")
	}
}

// A server that has restarted and finds no majority says that, and not that it belongs to
// no cluster.
func TestRestartWithoutAMajority(t *testing.T) {
	t.Parallel()
	sites := newSites(t, 3, 3)
	startAll(t, sites)
	until(t, 30*time.Second, "cluster", formed(sites, 3))
	put(t, sites[0].APIAddr(), "first", 0)
	for _, s := range sites {
		s.stop(t)
	}
	sites[0].start(t)
	if err := sites[0].Serving(); err == nil || !strings.Contains(err.Error(), "waits for a leader: no majority of its cluster's 3 servers") {
		t.Errorf("it says %v", err)
	}
	sites[1].start(t)
	until(t, 30*time.Second, "a majority", func() bool { return sites[0].Serving() == nil && sites[1].Serving() == nil })
}

func TestOverrideEndsOnTimeAcrossALeaderChange(t *testing.T) {
	t.Parallel()
	sites := newSites(t, 3, 3)
	startAll(t, sites)
	until(t, 30*time.Second, "cluster", formed(sites, 3))
	const ttl = 4 * time.Second
	put(t, sites[0].APIAddr(), "hold", ttl)
	began := time.Now()
	leader := leaderOf(t, sites)
	stateTime := leader.View().Time()
	leader.stop(t)
	var rest []*site
	for _, s := range sites {
		if s.Node != nil {
			rest = append(rest, s)
		}
	}
	next := leaderOf(t, rest)
	if time.Since(began) > ttl-time.Second {
		t.Skip("the machine is too slow: no leader before the override's end")
	}
	if !has(next, overrideKind, "hold") {
		t.Fatal("ended early")
	}
	until(t, 3*ttl, "the override ends", func() bool { return !has(next, overrideKind, "hold") })
	if took := time.Since(began); took < ttl-500*time.Millisecond || took > ttl+time.Second {
		t.Errorf("ended after %v instead of %v", took, ttl)
	}
	if next.View().Time() < stateTime {
		t.Error("state time went back")
	}
}

func TestVersionGate(t *testing.T) {
	t.Parallel()
	sites := newSites(t, 3, 3)
	for _, s := range sites[:2] {
		s.setup = func(n *Node) { n.commandVersion = 2 }
	}
	startAll(t, sites)
	until(t, 30*time.Second, "cluster", formed(sites, 3))
	leader := leaderOf(t, sites)
	if err := leader.versionGate(2); err == nil {
		t.Fatal("a command went out that a member does not understand")
	}
	if err := leader.versionGate(1); err != nil {
		t.Fatal(err)
	}
	sites[2].stop(t)
	if err := leaderOf(t, sites).versionGate(2); err == nil {
		t.Fatal("a member that is down does not count")
	}
	sites[2].setup = sites[0].setup
	sites[2].start(t)
	until(t, 30*time.Second, "everybody understands", func() bool { return leaderOf(t, sites).versionGate(2) == nil })
}

func TestDivergedServerIsFenced(t *testing.T) {
	t.Parallel()
	sites := newSites(t, 3, 3)
	for i, s := range sites {
		s.setup = func(n *Node) {
			n.tickEvery = 300 * time.Millisecond
			if i != 1 {
				return
			}
			record := n.fsm.ticked
			n.fsm.ticked = func(index uint64, hash [32]byte) {
				hash[0] ^= 1
				record(index, hash)
			}
		}
	}
	startAll(t, sites)
	until(t, 40*time.Second, "the one that differs is fenced", func() bool { return sites[1].fenced.Load() != nil })
	until(t, 20*time.Second, "another leads", func() bool {
		id, _ := sites[0].Leader()
		return id != "" && id != sites[1].ID()
	})
	put(t, sites[0].APIAddr(), "first", 0)
	put(t, sites[2].APIAddr(), "second", 0)
	for _, i := range []int{0, 2} {
		if sites[i].fenced.Load() != nil || sites[i].Serving() != nil {
			t.Errorf("server %d: %v", i, sites[i].Serving())
		}
		until(t, 20*time.Second, "the divergence is measured", func() bool { return sites[i].hashes.diverged() > 0 })
	}
	if sites[1].Serving() == nil || sites[1].Status().Fenced == "" {
		t.Error("a fenced server answers")
	}
	if code, body := get(t, sites[1].HTTPAddr(), "/readyz"); code != http.StatusServiceUnavailable || !strings.Contains(body, "[-]fenced") {
		t.Errorf("readyz of a fenced server: %d %s", code, body)
	}
}

func TestRecoveryRaisesTheEpoch(t *testing.T) {
	t.Parallel()
	sites := newSites(t, 3, 3)
	startAll(t, sites)
	until(t, 30*time.Second, "cluster", formed(sites, 3))
	revision := put(t, sites[0].APIAddr(), "first", 0)
	survivor := sites[2]
	until(t, 10*time.Second, "replicated", func() bool { return survivor.View().Revision() >= revision })
	id, raftAddr, epoch := survivor.ID(), survivor.RaftAddr(), survivor.View().Epoch()
	for _, s := range sites {
		s.stop(t)
	}
	settings, err := Load(survivor.args, nil)
	if err != nil {
		t.Fatal(err)
	}
	ctx := context.Background()
	if err := Recover(ctx, settings.Config, []Peer{{"stranger", raftAddr}}, testLogger(t)); err == nil {
		t.Fatal("recovered a cluster without this server")
	}
	if err := Recover(ctx, settings.Config, []Peer{{id, raftAddr}}, testLogger(t)); err != nil {
		t.Fatal(err)
	}
	survivor.start(t)
	until(t, 30*time.Second, "serving", func() bool { return survivor.Serving() == nil })
	now := survivor.View().Epoch()
	if now.Lineage != epoch.Lineage || now.Counter != epoch.Counter+1 || now.Nonce == epoch.Nonce {
		t.Fatalf("epoch %v after %v", now, epoch)
	}
	if !has(survivor, flagKind, "first") {
		t.Fatal("acknowledged data of the survivor is gone")
	}
	put(t, survivor.APIAddr(), "second", 0)
	until(t, 5*time.Second, "mark removed", func() bool {
		_, err := os.Stat(survivor.dir + "/" + fileRecovered)
		return os.IsNotExist(err)
	})
	// The lost servers come back empty, and join.
	for _, s := range sites[:2] {
		if err := os.RemoveAll(s.dir); err != nil {
			t.Fatal(err)
		}
		s.start(t)
	}
	until(t, 40*time.Second, "three again", formed(sites, 3))
	if survivor.View().Epoch() != now {
		t.Fatal("the epoch rose twice")
	}
}

func TestRemovedServerStaysAway(t *testing.T) {
	t.Parallel()
	sites := newSites(t, 3, 3)
	startAll(t, sites)
	until(t, 30*time.Second, "cluster", formed(sites, 3))
	leader := leaderOf(t, sites)
	gone := sites[0]
	if gone == leader {
		gone = sites[1]
	}
	req := &peerv1.ChangeMembershipRequest{Change: &peerv1.ChangeMembershipRequest_Remove{Remove: &peerv1.RemoveServer{Id: gone.ID()}}}
	if err := leader.ChangeMembership(context.Background(), req); err != nil {
		t.Fatal(err)
	}
	err := <-gone.done
	if err == nil || !strings.Contains(err.Error(), "removed from the cluster") {
		t.Fatalf("the removed server ended with %v", err)
	}
	_ = gone.Stop(context.Background())
	gone.Node = nil
	settings, err := Load(gone.args, nil)
	if err != nil {
		t.Fatal(err)
	}
	again := New(settings.Config, testLogger(t))
	if err := again.Run(context.Background()); err == nil || !strings.Contains(err.Error(), "delete") {
		t.Fatalf("the removed server started again: %v", err)
	}
}
