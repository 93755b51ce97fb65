package client

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/holdfast-dev/holdfast/internal/breaker"
	"github.com/holdfast-dev/holdfast/internal/document"
	"github.com/holdfast-dev/holdfast/internal/guard"
)

// remote is an HTTP server without a network.
type remote func(*http.Request) (*http.Response, error)

func (r remote) RoundTrip(req *http.Request) (*http.Response, error) {
	resp, err := r(req)
	if req.Body != nil {
		_ = req.Body.Close() // as round trippers do
	}
	return resp, err
}

// content is a body that tells how it is treated.
type content struct {
	io.Reader
	read   int
	closed int
}

func (c *content) Read(p []byte) (int, error) {
	n, err := c.Reader.Read(p)
	c.read += n
	return n, err
}

func (c *content) Close() error { c.closed++; return nil }

func respond(status int, text string, header ...string) (*http.Response, *content) {
	body := &content{Reader: strings.NewReader(text)}
	resp := &http.Response{StatusCode: status, Header: http.Header{}, Body: body, ContentLength: int64(len(text))}
	for i := 0; i < len(header); i += 2 {
		resp.Header.Set(header[i], header[i+1])
	}
	return resp, body
}

func request(t *testing.T, method string, body io.Reader) *http.Request {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, "http://billing/x", body)
	if err != nil {
		t.Fatal(err)
	}
	return req
}

func TestHTTPRetriesWhatMayBeRepeated(t *testing.T) {
	type once struct{ io.Reader } // not replayable
	const plain = `{"description":"x"}`
	for _, test := range []struct {
		what, method string
		body         io.Reader
		key          bool
		policy       string
		want         int
	}{
		{"GET", "GET", nil, false, plain, 2},
		{"DELETE", "DELETE", nil, false, plain, 2},
		{"PUT with a body", "PUT", strings.NewReader("text"), false, plain, 2},
		{"PUT with a body that is gone", "PUT", once{strings.NewReader("text")}, false, plain, 1},
		{"POST", "POST", strings.NewReader("text"), false, plain, 1},
		{"PATCH", "PATCH", strings.NewReader("text"), false, plain, 1},
		{"POST with a key", "POST", strings.NewReader("text"), true, plain, 2},
		{"POST that the policy lets repeat", "POST", strings.NewReader("text"), false, `{"retry_policy":{"idempotent":["http.POST"]}}`, 2},
		{"GET whose connection breaks", "GET", nil, false, plain, 2},
		{"code that is not retried", "GET", nil, false, `{"retry_policy":{"retryable":["INTERNAL"]}}`, 1},
	} {
		t.Run(test.what, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := opened(t, map[string]string{"billing": test.policy})
				var bodies []*content
				rt := c.RoundTripper("billing", remote(func(req *http.Request) (*http.Response, error) {
					if test.body != nil {
						if text, err := io.ReadAll(req.Body); string(text) != "text" || err != nil {
							t.Errorf("attempt %d sent %q, %v", len(bodies)+1, text, err)
						}
					}
					if len(bodies) == 0 && strings.Contains(test.what, "breaks") {
						_, body := respond(0, "busy")
						bodies = append(bodies, body)
						_, _ = io.ReadAll(body)
						return nil, errors.Join(errors.New("transport closed"), body.Close())
					}
					status := http.StatusServiceUnavailable
					if len(bodies) > 0 {
						status = http.StatusOK
					}
					resp, body := respond(status, "busy")
					bodies = append(bodies, body)
					return resp, nil
				}))
				req := request(t, test.method, test.body)
				if test.key {
					req.Header.Set("Idempotency-Key", "1")
				}
				resp, err := rt.RoundTrip(req)
				if err != nil || len(bodies) != test.want {
					t.Fatalf("%d attempts, %v; want %d", len(bodies), err, test.want)
				}
				if test.want == 2 && (resp.StatusCode != 200 || bodies[0].closed != 1 || bodies[0].read != 4) {
					t.Errorf("status %d; the answer before it was closed %d times after %d bytes", resp.StatusCode, bodies[0].closed, bodies[0].read)
				}
				if text, err := io.ReadAll(resp.Body); string(text) != "busy" || err != nil {
					t.Errorf("the body is %q, %v", text, err)
				}
				resp.Body.Close()
			})
		})
	}
}

// An attempt that runs into per_attempt is made again, as that of any other call.
func TestHTTPRetriesAttemptsThatTakeTooLong(t *testing.T) {
	for method, want := range map[string]int{"GET": 2, "POST": 1} {
		t.Run(method, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := opened(t, map[string]string{"billing": `{"timeouts":{"per_attempt":"1s"}}`})
				made := 0
				resp, err := c.RoundTripper("billing", remote(func(req *http.Request) (*http.Response, error) {
					if made++; made == 1 {
						<-req.Context().Done()
						return nil, req.Context().Err()
					}
					resp, _ := respond(200, "")
					return resp, nil
				})).RoundTrip(request(t, method, nil))
				if made != want || (err == nil) != (want == 2) {
					t.Errorf("%d attempts, %v; want %d", made, err, want)
				}
				if err == nil {
					resp.Body.Close()
				}
			})
		})
	}
}

// What a classifier calls a failure is tried again where the method may be.
func TestHTTPRetriesWhatIsClassified(t *testing.T) {
	for method, want := range map[string]int{"GET": 2, "POST": 1} {
		t.Run(method, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := opened(t, nil)
				made := 0
				resp, err := c.RoundTripper("billing", remote(func(*http.Request) (*http.Response, error) {
					status := http.StatusOK
					if made++; made == 1 {
						status = http.StatusLocked
					}
					resp, _ := respond(status, "")
					return resp, nil
				}), Classify(func(error) Outcome { return Failure })).RoundTrip(request(t, method, nil))
				if err != nil || made != want {
					t.Fatalf("%d attempts, %v; want %d", made, err, want)
				}
				resp.Body.Close()
			})
		})
	}
}

func TestHTTPObeysRetryAfter(t *testing.T) {
	for _, test := range []struct {
		after    func() string
		attempts int
		took     time.Duration
	}{
		{func() string { return "2" }, 2, 2 * time.Second},
		{func() string { return time.Now().Add(3 * time.Second).UTC().Format(http.TimeFormat) }, 2, 3 * time.Second},
		{func() string { return "3600" }, 1, 0}, // longer than the call may take
	} {
		synctest.Test(t, func(t *testing.T) {
			c := opened(t, nil)
			attempts := 0
			start := time.Now()
			resp, err := c.RoundTripper("billing", remote(func(*http.Request) (*http.Response, error) {
				if attempts++; attempts == 1 {
					resp, _ := respond(http.StatusServiceUnavailable, "", "Retry-After", test.after())
					return resp, nil
				}
				resp, _ := respond(http.StatusOK, "")
				return resp, nil
			})).RoundTrip(request(t, "GET", nil))
			if err != nil || attempts != test.attempts || time.Since(start) != test.took {
				t.Errorf("%q: %d attempts in %v, %v; want %d in %v", test.after(), attempts, time.Since(start), err, test.attempts, test.took)
			}
			resp.Body.Close()
		})
	}
}

func TestHTTPStatusesMean(t *testing.T) {
	for status, want := range map[int]breaker.Class{
		200: breaker.Success, 204: breaker.Success, 304: breaker.Success, 400: breaker.Success, 404: breaker.Success, 409: breaker.Success,
		429: breaker.Overload, 500: breaker.Failure, 501: breaker.Neutral, 502: breaker.Failure, 503: breaker.Failure, 504: breaker.Failure, 507: breaker.Failure,
	} {
		c := opened(t, map[string]string{"billing": `{"retry_policy":{"max_attempts":1}}`})
		resp, err := c.RoundTripper("billing", remote(func(*http.Request) (*http.Response, error) {
			resp, _ := respond(status, "")
			return resp, nil
		})).RoundTrip(request(t, "GET", nil))
		if err != nil || resp.StatusCode != status {
			t.Errorf("%d came back as %v, %v", status, resp, err)
		}
		if got := c.stats("billing", "http.GET").Results; got[want] != 1 {
			t.Errorf("%d counted as %v, want class %d", status, got, want)
		}
	}
}

func TestHTTPClassifies(t *testing.T) {
	c := opened(t, nil)
	classify := Classify(func(err error) Outcome {
		if status, ok := errors.AsType[HTTPStatus](err); ok && status == http.StatusNotFound {
			return Failure
		}
		return Unclassified
	})
	resp, err := c.RoundTripper("billing", remote(func(*http.Request) (*http.Response, error) {
		resp, _ := respond(http.StatusNotFound, "")
		return resp, nil
	}), classify, Operation("lookup")).RoundTrip(request(t, "POST", nil))
	if err != nil || resp.StatusCode != http.StatusNotFound {
		t.Fatal(resp, err)
	}
	if got := c.stats("billing", "lookup").Results; got[breaker.Failure] != 1 {
		t.Errorf("counted as %v, want one failure", got)
	}
}

func TestHTTPBreakerOpens(t *testing.T) {
	c := opened(t, nil)
	calls := 0
	broken := errors.New("connection reset")
	rt := c.RoundTripper("billing", remote(func(*http.Request) (*http.Response, error) { calls++; return nil, broken }))
	for range 5 {
		if _, err := rt.RoundTrip(request(t, "POST", nil)); !errors.Is(err, broken) {
			t.Fatal(err)
		}
	}
	body := &content{Reader: strings.NewReader("text")}
	resp, err := rt.RoundTrip(request(t, "POST", body))
	if !errors.Is(err, BreakerOpen) || resp != nil || calls != 5 {
		t.Errorf("got %v, %v after %d calls, want a rejection after 5", resp, err, calls)
	}
	if body.closed != 1 || body.read != 0 {
		t.Errorf("the body of a request that was not sent was closed %d times and read %d bytes", body.closed, body.read)
	}
	c.RegisterFallback("http.POST", func(_ context.Context, call Call) (any, error) {
		if _, ok := call.Request.(*http.Request); !ok || !errors.Is(call.Cause, BreakerOpen) {
			return nil, fmt.Errorf("asked with %+v", call)
		}
		resp, _ := respond(http.StatusAccepted, "later")
		return resp, nil
	})
	resp, err = rt.RoundTrip(request(t, "POST", nil))
	if err != nil || resp.StatusCode != http.StatusAccepted || resp.Header.Get(DegradedKey) != "policy/billing; fallback" {
		t.Errorf("the fallback's answer is %v, %v", resp, err)
	}
}

func TestHTTPFallbackForABadAnswer(t *testing.T) {
	c := opened(t, nil)
	var bad *content
	rt := c.RoundTripper("billing", remote(func(*http.Request) (*http.Response, error) {
		var resp *http.Response
		resp, bad = respond(http.StatusInternalServerError, "sorry")
		return resp, nil
	}))
	c.RegisterFallback("http.GET", func(context.Context, Call) (any, error) { return "text", nil }, func(context.Context, Call) (any, error) {
		return &http.Response{StatusCode: http.StatusOK}, nil
	})
	resp, err := rt.RoundTrip(request(t, "GET", nil))
	if err != nil || resp.StatusCode != http.StatusOK || resp.Body == nil || resp.Request == nil || resp.Header.Get(DegradedKey) == "" {
		t.Errorf("got %+v, %v, want the second function's answer made whole", resp, err)
	}
	if bad.closed != 1 {
		t.Errorf("the body of the bad answer was closed %d times", bad.closed)
	}
}

func TestHTTPObeysModes(t *testing.T) {
	c := opened(t, nil)
	rt := c.RoundTripper("billing", remote(func(*http.Request) (*http.Response, error) {
		resp, _ := respond(http.StatusOK, "")
		return resp, nil
	}))
	c.degraded(`{"action":"reject","operations":["http.POST"],"side":"client"}`)
	body := &content{Reader: strings.NewReader("text")}
	if _, err := rt.RoundTrip(request(t, "POST", body)); !errors.Is(err, Degraded) || body.closed != 1 {
		t.Errorf("a POST: %v; its body was closed %d times", err, body.closed)
	}
	if _, err := rt.RoundTrip(request(t, "GET", nil)); err != nil {
		t.Errorf("a GET: %v", err)
	}
}

func TestHTTPNamesAreBounded(t *testing.T) {
	c := opened(t, nil)
	rt := c.RoundTripper("billing", remote(func(*http.Request) (*http.Response, error) {
		resp, _ := respond(http.StatusOK, "")
		return resp, nil
	}))
	for _, method := range []string{"GET", "BREW", "WHEN"} {
		if _, err := rt.RoundTrip(request(t, method, nil)); err != nil {
			t.Fatal(err)
		}
	}
	if n := c.stats("billing", "http.other").Calls; n != 2 {
		t.Errorf("%d calls of http.other, want 2", n)
	}
}

// TestHTTPServerGetsDeadlineAndPriority uses a real server and the client's own
// transport.
func TestHTTPServerGetsDeadlineAndPriority(t *testing.T) {
	c := opened(t, map[string]string{served: `{"timeouts":{"minimum":"10s"}}`, "billing": `{"timeouts":{"call":"1m"}}`})
	server := httptest.NewServer(c.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		left, bounded := Remaining(r.Context())
		if r.URL.Path == "/bounded" && (!bounded || left < 30*time.Second || left > time.Minute || !guard.IsHop(r.Context()) || PriorityOf(r.Context()) != High) {
			t.Errorf("%v are left (%v), hop %v, priority %v", left, bounded, guard.IsHop(r.Context()), PriorityOf(r.Context()))
		}
		if r.URL.Path == "/plain" && (bounded || PriorityOf(r.Context()) != Normal) {
			t.Errorf("%v are left (%v), priority %v", left, bounded, PriorityOf(r.Context()))
		}
		if err := MarkDegraded(r.Context(), "half of it"); err != nil {
			t.Error(err)
		}
	})))
	defer server.Close()
	client := c.HTTPClient("billing")
	defer client.CloseIdleConnections()

	send := func(client *http.Client, ctx context.Context, path string, header ...string) *http.Response {
		t.Helper()
		req, err := http.NewRequestWithContext(ctx, "GET", server.URL+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		for i := 0; i < len(header); i += 2 {
			req.Header.Set(header[i], header[i+1])
		}
		resp, err := client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		return resp
	}
	if resp := send(client, WithPriority(t.Context(), High), "/bounded"); resp.Header.Get(DegradedKey) != "half of it" {
		t.Errorf("marked by %q", resp.Header.Get(DegradedKey))
	}
	plain := &http.Client{Transport: &http.Transport{}}
	defer plain.CloseIdleConnections()
	for _, nonsense := range []string{"soon", "-1", "9223372036854775807", ""} {
		if resp := send(plain, t.Context(), "/plain", timeoutHeader, nonsense, priorityKey, "urgent!"); resp.StatusCode != http.StatusOK {
			t.Errorf("%q: %s", nonsense, resp.Status)
		}
	}
	short, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	if resp := send(client, short, "/late"); resp.StatusCode != http.StatusGatewayTimeout || resp.Header.Get(rejectedHeader) != string(DeadlineTooNear) {
		t.Errorf("with 5 s where 10 s are needed: %s", resp.Status)
	}
	if got := c.stats("billing", "http.GET").Results; got[breaker.Neutral] != 1 || got[breaker.Failure] != 0 {
		t.Errorf("the refusal counted as %v, want neutral", got)
	}
}

func TestHTTPConnectionsAreBounded(t *testing.T) {
	c := opened(t, nil)
	c.put(document.Policy, "billing", `{"bulkhead":{"max_connections":2}}`)
	var running, most atomic.Int32
	full, free := make(chan struct{}), make(chan struct{})
	server := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		if n := running.Add(1); n > most.Load() {
			most.Store(n)
			if n == 2 {
				close(full)
			}
		}
		<-free
		running.Add(-1)
	}))
	defer server.Close()
	client := c.HTTPClient("billing")
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			resp, err := client.Get(server.URL)
			if err != nil {
				t.Error(err)
				return
			}
			resp.Body.Close()
		})
	}
	<-full
	close(free)
	wg.Wait()
	if most.Load() != 2 {
		t.Errorf("%d requests ran at a time, want 2", most.Load())
	}

	own := c.resources.transport(c.calls.client("billing").Dependency)
	if client.Transport.(*roundTripper).base != own {
		t.Error("the client's connections are not those of the dependency alone")
	}
	was := own.now()
	c.put(document.Policy, "billing", `{"bulkhead":{"max_connections":2},"timeouts":{"call":"1s"}}`)
	if own.now() != was {
		t.Error("connections were given up though the policy says the same of them")
	}
	c.put(document.Policy, "billing", `{"bulkhead":{"max_connections":3},"timeouts":{"connect":"7s"}}`)
	if is := own.now(); is == was || is.MaxConnsPerHost != 3 || is.TLSHandshakeTimeout != 7*time.Second {
		t.Errorf("the transport has %d connections and %v after a change", own.now().MaxConnsPerHost, own.now().TLSHandshakeTimeout)
	}
	c.put(document.Policy, "billing", `{"enforcement":"observe","bulkhead":{"max_connections":3}}`)
	if own.now().MaxConnsPerHost != 0 {
		t.Error("a policy that only observes bounds connections")
	}
	was.CloseIdleConnections()
}

func TestHTTPStatusIsAStatus(t *testing.T) {
	if s := resultOf(fmt.Errorf("get: %w", HTTPStatus(503))); s.Code != codes.Unavailable {
		t.Errorf("503 is %v", s.Code)
	}
}

func BenchmarkHTTPRoundTrip(b *testing.B) {
	c, err := Open(b.Context(), Config{Service: "shop", Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		b.Fatal(err)
	}
	defer c.Close(context.Background())
	answer := &http.Response{StatusCode: http.StatusOK, Body: http.NoBody}
	base := remote(func(*http.Request) (*http.Response, error) { return answer, nil })
	req, err := http.NewRequestWithContext(b.Context(), "GET", "http://billing/x", nil)
	if err != nil {
		b.Fatal(err)
	}
	rt := c.RoundTripper("billing", base)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := rt.RoundTrip(req); err != nil {
			b.Fatal(err)
		}
	}
}

// TestHTTPRetryUsesTheConnectionAgain uses a real server, which closes no connection.
func TestHTTPRetryUsesTheConnectionAgain(t *testing.T) {
	c := opened(t, map[string]string{"billing": `{"retry_policy":{"initial_delay":"1ms","max_delay":"1ms"}}`})
	var attempts, connections atomic.Int32
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if text, err := io.ReadAll(r.Body); string(text) != "text" || err != nil {
			t.Errorf("the server got %q, %v", text, err)
		}
		if attempts.Add(1) < 3 {
			http.Error(w, strings.Repeat("busy ", 1000), http.StatusServiceUnavailable)
		}
	}))
	server.Config.ConnState = func(_ net.Conn, state http.ConnState) {
		if state == http.StateNew {
			connections.Add(1)
		}
	}
	server.Start()
	defer server.Close()
	req, err := http.NewRequestWithContext(t.Context(), "PUT", server.URL, strings.NewReader("text"))
	if err != nil {
		t.Fatal(err)
	}
	resp, err := c.HTTPClient("billing").Do(req)
	if err != nil || resp.StatusCode != http.StatusOK {
		t.Fatal(resp, err)
	}
	resp.Body.Close()
	if attempts.Load() != 3 || connections.Load() != 1 {
		t.Errorf("%d attempts on %d connections, want 3 on 1", attempts.Load(), connections.Load())
	}
}
