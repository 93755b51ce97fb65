package facade

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/holdfast-dev/holdfast/internal/document"
)

func TestBulk(t *testing.T) {
	s := ready(t, "a", on, "b", `{"state":"DISABLED","variants":{"x":1}}`, "c", `{"state":"ENABLED","variants":{"x":1},"targeting":{"var":"plan"}}`)
	want := `{"flags":[{"key":"a","reason":"STATIC","variant":"on","value":true},{"key":"b","reason":"DISABLED"},` +
		`{"key":"c","errorCode":"GENERAL","errorDetails":"the rules of flag \"c\" name a variant that does not exist"}],` +
		`"eventStreams":[{"type":"sse","endpoint":{"requestUri":"/ofrep/v1/events"},"inactivityDelaySec":120}]}`
	for _, path := range []string{pathEvaluate, pathEvaluate + "/"} {
		got := s.ask("POST", path, `{"context":{"plan":"gold"}}`, "Content-Type", "application/json")
		if got.status != http.StatusOK || got.body != want || got.header.Get("Content-Type") != "application/json" {
			t.Errorf("%s: %v", path, got)
		}
	}
	if got := s.ask("POST", pathEvaluate, "", selectorHeader, "flagSetId=a b"); !strings.Contains(got.body, `"requestUri":"/ofrep/v1/events?selector=flagSetId%3Da+b"`) {
		t.Errorf("%v", got)
	}
	if got := s.ask("GET", pathEvaluate, ""); got.status != http.StatusMethodNotAllowed {
		t.Errorf("%v", got)
	}
}

// TestETag asks again and again: the tag is another exactly when the answer is.
func TestETag(t *testing.T) {
	rule := `{"state":"ENABLED","variants":{"on":true,"off":false},"defaultVariant":"off","targeting":{"if":[{"==":[{"var":"plan"},"gold"]},"on"]}}`
	s := ready(t, "a", on, "rule", rule)
	ask := func(body, tag string) reply {
		return s.ask("POST", pathEvaluate, body, "If-None-Match", tag)
	}
	first := ask("", "")
	tag := first.header.Get("ETag")
	if first.status != http.StatusOK || len(tag) != 34 {
		t.Fatalf("%v", first)
	}
	same := func(what, body, tag string) {
		t.Helper()
		if got := ask(body, tag); got.status != http.StatusNotModified || got.body != "" || got.header.Get("ETag") == "" {
			t.Errorf("%s: %v", what, got)
		}
	}
	other := func(what, body, tag string) string {
		t.Helper()
		got := ask(body, tag)
		if got.status != http.StatusOK || got.header.Get("ETag") == tag {
			t.Errorf("%s: %v", what, got)
		}
		return got.header.Get("ETag")
	}
	same("the same", "{}", tag)
	same("a list", "", `"x", W/`+tag)
	same("anything", "", "*")
	other("another context", `{"context":{"plan":"gold"}}`, tag)
	s.replica.do(transaction(put("other", document.Flag, "a", on)))
	same("after a change elsewhere", "", tag)
	s.replica.set("a", off)
	changed := other("after a change", "", tag)
	s.replica.do(transaction(put("default", document.Override, "o", `{"flag":"rule","variant":"on"}`)))
	other("after an override", "", changed)
	s.replica.do(transaction(remove("default", document.Override, "o")))
	s.replica.set("a", on)
	same("after all is undone", "", tag)
}

func TestBadBodies(t *testing.T) {
	s := ready(t, "f", on)
	for body, fine := range map[string]bool{
		"": true, " \n": true, "{}": true, `{"context":null}`: true, `{"context":{}}`: true, `{"other":1}`: true,
		"{": false, "[]": false, "1": false, `{"context":1}`: false, `{"context":[]}`: false, `{"context":{}} x`: false,
		nested(maxContextDepth, `{"a":`, "}"): true, nested(maxContextDepth+1, `{"a":`, "}"): false,
		nested(maxContextDepth, "[", "]"): true, nested(maxContextDepth+1, "[", "]"): false,
		nested(100_000, "[", "]"): false,
	} {
		for _, path := range []string{pathEvaluate, pathEvaluate + "/f"} {
			got := s.ask("POST", path, body)
			var fault struct{ Key, ErrorCode, ErrorDetails string }
			err := json.Unmarshal([]byte(got.body), &fault)
			switch {
			case fine && got.status != http.StatusOK:
				t.Errorf("%s %q: %v", path, body, got)
			case !fine && (err != nil || got.status != http.StatusBadRequest || fault.ErrorCode != "INVALID_CONTEXT" || fault.ErrorDetails == "" ||
				(fault.Key == "f") != (path != pathEvaluate)):
				t.Errorf("%s %.40q: %v", path, body, got)
			}
		}
	}
	// Any key can be asked for.
	if got := s.ask("POST", pathEvaluate+"/a%2Fb%20%22c", ""); got.status != http.StatusNotFound || !strings.Contains(got.body, `"key":"a/b \"c"`) {
		t.Errorf("%v", got)
	}
}

// nested is a body whose context is so deep.
func nested(depth int, open, end string) string {
	return `{"context":{"a":` + strings.Repeat(open, depth-1) + "1" + strings.Repeat(end, depth-1) + `}}`
}

// sse is an open stream of events.
type sse struct {
	*http.Response
	lines *bufio.Scanner
}

// events opens a stream of events; what is left of a URL behind the path comes
// first.
func (s *served) events(query string, headers ...string) *sse {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.t.Context(), 20*time.Second)
	req, err := http.NewRequestWithContext(ctx, "GET", s.url+pathEvents+query, nil)
	if err != nil {
		s.t.Fatal(err)
	}
	for i := 0; i < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() {
		cancel()
		resp.Body.Close()
	})
	return &sse{resp, bufio.NewScanner(resp.Body)}
}

// next returns the next event, or comment, as one line.
func (e *sse) next() string {
	var lines []string
	for e.lines.Scan() {
		if e.lines.Text() == "" {
			break
		}
		lines = append(lines, e.lines.Text())
	}
	return strings.Join(lines, "|")
}

func refetched(v version) string {
	return fmt.Sprintf(`id: %s|event: message|data: {"type":"refetchEvaluation","etag":"%[1]s"}`, v)
}

func TestServerSentEvents(t *testing.T) {
	s := ready(t, "a", on, "in-a", onIn("a"))
	first := s.service.views.at("default").version()
	at := func(later uint64) version { return version{first.counter, first.mod + later, first.history} }
	all, inA := s.events(""), s.events("?selector=flagSetId%3Da")
	if all.StatusCode != http.StatusOK || all.Header.Get("Content-Type") != "text/event-stream" || all.Header.Get("Cache-Control") != "no-store" {
		t.Fatalf("%v", all.Response)
	}
	expect := func(e *sse, want string) {
		t.Helper()
		if got := e.next(); got != want {
			t.Errorf("%s, want %s", got, want)
		}
	}
	expect(all, refetched(first)) // something may have changed since it has asked
	expect(inA, refetched(first))
	s.replica.set("a", off)
	expect(all, refetched(at(1)))
	s.replica.set("in-a", on)
	expect(all, refetched(at(2)))
	expect(inA, refetched(at(2)))
	// Whoever has missed nothing is not sent to ask again.
	back := s.events("", "Last-Event-ID", at(2).String())
	expect(back, ": holdfast|id: "+at(2).String())
	late := s.events("", "Last-Event-ID", first.String())
	expect(late, refetched(at(2)))
	other := at(2)
	other.history++ // of another cluster
	expect(s.events("", "Last-Event-ID", other.String()), refetched(at(2)))
	s.replica.set("a", on)
	expect(back, refetched(at(3)))
	if got := s.ask("GET", pathEvents+"?selector=x%3Dy", ""); got.status != http.StatusBadRequest {
		t.Errorf("%v", got)
	}
}

func TestServerSentEventsAreKeptAlive(t *testing.T) {
	s := serve(t, newReplica(t), Config{}, func(s *Server) { s.service.keepAlive = 10 * time.Millisecond })
	e := s.events("")
	e.next()
	if got := e.next(); got != ": keep-alive" {
		t.Error(got)
	}
}

// TestAnswerWaitsForWhatWasHeard asks a server that is behind the one that had the
// client ask.
func TestAnswerWaitsForWhatWasHeard(t *testing.T) {
	s := serve(t, newReplica(t), Config{}, func(s *Server) { s.service.catchUp = time.Hour })
	s.replica.set("a", on)
	heard := s.service.views.at("default").version()
	heard.mod++
	answers := make(chan reply)
	go func() { answers <- s.ask("POST", pathEvaluate+"?flagConfigEtag="+heard.String(), "") }()
	eventually(t, "the wait", func() bool { return s.replica.hub.Watchers() > 0 })
	s.replica.set("a", off)
	if got := <-answers; !strings.Contains(got.body, `"variant":"off"`) {
		t.Errorf("%v", got)
	}
	for _, had := range []string{heard.String(), "0.999", "nonsense", ""} {
		if got := s.ask("POST", pathEvaluate+"?flagConfigEtag="+had, ""); got.status != http.StatusOK {
			t.Errorf("%s: %v", had, got)
		}
	}
}

// TestAnswerDoesNotWaitForEver asks for a version that never comes.
func TestAnswerDoesNotWaitForEver(t *testing.T) {
	s := serve(t, newReplica(t), Config{}, func(s *Server) { s.service.catchUp = time.Millisecond })
	if got := s.ask("POST", pathEvaluate+"?flagConfigEtag=9.9", ""); got.status != http.StatusOK {
		t.Errorf("%v", got)
	}
}

func TestMatches(t *testing.T) {
	for header, want := range map[string]bool{
		"": false, `"a"`: true, `W/"a"`: true, `"b"`: false, `"b", "a"`: true, "*": true, `a`: false,
	} {
		if got := matches([]string{header}, `"a"`); got != want {
			t.Errorf("%s: %v", header, got)
		}
	}
}
