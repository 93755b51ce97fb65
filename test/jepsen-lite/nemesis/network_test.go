package nemesis

import (
	"slices"
	"strings"
	"testing"

	"github.com/holdfast-dev/holdfast/test/jepsen-lite/fabric"
)

// wire remembers what is cut.
type wire struct {
	fabric.Fabric
	cut []fabric.Link
}

func (w *wire) Cut(links []fabric.Link) error {
	w.cut = links
	return nil
}

// Two faults at a time cut together, and the end of one leaves the other's cut.
func TestCutsAddUp(t *testing.T) {
	w := &wire{}
	cuts := &Cuts{Network: w}
	a, b := fabric.Link{From: "s1", To: "s2"}, fabric.Link{From: "s2", To: "s3"}
	for _, step := range []struct {
		fault int
		set   []fabric.Link
		want  []fabric.Link
	}{
		{1, []fabric.Link{a}, []fabric.Link{a}},
		{2, []fabric.Link{b}, []fabric.Link{a, b}},
		{1, nil, []fabric.Link{b}},
		{2, nil, nil},
	} {
		if err := cuts.set(step.fault, step.set); err != nil {
			t.Fatal(err)
		}
		slices.SortFunc(w.cut, func(x, y fabric.Link) int { return strings.Compare(string(x.From), string(y.From)) })
		if !slices.Equal(w.cut, step.want) {
			t.Errorf("after fault %d set %v: %v is cut, want %v", step.fault, step.set, w.cut, step.want)
		}
	}
	if err := cuts.set(1, []fabric.Link{a}); err != nil {
		t.Fatal(err)
	}
	if cuts.others(1, a) || !cuts.others(2, a) {
		t.Error("whose cut it is, is not told")
	}
}
