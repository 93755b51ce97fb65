package state

import (
	"bytes"
	"fmt"
	"io"
	"runtime"
	"testing"
	"time"

	"github.com/holdfast-dev/holdfast/internal/document"
	storagev1 "github.com/holdfast-dev/holdfast/proto/holdfast/storage/v1"
)

// filled returns a machine with n flags of 200 bytes in one namespace.
func filled(b failer, n int) *harness {
	h := newHarness(b, DefaultLimits())
	h.apply(epochOf(1, 1))
	spec := fmt.Sprintf(`{"defaultVariant":"on","pad":%q}`, bytes.Repeat([]byte{'x'}, 160))
	for i := 0; i < n; i += 1_000 {
		steps := make([]*storagev1.Step, 0, 1_000)
		for j := i; j < min(n, i+1_000); j++ {
			steps = append(steps, put("default", document.Flag, fmt.Sprintf("flag-%06d", j), spec))
		}
		h.must(steps...)
	}
	return h
}

// putEntry returns an entry that changes one flag.
func putEntry(b failer, h *harness, name string, i int) Entry {
	h.index++
	h.ids++
	// Another definition each time, or nothing would change.
	cmd := transaction(requestOf(h.ids), put("default", document.Flag, name, fmt.Sprintf(`{"n":%d,"pad":"%0180d"}`, h.ids, i)))
	cmd.TimeMs = h.now + int64(i)/10
	return Entry{Index: h.index, Term: 1, Data: marshal(b, cmd)}
}

// BenchmarkPut changes one flag per batch, and 64 flags per batch.
func BenchmarkPut(b *testing.B) {
	for _, n := range []int{1_000, 100_000} {
		h := filled(b, n)
		for _, batch := range []int{1, 64} {
			b.Run(fmt.Sprintf("resources=%d/batch=%d", n, batch), func(b *testing.B) {
				b.ReportAllocs()
				entries := make([]Entry, 0, b.N)
				for i := range b.N {
					entries = append(entries, putEntry(b, h, fmt.Sprintf("flag-%06d", i*7919%n), i))
				}
				b.ResetTimer()
				for i := 0; i < b.N; i += batch {
					if _, err := h.Apply(entries[i:min(b.N, i+batch)]); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}

func BenchmarkHash(b *testing.B) {
	v := filled(b, 100_000).View()
	for b.Loop() {
		v.Hash()
	}
}

func BenchmarkWriteTo(b *testing.B) {
	v := filled(b, 100_000).View()
	b.ResetTimer()
	for b.Loop() {
		n, err := v.WriteTo(io.Discard)
		if err != nil {
			b.Fatal(err)
		}
		b.SetBytes(n)
	}
}

func BenchmarkReadView(b *testing.B) {
	file := written(b, filled(b, 100_000).View())
	b.SetBytes(int64(len(file)))
	var v *View
	b.ResetTimer()
	for b.Loop() {
		var err error
		if v, err = ReadView(bytes.NewReader(file)); err != nil {
			b.Fatal(err)
		}
	}
	b.StopTimer()
	var with, without runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&with)
	b.ReportMetric(float64(v.Resources()), "resources")
	v = nil
	runtime.GC()
	runtime.ReadMemStats(&without)
	b.ReportMetric(float64(with.HeapAlloc-without.HeapAlloc)/(1<<20), "heap-MiB")
}

// BenchmarkRestoreCommit swaps in a backup of 100,000 resources: how long a
// restore keeps the applying goroutine from everything else.
func BenchmarkRestoreCommit(b *testing.B) {
	file := written(b, filled(b, 100_000).View().Backup())
	for b.Loop() {
		b.StopTimer()
		h := newHarness(b, DefaultLimits())
		h.apply(epochOf(2, 1))
		cmds := restoring(1, file, 256<<10, 2)
		for _, cmd := range cmds[:len(cmds)-1] {
			h.apply(cmd)
		}
		b.StartTimer()
		if r := h.apply(cmds[len(cmds)-1]); r.Rejection != nil {
			b.Fatal(r.Rejection)
		}
	}
}

// BenchmarkSince asks for one change among 100,000 resources.
func BenchmarkSince(b *testing.B) {
	h := filled(b, 100_000)
	from := h.View().Revision()
	h.must(put("default", document.Flag, "flag-000500", "1"))
	n := h.View().Namespace("default")
	b.ReportAllocs()
	for b.Loop() {
		if d, ok := n.Since(from); !ok || len(d.Puts) != 1 {
			b.Fatal("not one change")
		}
	}
}

// TestWriteCostDoesNotGrow bounds what a write costs at a hundred times the
// resources; the ratio is printed. Time on a shared machine is noise, so the
// bound is far above what is seen, and far below what a scan would be.
func TestWriteCostDoesNotGrow(t *testing.T) {
	if testing.Short() {
		t.Skip("fills two states")
	}
	cost := func(n int) time.Duration {
		h := filled(t, n)
		entries := make([]Entry, 2_000)
		for i := range entries {
			entries[i] = putEntry(t, h, fmt.Sprintf("flag-%06d", i*7919%n), i)
		}
		runtime.GC()
		start := time.Now()
		for i := range entries {
			if _, err := h.Apply(entries[i : i+1]); err != nil {
				t.Fatal(err)
			}
		}
		return time.Since(start) / time.Duration(len(entries))
	}
	small, large := cost(1_000), cost(100_000)
	t.Logf("a put costs %v among 1,000 and %v among 100,000 resources: ratio %.2f", small, large, float64(large)/float64(small))
	if large > 10*small {
		t.Errorf("a put costs %v among 100,000 resources and %v among 1,000", large, small)
	}
}
