package client

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/holdfast-dev/holdfast/internal/breaker"
	"github.com/holdfast-dev/holdfast/internal/guard"
	"github.com/holdfast-dev/holdfast/internal/replies"
)

// An answer that is not wanted is read to its end, so that its connection can be
// used again, if that is not further than maxDrainBytes and maxDrainTime.
const (
	maxDrainBytes = 16 << 10
	maxDrainTime  = 50 * time.Millisecond
)

// httpCall is a request that a Target makes, maybe several times.
type httpCall struct {
	base    http.RoundTripper
	req     *http.Request
	setting *guard.Setting
	options callOptions
	again   bool           // the request may be sent more than once, and can be
	sent    bool           // the body of req has gone to the base, which closes it
	answer  *http.Response // of the last attempt; nil if it had none
	body    *httpBody      // of answer
	twins   []*httpCall    // hedges
}

// newHTTPCall looks whether the request may be repeated, by RFC 9110 section 9.2.2,
// by its Idempotency-Key or because somebody said so.
func newHTTPCall(rt *roundTripper, s *guard.Setting, req *http.Request) *httpCall {
	c := &httpCall{base: rt.base, req: req, setting: s, options: rt.options}
	idempotent, readOnly := rt.options.idempotent || s.Idempotent, rt.options.readOnly
	switch req.Method {
	case "", http.MethodGet, http.MethodHead:
		idempotent, readOnly = true, true
	case http.MethodOptions, http.MethodTrace, http.MethodPut, http.MethodDelete:
		idempotent = true
	default:
		idempotent = idempotent || req.Header.Get("Idempotency-Key") != ""
	}
	if c.again = idempotent && (req.Body == nil || req.Body == http.NoBody || req.GetBody != nil); c.again {
		c.setting = s.Repeatable()
		if readOnly {
			c.setting = s.ReadOnly()
		}
	}
	return c
}

// Invoke implements guard.Invocation.
func (c *httpCall) Invoke(ctx context.Context, _ int) error {
	c.discard()
	// The context of an attempt ends with it, but the body is read afterwards.
	live, cancel := c.live(ctx)
	attempt, err := c.attempt(live)
	if err != nil {
		cancel()
		return err
	}
	lost := func() bool { return false }
	if c.setting.Hedged() { // the answer that another attempt gets first ends this one
		stop := context.AfterFunc(ctx, cancel)
		lost = func() bool { return !stop() }
	}
	resp, err := c.base.RoundTrip(attempt)
	if err == nil && lost() {
		if err = ctx.Err(); resp.Body != nil {
			_ = resp.Body.Close() // its context has ended
		}
	}
	if err != nil {
		cancel()
		return err
	}
	c.hold(live, cancel, resp)
	return statusError(resp)
}

// live returns a context that ends when the caller's does, or at the deadline of an
// attempt.
func (c *httpCall) live(attempt context.Context) (context.Context, context.CancelFunc) {
	if deadline, ok := attempt.Deadline(); ok {
		return context.WithDeadline(c.req.Context(), deadline)
	}
	return context.WithCancel(c.req.Context())
}

// attempt returns the request to send: the caller's must not be changed.
func (c *httpCall) attempt(ctx context.Context) (*http.Request, error) {
	req := c.req.WithContext(ctx)
	req.Header = c.req.Header.Clone()
	if req.Header == nil {
		req.Header = http.Header{}
	}
	sendTimeout(ctx, req.Header)
	if p := PriorityOf(ctx); p != Normal {
		req.Header.Set(priorityKey, p.String())
	}
	if c.sent && c.req.GetBody != nil {
		body, err := c.req.GetBody()
		if err != nil {
			return nil, err
		}
		req.Body = body
	}
	c.sent = true
	return req, nil
}

// closeRequest closes the body of a request that was not sent.
func (c *httpCall) closeRequest() {
	if !c.sent && c.req.Body != nil {
		_ = c.req.Body.Close() // a round tripper closes it whatever happens
	}
}

// hold makes a response the answer, with the context in which its body is read.
func (c *httpCall) hold(live context.Context, cancel context.CancelFunc, resp *http.Response) {
	b := &httpBody{ReadCloser: resp.Body, cancel: cancel}
	c.answer, c.body = resp, b
	if resp.Body == nil || resp.Body == http.NoBody {
		resp.Body = http.NoBody
		b.ReadCloser = http.NoBody
		b.finish()
		return
	}
	resp.Body = b
	if w, ok := b.ReadCloser.(io.Writer); ok { // of a protocol that both switched to
		resp.Body = &struct {
			*httpBody
			io.Writer
		}{b, w}
	}
	// Who forgets to close a body must not hold its place longer than the deadline.
	b.mu.Lock()
	defer b.mu.Unlock()
	b.forget = context.AfterFunc(live, b.finish)
}

// discard drops the answer of an attempt that was not good enough.
func (c *httpCall) discard() {
	if c.answer == nil {
		return
	}
	if c.answer.ContentLength <= maxDrainBytes { // or its length is not known
		timer := time.AfterFunc(maxDrainTime, c.body.cancel)
		_, _ = io.CopyN(io.Discard, c.answer.Body, maxDrainBytes+1) // closing it is all the same then
		timer.Stop()
	}
	_ = c.answer.Body.Close() // nobody reads it
	c.answer, c.body = nil, nil
}

// Result implements guard.Invocation. Answers that are errors give their places back
// at once: a retry may need them.
func (c *httpCall) Result(_ context.Context, err error) guard.Result {
	if err == nil {
		return guard.Result{Keep: true}
	}
	r := c.options.result(c.setting, err)
	switch {
	case c.answer == nil && r.Code == codes.Unknown && !r.Classified: // the connection failed in some way
		r.Code = codes.Unavailable
	case c.answer == nil:
	case c.answer.Header.Get(rejectedHeader) != "":
		r = decided(r, breaker.Neutral, false)
	case r.Code == codes.Unavailable, r.Code == codes.ResourceExhausted:
		r.PushBack, r.PushedBack = retryAfter(c.answer)
	}
	if !c.again {
		r.Retry, r.RetryKnown = false, true
	}
	return r
}

// Twin implements guard.Invocation: its setting tells that the request can be sent
// again.
func (c *httpCall) Twin() guard.Invocation {
	twin := &httpCall{base: c.base, req: c.req, setting: c.setting, options: c.options, again: true, sent: true}
	c.twins = append(c.twins, twin)
	return twin
}

// Adopt implements guard.Invocation.
func (c *httpCall) Adopt(twin guard.Invocation) {
	if other, ok := twin.(*httpCall); ok {
		c.discard()
		c.answer, c.body, other.answer, other.body = other.answer, other.body, nil, nil
	}
}

// end lets go of what is of no use once the call is over: the body of a request that
// was not sent, and the answers of hedges that lost.
func (c *httpCall) end() {
	c.closeRequest()
	for _, twin := range c.twins {
		if twin.answer != nil {
			_ = twin.answer.Body.Close() // nobody reads it
		}
	}
}

// Keep implements guard.Keeper: the place in the bulkhead is taken until the body is
// read.
func (c *httpCall) Keep(place guard.Place) { c.body.keep(place) }

// httpBody is a body that ends its context, and gives back the place of its request,
// when it is read to the end, fails, or is closed.
type httpBody struct {
	io.ReadCloser
	cancel context.CancelFunc
	forget func() bool // takes back what happens when the context ends

	mu    sync.Mutex
	ended bool
	place *guard.Place
}

// Read implements io.Reader.
func (b *httpBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if err != nil {
		b.finish()
	}
	return n, err
}

// Close implements io.Closer.
func (b *httpBody) Close() error {
	defer b.finish()
	return b.ReadCloser.Close()
}

func (b *httpBody) keep(place guard.Place) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.ended {
		place.Release()
		return
	}
	b.place = &place
}

func (b *httpBody) finish() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.ended {
		return
	}
	b.ended = true
	if b.place != nil {
		b.place.Release()
	}
	if b.forget != nil {
		b.forget()
	}
	b.cancel()
}

// httpQuestion is a request that a fallback may answer.
type httpQuestion struct {
	req    *http.Request
	answer *http.Response
}

// Request implements degrade.Question.
func (q *httpQuestion) Request() any { return q.req }

// Key implements degrade.Question: bodies are not cached.
func (q *httpQuestion) Key([]string) (replies.Key, bool) { return replies.Key{}, false }

// Reply implements degrade.Question.
func (q *httpQuestion) Reply() (reply any, size int, ok bool) { return nil, 0, false }

// Recall implements degrade.Question.
func (q *httpQuestion) Recall(any) error { return errors.ErrUnsupported }

// Check implements degrade.Question.
func (q *httpQuestion) Check(answer any) error {
	if resp, ok := answer.(*http.Response); !ok || resp == nil {
		return fmt.Errorf("answered with a %T; an *http.Response is needed", answer)
	}
	return nil
}

// Accept implements degrade.Question.
func (q *httpQuestion) Accept(answer any) { q.answer, _ = answer.(*http.Response) }

// marked returns the answer, with what net/http promises of a response, and by whom
// it is degraded; nil without one.
func (q *httpQuestion) marked(by string) *http.Response {
	if q.answer == nil {
		return nil
	}
	resp := *q.answer
	resp.Header = resp.Header.Clone()
	if resp.Header == nil {
		resp.Header = http.Header{}
	}
	resp.Header.Set(DegradedKey, by)
	if resp.Body == nil {
		resp.Body = http.NoBody
	}
	if resp.Request == nil {
		resp.Request = q.req
	}
	return &resp
}
