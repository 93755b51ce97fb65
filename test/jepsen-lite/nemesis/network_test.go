package nemesis

import (
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/holdfast-dev/holdfast/test/jepsen-lite/fabric"
	"github.com/holdfast-dev/holdfast/test/jepsen-lite/process"
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

// Both halves have instances and clients, or there would be nobody to find again.
func TestHalvesAreHalves(t *testing.T) {
	for seed := range uint64(20) {
		s := &Strike{
			Env: &Env{
				Cluster:   &process.Cluster{Servers: []*process.Server{{ID: "s1"}, {ID: "s2"}, {ID: "s3"}}},
				Instances: []fabric.Node{"i1", "i2", "i3", "i4"}, Clients: []fabric.Node{"c1", "c2"},
			},
			Rand: rand.New(rand.NewPCG(seed, 1)),
		}
		links, left, err := halves(t.Context(), s)
		if err != nil {
			t.Fatal(err)
		}
		count := map[byte]int{}
		for _, n := range left {
			count[n[0]]++
		}
		if count['s'] != 1 || count['i'] != 2 || count['c'] != 1 || len(links) != 2*len(left)*(9-len(left)) {
			t.Errorf("seed %d: one half is %v, and %d links are cut", seed, left, len(links))
		}
	}
}
