package guard

import (
	"maps"
	"reflect"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/descriptorpb"

	"github.com/holdfast-dev/holdfast/internal/breaker"
	"github.com/holdfast-dev/holdfast/internal/bulkhead"
	"github.com/holdfast-dev/holdfast/internal/clock"
	"github.com/holdfast-dev/holdfast/internal/flags"
	"github.com/holdfast-dev/holdfast/internal/hash"
	"github.com/holdfast-dev/holdfast/internal/policy"
)

const (
	// maxDependencies and maxTargets bound what a guard has of each name: dependencies,
	// and targets of one of them. All further ones, of targets those of one kind, share
	// the one that is called Others.
	maxDependencies = 256
	maxTargets      = 512
	// Others is the name of the dependency, and of the target, beyond the limit.
	Others = "(others)"
	// serverPrefix begins the names of the dependencies that Server returns.
	serverPrefix = "server:"
)

// Guard enforces the policies of all dependencies of an instance. Its methods may
// be called at the same time.
type Guard struct {
	config Config
	coarse *clock.Coarse // nil without Config.Coarse
	draws  atomic.Uint64

	mu           sync.Mutex // of changes; calls do not take it
	rules        Rules      // nil until Apply
	dependencies atomic.Pointer[map[string]*Dependency]
}

// New returns a guard that enforces the built-in defaults until Apply.
func New(config Config) *Guard {
	g := &Guard{config: config}
	g.dependencies.Store(&map[string]*Dependency{})
	if config.Coarse {
		g.coarse = clock.NewCoarse(config.Clock)
	}
	return g
}

// Close stops what runs in the background and waits for it. Calls go on.
func (g *Guard) Close() {
	if g.coarse != nil {
		g.coarse.Close()
	}
}

// Apply makes rules hold for all calls that begin after it returned. Statistics
// and states of breakers stay. Only one goroutine may call it at a time.
func (g *Guard) Apply(rules Rules) {
	told := g.obey(rules)
	for i := range told {
		g.tell(&told[i])
	}
}

// obey makes rules hold, and returns what there is to tell.
func (g *Guard) obey(rules Rules) []BreakerEvent {
	g.mu.Lock()
	defer g.mu.Unlock() // also if rules panic: calls of new targets wait for it
	var told []BreakerEvent
	g.rules = rules
	for _, d := range *g.dependencies.Load() {
		told = append(told, d.apply(rules)...)
	}
	return told
}

// Dependency returns the dependency of a name, the same one each time. Beyond a
// limit of names all others share one.
func (g *Guard) Dependency(name string) *Dependency {
	if d, ok := (*g.dependencies.Load())[name]; ok {
		return d
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	known := *g.dependencies.Load()
	name = bounded(known, name, maxDependencies, Others)
	if d, ok := known[name]; ok {
		return d
	}
	d := g.newDependency(name)
	g.dependencies.Store(with(known, name, d))
	return d
}

// Server returns the dependency "server:SERVICE", which stands for the instance
// itself as those see it who call it. Its targets have the plans of the server's
// side and no breaker, and are asked by Due and Admit only.
func (g *Guard) Server(service string) *Dependency { return g.Dependency(serverPrefix + service) }

// bounded returns the name, or the one that all share, if there are enough others.
func bounded[K comparable, V any](known map[K]V, name K, most int, others K) K {
	if _, ok := known[name]; !ok && len(known) >= most {
		return others
	}
	return name
}

// with returns a copy of a map with one more entry.
func with[K comparable, V any](m map[K]V, key K, value V) *map[K]V {
	next := maps.Clone(m)
	next[key] = value
	return &next
}

// Dependency is a named remote with a policy.
type Dependency struct {
	guard  *Guard
	name   string
	server bool // it is the instance itself

	policy   atomic.Pointer[policy.Policy]
	heed     atomic.Pointer[heed] // of the fleet's verdict; nil: none
	noticed  atomic.Int64         // when OnSuspicion was told of failures last
	targets  atomic.Pointer[map[targetName]*Target]
	canaries breaker.Canaries
	budget   *policy.RetryBudget
	whole    *bulkhead.Bulkhead
	parts    map[string]*bulkhead.Bulkhead // within the whole, by their keys in the policy; under Guard.mu
}

type targetName struct {
	name string
	kind Kind
}

func (g *Guard) newDependency(name string) *Dependency {
	p := policyOf(g.rules, name)
	d := &Dependency{
		guard: g, name: name, server: strings.HasPrefix(name, serverPrefix),
		budget: policy.NewRetryBudget(p.Retry.Budget), whole: bulkhead.New(p.Bulkhead), parts: map[string]*bulkhead.Bulkhead{},
	}
	d.policy.Store(&p)
	d.noticed.Store(-int64(quiet))
	d.targets.Store(&map[targetName]*Target{})
	return d
}

// policyOf returns the settings of a dependency. A server is bounded only where
// rules say so.
func policyOf(rules Rules, name string) policy.Policy {
	if rules != nil {
		return rules.Policy(name)
	}
	p := policy.Default()
	if strings.HasPrefix(name, serverPrefix) {
		p.Bulkhead.MaxConcurrent = 0
	}
	return p
}

// Name returns the name.
func (d *Dependency) Name() string { return d.name }

// Policy returns the settings that hold now.
func (d *Dependency) Policy() *policy.Policy { return d.policy.Load() }

// apply makes rules hold, and returns what there is to tell.
func (d *Dependency) apply(rules Rules) []BreakerEvent {
	was, is := d.policy.Load(), policyOf(rules, d.name)
	if !reflect.DeepEqual(was, &is) {
		d.budget.Configure(d.guard.now(), is.Retry.Budget)
		d.whole.Configure(is.Bulkhead)
		d.policy.Store(&is)
		d.heed.Store(d.heed.Load().within(&is))
	}
	var told []BreakerEvent
	used := map[string]bool{}
	for _, t := range *d.targets.Load() {
		told = append(told, t.apply(rules)...)
		used[t.setting.Load().partKey] = true
	}
	told = append(told, d.obeyFleet(d.guard.now())...)
	maps.DeleteFunc(d.parts, func(key string, _ *bulkhead.Bulkhead) bool { return !used[key] })
	return told
}

// part returns the bulkhead within the whole for calls of a name; nil without one.
func (d *Dependency) part(name string, p *policy.Policy) (string, *bulkhead.Bulkhead) {
	key, settings, ok := p.Bulkhead.Part(name)
	if !ok {
		return "", nil
	}
	if b, ok := d.parts[key]; ok {
		b.Configure(settings)
		return key, b
	}
	b := bulkhead.New(settings)
	d.parts[key] = b
	return key, b
}

// Target returns the target of a method or operation, the same one each time.
// Beyond a limit of names all others of the kind share one, which as a method has side
// effects, and for which modes hold that are about all methods or about those. It
// allocates nothing for one that exists.
func (d *Dependency) Target(name string, kind Kind) *Target {
	if t, ok := (*d.targets.Load())[targetName{name, kind}]; ok {
		return t
	}
	t, told := d.newTarget(targetName{name, kind})
	for i := range told {
		d.guard.tell(&told[i])
	}
	return t
}

func (d *Dependency) newTarget(key targetName) (*Target, []BreakerEvent) {
	d.guard.mu.Lock()
	defer d.guard.mu.Unlock()
	known := *d.targets.Load()
	key = bounded(known, key, maxTargets, targetName{Others, key.kind})
	if t, ok := known[key]; ok {
		return t, nil
	}
	t := &Target{dependency: d, clock: d.guard.config.Clock, coarse: d.guard.coarse, name: key.name, kind: key.kind}
	if key.kind == Method {
		t.idempotent, t.noSideEffects = Idempotency(key.name)
	}
	if !d.server {
		t.breaker = breaker.New(d.guard.now(), breakerSettings(d.policy.Load()), hash.Nth(d.guard.config.Seed^hash.Add(hash.Start, d.name+"\x00"+key.name)))
		t.breaker.Share(&d.canaries)
	}
	told := t.apply(d.guard.rules)
	now, h := d.guard.now(), d.heed.Load()
	if event := t.obeyFleet(now, h, d.grounds(now, h)); event != nil {
		told = append(told, t.event(event, ""))
	}
	d.targets.Store(with(known, key, t))
	return t, told
}

// Idempotency returns what the proto of a gRPC method that is linked in declares: an
// idempotency_level other than unknown, and NO_SIDE_EFFECTS.
func Idempotency(method string) (idempotent, noSideEffects bool) {
	name := strings.ReplaceAll(strings.TrimPrefix(method, "/"), "/", ".")
	d, err := protoregistry.GlobalFiles.FindDescriptorByName(protoreflect.FullName(name))
	if err != nil {
		return false, false
	}
	options, ok := d.Options().(*descriptorpb.MethodOptions)
	if !ok {
		return false, false
	}
	level := options.GetIdempotencyLevel()
	return level != descriptorpb.MethodOptions_IDEMPOTENCY_UNKNOWN, level == descriptorpb.MethodOptions_NO_SIDE_EFFECTS
}

func breakerSettings(p *policy.Policy) breaker.Settings {
	b := &p.CircuitBreaker
	return breaker.Settings{
		FailureThreshold: b.FailureThreshold, FailureRatio: b.FailureRatio, SlowRatio: b.SlowRatio, SlowAfter: b.SlowAfter,
		VolumeThreshold: b.VolumeThreshold, Window: b.Window,
		Timeout: b.Timeout, MaxTimeout: b.MaxTimeout, Multiplier: b.Multiplier, Jitter: b.Jitter,
		Probes: b.Probes, ProbeTimeout: b.ProbeTimeout, SuccessThreshold: b.SuccessThreshold,
		Ramp: b.Ramp, RampStep: b.RampStep,
		VetoSuccesses: p.Fleet.VetoSuccesses, VetoWindow: p.Fleet.VetoWindow,
		Canary: p.Fleet.Canary,
	}
}

// apply computes the setting that rules and the policy of the dependency make, and
// lets the breaker obey it. Guard.mu is held.
func (t *Target) apply(rules Rules) []BreakerEvent {
	d := t.dependency
	was, s := t.setting.Load(), t.newSetting(rules)
	var told []BreakerEvent
	if t.breaker != nil {
		now := d.guard.now()
		if is := breakerSettings(s.Policy); was != nil && was.Policy != s.Policy && !reflect.DeepEqual(breakerSettings(was.Policy), is) {
			t.breaker.Configure(now, is)
		}
		var event *breaker.Event
		by := s.by
		if s.Hold.Dependency != "" {
			event = t.breaker.Force(now, s.Hold.Open)
		} else if was != nil && was.Hold.Dependency != "" {
			event, by = t.breaker.Release(now), was.by
		}
		if event != nil {
			told = append(told, t.event(event, by))
		}
	}
	t.setting.Store(s)
	return told
}

func (t *Target) newSetting(rules Rules) *Setting {
	d := t.dependency
	p := d.policy.Load()
	s := &Setting{
		Policy: p, Enforce: enforced(p),
		Idempotent: t.idempotent || slices.ContainsFunc(p.Retry.Idempotent, t.matches), NoSideEffects: t.noSideEffects,
		own: p.Timeouts.For(t.name), weight: p.Bulkhead.Weight(t.name), whole: d.whole,
	}
	s.fair = fair(p, s.own)
	hedges := s.Enforce && p.Retry.HedgeDelay > 0 && p.Retry.MaxHedges > 0
	s.hedged = hedges && s.NoSideEffects
	s.partKey, s.part = d.part(t.name, p)
	if rules != nil {
		t.obey(rules, s)
	}
	repeatable := *s
	repeatable.Idempotent = true
	readOnly := repeatable
	readOnly.NoSideEffects, readOnly.hedged = true, hedges
	s.repeatable, repeatable.repeatable, readOnly.repeatable = &repeatable, &repeatable, &readOnly
	s.readOnly, repeatable.readOnly, readOnly.readOnly = &readOnly, &readOnly, &readOnly
	return s
}

func enforced(p *policy.Policy) bool { return p.Enforcement != policy.Observe }

// obey fills in what rules say about the target.
func (t *Target) obey(rules Rules, s *Setting) {
	s.Disabled = rules.Disabled()
	side := flags.ClientSide
	if t.dependency.server {
		side = flags.ServerSide
	}
	switch {
	case t.kind == Method:
		s.Plan = rules.Method(side, t.name, t.noSideEffects)
		s.Recordings = rules.RecordMethod(side, t.name, t.noSideEffects)
	case side == flags.ClientSide:
		s.Plan = rules.Operation(t.name)
		s.Recordings = rules.RecordOperation(t.name)
	}
	if hold, ok := rules.Hold(t.dependency.name, t.name); ok && t.breaker != nil {
		s.Hold, s.by = hold, holder(hold)
	}
}

// matches tells whether a name in a policy's list means the target.
func (t *Target) matches(pattern string) bool {
	if pattern == "*" || pattern == t.name {
		return true
	}
	service, all := strings.CutSuffix(pattern, "/*")
	return all && strings.HasPrefix(t.name, service+"/")
}

// holder names the override of a hold as errors and events do. One that was decided
// at the instance itself has no name.
func holder(h flags.Hold) string {
	if strings.Contains(h.Override, " ") {
		return h.Override
	}
	return "override/" + h.Override
}

// draw returns a random number in [0, 1).
func (g *Guard) draw() float64 {
	return float64(hash.Nth(g.config.Seed^hash.Nth(g.draws.Add(1)))>>11) / (1 << 53)
}

// now returns the time exactly.
func (g *Guard) now() int64 { return g.config.Clock.Now() }
