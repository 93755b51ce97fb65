package flags

import (
	"bytes"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/holdfast-dev/holdfast/internal/document"
)

// space is a namespace as a test changes it.
type space struct {
	revision uint64
	content  map[document.Key]*document.Resource
}

func newSpace() *space { return &space{content: map[document.Key]*document.Resource{}} }

// put and remove return the delta of one change.
func (s *space) put(kind document.Kind, name, spec string) document.Delta {
	s.revision++
	r := &document.Resource{Key: document.Key{Kind: kind, Name: name}, Spec: []byte(spec), ModRevision: s.revision, End: int64(s.revision) * 1000}
	s.content[r.Key] = r
	return document.Delta{From: s.revision - 1, To: s.revision, Puts: []*document.Resource{r}}
}

func (s *space) remove(kind document.Kind, name string) document.Delta {
	s.revision++
	k := document.Key{Kind: kind, Name: name}
	delete(s.content, k)
	return document.Delta{From: s.revision - 1, To: s.revision, Deletes: []document.Tombstone{{Key: k, Revision: s.revision}}}
}

// all returns the delta from nothing.
func (s *space) all() document.Delta {
	d := document.Delta{To: s.revision}
	for _, r := range s.content {
		d.Puts = append(d.Puts, r)
	}
	return d
}

const (
	testFlag = `{"state":"ENABLED","variants":{"off":false,"on":true},"defaultVariant":"on","description":"kept"}`
	testMode = `{"levels":[
		{"name":"basic","effects":[{"flag":"ads","variant":"off"},{"action":"cache","methods":["/shop.Catalog/*"],"max_age":"1m","vary":["tenant"]}]},
		{"name":"read-only","effects":[{"action":"reject","side_effects":true,"except":["/shop.Session/*"]},{"policy":"payments","patch":{"timeouts":{"call":"1s"}}},
			{"action":"fallback","operations":["search"],"fallback":"nothing"}]},
		{"name":"offline","effects":[{"action":"reject","methods":["*"],"code":"RESOURCE_EXHAUSTED","retry_after":"30s"},{"action":"shed","methods":["/shop.Search/Find"],"side":"client","percent":20}]}]}`
)

func storefront(tb testing.TB, changes ...func(*space) document.Delta) *View {
	tb.Helper()
	s, v := newSpace(), NewView(Instance{ID: "i-1", Labels: []document.Label{{Key: "service", Value: "checkout"}, {Key: "zone", Value: "eu-1"}}})
	v = v.Update(s.put(document.Flag, "ads", testFlag))
	v = v.Update(s.put(document.Mode, "shop", testMode))
	v = v.Update(s.put(document.Policy, "payments", `{"timeouts":{"call":"5s"}}`))
	for _, change := range changes {
		v = v.Update(change(s))
	}
	return v
}

func set(name, spec string) func(*space) document.Delta {
	return func(s *space) document.Delta { return s.put(document.Override, name, spec) }
}

// TestPrecedence goes through who wins where several want to decide.
func TestPrecedence(t *testing.T) {
	decided := func(v *View) string {
		e := v.Flag("ads").Explain(0)
		if e.Variant == nil {
			return e.DecidedBy + ": none, " + e.Reason.String()
		}
		return e.DecidedBy + ": " + e.Variant.Name + ", " + e.Reason.String()
	}
	for _, c := range []struct {
		what    string
		changes []func(*space) document.Delta
		want    string
	}{
		{"nothing", nil, "defaultVariant: on, STATIC"},
		{"a level", []func(*space) document.Delta{set("m", `{"mode":"shop","level":"basic"}`)}, "mode/shop=basic: off, STATIC"},
		{"a higher level has the effects of the lower ones", []func(*space) document.Delta{set("m", `{"mode":"shop","level":"offline"}`)}, "mode/shop=basic: off, STATIC"},
		{"an override beats a level, also an older one", []func(*space) document.Delta{
			set("f", `{"flag":"ads","variant":"on"}`), set("m", `{"mode":"shop","level":"basic"}`),
		}, "override/f: on, STATIC"},
		{"the newest override", []func(*space) document.Delta{
			set("z", `{"flag":"ads","variant":"on"}`), set("a", `{"flag":"ads","variant":"off"}`),
		}, "override/a: off, STATIC"},
		{"an override of others", []func(*space) document.Delta{
			set("f", `{"flag":"ads","variant":"off","scope":{"selector":"zone=us-1"}}`),
		}, "defaultVariant: on, STATIC"},
		{"an override by label", []func(*space) document.Delta{
			set("f", `{"flag":"ads","variant":"off","scope":{"selector":"zone in (eu-1,eu-2)","percent":100}}`),
		}, "override/f: off, STATIC"},
		{"an override that ended", []func(*space) document.Delta{
			set("f", `{"flag":"ads","variant":"off"}`),
			func(s *space) document.Delta { return s.remove(document.Override, "f") },
		}, "defaultVariant: on, STATIC"},
		{"an override of a disabled flag", []func(*space) document.Delta{
			func(s *space) document.Delta {
				return s.put(document.Flag, "ads", `{"state":"DISABLED","variants":{"on":true}}`)
			},
			set("f", `{"flag":"ads","variant":"on"}`),
		}, "override/f: on, STATIC"},
		{"a variant that does not exist", []func(*space) document.Delta{set("f", `{"flag":"ads","variant":"blue"}`)}, "defaultVariant: on, STATIC"},
		{"a variant that does not exist, over a level that has one", []func(*space) document.Delta{
			set("m", `{"mode":"shop","level":"basic"}`), set("f", `{"flag":"ads","variant":"blue"}`),
		}, "mode/shop=basic: off, STATIC"},
		{"disabled by a newer version", []func(*space) document.Delta{func(s *space) document.Delta {
			return s.put(document.Flag, "ads", `{"state":"DISABLED","variants":{"on":true},"targeting":{"future":[]}}`)
		}}, "state: none, DISABLED"},
		{"an override with a scope of a newer version", []func(*space) document.Delta{
			set("f", `{"flag":"ads","variant":"off","scope":{"cells":["a"]}}`),
		}, "defaultVariant: on, STATIC"},
		{"an override of a newer version", []func(*space) document.Delta{set("f", `{"quota":"ads","variant":"off"}`)}, "defaultVariant: on, STATIC"},
		{"the mode that was set last", []func(*space) document.Delta{
			set("m", `{"mode":"shop","level":"basic"}`),
			func(s *space) document.Delta {
				return s.put(document.Mode, "other", `{"levels":[{"name":"x","effects":[{"flag":"ads","variant":"on"}]}]}`)
			},
			set("o", `{"mode":"other","level":"x"}`),
		}, "mode/other=x: on, STATIC"},
	} {
		if got := decided(storefront(t, c.changes...)); got != c.want {
			t.Errorf("%s: %s, want %s", c.what, got, c.want)
		}
	}
}

func TestLevelsAndPlans(t *testing.T) {
	v := storefront(t)
	if len(v.Levels()) != 0 || !v.Method(ServerSide, "/shop.Orders/Place", false).Empty() || v.Mode("shop").Rank != 0 {
		t.Errorf("a normal mode has effects: %v", v.Levels())
	}
	v = storefront(t, set("a", `{"mode":"shop","level":"read-only"}`), set("b", `{"mode":"shop","level":"basic"}`))
	if l := v.Mode("shop"); l.Rank != 2 || l.Override != "a" || l.String() != "mode/shop=read-only" || l.End != 4000 {
		t.Errorf("the most degraded level should win: %+v", l)
	}
	reject := v.Method(ServerSide, "/shop.Orders/Place", false).Reject
	if reject == nil || reject.Code != "UNAVAILABLE" || reject.By != "mode/shop=read-only" {
		t.Errorf("a method with side effects is not rejected: %+v", reject)
	}
	for method, noSideEffects := range map[string]bool{"/shop.Orders/List": true, "/shop.Session/Login": false} {
		if p := v.Method(ServerSide, method, noSideEffects); !p.Empty() {
			t.Errorf("%s: %+v", method, p)
		}
	}
	if p := v.Method(ClientSide, "/shop.Catalog/Get", true); p.Cache == nil || p.Cache.MaxAge.String() != "1m0s" || !slices.Equal(p.Cache.Vary, []string{"tenant"}) {
		t.Errorf("cache: %+v", p)
	}
	if p := v.Method(ClientSide, "/shop.Catalog/Put", false); !p.Empty() {
		t.Errorf("a pattern has a write answered from the cache: %+v", p)
	}
	closed := storefront(t, func(s *space) document.Delta {
		return s.put(document.Mode, "shop", `{"levels":[{"name":"x","effects":[{"action":"reject","operations":["search"]}]}]}`)
	}, set("a", `{"mode":"shop","level":"x"}`))
	if p := closed.Operation("search"); p.Reject == nil {
		t.Error("an operation is not rejected")
	}
	if p := v.Operation("search"); p.Fallback == nil || p.Fallback.Chain != "nothing" || v.Operation("other") != (Plan{}) {
		t.Errorf("fallback: %+v", p)
	}
	if p, ok := v.Policy("payments"); !ok || p.Timeouts.Call.String() != "1s" {
		t.Errorf("the policy is not patched: %v %+v", ok, p.Timeouts)
	}
	v = storefront(t, set("a", `{"mode":"shop","level":"offline"}`))
	if r := v.Method(ServerSide, "/shop.Orders/Place", false).Reject; r == nil || r.Code != "RESOURCE_EXHAUSTED" {
		t.Errorf("the higher level's effect should win: %+v", r)
	}
	if p := v.Method(ClientSide, "/shop.Search/Find", true); p.Shed == nil || p.Shed.Percent != 20 {
		t.Errorf("shed: %+v", p)
	}
}

// TestPolicyKeepsTheLastGood changes a policy to what this version cannot read, and
// patches one into a contradiction.
func TestPolicyKeepsTheLastGood(t *testing.T) {
	policy := func(spec string) func(*space) document.Delta {
		return func(s *space) document.Delta { return s.put(document.Policy, "payments", spec) }
	}
	v := storefront(t, policy(`{"timeouts":{"call":{"p99":2}}}`))
	if p, ok := v.Policy("payments"); !ok || p.Timeouts.Call.String() != "5s" || len(v.Problems()) != 1 {
		t.Errorf("call is %s, %v, problems %v", p.Timeouts.Call, ok, v.Problems())
	}
	v = storefront(t, policy(`{"timeouts":{"call":{"p99":2}}}`), policy(`{"timeouts":{"call":"4s"}}`))
	if p, _ := v.Policy("payments"); p.Timeouts.Call.String() != "4s" || len(v.Problems()) != 0 {
		t.Errorf("call is %s, problems %v", p.Timeouts.Call, v.Problems())
	}
	changes := []func(*space) document.Delta{
		policy(`{"retry_policy":{"max_delay":"1s"}}`),
		func(s *space) document.Delta {
			return s.put(document.Mode, "slow", `{"levels":[{"name":"x","effects":[{"policy":"payments","patch":{"retry_policy":{"initial_delay":"1m"}}}]}]}`)
		},
		set("o", `{"mode":"slow","level":"x"}`),
	}
	if problems := storefront(t, changes...).Problems(); len(problems) != 1 || !strings.Contains(problems[0].String(), "mode/slow=x") {
		t.Errorf("a patch into a contradiction: %v", problems)
	}
	changes = append(changes, func(s *space) document.Delta { return s.remove(document.Override, "o") })
	if problems := storefront(t, changes...).Problems(); len(problems) != 0 {
		t.Errorf("the patch is gone, but %v", problems)
	}
}

func TestHolds(t *testing.T) {
	v := storefront(t, set("a", `{"breaker":"payments","hold":"open"}`), set("b", `{"breaker":"payments","hold":"closed"}`),
		set("c", `{"breaker":"stock","method":"/s.S/Get","hold":"closed"}`), set("d", `{"breaker":"stock","method":"/s.S/Get","hold":"closed"}`))
	if h, ok := v.Hold("payments", "/p.P/Pay"); !ok || !h.Open || h.Override != "a" {
		t.Errorf("held open should beat held closed: %+v %v", h, ok)
	}
	if h, ok := v.Hold("stock", "/s.S/Get"); !ok || h.Open || h.Override != "d" {
		t.Errorf("the newest should win: %+v %v", h, ok)
	}
	if _, ok := v.Hold("stock", "/s.S/Put"); ok {
		t.Error("another method is held")
	}
}

// TestExpire ends overrides at their time, and lets one be prolonged.
func TestExpire(t *testing.T) {
	v := storefront(t, set("m", `{"mode":"shop","level":"basic"}`), set("f", `{"flag":"ads","variant":"on"}`)) // end at 4000 and 5000
	by := func(v *View) string { return v.Flag("ads").Explain(0).DecidedBy }
	if v.NextEnd() != 4000 || v.Expire(3999) != v || by(v) != "override/f" {
		t.Errorf("before its end: next %d, by %s", v.NextEnd(), by(v))
	}
	half := v.Expire(4000)
	if half.NextEnd() != 5000 || half.Mode("shop").Rank != 0 || by(half) != "override/f" || half.Revision() != v.Revision() {
		t.Errorf("after the first end: next %d, mode %v, by %s", half.NextEnd(), half.Mode("shop"), by(half))
	}
	over := half.Expire(9000)
	if over.NextEnd() != 0 || by(over) != "defaultVariant" || over.Expire(1<<62) != over {
		t.Errorf("after all: next %d, by %s", over.NextEnd(), by(over))
	}
	again := over.Update(document.Delta{To: 9, Puts: []*document.Resource{{
		Key: document.Key{Kind: document.Override, Name: "f"}, Spec: []byte(`{"flag":"ads","variant":"off"}`), ModRevision: 9, End: 20_000,
	}}})
	if again.NextEnd() != 20_000 || by(again) != "override/f" {
		t.Errorf("set again: next %d, by %s", again.NextEnd(), by(again))
	}
	if by(v) != "override/f" {
		t.Error("the view that was expired has changed")
	}
}

func TestProblems(t *testing.T) {
	v := storefront(t,
		set("a", `{"mode":"nothing","level":"x"}`), set("b", `{"mode":"shop","level":"x"}`),
		set("c", `{"flag":"gone","variant":"on"}`), set("d", `{"flag":"ads","variant":"blue"}`),
		func(s *space) document.Delta {
			return s.put(document.Flag, "ads", `{"state":"ENABLED","variants":{"on":true},"targeting":{"future":[]}}`)
		},
		func(s *space) document.Delta {
			return s.put(document.Flag, "new", `{"state":"ENABLED","variants":{"on":true},"targeting":{"future":[]}}`)
		})
	var got []string
	for _, p := range v.Problems() {
		got = append(got, p.String())
	}
	want := []string{
		`override/a: there is no mode "nothing"`,
		`override/b: mode "shop" has no level "x"`,
		`flag/ads: targeting: unknown operator "future"`,
		`flag/new: targeting: unknown operator "future"`,
		`flag/ads: has no variant "blue", which override/d gives it`,
		`flag/gone: does not exist, but override/c gives it the variant "on"`,
	}
	if !slices.Equal(got, want) {
		t.Errorf("got\n%q\nwant\n%q", got, want)
	}
	if d := v.Flag("ads").Evaluate(0); d.Variant == nil || d.Variant.Name != "on" {
		t.Errorf("the last definition that compiled is not in force: %+v", d)
	}
	if d := v.Flag("new").Evaluate(0); d.Code != ParseError {
		t.Errorf("a definition that does not compile decides %+v", d)
	}
}

func TestPercentIsStableAndMonotonic(t *testing.T) {
	const instances = 10_000
	in := func(id int, target string, percent float64) bool {
		i := Instance{ID: fmt.Sprint("instance-", id)}
		ok, err := i.in(&scopeSpec{Percent: &percent}, target)
		if err != nil {
			t.Fatal(err)
		}
		return ok
	}
	tenth, fifth, both := 0, 0, 0
	for id := range instances {
		ten, twenty, other := in(id, "mode/a", 10), in(id, "mode/a", 20), in(id, "mode/b", 10)
		if ten && !twenty {
			t.Fatalf("instance %d left a share that grew", id)
		}
		if ten {
			tenth++
			if other {
				both++
			}
		}
		if twenty {
			fifth++
		}
		if in(id, "mode/a", 0) || !in(id, "mode/a", 100) {
			t.Fatalf("instance %d: 0 percent are not none or 100 not all", id)
		}
	}
	if tenth < 900 || tenth > 1100 || fifth < 1850 || fifth > 2150 || both > 150 {
		t.Errorf("10%% of %d are %d, 20%% are %d; of two targets both have %d", instances, tenth, fifth, both)
	}
	hundred, fifty := 100.0, 50.0
	nobody := Instance{}
	if ok, _ := nobody.in(&scopeSpec{Percent: &hundred}, "x"); !ok {
		t.Error("an instance without an id is not in 100 percent")
	}
	if ok, _ := nobody.in(&scopeSpec{Percent: &fifty}, "x"); ok {
		t.Error("an instance without an id is in 50 percent")
	}
}

// TestDefinition checks that a provider which knows neither overrides nor modes
// decides the same by the definition that it is given.
func TestDefinition(t *testing.T) {
	v := storefront(t, func(s *space) document.Delta {
		return s.put(document.Flag, "ads", `{"state":"DISABLED","variants":{"off":false,"on":true},"defaultVariant":"","metadata":{"team":"shop"},"targeting":{"if":[true,"off"]},"note":[1]}`)
	})
	if got, want := string(v.Flag("ads").Definition()), `{"metadata":{"team":"shop"},"note":[1],"state":"DISABLED","targeting":{"if":[true,"off"]},"variants":{"off":false,"on":true}}`; got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	v = v.Update(document.Delta{To: 9, Puts: []*document.Resource{{
		Key: document.Key{Kind: document.Override, Name: "x"}, Spec: []byte(`{"flag":"ads","variant":"on"}`), ModRevision: 9,
	}}})
	forced := v.Flag("ads")
	want := `{"defaultVariant":"on","metadata":{"holdfast.forcedBy":"override/x","team":"shop"},"note":[1],"state":"ENABLED","variants":{"off":false,"on":true}}`
	if got := string(forced.Definition()); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	plain, violations := Compile("ads", forced.Definition())
	if violations != nil || plain.Evaluate(0) != (Decision{Variant: plain.Variant("on"), Reason: Static}) {
		t.Errorf("the definition decides %+v, %v", plain.Evaluate(0), violations)
	}
}

// TestUpdateIsTheSameAsAnew changes a namespace at random and checks after each
// change that the view which was updated is the same as one made from everything,
// and that Changes tells what changed.
func TestUpdateIsTheSameAsAnew(t *testing.T) {
	instance := Instance{ID: "i-7", Labels: []document.Label{{Key: "zone", Value: "eu-1"}}}
	names := []string{"a", "b", "c"}
	rapid.Check(t, func(t *rapid.T) {
		s, v := newSpace(), NewView(instance)
		for range rapid.IntRange(1, 25).Draw(t, "changes") {
			d := drawChange(t, s, names)
			next := v.Update(d)
			fresh := NewView(instance).Update(s.all())
			if got, want := summary(next), summary(fresh); got != want {
				t.Fatalf("after %v\nupdated: %s\nanew:    %s", d.Puts, got, want)
			}
			changed := map[string]bool{}
			for was, is := range next.Changes(v) {
				if was == is {
					t.Fatal("a change without a difference")
				}
				if is != nil {
					changed[is.Key()] = true
				} else {
					changed[was.Key()] = true
				}
			}
			for _, name := range names {
				if (v.Flag(name) != next.Flag(name)) != changed[name] {
					t.Fatalf("%s: %v became %v, changed %v", name, v.Flag(name), next.Flag(name), changed[name])
				}
			}
			v = next
		}
	})
}

func drawChange(t *rapid.T, s *space, names []string) document.Delta {
	name := rapid.SampledFrom(names).Draw(t, "name")
	kind := rapid.SampledFrom(document.Kinds()).Draw(t, "kind")
	if rapid.IntRange(0, 3).Draw(t, "remove") == 0 {
		return s.remove(kind, name)
	}
	other := rapid.SampledFrom(names).Draw(t, "other")
	variant := rapid.SampledFrom([]string{"on", "off", "x"}).Draw(t, "variant")
	level := rapid.SampledFrom([]string{"one", "two", "x"}).Draw(t, "level")
	scope := rapid.SampledFrom([]string{``, `,"scope":{"selector":"zone=eu-1"}`, `,"scope":{"selector":"zone!=eu-1"}`, `,"scope":{"percent":50}`}).Draw(t, "scope")
	var spec string
	switch kind {
	case document.Flag:
		spec = fmt.Sprintf(`{"state":"ENABLED","variants":{"on":true,"off":false},"defaultVariant":%q}`, rapid.SampledFrom([]string{"on", "off"}).Draw(t, "default"))
	case document.Mode:
		spec = fmt.Sprintf(`{"levels":[{"name":"one","effects":[{"flag":%q,"variant":%q},{"policy":%q,"patch":{"timeouts":{"call":"2s"}}}]},
			{"name":"two","effects":[{"flag":%q,"variant":"on"},{"policy":%q,"patch":{"timeouts":{"call":"3s"}}},{"action":"reject","methods":["*"],"message":%q}]}]}`, other, variant, other, name, name, variant)
	case document.Policy:
		spec = rapid.SampledFrom([]string{`{"timeouts":{"call":"1s"}}`, `{"enforcement":"observe"}`}).Draw(t, "policy")
	case document.Override:
		spec = rapid.SampledFrom([]string{
			fmt.Sprintf(`{"flag":%q,"variant":%q%s}`, other, variant, scope),
			fmt.Sprintf(`{"mode":%q,"level":%q%s}`, other, level, scope),
			fmt.Sprintf(`{"breaker":%q,"hold":"open"%s}`, other, scope),
		}).Draw(t, "override")
	}
	return s.put(kind, name, spec)
}

// summary is everything that one can ask a view.
func summary(v *View) string {
	var b bytes.Buffer
	fmt.Fprintln(&b, v.Revision(), v.Levels(), v.Effects(), v.Problems(), v.Patched(), v.Len())
	for r := range v.Flags() {
		_, by := r.Forced()
		fmt.Fprintf(&b, "%s %d %s %s\n", r.Key(), r.Revision(), by, r.Definition())
	}
	for _, name := range []string{"a", "b", "c"} {
		p, ok := v.Policy(name)
		h, held := v.Hold(name, "/m")
		fmt.Fprintln(&b, name, ok, reflect.ValueOf(p), h, held)
		if reject := v.Method(ServerSide, "/m", true).Reject; reject != nil {
			fmt.Fprintln(&b, *reject)
		}
	}
	return b.String()
}

func BenchmarkUpdate(b *testing.B) {
	for _, n := range []int{100, 1_000, 10_000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			s, v := newSpace(), NewView(Instance{})
			for i := range n {
				s.put(document.Flag, fmt.Sprintf("flag-%05d", i), testFlag)
			}
			v = v.Update(s.all())
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				v = v.Update(s.put(document.Flag, fmt.Sprintf("flag-%05d", i%n), testFlag))
			}
		})
	}
}
