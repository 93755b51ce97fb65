package node

import "testing"

func TestGCPercent(t *testing.T) {
	for live, want := range map[uint64]int{
		0: 100, 1 << 20: 1600, 8 << 20: 800, 32 << 20: 200, 64 << 20: 100, 1 << 30: 100,
	} {
		if got := gcPercent(live); got != want {
			t.Errorf("gcPercent(%d MiB) = %d, want %d", live>>20, got, want)
		}
	}
}
