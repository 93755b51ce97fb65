package client

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/holdfast-dev/holdfast/internal/clock"
	"github.com/holdfast-dev/holdfast/internal/document"
	"github.com/holdfast-dev/holdfast/internal/flags"
	"github.com/holdfast-dev/holdfast/internal/guard"
)

// teller is a control plane for a holder.
type teller struct {
	clock    *clock.Clock
	holder   *holder
	revision uint64
	seen     []ViewChanged
	applied  guard.Rules
}

func newTeller(*testing.T) *teller {
	t := &teller{clock: clock.Manual(time.UnixMilli(1_000_000))}
	t.holder = newHolder(t.clock, flags.Instance{ID: "a", Labels: document.LabelsOf(map[string]string{"service": "s"})}, nil)
	t.holder.changed = func(v ViewChanged) { t.seen = append(t.seen, v) }
	t.holder.apply = func(r guard.Rules) { t.applied = r }
	return t
}

func (t *teller) put(kind document.Kind, name, spec string, end int64) {
	t.revision++
	canonical, err := document.Canonical([]byte(spec))
	if err != nil {
		panic(err)
	}
	t.holder.setTime(t.clock.Wall().UnixMilli(), false)
	t.holder.install(document.Delta{From: t.revision - 1, To: t.revision, Puts: []*document.Resource{{
		Key: document.Key{Kind: kind, Name: name}, Spec: canonical, CreateRevision: t.revision, ModRevision: t.revision, Version: 1, End: end,
	}}}, t.revision == 1, FromServer)
}

const onOff = `{"state":"ENABLED","variants":{"on":true,"off":false},"defaultVariant":"off"}`

func TestHandlesFollowTheView(t *testing.T) {
	p := newTeller(t)
	c := &Client{holder: p.holder}
	early := c.Bool("beta", true)
	if !early.Get() {
		t.Error("without a view the code's default counts")
	}
	p.put(document.Flag, "beta", onOff, 0)
	late := c.Bool("beta", true)
	if early.Get() || late.Get() {
		t.Error("handles made before and after the view disagree with it")
	}
	p.put(document.Override, "o", `{"flag":"beta","variant":"on"}`, p.clock.Wall().Add(time.Minute).UnixMilli())
	if e := c.Explain("beta"); !early.Get() || e.DecidedBy != "override/o" || !e.Ends.Equal(p.clock.Wall().Add(time.Minute)) {
		t.Errorf("override is not obeyed: %+v", e)
	}
	if got := p.seen[len(p.seen)-1]; got.Replaced || !slices.Equal(got.Flags, []string{"beta"}) {
		t.Errorf("the change was told as %+v", got)
	}
}

// An instance that is cut off ends an override by its own clock, at the time that
// the servers gave.
func TestOverridesEndWithoutServers(t *testing.T) {
	p := newTeller(t)
	c := &Client{holder: p.holder}
	p.put(document.Mode, "shop", `{"levels":[{"name":"slow","effects":[{"flag":"beta","variant":"on"}]}]}`, 0)
	p.put(document.Flag, "beta", onOff, 0)
	p.put(document.Override, "m", `{"mode":"shop","level":"slow"}`, p.clock.Wall().Add(30*time.Second).UnixMilli())
	mode, beta := c.Mode("shop"), c.Bool("beta", false)
	if l := mode.Level(); l.Name != "slow" || l.By != "override/m" || !mode.Is("slow") || !beta.Get() {
		t.Fatalf("level is %+v, beta %v", l, beta.Get())
	}
	if next := p.holder.expire(); next != 30*time.Second {
		t.Errorf("looks again in %s, the override ends in 30s", next)
	}
	p.clock.Advance(30*time.Second - time.Millisecond)
	if p.holder.expire(); !beta.Get() {
		t.Error("ended too early")
	}
	p.clock.Advance(time.Millisecond)
	if next := p.holder.expire(); next != 0 || beta.Get() || mode.Level().Rank != 0 || mode.Is("slow") {
		t.Errorf("has not ended: level %+v, beta %v, next in %s", mode.Level(), beta.Get(), next)
	}
	if got := p.seen[len(p.seen)-1]; !slices.Equal(got.Modes, []string{"shop"}) || !slices.Equal(got.Flags, []string{"beta"}) {
		t.Errorf("the end was told as %+v", got)
	}
	// A server whose estimate is older does not bring it back; one that says that
	// time has been set back does.
	p.holder.setTime(p.clock.Wall().Add(-time.Minute).UnixMilli(), false)
	p.put(document.Flag, "other", onOff, 0)
	if beta.Get() {
		t.Error("a late message brought the override back")
	}
}

func TestDisabledMeansTheCodeAlone(t *testing.T) {
	p := newTeller(t)
	c := &Client{holder: p.holder}
	p.put(document.Flag, "beta", onOff, 0)
	beta := c.Bool("beta", true)
	p.holder.decideLocally(&flags.Local{Disable: true}, "HOLDFAST_DISABLE")
	if !beta.Get() || !p.applied.Disabled() {
		t.Error("disabled, the default of the code counts and calls are left alone")
	}
	if e := c.Explain("beta"); e.DecidedBy != "code" || e.Detail != "HOLDFAST_DISABLE is set; the default of the code applies" {
		t.Errorf("explained as %+v", e)
	}
	p.put(document.Flag, "beta", `{"state":"ENABLED","variants":{"on":true,"off":false},"defaultVariant":"on"}`, 0)
	p.holder.decideLocally(nil, "")
	if !beta.Get() || p.applied.Disabled() || c.Explain("beta").DecidedBy != "defaultVariant" {
		t.Errorf("taken back: %+v", c.Explain("beta"))
	}
}

func TestHandlesOfAnotherTypeAreReported(t *testing.T) {
	p := newTeller(t)
	c := &Client{holder: p.holder}
	text, number := c.String("beta", "x"), c.Int("n", 7)
	p.put(document.Flag, "beta", onOff, 0)
	p.put(document.Flag, "n", `{"state":"ENABLED","variants":{"a":1.5},"defaultVariant":"a"}`, 0)
	if text.Get() != "x" || number.Get() != 7 {
		t.Errorf("got %q and %d, want the defaults of the code", text.Get(), number.Get())
	}
	if got := c.Status().Problems; !slices.Equal(got, []string{"flag/beta: is a boolean, but the code reads it as another type"}) {
		t.Errorf("problems: %q", got)
	}
}

func TestObjectsAreDecodedOnce(t *testing.T) {
	type limits struct{ Max int }
	p := newTeller(t)
	f := Object(&Client{holder: p.holder}, "limits", &limits{Max: 1})
	if f.Get().Max != 1 {
		t.Error("want the default of the code")
	}
	p.put(document.Flag, "limits", `{"state":"ENABLED","variants":{"a":{"Max":5},"b":{"Max":"x"}},"defaultVariant":"a"}`, 0)
	first := f.Get()
	if first.Max != 5 || f.Get() != first {
		t.Errorf("got %+v and another value", first)
	}
	p.put(document.Override, "o", `{"flag":"limits","variant":"b"}`, p.clock.Wall().Add(time.Hour).UnixMilli())
	if f.Get().Max != 1 {
		t.Errorf("a variant that does not fit is %+v, want the default of the code", f.Get())
	}
}

func TestFlagsAllocateNothing(t *testing.T) {
	p := newTeller(t)
	c := &Client{holder: p.holder}
	p.put(document.Flag, "beta", `{"state":"ENABLED","variants":{"on":true,"off":false},"defaultVariant":"off",
		"targeting":{"if":[{"==":[{"var":"plan"},"gold"]},"on",null]}}`, 0)
	p.put(document.Mode, "shop", `{"levels":[{"name":"slow","effects":[]}]}`, 0)
	beta, mode := c.Bool("beta", false), c.Mode("shop")
	user := fmt.Sprint("user-", rand.Uint64())
	if n := testing.AllocsPerRun(100, func() {
		if !beta.Get(Targeting(user), String("plan", "gold"), Int("age", 30)) || mode.Is("slow") {
			t.Error("decided otherwise")
		}
	}); n != 0 {
		t.Errorf("a decision allocates %v times", n)
	}
}

// Whoever reads while the view changes sees one view or the other, and new handles
// are as new as the view.
func TestReadersRaceWithChanges(t *testing.T) {
	p := newTeller(t)
	c := &Client{holder: p.holder}
	p.put(document.Flag, "beta", onOff, 0)
	var readers sync.WaitGroup
	stop := make(chan struct{})
	for i := range 4 {
		readers.Go(func() {
			for n := 0; ; n++ {
				select {
				case <-stop:
					return
				default:
					c.Bool(fmt.Sprintf("flag-%d-%d", i, n%50), false).Get()
					c.Bool("beta", true).Get(Targeting("x"))
					c.Evaluate("beta")
				}
			}
		})
	}
	for n := range 200 {
		p.put(document.Flag, fmt.Sprintf("flag-%d-%d", n%4, n%50), onOff, 0)
		p.put(document.Flag, "beta", `{"state":"ENABLED","variants":{"on":true,"off":false},"defaultVariant":"on"}`, 0)
	}
	close(stop)
	readers.Wait()
	if !c.Bool("beta", false).Get() || c.Bool("flag-0-0", true).Get() {
		t.Error("handles are behind the view")
	}
}

func TestHandlesAreBounded(t *testing.T) {
	p := newTeller(t)
	c := &Client{holder: p.holder}
	p.put(document.Flag, "beta", onOff, 0)
	for i := range maxCells {
		c.Bool(fmt.Sprint("key-", i), false)
	}
	late := c.Bool("beta", true)
	if late.Get() || len(p.holder.cells) != maxCells {
		t.Errorf("a handle beyond the limit is %v; %d are kept", late.Get(), len(p.holder.cells))
	}
	p.put(document.Flag, "beta", `{"state":"ENABLED","variants":{"on":true,"off":false},"defaultVariant":"on"}`, 0)
	if !late.Get() {
		t.Error("a handle beyond the limit does not follow the view")
	}
}
