package client

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/holdfast-dev/holdfast/internal/bulkhead"
	"github.com/holdfast-dev/holdfast/internal/degrade"
	"github.com/holdfast-dev/holdfast/internal/guard"
)

// HTTPClient returns a client for one dependency with connections of its own: see
// RoundTripper.
func (c *Client) HTTPClient(dependency string, options ...CallOption) *http.Client {
	return &http.Client{Transport: c.RoundTripper(dependency, nil, options...)}
}

// RoundTripper enforces the policy of a dependency on HTTP requests. base may be
// nil, which makes a transport of its own with the connections that the policy
// allows.
//
// What is called is the operation "http.GET", "http.POST" and so on, unless the
// option Operation names it. Status 429 counts as overload, other answers below 500
// as success, 501 for nothing, and the rest as failure; 502, 503 and 504 are tried
// again as UNAVAILABLE is, if the method is idempotent or the request has an
// Idempotency-Key, and its body can be sent again. Retry-After is obeyed. Classify
// gets an HTTPStatus for 400 and above. GET, HEAD and what is ReadOnly may be hedged,
// so that base and GetBody are called at the same time.
//
// The deadline of the policy bounds a request until its body is read; whoever gets a
// response closes its body, as always. A call that is not made ends with a
// *Rejection, and as always a response, of whatever status, is no error. Functions
// of fallbacks get the *http.Request and return an *http.Response; replies are not
// cached.
func (c *Client) RoundTripper(dependency string, base http.RoundTripper, options ...CallOption) http.RoundTripper {
	d := c.calls.client(dependency)
	if base == nil {
		base = c.resources.transport(d.Dependency)
	}
	return newRoundTripper(d, base, options)
}

// HTTPStatus is an HTTP status of 400 or more as an error.
type HTTPStatus int

// Error returns the status as text, such as "HTTP status 503 Service Unavailable".
func (s HTTPStatus) Error() string {
	return fmt.Sprintf("HTTP status %d %s", int(s), http.StatusText(int(s)))
}

// GRPCStatus returns the code that comes nearest; FailedPrecondition for an answer
// that is the client's fault.
func (s HTTPStatus) GRPCStatus() *status.Status { return status.New(s.code(), s.Error()) }

func (s HTTPStatus) code() codes.Code {
	switch {
	case s == http.StatusTooManyRequests:
		return codes.ResourceExhausted
	case s < http.StatusInternalServerError:
		return codes.FailedPrecondition
	case s == http.StatusNotImplemented:
		return codes.Unimplemented
	case s == http.StatusBadGateway, s == http.StatusServiceUnavailable, s == http.StatusGatewayTimeout:
		return codes.Unavailable
	default:
		return codes.Internal
	}
}

// statusError returns the status of a response as an error; nil below 400.
func statusError(resp *http.Response) error {
	if resp.StatusCode < http.StatusBadRequest {
		return nil
	}
	return HTTPStatus(resp.StatusCode)
}

// roundTripper calls one dependency.
type roundTripper struct {
	dependency *dependency
	base       http.RoundTripper
	options    callOptions
}

func newRoundTripper(d *dependency, base http.RoundTripper, options []CallOption) *roundTripper {
	rt := &roundTripper{dependency: d, base: base}
	rt.options.take(options)
	return rt
}

// httpOperation returns the operation that requests of an HTTP method are. All
// methods that nobody knows are one, so that they are not without number.
func httpOperation(method string) string {
	switch method {
	case "", http.MethodGet: // as net/http has it
		return "http.GET"
	case http.MethodHead:
		return "http.HEAD"
	case http.MethodPost:
		return "http.POST"
	case http.MethodPut:
		return "http.PUT"
	case http.MethodPatch:
		return "http.PATCH"
	case http.MethodDelete:
		return "http.DELETE"
	case http.MethodConnect:
		return "http.CONNECT"
	case http.MethodOptions:
		return "http.OPTIONS"
	case http.MethodTrace:
		return "http.TRACE"
	default:
		return "http.other"
	}
}

func (rt *roundTripper) target(method string) *target {
	name := rt.options.operation
	if name == "" {
		name = httpOperation(method)
	}
	return rt.dependency.target(name, guard.Operation)
}

// RoundTrip implements http.RoundTripper.
func (rt *roundTripper) RoundTrip(req *http.Request) (*http.Response, error) {
	if rt.dependency.calls.disabled() {
		return rt.base.RoundTrip(req)
	}
	ctx, t := req.Context(), rt.target(req.Method)
	s := t.Now()
	call := newHTTPCall(rt, s, req)
	defer call.end()
	q := &httpQuestion{req: req}
	if !s.Plan.Empty() {
		if by, err := t.point.Before(ctx, s, q); by != "" || err != nil {
			return q.marked(by), err
		}
	}
	err := t.Call(ctx, call.setting, call)
	if err == nil {
		return call.answer, nil
	}
	if t.point.Prepared(s) {
		if by := t.point.After(ctx, s, degrade.Outcome(s.Policy, call.options.result(call.setting, err), notMade(err)), err, q); by != "" {
			call.discard()
			return q.marked(by), nil
		}
	}
	if call.answer != nil {
		if _, ok := errors.AsType[HTTPStatus](err); ok {
			return call.answer, nil
		}
		call.discard()
	}
	return nil, err
}

// CloseIdleConnections lets (*http.Client).CloseIdleConnections reach the base.
func (rt *roundTripper) CloseIdleConnections() {
	if base, ok := rt.base.(interface{ CloseIdleConnections() }); ok {
		base.CloseIdleConnections()
	}
}

// retryAfter returns what a response says about when to come back.
func retryAfter(resp *http.Response) (time.Duration, bool) {
	text := resp.Header.Get("Retry-After")
	if text == "" {
		return 0, false
	}
	if seconds, err := strconv.ParseUint(text, 10, 31); err == nil {
		return time.Duration(seconds) * time.Second, true
	}
	if at, err := http.ParseTime(text); err == nil {
		return max(0, time.Until(at)), true
	}
	return 0, false
}

// rejectedHeader tells that a server did not handle a request, and why, which says
// nothing about how it is.
const rejectedHeader = "Holdfast-Rejected"

// Handler lets an HTTP server keep the deadlines that RoundTripper sends along,
// and the priority. A request that comes too late gets status 504 at once. It
// belongs outside of handlers that write to the response: MarkDegraded sets a header.
func (c *Client) Handler(next http.Handler) http.Handler { return newHandler(c.calls, next) }

func newHandler(c *calls, next http.Handler) http.Handler {
	d := c.server()
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if c.disabled() {
			next.ServeHTTP(w, r)
			return
		}
		ctx := context.WithValue(r.Context(), headerKey{}, w.Header())
		if timeout, ok := receivedTimeout(r.Header); ok {
			var cancel context.CancelFunc
			ctx, cancel = WithRemaining(ctx, timeout)
			defer cancel()
		}
		if p, ok := bulkhead.ParsePriority(r.Header.Get(priorityKey)); ok && p != Normal {
			ctx = WithPriority(ctx, p)
		}
		t := d.target(httpOperation(r.Method), guard.Operation)
		if err := t.Due(ctx, t.Now()); err != nil {
			w.Header().Set(rejectedHeader, string(DeadlineTooNear))
			http.Error(w, err.Error(), http.StatusGatewayTimeout)
			return
		}
		next.ServeHTTP(w, r.WithContext(ctx))
	})
}
