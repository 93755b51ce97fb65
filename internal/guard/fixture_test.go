package guard

import (
	"context"
	"runtime"
	"slices"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/descriptorpb"

	"github.com/holdfast-dev/holdfast/internal/breaker"
	"github.com/holdfast-dev/holdfast/internal/clock"
	"github.com/holdfast-dev/holdfast/internal/flags"
	"github.com/holdfast-dev/holdfast/internal/policy"
)

// The methods of a service whose proto is linked in.
const (
	readMethod = "/guardtest.Store/Read" // NO_SIDE_EFFECTS
	putMethod  = "/guardtest.Store/Put"  // IDEMPOTENT
	postMethod = "/guardtest.Store/Post" // unknown
)

func TestMain(m *testing.M) {
	registerStore()
	goleak.VerifyTestMain(m)
}

func registerStore() {
	method := func(name string, level descriptorpb.MethodOptions_IdempotencyLevel) *descriptorpb.MethodDescriptorProto {
		return &descriptorpb.MethodDescriptorProto{
			Name: new(name), InputType: new(".guardtest.Message"), OutputType: new(".guardtest.Message"),
			Options: &descriptorpb.MethodOptions{IdempotencyLevel: level.Enum()},
		}
	}
	file, err := protodesc.NewFile(&descriptorpb.FileDescriptorProto{
		Name: new("guardtest.proto"), Package: new("guardtest"), Syntax: new("proto3"),
		MessageType: []*descriptorpb.DescriptorProto{{Name: new("Message")}},
		Service: []*descriptorpb.ServiceDescriptorProto{{Name: new("Store"), Method: []*descriptorpb.MethodDescriptorProto{
			method("Read", descriptorpb.MethodOptions_NO_SIDE_EFFECTS),
			method("Put", descriptorpb.MethodOptions_IDEMPOTENT),
			method("Post", descriptorpb.MethodOptions_IDEMPOTENCY_UNKNOWN),
		}}},
	}, nil)
	if err == nil {
		err = protoregistry.GlobalFiles.RegisterFile(file)
	}
	if err != nil {
		panic(err)
	}
}

// said are Rules that a test makes up.
type said struct {
	policies map[string]policy.Policy // the rest has the defaults
	holds    map[string]flags.Hold    // by dependency
	plans    map[flags.Side]flags.Plan
	disabled bool
}

func (s said) Revision() uint64 { return 1 }
func (s said) Disabled() bool   { return s.disabled }

func (s said) Policy(dependency string) policy.Policy {
	if p, ok := s.policies[dependency]; ok {
		return p
	}
	return policyOf(nil, dependency)
}

func (s said) Hold(dependency, method string) (flags.Hold, bool) {
	h, ok := s.holds[dependency]
	return h, ok && (h.Method == "" || h.Method == method)
}

func (s said) Method(side flags.Side, _ string, _ bool) flags.Plan { return s.plans[side] }
func (s said) Operation(string) flags.Plan                         { return s.plans[0] }

func (s said) RecordMethod(flags.Side, string, bool) []flags.Recording { return nil }
func (s said) RecordOperation(string) []flags.Recording                { return nil }

// fixture is a guard of which one dependency is looked at.
type fixture struct {
	*testing.T
	*Guard
	policy policy.Policy
	mu     sync.Mutex
	events []BreakerEvent
}

// newFixture returns a guard on the clock of the process, or of a bubble, whose
// pauses are not drawn.
func newFixture(t *testing.T, change func(*policy.Policy)) *fixture {
	t.Helper()
	f := &fixture{T: t, policy: policy.Default()}
	f.policy.Retry.Jitter = policy.Jitter{Kind: policy.NoJitter}
	f.policy.CircuitBreaker.Jitter = 0
	f.policy.Timeouts.Call = 10 * time.Second
	if change != nil {
		change(&f.policy)
	}
	f.Guard = New(Config{Clock: clock.New(), Seed: 1, OnEvent: f.heard})
	t.Cleanup(f.Close)
	f.apply(said{})
	return f
}

func (f *fixture) heard(e BreakerEvent) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.events = append(f.events, e)
}

// states are the states that breakers came to, in order.
func (f *fixture) states() []breaker.State {
	f.mu.Lock()
	defer f.mu.Unlock()
	var all []breaker.State
	for _, e := range f.events {
		all = append(all, e.To)
	}
	return all
}

// apply lets the policy of the fixture hold, with what else is said.
func (f *fixture) apply(s said) {
	s.policies = map[string]policy.Policy{"store": f.policy, "server:store": f.policy}
	f.Apply(s)
}

func (f *fixture) target(method string) *Target { return f.Dependency("store").Target(method, Method) }

// call makes a call of a method, by default of one that may be repeated.
func (f *fixture) call(ctx context.Context, c *scripted) error {
	if c.method == "" {
		c.method = putMethod
	}
	t := f.target(c.method)
	return t.Call(ctx, t.Now(), c)
}

// fail makes calls that fail once each.
func (f *fixture) fail(n int) {
	f.Helper()
	for range n {
		if err := f.call(f.Context(), &scripted{method: postMethod, steps: []step{{code: codes.Internal}}}); status.Code(err) != codes.Internal {
			f.Fatalf("got %v", err)
		}
	}
}

// stats returns what a target counted.
func (f *fixture) stats(method string) TargetStats {
	f.Helper()
	for _, d := range f.Stats().Dependencies {
		for _, t := range d.Targets {
			if t.Name == method {
				return t
			}
		}
	}
	f.Fatalf("no statistics of %s", method)
	return TargetStats{}
}

// step is what one attempt does.
type step struct {
	took   time.Duration // unless the context ends
	code   codes.Code
	err    error // in place of one of the code
	result *Result
	deaf   bool // it pays no attention to the context
	panics any
	exits  bool // the goroutine ends
	do     func(ctx context.Context)
}

// scripted is a call that goes by a script, whose last step repeats.
type scripted struct {
	method string
	steps  []step
	twin   *scripted

	mu       sync.Mutex
	made     []made
	result   *Result
	adopted  Invocation
	places   []Place
	twins    int
	finished int
}

// made is an attempt that was made.
type made struct {
	n    int
	at   time.Time
	left time.Duration   // until the deadline; 0 without one
	ctx  context.Context //nolint:containedctx // to look at
}

func (c *scripted) Invoke(ctx context.Context, n int) error {
	c.mu.Lock()
	s := c.steps[min(len(c.made), len(c.steps)-1)]
	m := made{n: n, at: time.Now(), ctx: ctx}
	if deadline, ok := ctx.Deadline(); ok {
		m.left = time.Until(deadline)
	}
	c.made = append(c.made, m)
	c.result = s.result
	c.mu.Unlock()
	defer func() { c.mu.Lock(); c.finished++; c.mu.Unlock() }()
	if s.do != nil {
		s.do(ctx)
	}
	switch {
	case s.panics != nil:
		panic(s.panics)
	case s.exits:
		runtime.Goexit()
	case s.deaf:
		pass(s.took)
	case s.took > 0 && !sleep(ctx, s.took):
		return status.FromContextError(ctx.Err()).Err()
	}
	if s.err != nil {
		return s.err
	}
	return status.Error(s.code, "scripted")
}

func (c *scripted) Result(_ context.Context, err error) Result {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.result != nil {
		r := *c.result
		if r.Code == codes.OK && err != nil {
			r.Code = status.Code(err)
		}
		return r
	}
	return Result{Code: status.Code(err)}
}

func (c *scripted) Twin() Invocation {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.twins++
	if c.twin == nil {
		return nil
	}
	return c.twin
}

func (c *scripted) Adopt(twin Invocation) { c.adopted = twin }
func (c *scripted) Keep(p Place)          { c.places = append(c.places, p) }

// list returns the attempts so far.
func (c *scripted) list() []made {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.made)
}

// pauses are the times between the attempts.
func (c *scripted) pauses() []time.Duration {
	var all []time.Duration
	made := c.list()
	for i := 1; i < len(made); i++ {
		all = append(all, made[i].at.Sub(made[i-1].at))
	}
	return all
}

// attempts are scripts of attempts that end at once.
func attempts(all ...codes.Code) *scripted {
	c := new(scripted)
	for _, code := range all {
		c.steps = append(c.steps, step{code: code})
	}
	return c
}

// pass lets virtual time pass.
func pass(d time.Duration) {
	time.Sleep(d) //nolint:forbidigo // in a bubble
}
