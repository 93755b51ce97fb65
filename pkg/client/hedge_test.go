package client

import (
	"context"
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

const hedges = `{"retry_policy":{"hedge_delay":"100ms","max_hedges":2}}`

func TestDoHedges(t *testing.T) {
	for name, c := range map[string]struct {
		options []CallOption
		want    string
		took    time.Duration
	}{
		"read-only":  {[]CallOption{ReadOnly()}, "second", 110 * time.Millisecond},
		"idempotent": {[]CallOption{Idempotent()}, "first", time.Second},
		"unsaid":     {nil, "first", time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				client := opened(t, map[string]string{"search": hedges})
				made := make(chan int, 9)
				made <- 1
				begun := time.Now()
				answer, err := Do(t.Context(), client.Client, "search", func(ctx context.Context) (string, error) {
					n := <-made
					made <- n + 1
					if n == 1 {
						select {
						case <-time.After(time.Second):
							return "first", nil
						case <-ctx.Done():
							return "", ctx.Err()
						}
					}
					<-time.After(10 * time.Millisecond)
					return "second", nil
				}, c.options...)
				if took := time.Since(begun); err != nil || answer != c.want || took != c.took {
					t.Errorf("%q after %v, %v", answer, took, err)
				}
			})
		})
	}
}

func TestReadOnlyIsIdempotent(t *testing.T) {
	var o callOptions
	o.take([]CallOption{ReadOnly()})
	c := opened(t, nil)
	s := o.setting(c.calls.client("a").target("b", 1))
	if !s.Idempotent || !s.NoSideEffects || s.ReadOnly() != s || s.Repeatable() != s {
		t.Errorf("the setting is %+v", s)
	}
}

// attempt is what a server does with one request.
type attempt struct {
	took   time.Duration
	status int
	deaf   bool // it answers even when nobody listens any more
}

func TestHTTPHedges(t *testing.T) {
	slow, fast := attempt{took: 10 * time.Second, status: 200}, attempt{took: 10 * time.Millisecond, status: 200}
	const ms = time.Millisecond
	slowly := Classify(func(error) Outcome { <-time.After(100 * ms); return Unclassified })
	for name, c := range map[string]struct {
		method   string
		body     bool
		options  []CallOption
		attempts []attempt
		want     string
		took     time.Duration
		sent     int
	}{
		"GET":                                  {"GET", false, nil, []attempt{slow, fast}, "1", 110 * ms, 2},
		"HEAD":                                 {"HEAD", false, nil, []attempt{slow, fast}, "1", 110 * ms, 2},
		"not due":                              {"GET", false, nil, []attempt{fast}, "0", 10 * ms, 1},
		"POST":                                 {"POST", true, nil, []attempt{slow, fast}, "0", 10 * time.Second, 1},
		"POST that changes nothing":            {"POST", true, []CallOption{ReadOnly()}, []attempt{slow, fast}, "1", 110 * ms, 2},
		"an answer of both":                    {"GET", false, nil, []attempt{{150 * ms, 200, true}, {150 * ms, 200, true}}, "0", 250 * ms, 2},
		"both at once":                         {"GET", false, nil, []attempt{{150 * ms, 200, true}, {50 * ms, 200, true}}, "", 150 * ms, 2},
		"an answer that is none":               {"GET", false, nil, []attempt{{150 * ms, 500, false}, {100 * ms, 200, false}}, "1", 200 * ms, 2},
		"not found is an answer":               {"GET", false, nil, []attempt{slow, {10 * ms, 404, false}}, "1", 110 * ms, 2},
		"the third":                            {"GET", false, nil, []attempt{slow, slow, fast}, "2", 210 * ms, 3},
		"the first, late":                      {"GET", false, nil, []attempt{{200 * ms, 200, true}, {50 * ms, 200, true}}, "1", 200 * ms, 2},
		"the second while the first is judged": {"GET", false, []CallOption{slowly}, []attempt{{150 * ms, 404, false}, {60 * ms, 200, false}}, "0", 250 * ms, 2},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				client := opened(t, map[string]string{"billing": hedges})
				bodies := make([]*content, 0, 3)
				contexts := make([]context.Context, 0, 3)
				turn := make(chan int, 1)
				turn <- 0
				rt := client.RoundTripper("billing", remote(func(req *http.Request) (*http.Response, error) {
					n := <-turn
					a := c.attempts[min(n, len(c.attempts)-1)]
					resp, body := respond(a.status, string(rune('0'+n)))
					bodies, contexts = append(bodies, body), append(contexts, req.Context())
					turn <- n + 1
					if text, _ := io.ReadAll(orEmpty(req.Body)); c.body != (string(text) == "text") {
						t.Errorf("attempt %d sent %q", n, text)
					}
					select {
					case <-time.After(a.took):
					case <-over(req.Context(), a.deaf):
						_ = body.Close()
						return nil, req.Context().Err()
					}
					return resp, nil
				}), c.options...)
				var sent io.Reader
				if c.body {
					sent = strings.NewReader("text")
				}
				begun := time.Now()
				resp, err := rt.RoundTrip(request(t, c.method, sent))
				if took := time.Since(begun); err != nil || took != c.took || len(bodies) != c.sent {
					t.Fatalf("%d were sent, %v after %v", len(bodies), err, took)
				}
				text, err := io.ReadAll(resp.Body)
				if err != nil || c.want != "" && string(text) != c.want {
					t.Errorf("got %q, %v", text, err)
				}
				if n := client.Stats().Dependencies[0].InUse; n != 0 {
					t.Errorf("%d places are taken", n)
				}
				_ = resp.Body.Close()
				for i, body := range bodies {
					if body.closed == 0 || contexts[i].Err() == nil {
						t.Errorf("answer %d was closed %d times, its context: %v", i, body.closed, contexts[i].Err())
					}
				}
			})
		})
	}
}

func orEmpty(body io.Reader) io.Reader {
	if body == nil || body == io.Reader(http.NoBody) {
		return strings.NewReader("")
	}
	return body
}

// over is closed when the context ends, unless nobody listens to that.
func over(ctx context.Context, deaf bool) <-chan struct{} {
	if deaf {
		return nil
	}
	return ctx.Done()
}
