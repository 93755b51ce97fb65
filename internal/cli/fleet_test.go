package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	holdfastv1 "github.com/holdfast-dev/holdfast/proto/holdfast/v1"
)

// fakeFleet is what a fake knows by gossip.
type fakeFleet struct {
	holdfastv1.UnimplementedFleetServiceServer

	fleet   *holdfastv1.Fleet
	onWatch func(n int, send func(*holdfastv1.Fleet)) error

	mu      sync.Mutex
	watches int
	asked   []*holdfastv1.GetFleetRequest
	keys    []*holdfastv1.GossipKey
	steps   []string
}

func (f *fakeFleet) register(to grpc.ServiceRegistrar) { holdfastv1.RegisterFleetServiceServer(to, f) }

func (f *fakeFleet) GetFleet(_ context.Context, req *holdfastv1.GetFleetRequest) (*holdfastv1.GetFleetResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.asked = append(f.asked, req)
	v := &holdfastv1.Fleet{
		ServerId: f.fleet.GetServerId(), Time: timestamppb.Now(), Instances: f.fleet.GetInstances(), Hosts: f.fleet.GetHosts(),
	}
	for _, d := range f.fleet.GetDependencies() {
		if req.GetDependency() == "" || req.GetDependency() == d.GetName() {
			v.Dependencies = append(v.Dependencies, d)
		}
	}
	if len(v.Dependencies) == 0 && req.GetDependency() != "" { // as real servers do
		v.Dependencies = []*holdfastv1.FleetDependency{{Name: req.GetDependency(), Verdict: &holdfastv1.FleetVerdict{Mode: "enforce"}}}
	}
	return &holdfastv1.GetFleetResponse{Fleet: v}, nil
}

func (f *fakeFleet) WatchFleet(_ *holdfastv1.WatchFleetRequest, stream grpc.ServerStreamingServer[holdfastv1.WatchFleetResponse]) error {
	f.mu.Lock()
	f.watches++
	n := f.watches
	f.mu.Unlock()
	return f.onWatch(n, func(v *holdfastv1.Fleet) { _ = stream.Send(&holdfastv1.WatchFleetResponse{Fleet: v}) })
}

func (f *fakeFleet) ListGossipKeys(context.Context, *holdfastv1.ListGossipKeysRequest) (*holdfastv1.ListGossipKeysResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return &holdfastv1.ListGossipKeysResponse{Keys: f.keys}, nil
}

func (f *fakeFleet) RotateGossipKey(_ context.Context, req *holdfastv1.RotateGossipKeyRequest) (*holdfastv1.RotateGossipKeyResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.steps = append(f.steps, strings.TrimSpace(strings.TrimPrefix(req.GetStep().String(), "GOSSIP_KEY_STEP_")+" "+req.GetId()))
	at := slices.IndexFunc(f.keys, func(k *holdfastv1.GossipKey) bool { return k.GetId() == req.GetId() })
	switch req.GetStep() {
	case holdfastv1.GossipKeyStep_GOSSIP_KEY_STEP_ADD:
		f.keys = append(f.keys, &holdfastv1.GossipKey{Id: fmt.Sprint("key", len(f.steps)), CreateTime: timestamppb.Now()})
	case holdfastv1.GossipKeyStep_GOSSIP_KEY_STEP_USE:
		for i, k := range f.keys {
			k.Primary = i == at
		}
	default:
		if at < 0 || f.keys[at].GetPrimary() {
			return nil, reasoned(codes.FailedPrecondition, "GOSSIP_KEY_IN_USE", "definite", "members encrypt with it")
		}
		f.keys = slices.Delete(f.keys, at, at+1)
	}
	return &holdfastv1.RotateGossipKeyResponse{Keys: f.keys}, nil
}

// says is a report on a dependency.
func says(id, zone, opinion string, failures, calls uint64) *holdfastv1.FleetReport {
	return &holdfastv1.FleetReport{
		InstanceId: id, Service: "checkout", Host: "10.0.0." + id[len(id)-1:], Zone: zone, Opinion: opinion, Mode: "direct",
		Calls: calls, Failures: failures, Since: durationpb.New(12 * time.Second), Age: durationpb.New(2 * time.Second),
	}
}

// broken is a fleet of which most find payments broken, and one finds search so.
func broken() *holdfastv1.Fleet {
	sick := says("c4", "eu-2", "open", 3, 3)
	sick.DoubtsItself, sick.Ignored = true, "doubts itself"
	return &holdfastv1.Fleet{
		ServerId: "s1", Time: timestamppb.Now(), Members: 7, Instances: 5, Hosts: 5,
		Dependencies: []*holdfastv1.FleetDependency{
			{
				Name: "payments", ReportCount: 5,
				Verdict: &holdfastv1.FleetVerdict{
					Open: true, Mode: "enforce", Reason: "3 hosts in 2 zones find it broken", HostsOpen: 3, HostsNeeded: 3,
					ZonesOpen: 2, ZonesNeeded: 2, WeightOpen: 12.5, WeightWell: 1,
				},
				VerdictWithoutTraffic: &holdfastv1.FleetVerdict{Open: true, Mode: "advise", Reason: "quorum", HostsNeeded: 3},
				Reports: []*holdfastv1.FleetReport{
					says("c1", "eu-1", "open", 12, 14), says("c2", "eu-1", "open", 9, 9), says("c3", "eu-2", "open", 5, 6), sick, says("c5", "eu-2", "well", 0, 3),
				},
			},
			{
				Name: "search", ReportCount: 1,
				Verdict: &holdfastv1.FleetVerdict{Mode: "enforce", Reason: "too few hosts", HostsOpen: 1, HostsNeeded: 3, ZonesOpen: 1, ZonesNeeded: 2},
				Reports: []*holdfastv1.FleetReport{says("c1", "eu-1", "suspects", 2, 40)},
			},
		},
	}
}

func TestFleetIsShown(t *testing.T) {
	f := newFake(t, &fakeFleet{fleet: broken()})
	fleet := func(args ...string) ran {
		return run(inTime(t), t, terminal{}, "", nil, append([]string{"fleet", "--addr", f.addr}, args...)...)
	}
	fleet().want(t, exitOK, `DEPENDENCY  VERDICT  HOSTS   ZONES   SAID BY         WHY
payments    OPEN     3 of 3  2 of 2  4 open, 1 well  3 hosts in 2 zones find it broken
search      closed   1 of 3  1 of 2  1 suspects      too few hosts

INSTANCE  SERVICE   HOST      ZONE  payments    search
c1        checkout  10.0.0.1  eu-1  open 12/14  suspects 2/40
c2        checkout  10.0.0.2  eu-1  open 9/9    -
c3        checkout  10.0.0.3  eu-2  open 5/6    -
c4        checkout  10.0.0.4  eu-2  (open 3/3)  -
c5        checkout  10.0.0.5  eu-2  well 0/3    -
`, "Note: 2 dependencies are spoken of by 5 instances on 5 hosts; 1 is held to be broken\n")
	fleet("search").want(t, exitOK, "c1        checkout  10.0.0.1  eu-1  suspects 2/40\n", "1 dependency is spoken of by 5 instances on 5 hosts; none is held to be broken")
	fleet("cart").want(t, exitOK, "", "Note: nobody says anything about cart, as server s1 sees it\n")
	fleet("a", "b").want(t, exitUsage, "", `unexpected argument "b"`)
	got := fleet("-o", "json")
	var v fleetView
	if err := json.Unmarshal([]byte(got.out), &v); err != nil || v.Kind != "Fleet" || len(v.Dependencies) != 2 || len(v.Dependencies[0].Reports) != 5 ||
		v.Dependencies[0].Reports[3].Ignored != "doubts itself" || v.Dependencies[0].Reports[0].SinceSeconds != 12 {
		t.Errorf("%v: %s", err, got.out)
	}
}

func TestFleetOfManyIsPutTogether(t *testing.T) {
	big := broken()
	for i := range 40 {
		r := says(fmt.Sprint("c", 10+i), []string{"eu-1", "eu-2"}[i%2], "open", 4, 4)
		big.Dependencies[0].Reports = append(big.Dependencies[0].Reports, r)
	}
	f := newFake(t, &fakeFleet{fleet: big})
	run(inTime(t), t, terminal{}, "", nil, "fleet", "--addr", f.addr).want(t, exitOK, `
SERVICE   ZONE  payments         search
checkout  eu-1  22 open          1 suspects
checkout  eu-2  22 open, 1 well  -

many instances, put together`)
	run(inTime(t), t, terminal{}, "", nil, "fleet", "--addr", f.addr, "-o", "wide").want(t, exitOK, "c49       checkout  10.0.0.9  eu-2  open 4/4")
}

// TestFleetLeavesOut: what stands for dependencies that are left out is not called well.
func TestFleetLeavesOut(t *testing.T) {
	big := broken()
	big.Dependencies = append(big.Dependencies, &holdfastv1.FleetDependency{Name: "(7 more; ask for one by name)", ReportCount: 9})
	f := newFake(t, &fakeFleet{fleet: big})
	run(inTime(t), t, terminal{}, "", nil, "fleet", "--addr", f.addr).want(t, exitOK, `
(7 more; ask for one by name)  -        0 of 0  0 of 0  -`)
}

func TestFleetIsExplained(t *testing.T) {
	f := newFake(t, &fakeFleet{fleet: broken()})
	explain := func(args ...string) ran {
		return run(inTime(t), t, terminal{}, "", nil, append([]string{"fleet", "explain", "--addr", f.addr}, args...)...)
	}
	explain("payments").want(t, exitOK, `Dependency          payments
Who suspects it     obeys: finds it broken, 3 hosts in 2 zones find it broken
Who makes no calls  only shows it (advise): finds it broken, quorum
Hosts               3 find it broken, 3 are needed
Zones               2 find it broken, 2 are needed
Weight              12.5 find it broken, 1.0 find it well
Said by             4 open, 1 well

INSTANCE  SERVICE   HOST      ZONE  SAYS  WHY  FAILED    FOR  AGE  COUNTS
c1        checkout  10.0.0.1  eu-1  open  -    12 of 14  12s  2s   yes
`, "")
	explain("payments").want(t, exitOK, "c4        checkout  10.0.0.4  eu-2  open  -    3 of 3    12s  2s   no: doubts itself\n")
	explain("search").want(t, exitOK, "Who suspects it     goes on calling it: too few hosts\n")
	explain("search").want(t, exitOK, "Hosts               1 find it broken; 3 are needed, so 2 are missing\n")
	explain("paymetns").want(t, exitNotFound, "", `nobody says anything about "paymetns"`, `did you mean "payments"`)
	explain().want(t, exitUsage, "", "DEPENDENCY")
	explain("search", "-o", "yaml").want(t, exitOK, "kind: FleetDependency")
}

func TestFleetWithoutTheService(t *testing.T) {
	f := newFake(t)
	for _, args := range [][]string{{"fleet"}, {"fleet", "--watch"}, {"gossip", "keys", "list"}} {
		run(inTime(t), t, terminal{}, "", nil, append(args, "--addr", f.addr)...).want(t, exitError, "", "compare `holdfast version`")
	}
	none := newFake(t, &fakeFleet{fleet: &holdfastv1.Fleet{ServerId: "s1"}})
	run(inTime(t), t, terminal{}, "", nil, "fleet", "--addr", none.addr).want(t, exitOK, "", "Note: nobody finds anything broken, as server s1 sees it; instances for which all is well say nothing\n")
}

// A watch tells what changed, also over a broken stream.
func TestFleetIsWatched(t *testing.T) {
	later := broken()
	later.Dependencies = later.Dependencies[:1]
	later.Dependencies[0].Verdict.Open, later.Dependencies[0].Verdict.Reason = false, "most are well"
	later.Dependencies[0].Reports[0].Opinion = "well"
	later.Dependencies[0].Reports = later.Dependencies[0].Reports[:4]
	fake := &fakeFleet{onWatch: func(n int, send func(*holdfastv1.Fleet)) error {
		if n == 1 {
			send(broken())
			return reasoned(codes.Unavailable, "SHUTTING_DOWN", "definite", "the server stops")
		}
		send(later)
		return reasoned(codes.PermissionDenied, "PERMISSION_DENIED", "definite", "not any more")
	}}
	f := newFake(t, fake)
	got := run(inTime(t), t, terminal{}, "", nil, "fleet", "--watch", "--addr", f.addr)
	got.want(t, exitAuth, "DEPENDENCY  VERDICT", "reconnecting", "not any more")
	for _, line := range []string{
		" payments closed: most are well\n", " payments c1 (10.0.0.1, eu-1): well 12/14\n",
		" payments c5 (10.0.0.5, eu-2): says nothing any more\n", " search is well: nobody says otherwise\n",
	} {
		if !strings.Contains(got.out, line) {
			t.Errorf("%q is missing in %s", line, got.out)
		}
	}
}

func TestGossipKeysAreRotated(t *testing.T) {
	fake := &fakeFleet{}
	f := newFake(t, fake)
	keys := func(args ...string) ran {
		return run(inTime(t), t, terminal{}, "", nil, append([]string{"gossip", "keys", "--addr", f.addr}, args...)...)
	}
	keys("list").want(t, exitOK, "", "the pool has no keys")
	fake.keys = []*holdfastv1.GossipKey{{Id: "first", Primary: true}}
	keys("list").want(t, exitOK, "first  from gossip-key-file  encrypt and decrypt with it\n")
	if got := keys("list", "-o", "json").out; strings.Contains(got, "create_time") {
		t.Errorf("a time that nobody knows: %s", got)
	}
	fake.keys = []*holdfastv1.GossipKey{{Id: "old", CreateTime: timestamppb.New(time.Now().Add(-2 * time.Hour)), Primary: true}}
	keys("rotate", "--pause", "1ms").want(t, exitOK, "key1", "added key key1", "members encrypt with key key1", "the old keys are forgotten")
	if got := strings.Join(fake.steps, ", "); got != "ADD, USE key1, REMOVE old" {
		t.Errorf("steps %s", got)
	}
	keys("list").want(t, exitOK, "encrypt and decrypt with it\n")
	keys("remove", "key1").want(t, exitRefused, "", "members encrypt with it")
	keys("add").want(t, exitOK, "decrypt with it\n")
	keys("use").want(t, exitUsage, "", "ID")
	keys("rotate", "--pause", "-1s").want(t, exitUsage, "", "cannot be negative")
	keys("list", "-o", "json").want(t, exitOK, `"kind": "GossipKeyList"`)
}
