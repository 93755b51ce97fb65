package client

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/holdfast-dev/holdfast/internal/breaker"
)

func TestHTTPDeadlineLivesAsLongAsTheBody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := opened(t, map[string]string{"billing": `{"timeouts":{"call":"1s","http.PUT":"3s"}}`})
		var sent *http.Request
		rt := c.RoundTripper("billing", remote(func(req *http.Request) (*http.Response, error) {
			sent = req
			resp, _ := respond(http.StatusOK, "text")
			return resp, nil
		}))
		req := request(t, "GET", nil)
		resp, err := rt.RoundTrip(req)
		if err != nil {
			t.Fatal(err)
		}
		if got := sent.Header.Get(timeoutHeader); got != "1000" {
			t.Errorf("the server was told %q ms", got)
		}
		if len(req.Header) != 0 {
			t.Errorf("the caller's request has got %v", req.Header)
		}
		if err := sent.Context().Err(); err != nil {
			t.Errorf("the context ended before the body was read: %v", err)
		}
		resp.Body.Close()
		if sent.Context().Err() == nil {
			t.Error("the context goes on after the body was closed")
		}

		resp, _ = rt.RoundTrip(request(t, "GET", nil))
		if _, err := io.ReadAll(resp.Body); err != nil || sent.Context().Err() == nil {
			t.Errorf("the context goes on after the body was read (%v)", err)
		}

		_, _ = rt.RoundTrip(request(t, "PUT", nil)) // and nobody closes the body
		time.Sleep(3*time.Second - time.Nanosecond) //nolint:forbidigo // virtual time
		if sent.Context().Err() != nil {
			t.Error("the context of a PUT has ended before 3 s")
		}
		time.Sleep(time.Nanosecond) //nolint:forbidigo // virtual time
		synctest.Wait()
		if !errors.Is(sent.Context().Err(), context.DeadlineExceeded) {
			t.Error("the context of a PUT goes on after 3 s")
		}
	})
}

func TestHTTPTimeoutIsTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := opened(t, map[string]string{"billing": `{"timeouts":{"call":"1s"},"retry_policy":{"max_attempts":1}}`})
		_, err := c.RoundTripper("billing", remote(func(req *http.Request) (*http.Response, error) {
			<-req.Context().Done()
			return nil, req.Context().Err()
		})).RoundTrip(request(t, "GET", nil))
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v", err)
		}
		if got := c.stats("billing", "http.GET"); got.Results[breaker.Failure] != 1 || got.Timeouts != 1 {
			t.Errorf("counted as %v with %d timeouts", got.Results, got.Timeouts)
		}
	})
}

func TestHTTPCallerGivesUp(t *testing.T) {
	c := opened(t, nil)
	ctx, cancel := context.WithCancel(t.Context())
	_, err := c.RoundTripper("billing", remote(func(req *http.Request) (*http.Response, error) {
		cancel()
		<-req.Context().Done()
		return nil, req.Context().Err()
	})).RoundTrip(request(t, "GET", nil).WithContext(ctx))
	if !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	if got := c.stats("billing", "http.GET").Results; got[breaker.Neutral] != 1 {
		t.Errorf("counted as %v, want neutral", got)
	}
}

func TestHTTPBodyKeepsThePlace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := opened(t, map[string]string{"billing": `{"bulkhead":{"max_concurrent":1},"timeouts":{"call":"1s"}}`})
		rt := c.RoundTripper("billing", remote(func(req *http.Request) (*http.Response, error) {
			if req.Method == "HEAD" {
				resp, _ := respond(http.StatusOK, "")
				resp.Body = http.NoBody
				return resp, nil
			}
			resp, _ := respond(http.StatusOK, "text")
			return resp, nil
		}))
		call := func() *http.Response {
			t.Helper()
			resp, err := rt.RoundTrip(request(t, "GET", nil))
			if err != nil {
				t.Fatal(err)
			}
			if _, err := rt.RoundTrip(request(t, "GET", nil)); !errors.Is(err, BulkheadFull) {
				t.Fatalf("a second request while a body is open: %v", err)
			}
			return resp
		}
		call().Body.Close()
		_, _ = io.ReadAll(call().Body)
		resp := call()
		resp.Body.Close()
		resp.Body.Close()       // once more gives no place away
		call()                  // forgotten: the deadline gives the place back
		time.Sleep(time.Second) //nolint:forbidigo // virtual time
		synctest.Wait()
		for range 3 {
			if _, err := rt.RoundTrip(request(t, "HEAD", nil)); err != nil { // has no body to close
				t.Fatal(err)
			}
		}
		call().Body.Close()
		if use := c.calls.guard.Stats().Dependencies[0].InUse; use != 0 {
			t.Errorf("%d places are taken in the end", use)
		}
	})
}

// TestHTTPRetryNeedsOnePlace has one place for a call whose first answer is bad.
func TestHTTPRetryNeedsOnePlace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := opened(t, map[string]string{"billing": `{"bulkhead":{"max_concurrent":1}}`})
		attempts := 0
		resp, err := c.RoundTripper("billing", remote(func(*http.Request) (*http.Response, error) {
			attempts++
			status := http.StatusServiceUnavailable
			if attempts == 3 {
				status = http.StatusOK
			}
			resp, _ := respond(status, "text")
			return resp, nil
		})).RoundTrip(request(t, "GET", nil))
		if err != nil || resp.StatusCode != http.StatusOK {
			t.Fatal(resp, err)
		}
		resp.Body.Close()
	})
}

func TestHTTPDrainingIsBounded(t *testing.T) {
	if maxDrainBytes != 16<<10 || maxDrainTime != 50*time.Millisecond {
		t.Errorf("the bounds are %d bytes and %v; docs/limits.md says 16 KiB and 50 ms", maxDrainBytes, maxDrainTime)
	}
	synctest.Test(t, func(t *testing.T) {
		for _, test := range []struct {
			what   string
			size   int
			length int64
			slow   bool
			read   int
			took   time.Duration
		}{
			{"a small body", maxDrainBytes, maxDrainBytes, false, maxDrainBytes, 0},
			{"a small body of unknown length", maxDrainBytes, -1, false, maxDrainBytes, 0},
			{"a large body", maxDrainBytes + 1, maxDrainBytes + 1, false, 0, 0},
			{"a large body of unknown length", 10 * maxDrainBytes, -1, false, maxDrainBytes + 1, 0},
			{"a slow body", 10, 10, true, 0, maxDrainTime},
		} {
			c := opened(t, map[string]string{"billing": `{"retry_policy":{"initial_delay":"1ms","max_delay":"1ms","jitter":"none"}}`})
			attempts := 0
			var first *content
			start := time.Now()
			resp, err := c.RoundTripper("billing", remote(func(req *http.Request) (*http.Response, error) {
				if attempts++; attempts > 1 {
					resp, _ := respond(http.StatusOK, "")
					return resp, nil
				}
				resp, body := respond(http.StatusServiceUnavailable, strings.Repeat("x", test.size))
				if test.slow {
					body.Reader = readerFunc(func([]byte) (int, error) { <-req.Context().Done(); return 0, req.Context().Err() })
				}
				first, resp.ContentLength = body, test.length
				return resp, nil
			})).RoundTrip(request(t, "GET", nil))
			if err != nil || resp.StatusCode != http.StatusOK || first.read != test.read || first.closed != 1 || time.Since(start) != test.took+time.Millisecond {
				t.Errorf("%s: %v; %d bytes were read in %v, closed %d times", test.what, err, first.read, time.Since(start), first.closed)
			}
		}
	})
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

func TestHTTPUpgradeKeepsItsWriter(t *testing.T) {
	c := opened(t, nil)
	var wrote []byte
	type duplex struct {
		*content
		io.Writer
	}
	resp, err := c.RoundTripper("billing", remote(func(*http.Request) (*http.Response, error) {
		resp, body := respond(http.StatusSwitchingProtocols, "hello")
		resp.ContentLength = -1
		resp.Body = duplex{body, writerFunc(func(p []byte) (int, error) { wrote = append(wrote, p...); return len(p), nil })}
		return resp, nil
	})).RoundTrip(request(t, "GET", nil))
	if err != nil {
		t.Fatal(err)
	}
	w, ok := resp.Body.(io.Writer)
	if !ok {
		t.Fatal("nobody can write to the connection")
	}
	fmt.Fprint(w, "hi")
	text := make([]byte, 5)
	if _, err := io.ReadFull(resp.Body, text); err != nil || string(text) != "hello" || string(wrote) != "hi" {
		t.Errorf("read %q, wrote %q, %v", text, wrote, err)
	}
	resp.Body.Close()
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }
