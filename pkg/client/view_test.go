package client

import (
	"math"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/holdfast-dev/holdfast/internal/clock"
	"github.com/holdfast-dev/holdfast/internal/document"
	"github.com/holdfast-dev/holdfast/internal/mirror"
	"github.com/holdfast-dev/holdfast/internal/session"
)

// A snapshot with what only a later version understands leaves the level in force.
func TestASnapshotKeepsTheLastGood(t *testing.T) {
	p := newTeller(t)
	c := &Client{holder: p.holder}
	p.put(document.Mode, "shop", `{"levels":[{"name":"slow","effects":[]}]}`, 0)
	p.put(document.Override, "m", `{"mode":"shop","level":"slow"}`, 0)
	p.holder.install(document.Delta{To: 9, Puts: []*document.Resource{
		{Key: document.Key{Kind: document.Mode, Name: "shop"}, Spec: []byte(`{"levels":[{"effects":[{"action":"later"}],"name":"slow"}]}`), ModRevision: 9},
		{Key: document.Key{Kind: document.Override, Name: "m"}, Spec: []byte(`{"level":"slow","mode":"shop"}`), ModRevision: 2},
	}}, true, FromServer)
	if !c.Mode("shop").Is("slow") {
		t.Errorf("the mode is at %+v", c.Mode("shop").Level())
	}
	if got := p.holder.current.Load().problems; len(got) != 1 || !strings.HasPrefix(got[0], "mode/shop") {
		t.Errorf("problems: %q", got)
	}
}

func TestLateHandlesOfAnotherTypeAreReported(t *testing.T) {
	p := newTeller(t)
	c := &Client{holder: p.holder}
	p.put(document.Flag, "beta", onOff, 0)
	c.String("beta", "x")
	if got := c.Status().Problems; len(got) != 1 {
		t.Errorf("problems: %q", got)
	}
}

// An end that is further away than a duration reaches is not looked at all the time.
func TestDistantEnds(t *testing.T) {
	p := newTeller(t)
	p.put(document.Flag, "beta", onOff, 0)
	p.put(document.Override, "o", `{"flag":"beta","variant":"on"}`, 253402300799000) // the last second of 9999
	if next := p.holder.expire(); next < time.Minute {
		t.Errorf("looks again in %s", next)
	}
	p.put(document.Override, "o", `{"flag":"beta","variant":"on"}`, math.MaxInt64)
	if next := p.holder.expire(); next < time.Minute {
		t.Errorf("looks again in %s", next)
	}
}

// Whoever learns that it is later than was thought ends at once what has ended.
func TestLaterThanThought(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, err := build(Config{Service: "s"}, clock.New())
		if err != nil {
			t.Fatal(err)
		}
		c.start(nil)
		defer c.Close(t.Context())
		now := time.Now().UnixMilli()
		end := now + time.Hour.Milliseconds()
		l := (*link)(c)
		l.Install(session.Change{StateTime: now, Source: session.FromServer, Update: mirror.Update{Replace: true, Delta: document.Delta{To: 2, Puts: []*document.Resource{
			{Key: document.Key{Kind: document.Flag, Name: "beta"}, Spec: []byte(onOff), ModRevision: 1},
			{Key: document.Key{Kind: document.Override, Name: "o"}, Spec: []byte(`{"flag":"beta","variant":"on"}`), ModRevision: 2, End: end},
		}}}})
		synctest.Wait()
		if !c.Bool("beta", false).Get() {
			t.Fatal("the override does not hold")
		}
		l.StateTime(end + 1)
		synctest.Wait()
		if c.Bool("beta", false).Get() {
			t.Error("the override holds still")
		}
	})
}

type touchy struct{}

func (*touchy) UnmarshalJSON([]byte) error { panic("a bug") }

// A bug in how a value is decoded does not end the process.
func TestDecodingThatPanics(t *testing.T) {
	p := newTeller(t)
	p.put(document.Flag, "limits", `{"state":"ENABLED","variants":{"a":{"Max":5}},"defaultVariant":"a"}`, 0)
	f := Object(&Client{holder: p.holder}, "limits", &touchy{})
	for range 2 {
		if f.Get() != f.otherwise {
			t.Error("the default of the code does not apply")
		}
	}
}

// What is asked of a view is decided by its revision, whatever happens meanwhile.
func TestAViewDoesNotChange(t *testing.T) {
	if got := (View{}).Evaluate("a"); got.ErrorCode != notReady || (View{}).Revision() != 0 || (View{}).Level("shop").Name != "normal" {
		t.Errorf("the zero view: %+v", got)
	}
	p := newTeller(t)
	c := &Client{holder: p.holder}
	if got := c.View(); got.Revision() != 0 || got.Evaluate("a").ErrorCode != notReady {
		t.Errorf("without a view: %+v", got.Evaluate("a"))
	}
	p.put(document.Flag, "a", onOff, 0)
	p.put(document.Mode, "shop", `{"levels":[{"name":"slow","effects":[]}]}`, 0)
	before := c.View()
	variant := before.Evaluate("a").Variant
	p.put(document.Override, "o", `{"flag":"a","variant":"on"}`, 0)
	p.put(document.Override, "m", `{"mode":"shop","level":"slow"}`, 0)
	after := c.View()
	if got := before.Evaluate("a"); got.Variant != variant || before.Level("shop").Rank != 0 || before.Evaluate("o").ErrorCode != "FLAG_NOT_FOUND" {
		t.Errorf("before: %+v, at %+v", got, before.Level("shop"))
	}
	if got := after.Evaluate("a"); got.Variant != "on" || got.Variant == variant || after.Level("shop").Name != "slow" {
		t.Errorf("after: %+v, at %+v", got, after.Level("shop"))
	}
	if before.Revision() >= after.Revision() || after.Revision() != c.Status().Revision {
		t.Errorf("revisions %d and %d", before.Revision(), after.Revision())
	}
}
