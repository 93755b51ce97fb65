package api

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"
	"pgregory.net/rapid"

	"github.com/holdfast-dev/holdfast/internal/document"
	"github.com/holdfast-dev/holdfast/internal/state"
	storagev1 "github.com/holdfast-dev/holdfast/proto/holdfast/storage/v1"
	holdfastv1 "github.com/holdfast-dev/holdfast/proto/holdfast/v1"
)

// mirror is what a client keeps of a namespace.
type mirror struct {
	stream   grpc.ServerStreamingClient[holdfastv1.WatchResponse]
	content  map[string]string
	root     []byte
	revision uint64
	epoch    *holdfastv1.Epoch
	last     *holdfastv1.WatchResponse
	// chunks counts the messages of the last snapshot or delta.
	chunks int
}

func (n *node) watch(ctx context.Context, t *testing.T, req *holdfastv1.WatchRequest) *mirror {
	t.Helper()
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second) // a test that waits in vain should say where
	t.Cleanup(cancel)
	stream, err := n.state.Watch(ctx, req)
	if err != nil {
		t.Fatal(err)
	}
	return &mirror{stream: stream, content: make(map[string]string)}
}

// next installs the next snapshot or delta, or takes note of progress.
func (m *mirror) next() error {
	for m.chunks = 0; ; {
		resp, err := m.stream.Recv()
		if err != nil {
			return err
		}
		m.last, m.epoch = resp, resp.GetEpoch()
		if resp.GetEpoch().GetCounter() == 0 || resp.GetStateTime() == nil {
			return fmt.Errorf("no epoch or no state time in %v", resp)
		}
		m.chunks++
		if chunk := max(resp.GetSnapshot().GetChunk(), resp.GetDelta().GetChunk()); int(chunk) != m.chunks-1 {
			return fmt.Errorf("chunk %d in place of %d", chunk, m.chunks-1)
		}
		if m.install(resp) {
			return nil
		}
	}
}

// install takes in one message and tells whether it is the last of its event.
func (m *mirror) install(resp *holdfastv1.WatchResponse) bool {
	put := func(r *holdfastv1.Resource) { m.content[r.GetKey().GetName()] = string(r.GetSpec()) }
	switch e := resp.GetEvent().(type) {
	case *holdfastv1.WatchResponse_Snapshot:
		if e.Snapshot.GetChunk() == 0 {
			clear(m.content)
		}
		for _, r := range e.Snapshot.GetResources() {
			put(r)
		}
		m.revision, m.root = e.Snapshot.GetRevision(), e.Snapshot.GetRoot()
		return e.Snapshot.GetLast()
	case *holdfastv1.WatchResponse_Delta:
		for _, r := range e.Delta.GetPuts() {
			put(r)
		}
		for _, d := range e.Delta.GetDeletes() {
			delete(m.content, d.GetKey().GetName())
		}
		m.revision, m.root = e.Delta.GetTo(), e.Delta.GetRoot()
		return e.Delta.GetLast()
	default:
		m.revision, m.root = resp.GetProgress().GetRevision(), resp.GetProgress().GetRoot()
		return true
	}
}

// until installs events until the revision is reached.
func (m *mirror) until(t *testing.T, revision uint64) {
	t.Helper()
	for m.revision < revision {
		if err := m.next(); err != nil {
			t.Fatal(err)
		}
	}
}

// check compares the mirror with the state.
func (m *mirror) check(t *testing.T, v *state.View) {
	t.Helper()
	want := make(map[string]string)
	ns := v.Namespace("default")
	for _, kind := range document.Kinds() {
		ns.Ascend(kind, "", "", func(r *document.Resource) bool {
			want[r.Name] = string(r.Spec)
			return true
		})
	}
	root := ns.Root()
	if !maps.Equal(m.content, want) || string(m.root) != string(root[:]) || m.revision != v.Revision() {
		t.Fatalf("the mirror at revision %d has %d resources, the state at %d has %d", m.revision, len(m.content), v.Revision(), len(want))
	}
}

func (m *mirror) cursor() *holdfastv1.Cursor {
	return &holdfastv1.Cursor{Epoch: m.epoch, Revision: m.revision}
}

// big is a definition of a size.
func big(size int) string { return `"` + strings.Repeat("x", size-2) + `"` }

func TestWatchSnapshotInChunks(t *testing.T) {
	n := single(t)
	for i := range 20 { // twice what one message may carry
		n.put(t, flag(fmt.Sprintf("flag-%d", i), big(400<<10)))
	}
	for i := range 10 {
		n.put(t, flag(fmt.Sprintf("small-%d", i), big(40<<10)))
	}
	m := n.watch(t.Context(), t, &holdfastv1.WatchRequest{})
	if err := m.next(); err != nil {
		t.Fatal(err)
	}
	if m.chunks < 20 {
		t.Errorf("%d chunks", m.chunks)
	}
	m.check(t, n.replica.View())
}

func TestWatchOfNothing(t *testing.T) {
	n := single(t)
	m := n.watch(t.Context(), t, &holdfastv1.WatchRequest{Namespace: "nowhere"})
	if err := m.next(); err != nil || !m.last.GetSnapshot().GetLast() || len(m.root) == 0 {
		t.Fatalf("snapshot of nothing = %v, %v", m.last, err)
	}
}

func TestWatchFollowsAndResumes(t *testing.T) {
	n := single(t)
	n.put(t, flag("a", `1`), flag("b", `1`))
	ctx, cancel := context.WithCancel(t.Context())
	m := n.watch(ctx, t, &holdfastv1.WatchRequest{})
	m.until(t, 1)
	n.put(t, flag("a", `2`), remove("b"))
	m.until(t, 2)
	if m.last.GetDelta() == nil {
		t.Errorf("a change came as %v", m.last)
	}
	m.check(t, n.replica.View())
	cancel()

	for i := range 10 { // all of it comes as one delta with the last value
		n.put(t, flag("a", fmt.Sprint(i)))
	}
	resumed := n.watch(t.Context(), t, &holdfastv1.WatchRequest{Cursor: m.cursor()})
	resumed.content = m.content
	if err := resumed.next(); err != nil {
		t.Fatal(err)
	}
	if d := resumed.last.GetDelta(); len(d.GetPuts()) != 1 || d.GetFrom() != 2 || d.GetTo() != 12 {
		t.Errorf("after resuming = %v", resumed.last)
	}
	resumed.check(t, n.replica.View())
}

func TestWatchDeltaInChunks(t *testing.T) {
	n := single(t)
	m := n.watch(t.Context(), t, &holdfastv1.WatchRequest{})
	if err := m.next(); err != nil {
		t.Fatal(err)
	}
	c := m.cursor()
	for i := range 16 {
		n.put(t, flag(fmt.Sprintf("flag-%d", i), big(400<<10)))
	}
	resumed := n.watch(t.Context(), t, &holdfastv1.WatchRequest{Cursor: c})
	if err := resumed.next(); err != nil || resumed.last.GetDelta() == nil || resumed.chunks < 16 {
		t.Fatalf("%d chunks of a delta, %v", resumed.chunks, err)
	}
	resumed.check(t, n.replica.View())
}

func TestWatchProgress(t *testing.T) {
	n := single(t)
	n.put(t, flag("a", `1`))
	// 1 ms is less than the least; a second of it would be a thousand messages.
	m := n.watch(t.Context(), t, &holdfastv1.WatchRequest{ProgressInterval: durationpb.New(time.Millisecond)})
	m.until(t, 1)
	began := time.Now()
	for range 3 {
		if err := m.next(); err != nil || m.last.GetProgress().GetRevision() != 1 {
			t.Fatalf("progress = %v, %v", m.last, err)
		}
	}
	if d := time.Since(began); d < 2*MinProgressInterval {
		t.Errorf("three times progress within %s", d)
	}
	m.check(t, n.replica.View())

	var v violations
	for asked, want := range map[time.Duration]time.Duration{0: MinProgressInterval, time.Second: time.Second, time.Hour: MaxProgressInterval} {
		if got := v.progressInterval("x", durationpb.New(asked)); got != want {
			t.Errorf("asked for %s, got %s, want %s", asked, got, want)
		}
	}
	if got := v.progressInterval("x", nil); got != DefaultProgressInterval {
		t.Errorf("asked for nothing, got %s", got)
	}
}

func TestWatchRefusals(t *testing.T) {
	n := single(t)
	epoch := n.replica.View().Epoch()
	foreign, forked := epoch, epoch
	foreign.Lineage[0]++
	forked.Nonce++
	tests := map[string]struct {
		req    *holdfastv1.WatchRequest
		reason string
	}{
		"another cluster": {&holdfastv1.WatchRequest{Cursor: &holdfastv1.Cursor{Epoch: foreign.Proto()}}, ReasonForeignLineage},
		"forked":          {&holdfastv1.WatchRequest{Cursor: &holdfastv1.Cursor{Epoch: forked.Proto()}}, ReasonForkedEpoch},
		"no lineage":      {&holdfastv1.WatchRequest{Cursor: &holdfastv1.Cursor{Revision: 1}}, ReasonInvalidRequest},
		"odd lineage":     {&holdfastv1.WatchRequest{Cursor: &holdfastv1.Cursor{Epoch: &holdfastv1.Epoch{Lineage: []byte{1}}}}, ReasonInvalidRequest},
		"namespace":       {&holdfastv1.WatchRequest{Namespace: "\x00"}, ReasonInvalidRequest},
		"interval":        {&holdfastv1.WatchRequest{ProgressInterval: durationpb.New(-1)}, ReasonInvalidRequest},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			err := n.watch(t.Context(), t, test.req).next()
			expect(t, err, test.reason)
			if told := infoOf(err).GetMetadata()[MetaEpoch]; test.reason == ReasonForeignLineage && told != epoch.String() {
				t.Errorf("the server says that it is of %q, it is of %s", told, epoch)
			}
		})
	}
}

func TestWatchAheadOfThisServer(t *testing.T) {
	leader, follower := pair(t)
	follower.replica.hold()
	leader.put(t, flag("a", `1`))
	m := leader.watch(t.Context(), t, &holdfastv1.WatchRequest{})
	m.until(t, 1)
	ahead := follower.watch(t.Context(), t, &holdfastv1.WatchRequest{Cursor: m.cursor()})
	if _, err := ahead.stream.Header(); err != nil { // the watch is open
		t.Fatal(err)
	}
	leader.put(t, flag("b", `1`))
	follower.replica.release()
	ahead.until(t, 2)
	if d := ahead.last.GetDelta(); len(d.GetPuts()) != 1 {
		t.Errorf("a client ahead got %v", ahead.last)
	}
}

func TestWatchLimit(t *testing.T) {
	n := single(t)
	n.streams.quotas[holdfastv1.StateService_Watch_FullMethodName].limit = 2
	ctx, cancel := context.WithCancel(t.Context())
	if err := n.watch(ctx, t, &holdfastv1.WatchRequest{}).next(); err != nil {
		t.Fatal(err)
	}
	if err := n.watch(t.Context(), t, &holdfastv1.WatchRequest{}).next(); err != nil {
		t.Fatal(err)
	}
	expect(t, n.watch(t.Context(), t, &holdfastv1.WatchRequest{}).next(), ReasonTooManyWatches)
	cancel()
	eventually(t, "the end of a watch", func() bool { return n.streams.following(holdfastv1.StateService_Watch_FullMethodName) == 1 })
	if err := n.watch(t.Context(), t, &holdfastv1.WatchRequest{}).next(); err != nil {
		t.Fatal(err)
	}
}

// encodes returns how many chunks of a kind a server has encoded.
func (n *node) encodes(t *testing.T, kind string) int {
	t.Helper()
	return int(testutil.ToFloat64(n.metrics.encodes.WithLabelValues(kind)))
}

func TestWatchesShareWhatIsEncoded(t *testing.T) {
	n := single(t)
	for i := range 8 {
		n.put(t, flag(fmt.Sprintf("flag-%d", i), big(200<<10)))
	}
	mirrors := make([]*mirror, 100)
	for i := range mirrors {
		mirrors[i] = n.watch(t.Context(), t, &holdfastv1.WatchRequest{})
	}
	for _, m := range mirrors {
		m.until(t, 8)
	}
	chunks := mirrors[0].chunks
	if got := n.encodes(t, "snapshot"); got != chunks {
		t.Errorf("%d chunks were encoded for %d watches, want %d", got, len(mirrors), chunks)
	}
	resp := n.put(t, flag("flag-1", `1`))
	for _, m := range mirrors {
		m.until(t, resp.GetRevision())
		m.check(t, n.replica.View())
	}
	if got := n.encodes(t, "delta"); got != 1 {
		t.Errorf("a delta was encoded %d times for %d watches", got, len(mirrors))
	}
}

func TestSlowWatchDelaysNobody(t *testing.T) {
	n := single(t)
	// Slow clients have connections of their own and never read. There are more
	// than may encode at once.
	for range 2 * MaxConcurrentEncodes {
		conn := dial(t, n.addr, grpc.WithContextDialer(func(ctx context.Context, addr string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "tcp", addr)
		}), grpc.WithInitialWindowSize(64<<10))
		stream, err := holdfastv1.NewStateServiceClient(conn).Watch(t.Context(), &holdfastv1.WatchRequest{})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := stream.Header(); err != nil {
			t.Fatal(err)
		}
	}
	fast := n.watch(t.Context(), t, &holdfastv1.WatchRequest{})
	var slowest time.Duration
	for i := range 60 {
		began := time.Now()
		resp := n.put(t, flag(fmt.Sprintf("flag-%d", i%12), big(300<<10+i)))
		fast.until(t, resp.GetRevision())
		slowest = max(slowest, time.Since(began))
	}
	fast.check(t, n.replica.View())
	late := n.watch(t.Context(), t, &holdfastv1.WatchRequest{}) // needs a snapshot beside the stuck ones
	late.until(t, 60)
	late.check(t, n.replica.View())
	if slowest > 5*time.Second {
		t.Errorf("a write took %s to reach a watch that reads", slowest)
	}
}

func TestWatchEndsWhenTheServerIsFenced(t *testing.T) {
	n := single(t)
	// Neither watch has anything to tell for longer than the test lasts.
	quiet := &holdfastv1.WatchRequest{ProgressInterval: durationpb.New(MaxProgressInterval), Namespace: "quiet"}
	idle := n.watch(t.Context(), t, quiet)
	m := n.watch(t.Context(), t, &holdfastv1.WatchRequest{ProgressInterval: quiet.GetProgressInterval()})
	if err := errors.Join(m.next(), idle.next()); err != nil {
		t.Fatal(err)
	}
	n.replica.set(func(r *fakeReplica) { r.fenced = "it differs at index 7" })
	// What is applied from now on may be wrong, and nobody is told of it.
	cmd := commandOf(t)
	n.replica.cluster.commit(t, cmd)
	expect(t, m.next(), ReasonFenced)
	expect(t, idle.next(), ReasonFenced)
	_, err := n.state.Get(t.Context(), get("a", nil))
	expect(t, err, ReasonFenced)
	status, err := n.cluster.GetStatus(t.Context(), &holdfastv1.GetStatusRequest{})
	if err != nil || status.GetFenced() == "" {
		t.Errorf("the status of a fenced server = %v, %v", status, err)
	}
}

func TestWatchSeesARestore(t *testing.T) {
	n := single(t)
	n.put(t, flag("a", `1`))
	m := n.watch(t.Context(), t, &holdfastv1.WatchRequest{})
	m.until(t, 1)
	n.replica.cluster.commit(t, &storagev1.Command{Body: &storagev1.Command_NewEpoch{NewEpoch: &storagev1.NewEpoch{Nonce: 8}}})
	if err := m.next(); err != nil || m.last.GetSnapshot() == nil || m.epoch.GetCounter() != 2 {
		t.Fatalf("after a new epoch = %v, %v", m.last, err)
	}
}

// TestEncodersEqualProtobuf checks by random documents that what is put together
// from shared bytes is what protobuf would have encoded.
func TestEncodersEqualProtobuf(t *testing.T) {
	e := newEncoder(newMetrics(prometheus.NewRegistry()))
	machine := state.New()
	index := uint64(0)
	apply := func(cmd *storagev1.Command) {
		cmd.Version, cmd.TimeMs = state.Version, 1
		data, err := proto.Marshal(cmd)
		if err != nil {
			t.Fatal(err)
		}
		index++
		if _, err := machine.Apply([]state.Entry{{Index: index, Term: 1, Data: data}}); err != nil {
			t.Fatal(err)
		}
	}
	rapid.Check(t, func(t *rapid.T) {
		tx := &storagev1.Transaction{}
		for _, name := range rapid.SliceOfNDistinct(rapid.StringMatching(`[a-z]{1,3}`), 0, 12, rapid.ID).Draw(t, "names") {
			tx.Steps = append(tx.Steps, &storagev1.Step{
				Key:  &holdfastv1.ResourceKey{Namespace: "default", Kind: holdfastv1.Kind_KIND_FLAG, Name: name},
				Spec: []byte(big(rapid.IntRange(2, 30<<10).Draw(t, "size"))),
			})
		}
		from := machine.View().Revision()
		apply(&storagev1.Command{RequestId: randomID(), Body: &storagev1.Command_Transaction{Transaction: tx}})
		view := machine.View()
		ns := view.Namespace("default")
		checkSnapshot(t, e, view, ns)
		delta, ok := ns.Since(from)
		if !ok {
			t.Fatal("no delta")
		}
		puts := 0
		bodies := e.delta(delta)
		for i, body := range bodies {
			var resp holdfastv1.WatchResponse
			if err := proto.Unmarshal(body, &resp); err != nil {
				t.Fatal(err)
			}
			d := resp.GetDelta()
			puts += len(d.GetPuts())
			if int(d.GetChunk()) != i || d.GetLast() != (i == len(bodies)-1) || d.GetTo() != view.Revision() || len(body) > MaxPageBytes {
				t.Fatalf("chunk %d = %v", i, d)
			}
		}
		if puts != len(delta.Puts) {
			t.Fatalf("%d puts in %d chunks, want %d", puts, len(bodies), len(delta.Puts))
		}
	})
}

// checkSnapshot puts all chunks of a snapshot together and compares.
func checkSnapshot(t *rapid.T, e *encoder, view *state.View, ns *state.Namespace) {
	var got []string
	var after document.Key
	now := time.Unix(0, rapid.Int64().Draw(t, "time"))
	for n := uint32(0); ; n++ {
		c, err := e.chunk(ns, after)
		if err != nil {
			t.Fatal(err)
		}
		prefix, err := e.head(view.Epoch(), now)
		if err != nil {
			t.Fatal(err)
		}
		small := &holdfastv1.Snapshot{Revision: view.Revision(), Root: []byte("root"), Chunk: n, Last: c.last}
		f, err := snapshotFrame(prefix, small, c.body)
		if err != nil {
			t.Fatal(err)
		}
		parts, err := newCodec().Marshal(f)
		if err != nil {
			t.Fatal(err)
		}
		whole, err := io.ReadAll(parts.Reader())
		if err != nil {
			t.Fatal(err)
		}
		var resp holdfastv1.WatchResponse
		if err := proto.Unmarshal(whole, &resp); err != nil {
			t.Fatal(err)
		}
		for _, r := range resp.GetSnapshot().GetResources() {
			got = append(got, r.GetKey().GetName())
		}
		resp.GetSnapshot().Resources = nil
		if !proto.Equal(resp.GetSnapshot(), small) || len(whole) > MaxPageBytes {
			t.Fatalf("chunk = %v, want %v", resp.GetSnapshot(), small)
		}
		if !proto.Equal(resp.GetEpoch(), view.Epoch().Proto()) || !proto.Equal(resp.GetStateTime(), timestamppb.New(now)) {
			t.Fatalf("of epoch %v at %v, want %v at %v", resp.GetEpoch(), resp.GetStateTime(), view.Epoch(), now)
		}
		if c.last {
			break
		}
		after = c.end
	}
	var want []string
	ns.Ascend(0, "", "", func(r *document.Resource) bool {
		want = append(want, r.Name)
		return true
	})
	if !slices.Equal(got, want) {
		t.Fatalf("the chunks hold %q, want %q", got, want)
	}
}

func TestEncoderKeepsFewChunks(t *testing.T) {
	n := single(t)
	e := newEncoder(newMetrics(nil))
	e.limit = 2
	for i := range 5 {
		n.put(t, flag("a", fmt.Sprint(i)))
		if _, err := e.chunk(n.replica.View().Namespace("default"), document.Key{}); err != nil {
			t.Fatal(err)
		}
	}
	if len(e.chunks) != 2 || len(e.order) != 2 {
		t.Errorf("%d chunks are kept, want 2", len(e.chunks))
	}
}
