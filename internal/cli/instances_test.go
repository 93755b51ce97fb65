package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/holdfast-dev/holdfast/internal/flags"
	holdfastv1 "github.com/holdfast-dev/holdfast/proto/holdfast/v1"
)

// fakeInstances is what a fake knows of its instances.
type fakeInstances struct {
	holdfastv1.UnimplementedInstanceServiceServer

	// instances is what List answers from, in pages of page.
	instances   []*holdfastv1.Instance
	unreachable []*holdfastv1.UnreachableServer
	page        int
	// onAwait answers one question.
	onAwait func(n int, req *holdfastv1.AwaitInstancesRequest, send func(*holdfastv1.AwaitInstancesResponse)) error

	mu     sync.Mutex
	lists  []*holdfastv1.ListInstancesRequest
	awaits []*holdfastv1.AwaitInstancesRequest
}

func (f *fakeInstances) register(to grpc.ServiceRegistrar) {
	holdfastv1.RegisterInstanceServiceServer(to, f)
}

func (f *fakeInstances) ListInstances(_ context.Context, req *holdfastv1.ListInstancesRequest) (*holdfastv1.ListInstancesResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.lists = append(f.lists, req)
	var chosen []*holdfastv1.Instance
	for _, i := range f.instances {
		if (i.GetConnected() || req.GetIncludeDisconnected()) && (req.GetBehind() == 0 || i.GetRevision() < req.GetBehind()) {
			chosen = append(chosen, i)
		}
	}
	res := &holdfastv1.ListInstancesResponse{
		Header: &holdfastv1.Header{Revision: 9, StateTime: timestamppb.Now(), ServerId: "s1"},
		Total:  uint32(len(chosen)), Unreachable: f.unreachable,
	}
	from := len(req.GetPageToken())
	res.Instances = chosen[from:min(len(chosen), from+f.page)]
	if from+f.page < len(chosen) {
		res.NextPageToken = strings.Repeat("x", from+f.page)
	}
	return res, nil
}

func (f *fakeInstances) AwaitInstances(req *holdfastv1.AwaitInstancesRequest, stream grpc.ServerStreamingServer[holdfastv1.AwaitInstancesResponse]) error {
	f.mu.Lock()
	f.awaits = append(f.awaits, req)
	n := len(f.awaits)
	f.mu.Unlock()
	return f.onAwait(n, req, func(res *holdfastv1.AwaitInstancesResponse) { _ = stream.Send(res) })
}

// someInstance is an instance of checkout that is connected and obeys a revision.
func someInstance(id string, revision uint64) *holdfastv1.Instance {
	return &holdfastv1.Instance{
		Namespace: "default", Connected: true, ServerId: "s1", Address: "10.0.0.7:51234", Revision: revision,
		Identity: &holdfastv1.Identity{
			Id: id, Service: "checkout", Labels: map[string]string{"zone": "eu-1", "tier": "gold"},
			Incarnation: 3, Sdk: "holdfast-go/0.3.0", Host: "web7",
		},
		ConnectedSince: timestamppb.New(time.Now().Add(-3 * time.Minute)), LastSeen: timestamppb.Now(),
		Source: holdfastv1.Source_SOURCE_DISK,
	}
}

// fleet is one instance of each sort.
func fleet() *fakeInstances {
	silent, broken, off, gone := someInstance("d", 0), someInstance("broken", 7), someInstance("off", 8), someInstance("gone", 7)
	broken.ProblemCount = 3
	broken.Problems = []*holdfastv1.InstanceProblem{
		{Key: &holdfastv1.ResourceKey{Kind: holdfastv1.Kind_KIND_MODE, Name: "storefront"}, Message: "levels[0]: unknown action \"melt\""},
		{Key: &holdfastv1.ResourceKey{Kind: holdfastv1.Kind_KIND_FLAG, Name: "x"}, Message: "targeting: unknown operator"},
	}
	off.OverriddenBy, off.Source = "HOLDFAST_DISABLE", holdfastv1.Source_SOURCE_UNSPECIFIED
	gone.Connected, gone.LastSeen = false, timestamppb.New(time.Now().Add(-2*time.Minute))
	return &fakeInstances{page: 2, instances: []*holdfastv1.Instance{someInstance("c", 7), someInstance("cc", 5), silent, broken, off, gone}}
}

func TestInstancesAreListed(t *testing.T) {
	instances := fleet()
	f := newFake(t, instances)
	list := func(args ...string) ran {
		return run(inTime(t), t, terminal{}, "", nil, append([]string{"instances", "--addr", f.addr}, args...)...)
	}
	got := list()
	got.want(t, exitOK, "ID      SERVICE   ZONE  SERVER  CONNECTED  REVISION  BEHIND  STATE\n",
		"Note: 5 instances, 5 connected, 2 behind revision 7, 2 that cannot obey all of it or are overridden locally\n")
	for _, line := range []string{
		"c       checkout  eu-1  s1      for 3m     7         -       obeys\n",
		"cc      checkout  eu-1  s1      for 3m     5         2       behind\n",
		"d       checkout  eu-1  s1      for 3m     0         ?       has told nothing yet\n",
		"broken  checkout  eu-1  s1      for 3m     7         -       obeys, 3 problems\n",
		"off     checkout  eu-1  s1      for 3m     8         -       obeys, overridden by HOLDFAST_DISABLE\n",
	} {
		got.want(t, exitOK, line)
	}
	if len(instances.lists) != 3 {
		t.Errorf("%d pages", len(instances.lists))
	}
	list("--all").want(t, exitOK, "gone    checkout  eu-1  s1      no, 2m ago")
	list("list", "-o", "wide").want(t, exitOK, "tier=gold,zone=eu-1  s1", "")
	list("-o", "wide").want(t, exitOK, "10.0.0.7:51234  web7  holdfast-go/0.3.0  -            disk\n")
	list("--behind").want(t, exitOK, "cc  checkout", "2 instances, 2 connected, 2 behind revision 7")
	list("--behind", "5").want(t, exitOK, "d   checkout", "1 instance, 1 connected")
	list("--behind=99", "-l", " zone in (eu-1 , eu-2)").want(t, exitOK, "broken")
	last := instances.lists[len(instances.lists)-1]
	if last.GetBehind() != 99 || last.GetFilter().GetSelector() != "zone in (eu-1,eu-2)" || last.GetFilter().GetNamespace() != "default" {
		t.Errorf("asked %v", last)
	}

	list("--behind", "x").want(t, exitUsage, "", `unknown command "x" for "holdfast instances"`)
	list("--behind=x").want(t, exitUsage, "", `--behind "x" is not a revision`)
	list("-l", "zone in").want(t, exitUsage, "", "--selector: ", "zone in (eu-1,eu-2)")
	list("list", "x").want(t, exitUsage, "", `unexpected argument "x"`)
	list("lits").want(t, exitUsage, "", `did you mean "list"`)
}

func TestInstancesOfLostServersAreMissed(t *testing.T) {
	f := newFake(t, &fakeInstances{page: 9, instances: []*holdfastv1.Instance{someInstance("c", 7)}, unreachable: []*holdfastv1.UnreachableServer{
		{ServerId: "s3", Error: "connection error: desc = \"transport: Error while dialing: connection refused\""},
	}})
	addr := []string{"--addr", f.addr}
	run(inTime(t), t, terminal{}, "", nil, append(addr, "instances")...).
		want(t, exitOK, "c   checkout", "Warning: the instances of server s3 are not counted: connection refused")
	got := run(inTime(t), t, terminal{}, "", nil, append(addr, "instances", "-o", "json")...)
	var v struct {
		Kind        string
		Items       []map[string]any
		Unreachable []unreachableView
	}
	if err := json.Unmarshal([]byte(got.out), &v); err != nil || v.Kind != "InstanceList" || len(v.Items) != 1 ||
		v.Items[0]["obeys"] != true || v.Items[0]["behind"] != 0.0 || len(v.Unreachable) != 1 || v.Unreachable[0].ServerID != "s3" {
		t.Errorf("%v: %s", err, got.out)
	}
	// Whoever is not found may be one of theirs.
	run(inTime(t), t, terminal{}, "", nil, append(addr, "instances", "describe", "x")...).
		want(t, exitUnavailable, "", `it is not known whether there is an instance "x": not every server could be asked`, "s3")
}

func TestInstancesOfNobody(t *testing.T) {
	f := newFake(t, &fakeInstances{page: 9})
	list := func(args ...string) ran {
		return run(inTime(t), t, terminal{}, "", nil, append([]string{"instances", "--addr", f.addr}, args...)...)
	}
	list().want(t, exitOK, "", "Note: no instance is connected; --all lists those that were")
	list("--all").want(t, exitOK, "", "Note: no instance is known")
	list("--behind", "-l", "a=b").want(t, exitOK, "", "Note: no connected instance of those selected is behind revision 7")
	// Nothing was ever changed there, so nobody can be behind.
	list("--behind", "-n", "new").want(t, exitOK, "", "no connected instance in namespace new is behind")
	list("-o", "json").want(t, exitOK, `"items": []`)
	run(inTime(t), t, terminal{}, "", nil, "instances", "--addr", newFake(t).addr).
		want(t, exitError, "", "cannot list instances: ", "compare `holdfast version`")
}

func TestInstanceIsDescribed(t *testing.T) {
	instances := fleet()
	f := newFake(t, instances)
	describe := func(args ...string) ran {
		return run(inTime(t), t, terminal{}, "", nil, append([]string{"instances", "describe", "--addr", f.addr}, args...)...)
	}
	got := describe("broken")
	for _, line := range []string{
		"Labels         tier=gold\n               zone=eu-1\n", "Connected      for 3m, to server s1 from 10.0.0.7:51234\n",
		"Obeys          revision 7, the newest\n", "Process        host web7, SDK holdfast-go/0.3.0, incarnation 3\n",
		"Problems       3\n  mode/storefront: levels[0]: unknown action \"melt\"\n  flag/x: targeting: unknown operator\n  and 1 that the instance did not name\n",
	} {
		got.want(t, exitOK, line)
	}
	describe("off").want(t, exitOK, "Overridden by  HOLDFAST_DISABLE\n")
	describe("gon").want(t, exitOK, "Connected      no, 2m ago, to server s1")
	// An exact id is found although others begin with it, and nothing more is asked.
	instances.lists = nil
	describe("c").want(t, exitOK, "Instance       c\n")
	if len(instances.lists) != 1 {
		t.Errorf("%d pages", len(instances.lists))
	}
	describe("cc").want(t, exitOK, "Obeys          revision 5; the newest is 7\n")
	describe("d", "-o", "yaml").want(t, exitOK, "kind: Instance\nid: d\nservice: checkout\n")
	describe("brokn").want(t, exitNotFound, "", `there is no instance "brokn"`, `did you mean "broken"?`)
	describe("").want(t, exitUsage, "", "ID is empty")
	instances.instances = append(instances.instances, someInstance("brine", 7))
	describe("br").want(t, exitUsage, "", `"br" is the beginning of 2 instances`, "brine")

	run(inTime(t), t, terminal{}, "", nil, "__complete", "instances", "describe", "--addr", f.addr, "c").want(t, exitOK, "c\tcheckout\ncc\tcheckout\n:4\n")
	run(inTime(t), t, terminal{}, "", nil, "__complete", "flag", "eval", "x", "--addr", f.addr, "--instance-id", "c").want(t, exitOK, "c\tcheckout\ncc\tcheckout\n:4\n")
}

// TestObeysGoesByHistory has an instance that obeys a high revision of the state
// before a restore.
func TestObeysGoesByHistory(t *testing.T) {
	own, other := []byte{1}, []byte{2}
	to := &newest{epoch: &holdfastv1.Epoch{Lineage: own, Counter: 2, Nonce: 5}, revision: 7}
	i := someInstance("c", 9)
	for _, test := range []struct {
		epoch *holdfastv1.Epoch
		obeys bool
		state string
	}{
		{&holdfastv1.Epoch{Lineage: own, Counter: 2, Nonce: 5}, true, "obeys"},
		{&holdfastv1.Epoch{Lineage: own, Counter: 1, Nonce: 4}, false, "obeys a state before the restore"},
		{&holdfastv1.Epoch{Lineage: other, Counter: 3, Nonce: 4}, false, "obeys a state before the restore"},
	} {
		i.Epoch = test.epoch
		v := instanceViewOf(i, to)
		if *v.Obeys != test.obeys || v.state() != test.state {
			t.Errorf("%v: %v, %s", test.epoch, *v.Obeys, v.state())
		}
	}
}

// reached answers that all servers have the revision.
func reached(int) (*holdfastv1.AwaitRevisionResponse, error) {
	return &holdfastv1.AwaitRevisionResponse{Reached: true, Servers: []*holdfastv1.ServerProgress{
		{ServerId: "s1", Revision: 7, Reached: true}, {ServerId: "s2", Revision: 7, Reached: true},
	}}, nil
}

// counting answers each question with the next of some counts of how many of 1,500
// obey, all at once.
func counting(obeying ...uint32) func(int, *holdfastv1.AwaitInstancesRequest, func(*holdfastv1.AwaitInstancesResponse)) error {
	return func(_ int, _ *holdfastv1.AwaitInstancesRequest, send func(*holdfastv1.AwaitInstancesResponse)) error {
		for _, n := range obeying {
			res := &holdfastv1.AwaitInstancesResponse{Reached: n == 1500, Connected: 1500, Obeying: n}
			for i := range min(1500-n, 100) {
				res.Behind = append(res.Behind, someInstance(fmt.Sprint("late-", i), uint64(i)))
			}
			send(res)
		}
		return nil
	}
}

func TestWaitCountsInstancesOnATerminal(t *testing.T) {
	instances := &fakeInstances{onAwait: counting(0, 1482, 1500)}
	f := newFake(t, instances)
	f.onAwait = reached
	got := run(inTime(t), t, terminal{out: true}, "", map[string]string{"NO_COLOR": "1"},
		setMode(f.addr, "--scope", "zone=a", "--percent", "10", "--timeout", "30s")...)
	got.want(t, exitOK, "storefront is read-only", "[----------------] 0 of 1,500 instances obey, 30.0 s left",
		"[###############-] 1,482 of 1,500 instances obey, ", "\x1b[KNote: all 1,500 connected instances in the scope obey\n")
	req := instances.awaits[0]
	filter := req.GetFilter()
	if req.GetRevision() != 7 || filter.GetNamespace() != "default" || filter.GetSelector() != "zone=a" || filter.GetPercent() != 10 || filter.GetSalt() != "mode/storefront" {
		t.Errorf("waited for %v", req)
	}
}

func TestWaitNamesInstancesThatDoNotObey(t *testing.T) {
	instances := &fakeInstances{onAwait: func(n int, req *holdfastv1.AwaitInstancesRequest, send func(*holdfastv1.AwaitInstancesResponse)) error {
		err := counting(1482)(n, req, send)
		<-time.After(req.GetWait().AsDuration())
		return err
	}}
	f := newFake(t, instances)
	f.onAwait = reached
	got := run(inTime(t), t, terminal{}, "", nil, setMode(f.addr, "--wait", "--timeout", "600ms", "-o", "json")...)
	got.want(t, exitNotConverged, `"obeying": 1482`, "the change is committed at revision 7, but 18 of 1,500 connected instances do not obey it within 0",
		"  late-0 (checkout, server s1) has told nothing yet\n  late-1 (checkout, server s1) obeys revision 1\n", "  and 13 more\n", "holdfast instances --behind 7")
	if strings.Count(got.errors, "1,482 of 1,500 instances obey, ") != 1 {
		t.Errorf("progress is not told once:\n%s", got.errors)
	}
	var v resultView
	if err := json.Unmarshal([]byte(got.out), &v); err != nil || v.Wait.Reached || v.Wait.Instances.Connected != 1500 || len(v.Wait.Instances.Behind) != 18 || len(v.Wait.Servers) != 2 {
		t.Errorf("%v, %+v", err, v.Wait)
	}
	// Whoever is missing in the end was counted in the end.
	if n := len(instances.awaits); n < 2 || instances.awaits[0].GetWait().AsDuration() == 0 || instances.awaits[n-1].GetWait().AsDuration() != 0 {
		t.Errorf("asked %v", instances.awaits)
	}
}

// TestWaitCountsInstancesThoughAServerIsLost has the instances of the other servers
// counted at once.
func TestWaitCountsInstancesThoughAServerIsLost(t *testing.T) {
	instances := &fakeInstances{onAwait: func(_ int, req *holdfastv1.AwaitInstancesRequest, send func(*holdfastv1.AwaitInstancesResponse)) error {
		send(&holdfastv1.AwaitInstancesResponse{Connected: 1, Obeying: 1, Unreachable: []*holdfastv1.UnreachableServer{{ServerId: "s3", Error: "connection refused"}}})
		<-time.After(req.GetWait().AsDuration())
		return nil
	}}
	f := newFake(t, instances)
	f.onAwait = func(n int) (*holdfastv1.AwaitRevisionResponse, error) { return notReached(n + 1) }
	got := run(inTime(t), t, terminal{}, "", nil, setMode(f.addr, "--wait", "--timeout", "600ms")...)
	got.want(t, exitNotConverged, "read-only", "1 of 1 instance obeys, 1 server cannot be asked, 0.", "1 of 3 servers has not applied it within",
		"s3: connection refused\n", "the instances of server s3 are not counted: connection refused", "holdfast cluster members")
	if strings.Contains(got.errors, "holdfast instances") {
		t.Errorf("nobody is behind:\n%s", got.errors)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(instances.awaits) < 2 || f.awaits > 3 {
		t.Errorf("asked for instances %d times, for servers %d times", len(instances.awaits), f.awaits)
	}
}

func TestWaitNamesImpairedInstances(t *testing.T) {
	list := fleet().instances
	f := newFake(t, &fakeInstances{onAwait: func(_ int, _ *holdfastv1.AwaitInstancesRequest, send func(*holdfastv1.AwaitInstancesResponse)) error {
		send(&holdfastv1.AwaitInstancesResponse{Reached: true, Connected: 9, Obeying: 9, Impaired: 3, ImpairedInstances: list[3:5]})
		return nil
	}})
	f.onAwait = reached
	run(inTime(t), t, terminal{}, "", nil, setMode(f.addr, "--wait")...).want(t, exitOK, "", "all 9 connected instances obey\n",
		"Warning: 3 instances that obey the revision cannot obey all of it, or are overridden locally:\n",
		"  broken (checkout, server s1) cannot obey mode/storefront: levels[0]: unknown action \"melt\" (and 2 more problems)\n",
		"  off (checkout, server s1) is overridden by HOLDFAST_DISABLE\n  and 1 more\n")
}

func TestWaitWithServersThatDoNotKnowInstances(t *testing.T) {
	old := newFake(t)
	old.onAwait = reached
	got := run(inTime(t), t, terminal{}, "", nil, setMode(old.addr, "--wait", "-o", "json")...)
	got.want(t, exitOK, `"instances": null`, "all 2 servers have applied revision 7", "Warning: the instances could not be counted: ")
	got.want(t, exitOK, `"wait": {
    "reached": true`)

	// During an upgrade another server may know them.
	new := newFake(t, &fakeInstances{onAwait: counting(1500)})
	run(inTime(t), t, terminal{}, "", nil, setMode(old.addr+","+new.addr, "--wait")...).want(t, exitOK, "", "all 1,500 connected instances obey")
}

func TestWaitGoesOnAtAnotherServer(t *testing.T) {
	broken := &fakeInstances{onAwait: func(_ int, req *holdfastv1.AwaitInstancesRequest, send func(*holdfastv1.AwaitInstancesResponse)) error {
		_ = counting(7)(1, req, send)
		return status.Error(codes.Unavailable, "shutting down")
	}}
	one, two := newFake(t, broken), newFake(t, &fakeInstances{onAwait: counting(1500)})
	one.onAwait, two.onAwait = reached, reached
	run(inTime(t), t, terminal{}, "", nil, setMode(one.addr+","+two.addr, "--wait")...).want(t, exitOK, "",
		"7 of 1,500 instances obey", "all 1,500 connected instances obey")

	refusing := &fakeInstances{onAwait: func(int, *holdfastv1.AwaitInstancesRequest, func(*holdfastv1.AwaitInstancesResponse)) error {
		return reasoned(codes.ResourceExhausted, "TOO_MANY", "definite", "too many wait")
	}}
	one = newFake(t, refusing)
	one.onAwait = reached
	run(inTime(t), t, terminal{}, "", nil, setMode(one.addr, "--wait")...).want(t, exitNotConverged, "",
		"the change is committed at revision 7, but it could not be learned which instances obey it: too many wait (TOO_MANY)")
}

func TestCtrlCWhileCountingSaysThatTheChangeStays(t *testing.T) {
	ctx, cancel := context.WithCancel(inTime(t))
	f := newFake(t, &fakeInstances{onAwait: func(n int, req *holdfastv1.AwaitInstancesRequest, send func(*holdfastv1.AwaitInstancesResponse)) error {
		_ = counting(1499)(n, req, send)
		if n == 2 {
			cancel()
		}
		return nil
	}})
	f.onAwait = reached
	run(ctx, t, terminal{}, "", nil, setMode(f.addr, "--wait")...).
		want(t, exitInterrupted, "storefront is read-only", "stopped waiting; the change stays: it is committed at revision 7", "late-0 (checkout, server s1) has told nothing yet")
}

// TestWaitIsForTheScope looks at whom the commands wait for.
func TestWaitIsForTheScope(t *testing.T) {
	instances := &fakeInstances{onAwait: func(_ int, _ *holdfastv1.AwaitInstancesRequest, send func(*holdfastv1.AwaitInstancesResponse)) error {
		send(&holdfastv1.AwaitInstancesResponse{Reached: true})
		return nil
	}}
	f := newFake(t, instances)
	f.onAwait = reached
	override := func(name, spec string) *holdfastv1.Resource {
		return &holdfastv1.Resource{Key: &holdfastv1.ResourceKey{Namespace: "default", Kind: holdfastv1.Kind_KIND_OVERRIDE, Name: name}, Spec: []byte(spec), EndTime: timestamppb.Now()}
	}
	f.resources = append(f.resources,
		override("zone", `{"mode":"storefront","level":"offline","scope":{"selector":"zone=a"}}`),
		override("everywhere", `{"mode":"storefront","level":"offline"}`),
		override("share", `{"breaker":"payments","method":"/p.P/Pay","hold":"open","scope":{"percent":5}}`),
	)
	const flag = "---\nkind: Flag\nname: f\nspec: {state: ENABLED, variants: {x: 1}}\n"
	for _, test := range []struct {
		args []string
		want string
	}{
		{[]string{"breaker", "hold", "payments", "open", "--percent", "5", "--reason", "abc", "--for", "1h"}, `namespace:"default" percent:5 salt:"breaker/payments"`},
		{[]string{"mode", "clear", "storefront", "--scope", "zone=a"}, `namespace:"default" selector:"zone=a"`},
		{[]string{"mode", "clear", "storefront", "--all"}, `namespace:"default"`}, // two scopes
		{[]string{"override", "end", "share"}, `namespace:"default" percent:5 salt:"breaker/payments/p.P/Pay"`},
		{[]string{"override", "extend", "zone", "--for", "1h"}, `namespace:"default" selector:"zone=a"`},
		{[]string{"mode", "delete", "storefront", "--yes"}, `namespace:"default"`},
		{[]string{"apply", "-f", "-"}, `namespace:"default" | namespace:"other"`},
	} {
		instances.awaits = nil
		run(inTime(t), t, terminal{}, flag+flag+"namespace: other\n", nil, append(test.args, "--wait", "--addr", f.addr)...).
			want(t, exitOK, "", "no instance")
		var got []string
		for _, req := range instances.awaits {
			got = append(got, strings.ReplaceAll(req.GetFilter().String(), "  ", " "))
		}
		if text := strings.Join(got, " | "); text != test.want {
			t.Errorf("%v: waits for %s, want %s", test.args, text, test.want)
		}
	}
}

// TestWaitAddsNamespacesUp changes two namespaces, each with instances of its own.
func TestWaitAddsNamespacesUp(t *testing.T) {
	lost := &holdfastv1.UnreachableServer{ServerId: "s3", Error: "connection refused"}
	f := newFake(t, &fakeInstances{onAwait: func(_ int, req *holdfastv1.AwaitInstancesRequest, send func(*holdfastv1.AwaitInstancesResponse)) error {
		res := &holdfastv1.AwaitInstancesResponse{Connected: 3, Obeying: 3, Impaired: 1, Unreachable: []*holdfastv1.UnreachableServer{lost}}
		if req.GetFilter().GetNamespace() == "other" {
			res = &holdfastv1.AwaitInstancesResponse{Connected: 2, Obeying: 1, Behind: []*holdfastv1.Instance{someInstance("b", 5)}, Unreachable: res.GetUnreachable()}
		}
		send(res)
		return nil
	}})
	f.onAwait = reached
	const flag = "---\nkind: Flag\nname: f\nspec: {state: ENABLED, variants: {x: 1}}\n"
	got := run(inTime(t), t, terminal{}, flag+flag+"namespace: other\n", nil, "apply", "-f", "-", "--wait", "--timeout", "300ms", "--addr", f.addr)
	got.want(t, exitNotConverged, "", "1 of 5 connected instances does not obey it", "Warning: 1 instance that obeys", "  b (checkout, server s1) obeys revision 5\n")
	if strings.Count(got.errors, "server s3 are not counted") != 1 {
		t.Errorf("the lost server is not named once:\n%s", got.errors)
	}
}

func TestPreviewSaysWhatACacheIsAbout(t *testing.T) {
	e := flags.MethodEffect{Action: flags.Cache, Methods: []string{"/a.A/*", "/a.A/Get", "/b.B/*"}, Except: []string{"/b.B/Put"}}
	if got, want := callsOf(&e), "/a.A/Get, methods declared NO_SIDE_EFFECTS of /a.A/*, /b.B/* except /b.B/Put"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
	e.Action = flags.Fallback
	if got, want := callsOf(&e), "/a.A/*, /a.A/Get, /b.B/* except /b.B/Put"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
}

func TestPreviewCountsInstances(t *testing.T) {
	instances := &fakeInstances{page: 1, instances: []*holdfastv1.Instance{someInstance("a", 1), someInstance("b", 1)}}
	f := newFake(t, instances)
	f.serve()
	dry := func(more ...string) ran {
		return run(inTime(t), t, terminal{}, "", nil, setMode(f.addr, append(more, "--dry-run")...)...)
	}
	dry().want(t, exitOK, "\ninstances: 2 connected\n")
	dry("--percent", "10").want(t, exitOK, "\ninstances: 2 connected in the scope\n")
	if filter := instances.lists[len(instances.lists)-1].GetFilter(); filter.GetPercent() != 10 || filter.GetSalt() != "mode/storefront" {
		t.Errorf("counted %v", filter)
	}
	dry("-o", "json").want(t, exitOK, `"instances": 2`)
	instances.unreachable = []*holdfastv1.UnreachableServer{{ServerId: "s3", Error: "connection refused"}}
	dry().want(t, exitOK, "instances: 2 connected, and those of servers that could not be asked\n", "the instances of server s3 are not counted: connection refused")

	old := newFake(t)
	old.serve()
	run(inTime(t), t, terminal{}, "", nil, setMode(old.addr, "--dry-run")...).want(t, exitOK, "instances: not counted; the servers are of a version that does not know them\n")
}
