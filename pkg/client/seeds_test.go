package client

import (
	"fmt"
	"slices"
	"testing"
)

// TestStillThere: the members that are kept change only with the pool, and those of the
// last run stay until others are there.
func TestStillThere(t *testing.T) {
	var members []string
	for k := range 100 {
		members = append(members, fmt.Sprintf("10.0.0.%d:7000", k))
	}
	kept := stillThere([]string{"old:1"}, nil)
	if !slices.Equal(kept, []string{"old:1"}) {
		t.Errorf("alone: %v", kept)
	}
	kept = stillThere(kept, slices.Clone(members))
	if len(kept) != keptSeeds || slices.Contains(kept, "old:1") {
		t.Errorf("of 100: %v", kept)
	}
	if again := stillThere(kept, slices.Clone(members)); !slices.Equal(again, kept) {
		t.Errorf("nothing changed: %v instead of %v", again, kept)
	}
	gone := kept[3]
	left := slices.DeleteFunc(slices.Clone(members), func(addr string) bool { return addr == gone })
	if next := stillThere(kept, left); len(next) != keptSeeds || slices.Contains(next, gone) || !slices.Contains(next, kept[0]) {
		t.Errorf("one has gone: %v", next)
	}
}
