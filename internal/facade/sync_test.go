package facade

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/holdfast-dev/holdfast/internal/document"
	"github.com/holdfast-dev/holdfast/internal/state"
	syncv1 "github.com/holdfast-dev/holdfast/proto/flagd/sync/v1"
)

const (
	plainOn  = `{"defaultVariant":"on","state":"ENABLED","variants":{"off":false,"on":true}}`
	plainOff = `{"defaultVariant":"off","state":"ENABLED","variants":{"off":false,"on":true}}`
)

func follow(t *testing.T, conn grpc.ClientConnInterface, req *syncv1.SyncFlagsRequest, selector string) grpc.ServerStreamingClient[syncv1.SyncFlagsResponse] {
	t.Helper()
	stream, err := syncv1.NewFlagSyncServiceClient(conn).SyncFlags(withSelector(within(t), selector), req)
	if err != nil {
		t.Fatal(err)
	}
	return stream
}

// next returns the next document of a stream.
func next(t *testing.T, stream grpc.ServerStreamingClient[syncv1.SyncFlagsResponse]) string {
	t.Helper()
	message, err := stream.Recv()
	if err != nil {
		t.Fatal(err)
	}
	if message.SyncContext == nil {
		t.Error("no sync_context")
	}
	return message.GetFlagConfiguration()
}

func TestSyncFlags(t *testing.T) {
	for _, port := range bothPorts {
		s := ready(t, "a", on, "none", `{"state":"ENABLED","variants":{"x":1},"defaultVariant":"","description":"d"}`)
		conn := s.ports()[port]
		stream := follow(t, conn, &syncv1.SyncFlagsRequest{ProviderId: "p"}, "")
		want := `{"flags":{"a":` + plainOn + `,"none":{"description":"d","state":"ENABLED","variants":{"x":1}}}}`
		if got := next(t, stream); got != want {
			t.Errorf("%s: %s, want %s", port, got, want)
		}
		s.replica.set("a", off)
		if got := next(t, stream); got != strings.Replace(want, plainOn, plainOff, 1) {
			t.Errorf("%s: %s", port, got)
		}
		// An override changes what everybody gets, its end changes it back.
		s.replica.do(transaction(put("default", document.Override, "o", `{"flag":"a","variant":"on"}`)))
		forced := `{"defaultVariant":"on","metadata":{"holdfast.forcedBy":"override/o"},"state":"ENABLED","variants":{"off":false,"on":true}}`
		if got := next(t, stream); got != strings.Replace(want, plainOn, forced, 1) {
			t.Errorf("%s: %s", port, got)
		}
		s.replica.do(transaction(remove("default", document.Override, "o")))
		if got := next(t, stream); got != strings.Replace(want, plainOn, plainOff, 1) {
			t.Errorf("%s: %s", port, got)
		}
		// What does not concern the document is not told.
		s.replica.do(transaction(put("default", document.Policy, "p", `{"description":"x"}`)))
		s.replica.do(transaction(put("other", document.Flag, "a", on)))
		s.replica.do(transaction(remove("default", document.Flag, "none")))
		if got := next(t, stream); got != `{"flags":{"a":`+plainOff+`}}` {
			t.Errorf("%s: %s", port, got)
		}
	}
}

func TestSyncSelectors(t *testing.T) {
	r := newReplica(t)
	r.set("plain", on, "in-a", onIn("a"))
	r.do(transaction(put("shop", document.Flag, "cart", on)))
	s := serve(t, r, Config{})
	cart, inA := `{"flags":{"cart":`+plainOn+`}}`, `{"flags":{"in-a":`+strings.Replace(strings.Replace(plainOn, `"off":false,`, "", 1), `"state"`, `"metadata":{"flagSetId":"a"},"state"`, 1)+`}}`
	for port, conn := range s.ports() {
		for _, c := range []struct{ header, field, want string }{
			{"source=shop", "", cart},
			{"", "shop", cart},
			{"source=shop", "flagSetId=a", cart}, // the header beats the field
			{"flagSetId=a", "", inA},
			{"", "flagSetId=a", inA},
			{"", "source=nowhere", `{"flags":{}}`},
		} {
			stream := follow(t, conn, &syncv1.SyncFlagsRequest{Selector: c.field}, c.header)
			if got := next(t, stream); got != c.want {
				t.Errorf("%s: %+v: %s", port, c, got)
			}
			all, err := syncv1.NewFlagSyncServiceClient(conn).FetchAllFlags(withSelector(within(t), c.header), &syncv1.FetchAllFlagsRequest{Selector: c.field})
			if err != nil || all.GetFlagConfiguration() != c.want {
				t.Errorf("%s: fetch %+v: %v %v", port, c, all, err)
			}
		}
		_, err := follow(t, conn, &syncv1.SyncFlagsRequest{Selector: "x=y"}, "").Recv()
		if status.Code(err) != codes.InvalidArgument || !strings.Contains(status.Convert(err).Message(), `unknown key "x"`) {
			t.Errorf("%s: %v", port, err)
		}
		if meta, err := syncv1.NewFlagSyncServiceClient(conn).GetMetadata(within(t), &syncv1.GetMetadataRequest{}); err != nil || meta.GetMetadata() == nil {
			t.Errorf("%s: %v %v", port, meta, err)
		}
	}
}

// TestSyncOfWhatIsNotThereYet follows a namespace from before it exists.
func TestSyncOfWhatIsNotThereYet(t *testing.T) {
	s := ready(t)
	stream := follow(t, s.conn, &syncv1.SyncFlagsRequest{}, "later")
	if got := next(t, stream); got != `{"flags":{}}` {
		t.Error(got)
	}
	s.replica.do(transaction(put("later", document.Flag, "a", on)))
	if got := next(t, stream); got != `{"flags":{"a":`+plainOn+`}}` {
		t.Error(got)
	}
	s.replica.do(transaction(remove("later", document.Flag, "a")))
	if got := next(t, stream); got != `{"flags":{}}` {
		t.Error(got)
	}
}

// TestStreamsShareADocument has many streams and many changes: a document is made
// at most once for each change, and changes in a row are told together.
func TestStreamsShareADocument(t *testing.T) {
	s := ready(t, "a", on)
	var all sync.WaitGroup
	const streams = 20
	first := make(chan struct{}, streams)
	for range streams {
		stream := follow(t, s.conn, &syncv1.SyncFlagsRequest{}, "")
		all.Go(func() {
			told := 0
			for {
				message, err := stream.Recv()
				if err != nil {
					t.Error(err)
					return
				}
				if told++; told == 1 {
					first <- struct{}{}
				}
				if strings.Contains(message.GetFlagConfiguration(), `"last"`) {
					break
				}
			}
			// What comes within 100 ms is told together. These take half a second, more
			// if this machine is slow.
			if told > 20 {
				t.Errorf("told %d times", told)
			}
		})
	}
	for range streams {
		<-first
	}
	ticker := time.NewTicker(4 * time.Millisecond)
	defer ticker.Stop()
	for i := range 100 {
		<-ticker.C
		s.replica.set("a", fmt.Sprintf(`{"state":"ENABLED","variants":{"x":%d}}`, i))
	}
	s.replica.set("last", on)
	all.Wait()
	if n := testutil.ToFloat64(s.service.metrics.encoded); n > 20 {
		t.Errorf("%v documents were made", n)
	}
}

// TestRestoreIsFollowed changes the epoch: revisions mean nothing any more.
func TestRestoreIsFollowed(t *testing.T) {
	s := ready(t, "a", on, "b", on)
	stream := follow(t, s.conn, &syncv1.SyncFlagsRequest{}, "")
	before := next(t, stream)
	s.replica.newEpoch()
	s.replica.set("a", off)
	if got := next(t, stream); got != strings.Replace(before, plainOn, plainOff, 1) {
		t.Error(got)
	}
	if got, err := invoke(within(t), s.conn, "v2", "Boolean", "a", nil); err != nil || !strings.Contains(got, `"off"`) {
		t.Errorf("%s %v", got, err)
	}
}

// TestStreamsEndWhenNothingMayBeTold fences the server off and lets it serve
// again.
func TestStreamsEndWhenNothingMayBeTold(t *testing.T) {
	s := ready(t, "a", on)
	for port, conn := range s.ports() {
		stream := follow(t, conn, &syncv1.SyncFlagsRequest{}, "")
		next(t, stream)
		// The follower of the replica has to have seen that it serves.
		time.AfterFunc(2*healthInterval, func() { s.replica.setServing(errFenced) })
		if _, err := stream.Recv(); status.Code(err) != codes.Unavailable {
			t.Errorf("%s: %v", port, err)
		}
		if _, err := follow(t, conn, &syncv1.SyncFlagsRequest{}, "").Recv(); status.Code(err) != codes.Unavailable {
			t.Errorf("%s: %v", port, err)
		}
		s.replica.setServing(nil)
		next(t, follow(t, conn, &syncv1.SyncFlagsRequest{}, ""))
	}
}

// TestDrainEndsStreams drains with streams open on both ports.
func TestDrainEndsStreams(t *testing.T) {
	s := ready(t, "a", on)
	var streams []grpc.ServerStreamingClient[syncv1.SyncFlagsResponse]
	for _, conn := range s.ports() {
		stream := follow(t, conn, &syncv1.SyncFlagsRequest{}, "")
		next(t, stream)
		streams = append(streams, stream)
	}
	resp, err := http.Get(s.url + pathEvents)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	s.Drain(within(t))
	for _, stream := range streams {
		if _, err := stream.Recv(); status.Code(err) != codes.Unavailable {
			t.Errorf("stream ended with %v", err)
		}
	}
	if _, err := io.ReadAll(resp.Body); err != nil {
		t.Errorf("events ended with %v", err)
	}
	if _, err := follow(t, s.conn, &syncv1.SyncFlagsRequest{}, "").Recv(); status.Code(err) != codes.Unavailable {
		t.Errorf("a new stream: %v", err)
	}
	s.service.feeds.mu.Lock()
	defer s.service.feeds.mu.Unlock()
	if n := len(s.service.feeds.open); n != 0 {
		t.Errorf("%d feeds are left", n)
	}
}

// TestSlowStreamHoldsNobodyUp has a client that does not read beside one that
// does.
func TestSlowStreamHoldsNobodyUp(t *testing.T) {
	s := ready(t, many(100, 20_000)...)
	for port, conn := range s.ports() {
		ctx, cancel := context.WithCancel(t.Context())
		slow, err := syncv1.NewFlagSyncServiceClient(dial(t, conn.Target()[len("passthrough:///"):])).SyncFlags(ctx, &syncv1.SyncFlagsRequest{})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := slow.Recv(); err != nil {
			t.Fatal(err)
		}
		quick := follow(t, conn, &syncv1.SyncFlagsRequest{}, "")
		next(t, quick)
		for i := range 5 {
			s.replica.set("flag-00000", fmt.Sprintf(`{"state":"ENABLED","variants":{"%s%d":1}}`, port[:1], i))
			if got := next(t, quick); !strings.Contains(got, fmt.Sprintf(`"%s%d"`, port[:1], i)) {
				t.Errorf("%s: change %d is not in what was told", port, i)
			}
		}
		cancel()
	}
}

func TestSyncOverHTTPIsGRPCOnly(t *testing.T) {
	s := ready(t)
	got := s.ask("POST", syncv1.FlagSyncService_SyncFlags_FullMethodName, "{}", "Content-Type", "application/json")
	if got.status != http.StatusUnsupportedMediaType {
		t.Errorf("%v", got)
	}
}

func TestPercentEncoded(t *testing.T) {
	if got := percentEncoded("100% “x”\n"); got != "100%25 %E2%80%9Cx%E2%80%9D%0A" {
		t.Error(got)
	}
}

// TestViewsAreKeptUp reads what was written a moment before, and keeps nothing of
// namespaces that do not exist.
func TestViewsAreKeptUp(t *testing.T) {
	r := newReplica(t)
	v := newViews(r.View, r.StateTime)
	for i := range 50 {
		r.set("a", fmt.Sprintf(`{"state":"ENABLED","variants":{"v%d":true},"defaultVariant":"v%d"}`, i, i))
		if got := v.at("default").Flag("a").Evaluate(0).Variant.Name; got != fmt.Sprintf("v%d", i) {
			t.Fatalf("after change %d it is %s", i, got)
		}
	}
	for i := range 100 {
		v.at(fmt.Sprint("nowhere-", i))
	}
	if n := len(*v.spaces.Load()); n != 1 {
		t.Errorf("%d namespaces are kept", n)
	}
	kept := v.at("default")
	r.do(transaction(put("other", document.Flag, "a", on)))
	if now := v.at("default"); now.View != kept.View || now.version() != kept.version() {
		t.Error("a change of another namespace made a new view")
	}
	r.newEpoch()
	if now := v.at("default"); now.View == kept.View || now.Flag("a") == nil {
		t.Error("a new epoch left the view as it was")
	}
	r.do(transaction(remove("default", document.Flag, "a")))
	if v.at("default").Flag("a") != nil {
		t.Error("a removed flag is still there")
	}
}

// TestViewsGetOverForgottenDeletions is about a view from before what the state
// remembers of deletions, and one that was overtaken.
func TestViewsGetOverForgottenDeletions(t *testing.T) {
	limits := state.DefaultLimits()
	limits.Tombstones = 2
	r := newReplicaOf(t, state.NewLimited(limits))
	for i := range 10 {
		r.set(fmt.Sprint("f", i), on)
	}
	v := newViews(r.View, r.StateTime)
	v.at("default")
	old := r.View()
	for i := range 9 {
		r.do(transaction(remove("default", document.Flag, fmt.Sprint("f", i))))
	}
	now := v.at("default")
	if n := now.Len(); n != 1 || now.Flag("f9") == nil {
		t.Errorf("%d flags are left", n)
	}
	if got := (*v.spaces.Load())["default"].catchUp(old, old.Namespace("default"), r.StateTime); got != now || v.at("default") != now {
		t.Error("an older state took the view back")
	}
}

// TestNamespacesAreBounded opens more namespaces than are kept.
func TestNamespacesAreBounded(t *testing.T) {
	r := newReplica(t)
	v := newViews(r.View, r.StateTime)
	v.limit = 4
	for i := range 20 {
		name := fmt.Sprint("n", i)
		r.do(transaction(put(name, document.Flag, "a", on)))
		if v.at(name).Flag("a") == nil {
			t.Fatalf("%s is not there", name)
		}
		if n := len(*v.spaces.Load()); n > 4 {
			t.Fatalf("%d namespaces are kept", n)
		}
		r.do(transaction(remove(name, document.Flag, "a")))
	}
}

// TestViewsAreSharedSafely asks from many goroutines while the state changes.
func TestViewsAreSharedSafely(t *testing.T) {
	r := newReplica(t)
	v := newViews(r.View, r.StateTime)
	var all sync.WaitGroup
	stop := make(chan struct{})
	for range 4 {
		all.Go(func() {
			last := uint64(0)
			for {
				select {
				case <-stop:
					return
				default:
				}
				now := v.at("default")
				if now.revision < last {
					t.Errorf("revision %d after %d", now.revision, last)
				}
				last = now.revision
				for f := range now.Flags() {
					f.Evaluate(0)
				}
			}
		})
	}
	for i := range 300 {
		r.set(fmt.Sprint("f", i%7), fmt.Sprintf(`{"state":"ENABLED","variants":{"x":%d},"defaultVariant":"x"}`, i))
	}
	close(stop)
	all.Wait()
}

// TestChangesSeeContent tells what has changed, not what was made anew.
func TestChangesSeeContent(t *testing.T) {
	r := newReplica(t)
	r.set("a", on, "b", on, "gone", on, "moves", onIn("x"))
	v := newViews(r.View, r.StateTime)
	was := v.at("default").View
	r.newEpoch() // everything is made anew
	r.set("b", off, "new", on, "moves", onIn("y"))
	r.do(transaction(remove("default", document.Flag, "gone")))
	now := v.at("default").View
	for text, want := range map[string]string{
		"":            "[{b update} {gone delete} {moves update} {new write}]",
		"flagSetId=x": "[{moves delete}]",
		"flagSetId=y": "[{moves write}]",
		"flagSetId=":  "[{b update} {gone delete} {new write}]",
	} {
		sel, err := parseSelector(text)
		if err != nil {
			t.Fatal(err)
		}
		if got := fmt.Sprint(sel.changes(now, was)); got != want {
			t.Errorf("%q: %s, want %s", text, got, want)
		}
	}
	if got := everything().changes(now, now); got != nil {
		t.Errorf("no change is %v", got)
	}
}
