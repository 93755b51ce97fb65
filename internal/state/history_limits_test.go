package state

import (
	"bytes"
	"fmt"
	"math"
	"strings"
	"testing"

	"github.com/holdfast-dev/holdfast/internal/document"
	storagev1 "github.com/holdfast-dev/holdfast/proto/holdfast/storage/v1"
)

// TestOutcomesAreBounded makes more outcomes than are kept, by number and by
// bytes: a retry of one that was forgotten is refused, never applied.
func TestOutcomesAreBounded(t *testing.T) {
	many := make([]*storagev1.Step, 4)
	for i := range many {
		many[i] = del("a", document.Flag, strings.Repeat("n", 200)+fmt.Sprint(i))
	}
	for name, c := range map[string]struct {
		number, bytes int
		steps         []*storagev1.Step
	}{
		"number": {4, math.MaxInt, []*storagev1.Step{put("a", document.Flag, "x", "1")}},
		"bytes":  {math.MaxInt, 1_500, many},
	} {
		t.Run(name, func(t *testing.T) {
			limits := tiny()
			limits.Outcomes, limits.OutcomeBytes = c.number, c.bytes
			h := newHarness(t, limits)
			first := transaction(requestOf(1), c.steps...)
			h.apply(first)
			kept := h.View().Outcomes()
			for h.View().Outcomes() == kept { // until one more does not fit
				kept++
				h.now += 10
				h.must(c.steps...)
				if kept > 100 {
					t.Fatal("the outcomes have no limit")
				}
			}
			before := h.View().Revision()
			first.AgeMs = 5_000
			if r := h.apply(first); reason(r) != ReasonRequestTooOld || h.View().Revision() != before {
				t.Fatalf("a retry of a forgotten request: %+v", r)
			}
		})
	}
}

// TestAuditIsBounded writes more records than the audit holds: the oldest go, and
// the audit says so.
func TestAuditIsBounded(t *testing.T) {
	limits := tiny()
	limits.Outcomes, limits.OutcomeBytes = math.MaxInt, math.MaxInt
	h := newHarness(t, limits)
	for i := range 50 {
		h.must(put("a", document.Flag, "x", fmt.Sprint(i)))
	}
	dropped, size, oldest := h.View().AuditDroppedThrough(), 0, uint64(0)
	for record := range h.View().Audit(math.MaxUint64) {
		size += record.size()
		oldest = record.Revision
	}
	if size > limits.AuditBytes || dropped == 0 || oldest != dropped+1 {
		t.Fatalf("%d bytes from revision %d on, dropped through %d", size, oldest, dropped)
	}
}

func TestLongRestoreChunkIsRefused(t *testing.T) {
	limits := DefaultLimits()
	h := newHarness(t, limits)
	h.apply(epochOf(1, 1))
	file := make([]byte, limits.ChunkBytes+1)
	cmds := restoring(1, file, len(file), 2)
	if r := h.apply(cmds[0]); r.Rejection != nil {
		t.Fatal(r.Rejection)
	}
	if r := h.apply(cmds[1]); reason(r) != ReasonInvalidCommand {
		t.Fatalf("%+v", r)
	}
	if r := h.apply(chunkOf(bytes.Repeat([]byte{1}, 16), 0, file[1:])); r.Rejection != nil {
		t.Fatalf("the longest chunk: %v", r.Rejection)
	}
}
