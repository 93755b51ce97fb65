package state

import (
	"bytes"

	"pgregory.net/rapid"

	"github.com/holdfast-dev/holdfast/internal/document"
	storagev1 "github.com/holdfast-dev/holdfast/proto/holdfast/storage/v1"
)

// drawCommand draws a command as random as it can be while it is well-formed,
// or nearly.
func drawCommand(t *rapid.T, revision uint64) *storagev1.Command {
	switch rapid.IntRange(0, 20).Draw(t, "command") {
	case 0:
		return tick()
	case 1, 2, 3:
		return expire()
	case 4:
		return epochOf(7, rapid.Uint64Range(1, 3).Draw(t, "nonce"))
	}
	var steps []*storagev1.Step
	for range rapid.IntRange(1, 5).Draw(t, "steps") {
		steps = append(steps, drawStep(t, revision))
	}
	cmd := transaction(requestOf(rapid.Uint64Range(1, 40).Draw(t, "request")), steps...)
	cmd.AgeMs = rapid.SampledFrom([]int64{0, 0, 0, 10, 500, 5_000, 60_000}).Draw(t, "age")
	return cmd
}

func drawStep(t *rapid.T, revision uint64) *storagev1.Step {
	namespace := rapid.SampledFrom([]string{"a", "a", "a", "b", "c", "d"}).Draw(t, "namespace")
	kind := document.Kind(rapid.IntRange(1, 4).Draw(t, "kind"))
	name := rapid.SampledFrom([]string{"x", "xx", "y"}).Draw(t, "name")
	s := del(namespace, kind, name)
	if !rapid.Bool().Draw(t, "delete") {
		spec := rapid.SampledFrom([]string{"1", "2", string(bytes.Repeat([]byte{'3'}, 200))}).Draw(t, "spec")
		s = put(namespace, kind, name, spec)
		if kind == document.Override {
			s.TtlMs = rapid.Int64Range(1, 4_000).Draw(t, "ttl")
		}
		if rapid.Bool().Draw(t, "label") {
			s.Labels = []*storagev1.Label{{Key: "k", Value: "v"}}
		}
	}
	if rapid.IntRange(0, 9).Draw(t, "precondition") == 0 {
		expecting(s, rapid.Uint64Range(0, revision).Draw(t, "expected"))
	}
	return s
}
