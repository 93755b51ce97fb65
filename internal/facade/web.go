package facade

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"runtime/debug"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/grpc/codes"

	"github.com/holdfast-dev/holdfast/proto/flagd/evaluation/v1/evaluationv1connect"
	"github.com/holdfast-dev/holdfast/proto/flagd/evaluation/v2/evaluationv2connect"
	syncv1 "github.com/holdfast-dev/holdfast/proto/flagd/sync/v1"
)

// newWeb returns the HTTP server: HTTP/1.1, and HTTP/2 also without TLS. There is
// no timeout for reading or writing as a whole, as streams have no end: headers
// and bodies have one, and each write of a stream.
func (s *Server) newWeb() *http.Server {
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	protocols.SetHTTP2(true)
	protocols.SetUnencryptedHTTP2(s.config.TLS == nil)
	config := s.config.TLS
	if config != nil {
		config = config.Clone() // the library adds to it
	}
	return &http.Server{
		Handler: s.handler(), TLSConfig: config, Protocols: protocols,
		ReadHeaderTimeout: 5 * time.Second, IdleTimeout: 2 * time.Minute, MaxHeaderBytes: maxHeaderBytes,
		HTTP2:    &http.HTTP2Config{SendPingTimeout: 30 * time.Second, PingTimeout: 10 * time.Second, WriteByteTimeout: sendTime},
		ErrorLog: slog.NewLogLogger(s.config.Logger.Handler(), slog.LevelDebug),
	}
}

// handler returns everything that the HTTP port answers, outermost what sees all.
func (s *Server) handler() http.Handler {
	mux := http.NewServeMux()
	(&ofrep{service: s.service, access: s.access}).routes(mux)
	options := connect.WithHandlerOptions(
		connect.WithReadMaxBytes(maxRequestBytes),
		connect.WithInterceptors(failing{}),
		connect.WithRecover(func(_ context.Context, spec connect.Spec, _ http.Header, p any) error {
			s.panicked(spec.Procedure, p)
			return failf(codes.Internal, "internal error: the handler of %s panicked", spec.Procedure)
		}),
	)
	mux.Handle(evaluationv1connect.NewServiceHandler(evaluationV1Connect{evaluationV1{s.service}}, options))
	mux.Handle(evaluationv2connect.NewServiceHandler(evaluationV2Connect{evaluationV2{s.service}}, options))
	unary := syncUnary{s.service}
	mux.Handle(syncv1.FlagSyncService_FetchAllFlags_FullMethodName,
		connect.NewUnaryHandlerSimple(syncv1.FlagSyncService_FetchAllFlags_FullMethodName, unary.FetchAllFlags, options))
	mux.Handle(syncv1.FlagSyncService_GetMetadata_FullMethodName,
		connect.NewUnaryHandlerSimple(syncv1.FlagSyncService_GetMetadata_FullMethodName, unary.GetMetadata, options))
	mux.Handle("POST "+syncv1.FlagSyncService_SyncFlags_FullMethodName, syncHTTP{s.service})
	return s.observed(mux, s.access.cors(s.authenticated(bounded(mux))))
}

// observed counts requests by the route that they take, waits for them when the
// server closes, and catches panics.
func (s *Server) observed(mux *http.ServeMux, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !s.requests.enter() {
			panic(http.ErrAbortHandler) // the connection is being closed
		}
		defer s.requests.leave()
		_, route := mux.Handler(r)
		if route == "" {
			route = "none"
		}
		noted := &notedWriter{ResponseWriter: w, patience: s.patience}
		defer func() {
			if p := recover(); p != nil {
				if err, ok := p.(error); ok && errors.Is(err, http.ErrAbortHandler) {
					panic(p)
				}
				s.panicked(route, p)
				if noted.status == 0 {
					writeJSON(noted, http.StatusInternalServerError, faultBody("", "", "internal error: the handler panicked"))
				}
			}
			s.service.metrics.requests.WithLabelValues(route, strconv.Itoa(noted.code())).Inc()
		}()
		next.ServeHTTP(noted, r)
	})
}

// requests are those under way.
type requests struct {
	mu      sync.Mutex // guards closed, and running against growing after that
	closed  bool
	running sync.WaitGroup
}

func (r *requests) enter() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.closed {
		r.running.Add(1)
	}
	return !r.closed
}

func (r *requests) leave() { r.running.Done() }

// close lets none in any more and waits for the others.
func (r *requests) close() {
	r.mu.Lock()
	r.closed = true
	r.mu.Unlock()
	r.running.Wait()
}

func (s *Server) panicked(where string, p any) {
	s.config.Logger.Error("a handler panicked", "where", where, "panic", p, "stack", string(debug.Stack()))
}

// notedWriter remembers the status, and does not wait for readers for ever.
type notedWriter struct {
	http.ResponseWriter
	patience time.Duration
	status   int
}

// WriteHeader implements http.ResponseWriter.
func (w *notedWriter) WriteHeader(status int) {
	if w.status == 0 {
		w.status = status
	}
	w.ResponseWriter.WriteHeader(status)
}

// Write implements http.ResponseWriter.
func (w *notedWriter) Write(b []byte) (int, error) {
	if w.status == 0 {
		w.status = http.StatusOK
	}
	defer w.hurry()()
	return w.ResponseWriter.Write(b) //nolint:wrapcheck // it stands for another
}

// Flush implements http.Flusher, which Connect asks for.
func (w *notedWriter) Flush() { _ = w.FlushError() }

// FlushError is what http.ResponseController flushes with.
func (w *notedWriter) FlushError() error {
	defer w.hurry()()
	return http.NewResponseController(w.ResponseWriter).Flush() //nolint:wrapcheck // it stands for another
}

// hurry bounds the time of what is sent until the function that it returns is
// called, so that a client that does not read holds no memory for ever.
func (w *notedWriter) hurry() (done func()) {
	control := http.NewResponseController(w.ResponseWriter)
	_ = control.SetWriteDeadline(time.Now().Add(w.patience)) // net/http always can
	return func() { _ = control.SetWriteDeadline(time.Time{}) }
}

// Unwrap is for http.ResponseController.
func (w *notedWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

func (w *notedWriter) code() int { return max(w.status, http.StatusOK) }

// authenticated lets requests through that have a token, if one is needed.
func (s *Server) authenticated(next http.Handler) http.Handler {
	errorWriter := connect.NewErrorWriter()
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case s.access.allows(r):
			next.ServeHTTP(w, r)
		case !strings.HasPrefix(r.URL.Path, "/ofrep/") && errorWriter.IsSupported(r):
			_ = errorWriter.Write(w, r, asConnect(errToken)) // the client is gone if it fails
		default:
			w.Header().Set("WWW-Authenticate", "Bearer")
			writeJSON(w, http.StatusUnauthorized, faultBody("", "", errToken.message))
		}
	})
}

// bounded reads the whole body before anything else happens, so that what comes
// after never waits for it. Of a body over the limit it reads what shows that.
func bounded(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		control := http.NewResponseController(w)
		_ = control.SetReadDeadline(time.Now().Add(bodyTime)) // net/http always can
		body, err := io.ReadAll(io.LimitReader(r.Body, maxRequestBytes+frameHead+1))
		if err != nil {
			w.Header().Set("Connection", "close")
			writeJSON(w, http.StatusRequestTimeout, faultBody("", "", fmt.Sprintf("the body did not arrive: %v", err)))
			return
		}
		_ = control.SetReadDeadline(time.Time{})
		r.Body = io.NopCloser(bytes.NewReader(body))
		next.ServeHTTP(w, r)
	})
}

// failing turns the failures of handlers into those of Connect.
type failing struct{}

// WrapUnary implements connect.Interceptor.
func (failing) WrapUnary(next connect.UnaryFunc) connect.UnaryFunc {
	return func(ctx context.Context, req connect.AnyRequest) (connect.AnyResponse, error) {
		resp, err := next(ctx, req)
		return resp, asConnect(err)
	}
}

// WrapStreamingClient implements connect.Interceptor.
func (failing) WrapStreamingClient(next connect.StreamingClientFunc) connect.StreamingClientFunc {
	return next
}

// WrapStreamingHandler implements connect.Interceptor.
func (failing) WrapStreamingHandler(next connect.StreamingHandlerFunc) connect.StreamingHandlerFunc {
	return func(ctx context.Context, conn connect.StreamingHandlerConn) error {
		return asConnect(next(ctx, conn))
	}
}

// boundedListener closes connections at once that are too many.
type boundedListener struct {
	net.Listener
	limit int64
	open  atomic.Int64
}

// Accept implements net.Listener.
func (l *boundedListener) Accept() (net.Conn, error) {
	for {
		conn, err := l.Listener.Accept()
		if err != nil {
			return nil, err //nolint:wrapcheck // it stands for another
		}
		if l.open.Add(1) <= l.limit {
			return &boundedConn{Conn: conn, open: &l.open}, nil
		}
		l.open.Add(-1)
		_ = conn.Close() // which refuses it
	}
}

// boundedConn counts itself out once.
type boundedConn struct {
	net.Conn
	open   *atomic.Int64
	closed atomic.Bool
}

// CloseWrite is what the HTTP server ends a refused request with, so that its
// client gets to read why.
func (c *boundedConn) CloseWrite() error {
	if half, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite() //nolint:wrapcheck // it stands for another
	}
	return nil
}

// Close implements net.Conn.
func (c *boundedConn) Close() error {
	if !c.closed.Swap(true) {
		c.open.Add(-1)
	}
	return c.Conn.Close() //nolint:wrapcheck // it stands for another
}
