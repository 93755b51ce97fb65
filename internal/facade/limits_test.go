package facade

import (
	"bytes"
	"crypto/x509"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"connectrpc.com/connect"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/holdfast-dev/holdfast/internal/document"
	evaluationv2 "github.com/holdfast-dev/holdfast/proto/flagd/evaluation/v2"
	"github.com/holdfast-dev/holdfast/proto/flagd/evaluation/v2/evaluationv2connect"
	syncv1 "github.com/holdfast-dev/holdfast/proto/flagd/sync/v1"
)

func poolOf(t *testing.T, file string) *x509.CertPool {
	t.Helper()
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(data)
	return pool
}

// padded is a context whose text is about so long.
func padded(n int) string { return `{"a":"` + strings.Repeat("x", n) + `"}` }

func TestRequestLimit(t *testing.T) {
	s := ready(t, "f", on)
	fits := `{"context":` + padded(maxRequestBytes-len(`{"context":{"a":""}}`)) + `}`
	if got := s.ask("POST", pathEvaluate+"/f", fits); len(fits) != maxRequestBytes || got.status != http.StatusOK {
		t.Errorf("%d bytes: %d", len(fits), got.status)
	}
	for _, n := range []int{1, 10, 3 * maxRequestBytes} {
		if got := s.ask("POST", pathEvaluate+"/f", fits+strings.Repeat(" ", n)); got.status != http.StatusRequestEntityTooLarge || !strings.Contains(got.body, `"key":"f"`) {
			t.Errorf("%d bytes too many: %v", n, got)
		}
	}
	large := &structpb.Struct{Fields: map[string]*structpb.Value{"a": structpb.NewStringValue(strings.Repeat("x", maxRequestBytes))}}
	for port, want := range map[string]codes.Code{"gRPC port": codes.InvalidArgument, "HTTP port": codes.ResourceExhausted} {
		_, err := invoke(within(t), s.ports()[port], "v2", "Boolean", "f", large)
		if status.Code(err) != want {
			t.Errorf("%s: %v", port, err)
		}
	}
	for name, option := range map[string]connect.ClientOption{"JSON": connect.WithProtoJSON(), "gRPC-Web": connect.WithGRPCWeb(), "gzip": connect.WithSendGzip()} {
		client := evaluationv2connect.NewServiceClient(http.DefaultClient, s.url, option)
		_, err := client.ResolveBoolean(within(t), &evaluationv2.ResolveBooleanRequest{FlagKey: "f", Context: large})
		if connect.CodeOf(err) != connect.CodeResourceExhausted {
			t.Errorf("%s: %v", name, err)
		}
	}
	_, err := syncv1.NewFlagSyncServiceClient(s.h2c).SyncFlags(within(t), &syncv1.SyncFlagsRequest{})
	if err != nil {
		t.Error(err)
	}
	stream, err := syncv1.NewFlagSyncServiceClient(s.h2c).SyncFlags(within(t), &syncv1.SyncFlagsRequest{Selector: strings.Repeat("x", maxRequestBytes)})
	if err == nil {
		_, err = stream.Recv()
	}
	if status.Code(err) != codes.ResourceExhausted {
		t.Errorf("sync: %v", err)
	}
}

// endless is a body that counts what is taken of it.
type endless struct{ taken atomic.Int64 }

func (e *endless) Read(b []byte) (int, error) {
	e.taken.Add(int64(len(b)))
	return len(b), nil
}

// TestEndlessBody has the server take no more of a body than it needs to refuse it.
func TestEndlessBody(t *testing.T) {
	s := ready(t)
	body := &endless{}
	resp, err := http.Post(s.url+pathEvaluate, "application/json", body)
	if err == nil { // or the connection is gone before the answer was read
		resp.Body.Close()
		if resp.StatusCode != http.StatusRequestEntityTooLarge {
			t.Errorf("%v", resp)
		}
	}
	if n := body.taken.Load(); n > 32<<20 { // what is on its way included
		t.Errorf("%d bytes were taken", n)
	}
}

func TestContextDepth(t *testing.T) {
	nested := func(depth int, lists bool) *structpb.Struct {
		v := structpb.NewNumberValue(1)
		for range depth - 1 {
			if lists {
				v = structpb.NewListValue(&structpb.ListValue{Values: []*structpb.Value{v}})
			} else {
				v = structpb.NewStructValue(&structpb.Struct{Fields: map[string]*structpb.Value{"a": v}})
			}
		}
		return &structpb.Struct{Fields: map[string]*structpb.Value{"a": v}}
	}
	s := ready(t, "f", on)
	for _, lists := range []bool{false, true} {
		for depth, want := range map[int]codes.Code{maxContextDepth: codes.OK, maxContextDepth + 1: codes.InvalidArgument, 1000: codes.InvalidArgument} {
			for port, conn := range s.ports() {
				_, err := invoke(within(t), conn, "v2", "Boolean", "f", nested(depth, lists))
				if status.Code(err) != want {
					t.Errorf("%s: lists %v, depth %d: %v", port, lists, depth, err)
				}
			}
		}
	}
}

func TestAttributeLimit(t *testing.T) {
	s := ready(t, "f", on)
	for n, want := range map[int]codes.Code{maxAttributes: codes.OK, maxAttributes + 1: codes.InvalidArgument} {
		attributes := &structpb.Struct{Fields: map[string]*structpb.Value{}}
		for i := range n {
			attributes.Fields[fmt.Sprint("a", i)] = structpb.NewBoolValue(true)
		}
		for port, conn := range s.ports() {
			if _, err := invoke(within(t), conn, "v2", "Boolean", "f", attributes); status.Code(err) != want {
				t.Errorf("%s: %d attributes: %v", port, n, err)
			}
		}
		body, err := protojson.Marshal(attributes)
		if err != nil {
			t.Fatal(err)
		}
		got := s.ask("POST", pathEvaluate, `{"context":`+string(body)+`}`)
		if fine := got.status == http.StatusOK; fine != (want == codes.OK) || !fine && !strings.Contains(got.body, "INVALID_CONTEXT") {
			t.Errorf("OFREP: %d attributes: %v", n, got)
		}
	}
}

func TestSelectorLimit(t *testing.T) {
	s := ready(t)
	long := "flagSetId=" + strings.Repeat("x", maxSelectorBytes)
	if _, err := parseSelector(long[:maxSelectorBytes]); err != nil {
		t.Error(err)
	}
	if _, err := follow(t, s.conn, &syncv1.SyncFlagsRequest{}, long).Recv(); status.Code(err) != codes.InvalidArgument {
		t.Error(err)
	}
	if got := s.ask("POST", pathEvaluate, "", selectorHeader, long); got.status != http.StatusBadRequest {
		t.Errorf("%v", got)
	}
}

// TestDocumentLimit grows a document beyond what providers receive, and divides it.
func TestDocumentLimit(t *testing.T) {
	r := newReplica(t)
	r.set(many(100, 40_000)...)
	s := serve(t, r, Config{})
	client := syncv1.NewFlagSyncServiceClient(s.conn)
	var open []func() error
	for _, conn := range s.ports() {
		stream := follow(t, conn, &syncv1.SyncFlagsRequest{}, "")
		next(t, stream)
		open = append(open, func() error {
			_, err := stream.Recv()
			return err
		})
	}
	part := []string{"set-a", strings.Replace(onIn("a"), `"on":true`, `"on":"`+strings.Repeat("x", 200_000)+`"`, 1)}
	r.set(part...)
	refused := func(what string, err error) {
		t.Helper()
		message := status.Convert(err).Message()
		if status.Code(err) != codes.ResourceExhausted || !strings.Contains(message, "flag sets") || !strings.Contains(message, "4194304 at most") {
			t.Errorf("%s: %v", what, err)
		}
	}
	for _, recv := range open {
		refused("an open stream", recv())
	}
	for port, conn := range s.ports() {
		_, err := follow(t, conn, &syncv1.SyncFlagsRequest{}, "").Recv()
		refused(port, err)
	}
	_, err := client.FetchAllFlags(within(t), &syncv1.FetchAllFlagsRequest{})
	refused("fetch", err)
	if got := next(t, follow(t, s.conn, &syncv1.SyncFlagsRequest{}, "flagSetId=a")); len(got) < 200_000 {
		t.Errorf("%d bytes of a part", len(got))
	}
	if n := testutil.ToFloat64(s.service.metrics.refused); n < 5 {
		t.Errorf("%v refusals are counted", n)
	}
	if n := strings.Count(s.log.String(), "document is too large"); n != 1 {
		t.Errorf("logged %d times:\n%s", n, s.log)
	}
	// Others are not concerned, and what fits again is served again.
	if got, err := invoke(within(t), s.conn, "v2", "String", "flag-00001", nil); err != nil || len(got) < 40_000 {
		t.Error(err)
	}
	r.do(transaction(remove("default", document.Flag, "set-a")))
	next(t, follow(t, s.conn, &syncv1.SyncFlagsRequest{}, ""))
}

func TestStreamLimit(t *testing.T) {
	s := serve(t, newReplica(t), Config{}, func(s *Server) { s.service.streams.limit = 2 })
	first := listen(t, s.conn, "")
	if _, err := first(); err != nil {
		t.Fatal(err)
	}
	e := s.events("")
	e.next()
	for port, conn := range s.ports() {
		if _, err := follow(t, conn, &syncv1.SyncFlagsRequest{}, "").Recv(); status.Code(err) != codes.ResourceExhausted {
			t.Errorf("%s: %v", port, err)
		}
		if _, err := listen(t, conn, "")(); status.Code(err) != codes.ResourceExhausted {
			t.Errorf("%s: %v", port, err)
		}
	}
	if got := s.ask("GET", pathEvents, ""); got.status != http.StatusServiceUnavailable {
		t.Errorf("%v", got)
	}
	e.Body.Close()
	eventually(t, "a place", func() bool {
		_, err := listen(t, s.conn, "")()
		return err == nil
	})
}

func TestSelectorsOfStreamsAreBounded(t *testing.T) {
	s := serve(t, newReplica(t), Config{}, func(s *Server) { s.service.feeds.limit = 2 })
	for _, set := range []string{"a", "b", "a"} {
		next(t, follow(t, s.conn, &syncv1.SyncFlagsRequest{}, "flagSetId="+set))
	}
	if _, err := follow(t, s.conn, &syncv1.SyncFlagsRequest{}, "flagSetId=c").Recv(); status.Code(err) != codes.ResourceExhausted {
		t.Error(err)
	}
	if got := s.ask("GET", pathEvents+"?selector=flagSetId%3Dc", ""); got.status != http.StatusServiceUnavailable {
		t.Errorf("%v", got)
	}
}

func TestConnectionLimit(t *testing.T) {
	s := serve(t, newReplica(t), Config{}, func(s *Server) { s.conns = 1 })
	first, err := net.Dial("tcp", s.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer first.Close()
	if _, err := io.WriteString(first, "POST "+pathEvaluate+" HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	if n, err := first.Read(make([]byte, 1)); n != 1 {
		t.Fatal(err)
	}
	second, err := net.Dial("tcp", s.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer second.Close()
	_ = second.SetReadDeadline(time.Now().Add(2 * time.Second)) // less than the server waits for headers
	if _, err := second.Read(make([]byte, 1)); err == nil || os.IsTimeout(err) {
		t.Errorf("a connection too many: %v", err)
	}
	first.Close()
	eventually(t, "a place", func() bool {
		resp, err := http.Post(s.url+pathEvaluate, "", nil)
		if err == nil {
			resp.Body.Close()
		}
		return err == nil
	})
}

func TestHeaderLimit(t *testing.T) {
	s := ready(t)
	if got := s.ask("POST", pathEvaluate, "", "X-Long", strings.Repeat("x", 2*maxHeaderBytes)); got.status != http.StatusRequestHeaderFieldsTooLarge {
		t.Errorf("%v", got)
	}
}

// TestPingsAreAnswered pings the HTTP port far more often than any client, which
// other servers end the connection for.
// TestHeadOfEvents asks for the headers of the endless stream.
func TestHeadOfEvents(t *testing.T) {
	s := ready(t)
	if got := s.ask("HEAD", pathEvents, ""); got.status != http.StatusMethodNotAllowed {
		t.Errorf("%v", got)
	}
}

// unread asks a server for more than what lies between it and a client that does
// not read on.
func unread(t *testing.T, options ...func(*Server)) *served {
	t.Helper()
	r := newReplica(t)
	r.set(many(100, 100_000)...)
	s := serve(t, r, Config{}, options...)
	conn, err := net.Dial("tcp", s.addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	fmt.Fprintf(conn, "POST %s HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n", pathEvaluate)
	if _, err := conn.Read(make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	return s
}

func TestAnswersThatNobodyReadsAreGivenUp(t *testing.T) {
	s := unread(t, func(s *Server) { s.patience = 20 * time.Millisecond })
	ended := s.service.metrics.requests.WithLabelValues("POST "+pathEvaluate, "200")
	eventually(t, "the end of the answer", func() bool { return testutil.ToFloat64(ended) == 1 })
}

func TestDrainDoesNotWaitForReaders(t *testing.T) {
	s := unread(t)
	began := time.Now()
	s.Drain(within(t))
	if took := time.Since(began); took > drainTime+5*time.Second {
		t.Errorf("the drain took %s", took)
	}
}

func TestPingsAreAnswered(t *testing.T) {
	s := ready(t)
	conn, err := net.Dial("tcp", s.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
	frame := func(kind, flags byte, payload []byte) []byte {
		head := binary.BigEndian.AppendUint32(nil, uint32(len(payload))<<8|uint32(kind))
		return append(append(head, flags, 0, 0, 0, 0), payload...)
	}
	const settings, ping, ack, pings = 4, 6, 1, 200
	out := append([]byte("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"), frame(settings, 0, nil)...)
	if _, err := conn.Write(out); err != nil {
		t.Fatal(err)
	}
	for i := range pings {
		if _, err := conn.Write(frame(ping, 0, binary.BigEndian.AppendUint64(nil, uint64(i)))); err != nil {
			t.Fatal(err)
		}
		for answered := false; !answered; {
			head := make([]byte, 9)
			if _, err := io.ReadFull(conn, head); err != nil {
				t.Fatalf("after %d pings: %v", i, err)
			}
			payload := make([]byte, binary.BigEndian.Uint32(head)>>8)
			if _, err := io.ReadFull(conn, payload); err != nil {
				t.Fatal(err)
			}
			answered = head[3] == ping && head[4] == ack && bytes.Equal(payload, binary.BigEndian.AppendUint64(nil, uint64(i)))
		}
	}
}

// TestPanicsAreCaught has handlers panic in every protocol.
func TestPanicsAreCaught(t *testing.T) {
	s := serve(t, newReplica(t), Config{}, func(s *Server) { s.service.now = func() time.Time { panic("clock") } })
	for port, conn := range s.ports() {
		if _, err := invoke(within(t), conn, "v2", "Boolean", "f", nil); status.Code(err) != codes.Internal {
			t.Errorf("%s: %v", port, err)
		}
	}
	if got := s.ask("POST", pathEvaluate, ""); got.status != http.StatusInternalServerError || !strings.Contains(got.body, "errorDetails") {
		t.Errorf("%v", got)
	}
	if n := strings.Count(s.log.String(), "a handler panicked"); n != 2 { // the gRPC port has its own log
		t.Errorf("%d panics are logged:\n%s", n, s.log)
	}
}

// TestRequestsAreCounted looks at the metric by route.
func TestRequestsAreCounted(t *testing.T) {
	s := ready(t, "f", on)
	s.ask("POST", pathEvaluate+"/f", "")
	s.ask("POST", pathEvaluate+"/g", "")
	s.ask("GET", "/"+fmt.Sprint(time.Now().UnixNano()), "")
	for labels, want := range map[[2]string]float64{
		{"POST " + pathEvaluate + "/{key}", "200"}: 1, {"POST " + pathEvaluate + "/{key}", "404"}: 1, {"none", "404"}: 1,
	} {
		if got := testutil.ToFloat64(s.service.metrics.requests.WithLabelValues(labels[0], labels[1])); got != want {
			t.Errorf("%v: %v", labels, got)
		}
	}
	if got := testutil.ToFloat64(s.service.metrics.evaluations.WithLabelValues("FLAG_NOT_FOUND")); got != 1 {
		t.Errorf("%v", got)
	}
}
