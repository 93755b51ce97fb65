package api

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/encoding"
	protocodec "google.golang.org/grpc/encoding/proto"
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/holdfast-dev/holdfast/internal/trust"
	holdfastv1 "github.com/holdfast-dev/holdfast/proto/holdfast/v1"
)

// rawCodec keeps what comes as it is on the wire.
type rawCodec struct{ encoding.CodecV2 }

func (c rawCodec) Unmarshal(data mem.BufferSlice, v any) error {
	if raw, ok := v.(*[]byte); ok {
		*raw = data.Materialize()
		return nil
	}
	return c.CodecV2.Unmarshal(data, v)
}

// listener is a session that reads raw bytes.
type listener struct{ grpc.ClientStream }

func (n *node) listen(t *testing.T, hello *holdfastv1.Hello) listener {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	t.Cleanup(cancel)
	conn := dial(t, n.addr, grpc.WithDefaultCallOptions(grpc.ForceCodecV2(rawCodec{encoding.GetCodecV2(protocodec.Name)})))
	stream, err := conn.NewStream(ctx, &holdfastv1.SessionService_ServiceDesc.Streams[0], holdfastv1.SessionService_Connect_FullMethodName)
	if err != nil {
		t.Fatal(err)
	}
	if err := stream.SendMsg(&holdfastv1.ConnectRequest{Message: &holdfastv1.ConnectRequest_Hello{Hello: hello}}); err != nil {
		t.Fatal(err)
	}
	return listener{stream}
}

func (l listener) next(t *testing.T) []byte {
	t.Helper()
	var raw []byte
	if err := l.RecvMsg(&raw); err != nil {
		t.Fatal(err)
	}
	return raw
}

// TestOlderInstancesHearTheSameBytes: to an instance whose hello says nothing of gossip a
// server with it is one without.
func TestOlderInstancesHearTheSameBytes(t *testing.T) {
	r := newFakeCluster(t, "n1").replicas[0]
	r.set(func(r *fakeReplica) { r.stopped = time.Unix(1_700_000_000, 5) })
	f := newFakeFleet(t, r)
	f.timestamp = trust.SignTimestamp(f.key, trust.Timestamp{Epoch: r.View().Epoch(), Revision: 1})
	without, with := serve(t, r), serve(t, r, func(c *Config) { c.Fleet = f })
	without.put(t, flag("a", `1`))
	hello := helloOf("old")
	hello.ProgressInterval = durationpb.New(MinProgressInterval)
	one, other := without.listen(t, hello), with.listen(t, hello)
	for _, what := range []string{"welcome", "snapshot", "delta", "progress"} {
		if what == "delta" {
			without.put(t, flag("b", `2`), remove("a"))
		}
		is, was := other.next(t), one.next(t)
		for progress := (&holdfastv1.ConnectResponse{}); what == "delta"; { // of before the change
			if err := proto.Unmarshal(was, progress); err != nil || progress.GetDelta() != nil {
				break
			}
			was = one.next(t)
		}
		for progress := (&holdfastv1.ConnectResponse{}); what == "delta"; {
			if err := proto.Unmarshal(is, progress); err != nil || progress.GetDelta() != nil {
				break
			}
			is = other.next(t)
		}
		if len(is) == 0 || !bytes.Equal(is, was) {
			t.Errorf("%s with gossip %q, without %q", what, is, was)
		}
	}
	if n := f.count(&f.signed) + f.count(&f.certified); n != 0 {
		t.Errorf("%d signatures for an instance that does not gossip", n)
	}
}

// TestHeadsGoWithEvents: each event proves what it leaves the namespace as, and the
// signature is made once for all.
func TestHeadsGoWithEvents(t *testing.T) {
	n, f := fleeted(t)
	for i := range 3 { // chunks
		n.put(t, flag(fmt.Sprint("big-", i), `"`+strings.Repeat("x", ChunkBytes*3/4)+`"`))
	}
	const many = 5
	var all []*gossiper
	for i := range many {
		all = append(all, n.gossips(t, fmt.Sprint("i", i)))
	}
	event := func(kind string, is func(*holdfastv1.ConnectResponse) (last bool, revision uint64, root []byte)) {
		t.Helper()
		for _, g := range all {
			g.events = nil
			g.until(t, "a "+kind, func() bool {
				if len(g.events) == 0 {
					return false
				}
				last, _, _ := is(g.events[len(g.events)-1])
				return last
			})
			for i, e := range g.events[:len(g.events)-1] { // a progress among them has one
				if e.GetProgress() == nil && e.GetHead() != nil {
					t.Errorf("message %d of %d of a %s has a head", i, len(g.events), kind)
				}
			}
			last := g.events[len(g.events)-1]
			_, revision, root := is(last)
			head, err := f.signers.Head("default", last.GetHead())
			if err != nil || head.Revision != revision || !bytes.Equal(head.Root[:], root) || head.Epoch.Counter != last.GetEpoch().GetCounter() {
				t.Errorf("the head of a %s is %+v, %v; the event is %d %x", kind, head, err, revision, root)
			}
		}
	}
	event("snapshot", func(r *holdfastv1.ConnectResponse) (bool, uint64, []byte) {
		return r.GetSnapshot().GetLast(), r.GetSnapshot().GetRevision(), r.GetSnapshot().GetRoot()
	})
	if g := all[0]; len(g.events) < 2 || len(g.settings) != 1 {
		t.Errorf("%d chunks, settings %v: a snapshot in several chunks, after the settings, is wanted", len(g.events), g.settings)
	}
	if signed := f.count(&f.signed); signed != 1 {
		t.Errorf("%d signatures for one revision", signed)
	}
	big := `"` + strings.Repeat("y", ChunkBytes*3/4) + `"`
	n.put(t, flag("one", big), flag("other", big))
	event("delta", func(r *holdfastv1.ConnectResponse) (bool, uint64, []byte) {
		return r.GetDelta().GetLast(), r.GetDelta().GetTo(), r.GetDelta().GetRoot()
	})
	if len(all[0].events) < 2 {
		t.Error("a delta in several chunks is wanted")
	}
	if signed := f.count(&f.signed); signed != 2 {
		t.Errorf("%d signatures for two revisions", signed)
	}
}

// TestProgressHasHeadAndTimestamp: a timestamp is passed on once, with the next event.
func TestProgressHasHeadAndTimestamp(t *testing.T) {
	n, f := fleeted(t)
	g := n.gossips(t, "i", func(h *holdfastv1.Hello) { h.ProgressInterval = durationpb.New(MinProgressInterval) })
	progress := func(count int) {
		t.Helper()
		g.events = nil
		g.until(t, "progress", func() bool { return len(g.events) == count })
	}
	progress(3)
	if last := g.events[2]; last.GetProgress() == nil || last.GetHead() == nil || len(g.stamps) != 0 {
		t.Errorf("progress is %v, timestamps %v", last, g.stamps)
	}
	for revision := range uint64(2) {
		f.set(func() {
			f.timestamp = trust.SignTimestamp(f.key, trust.Timestamp{Epoch: n.replica.View().Epoch(), Revision: revision})
		})
		g.stamps = nil
		g.until(t, "the timestamp", func() bool { return len(g.stamps) > 0 })
		progress(3)
		stamp, err := f.signers.Timestamp(g.stamps[0])
		if len(g.stamps) != 1 || err != nil || stamp.Revision != revision {
			t.Errorf("timestamps %v, the first one is %+v, %v", g.stamps, stamp, err)
		}
	}
	// A server that may not sign sends what it has without.
	f.set(func() { f.uncertain, f.timestamp = errors.New("nobody knows my key"), nil })
	n.put(t, flag("a", `1`))
	g.until(t, "an event without a head", func() bool { return g.events[len(g.events)-1].GetDelta() != nil })
	if g.events[len(g.events)-1].GetHead() != nil {
		t.Error("a head without a key")
	}
	f.set(func() { f.uncertain = nil })
	heads := len(g.heads)
	g.until(t, "the head of the same revision, later", func() bool { return len(g.heads) > heads })
	if head, err := f.signers.Head("default", g.heads[heads]); err != nil || head.Revision != 1 {
		t.Errorf("head = %+v, %v", head, err)
	}
}

// TestCachedHeadsAreBounded: the oldest are signed anew when they are asked for.
func TestCachedHeadsAreBounded(t *testing.T) {
	_, f := fleeted(t)
	heads := newSignedHeads(f, nil)
	heads.limit = 2
	for _, revision := range []uint64{1, 2, 1, 3, 1} {
		if len(heads.of(headKey{namespace: "default", revision: revision})) == 0 {
			t.Error("no head")
		}
	}
	if signed := f.count(&f.signed); signed != 4 || len(heads.known) != 2 || len(heads.order) != 2 {
		t.Errorf("%d signatures, %d heads kept", signed, len(heads.known))
	}
	if MaxCachedHeads < MaxFleetWatches {
		t.Error("next to nothing is kept")
	}
}
