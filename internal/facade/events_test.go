package facade

import (
	"fmt"
	"strings"
	"testing"
	"time"

	storagev1 "github.com/holdfast-dev/holdfast/proto/holdfast/storage/v1"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/holdfast-dev/holdfast/internal/document"
	evaluationv1 "github.com/holdfast-dev/holdfast/proto/flagd/evaluation/v1"
	evaluationv2 "github.com/holdfast-dev/holdfast/proto/flagd/evaluation/v2"
)

// listen opens a stream of events; each call returns the next one as text.
func listen(t *testing.T, conn grpc.ClientConnInterface, selector string) func() (string, error) {
	t.Helper()
	stream, err := evaluationv2.NewServiceClient(conn).EventStream(withSelector(within(t), selector), &evaluationv2.EventStreamRequest{})
	if err != nil {
		t.Fatal(err)
	}
	return func() (string, error) {
		event, err := stream.Recv()
		if err != nil {
			return "", err
		}
		text := event.GetType()
		if event.GetData() != nil {
			text += jsonOf(event.GetData())
		}
		return text, nil
	}
}

func TestEvents(t *testing.T) {
	for _, port := range bothPorts {
		s := ready(t, "a", on, "in-a", onIn("a"))
		conn := s.ports()[port]
		all, inA := listen(t, conn, ""), listen(t, conn, "flagSetId=a")
		expect := func(next func() (string, error), want string) {
			t.Helper()
			if got, err := next(); err != nil || got != want {
				t.Fatalf("%s: %s %v, want %s", port, got, err, want)
			}
		}
		expect(all, "provider_ready")
		expect(inA, "provider_ready")
		s.replica.do(transaction(
			put("default", document.Flag, "a", off), put("default", document.Flag, "new", on), remove("default", document.Flag, "in-a"),
		))
		expect(all, `configuration_change{"flags":{"a":{"type":"update"},"in-a":{"type":"delete"},"new":{"type":"write"}}}`)
		expect(inA, `configuration_change{"flags":{"in-a":{"type":"delete"}}}`)
		s.replica.do(transaction(put("default", document.Override, "o", `{"flag":"a","variant":"on"}`)))
		expect(all, `configuration_change{"flags":{"a":{"type":"update"}}}`)
		s.replica.do(transaction(put("default", document.Flag, "a", onIn("a")), remove("default", document.Override, "o")))
		expect(all, `configuration_change{"flags":{"a":{"type":"update"}}}`)
		expect(inA, `configuration_change{"flags":{"a":{"type":"write"}}}`)
	}
}

// TestManyChangesAreSeveralEvents changes more flags than one event names.
// TestOverridesEndWithoutALeader has an override end on a server that nobody tells
// so, and go on where it was extended in time.
func TestOverridesEndWithoutALeader(t *testing.T) {
	s := ready(t, "a", on, "b", on)
	override := func(name, flag string, ttl time.Duration) *storagev1.Step {
		step := put("default", document.Override, name, `{"flag":"`+flag+`","variant":"off"}`)
		step.TtlMs = ttl.Milliseconds()
		return step
	}
	s.replica.do(transaction(override("short", "a", 50*time.Millisecond), override("long", "b", time.Hour)))
	next := listen(t, s.conn, "")
	if got, err := next(); err != nil || got != "provider_ready" {
		t.Fatal(got, err)
	}
	variant := func(flag string) string { return s.ask("POST", pathEvaluate+"/"+flag, "").body }
	if got := variant("a"); !strings.Contains(got, `"off"`) {
		t.Fatalf("the override is not in force: %s", got)
	}
	s.replica.pass(time.Minute)
	if got := variant("a"); !strings.Contains(got, `"on"`) {
		t.Errorf("an override goes on after its end: %s", got)
	}
	if got := variant("b"); !strings.Contains(got, `"off"`) {
		t.Errorf("another one has ended with it: %s", got)
	}
	if got, err := next(); err != nil || got != `configuration_change{"flags":{"a":{"type":"update"}}}` {
		t.Errorf("told was %s, %v", got, err)
	}
}

func TestManyChangesAreSeveralEvents(t *testing.T) {
	s := ready(t)
	next := listen(t, s.conn, "")
	if _, err := next(); err != nil {
		t.Fatal(err)
	}
	const flags = eventKeys + 10
	for i := 0; i < flags; i += 505 {
		var pairs []string
		for j := i; j < min(i+505, flags); j++ {
			pairs = append(pairs, fmt.Sprintf("f%05d", j), on)
		}
		s.replica.set(pairs...)
	}
	named := 0
	for named < flags {
		event, err := next()
		if err != nil {
			t.Fatal(err)
		}
		n := strings.Count(event, `"write"`)
		if named += n; n > eventKeys {
			t.Errorf("an event names %d flags", n)
		}
	}
	if named != flags {
		t.Errorf("%d flags are named", named)
	}
	if got := len(eventsOf(make([]change, 2*eventKeys+1))); got != 3 {
		t.Errorf("%d events", got)
	}
}

// TestSlowListenerHearsWhatItMissed skips moments: it is told what differs from
// what it has seen.
func TestSlowListenerHearsWhatItMissed(t *testing.T) {
	r := newReplica(t)
	r.set("a", on, "b", on)
	s := serve(t, r, Config{})
	f, err := s.service.feeds.follow(everything())
	if err != nil {
		t.Fatal(err)
	}
	defer f.leave()
	seen := f.now()
	for i, change := range []func(){
		func() { r.set("a", off, "c", on) },
		func() { r.do(transaction(remove("default", document.Flag, "c"))) },
		func() { r.do(transaction(remove("default", document.Flag, "b"))) },
	} {
		before := f.now()
		change()
		select {
		case <-before.over:
		case <-time.After(10 * time.Second):
			t.Fatalf("change %d is not told", i)
		}
	}
	var got []string
	for _, event := range f.now().since(everything(), seen) {
		got = append(got, jsonOf(event))
	}
	if want := `[{"flags":{"a":{"type":"update"},"b":{"type":"delete"}}}]`; fmt.Sprint(got) != want {
		t.Errorf("%v, want %s", got, want)
	}
}

func TestStreamsAreKeptAlive(t *testing.T) {
	s := serve(t, newReplica(t), Config{}, func(s *Server) { s.service.keepAlive = 10 * time.Millisecond })
	for port, conn := range s.ports() {
		next := listen(t, conn, "")
		for _, want := range []string{eventReady, eventAlive, eventAlive} {
			if got, err := next(); got != want {
				t.Fatalf("%s: %s %v, want %s", port, got, err, want)
			}
		}
	}
}

// TestShutdownIsTold drains: on the port for clients without certificates, and on
// the other one, by whichever server ends the stream.
func TestShutdownIsTold(t *testing.T) {
	for _, port := range []string{"gRPC port", "HTTP port", "API"} {
		s := ready(t)
		conn := s.conn
		if port == "HTTP port" {
			conn = s.h2c
		}
		old, err := evaluationv1.NewServiceClient(conn).EventStream(within(t), &evaluationv1.EventStreamRequest{})
		if err != nil {
			t.Fatal(err)
		}
		if event, err := old.Recv(); event.GetType() != eventReady {
			t.Fatalf("%v %v", event, err)
		}
		if port == "API" {
			s.api.Drain(within(t))
		} else {
			s.Drain(within(t))
		}
		if event, err := old.Recv(); event.GetType() != eventShutdown {
			t.Errorf("%s: %v %v", port, event, err)
		}
		if _, err := old.Recv(); status.Code(err) != codes.Unavailable {
			t.Errorf("%s: %v", port, err)
		}
	}
}
