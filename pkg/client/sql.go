package client

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/holdfast-dev/holdfast/internal/breaker"
	"github.com/holdfast-dev/holdfast/internal/guard"
	"github.com/holdfast-dev/holdfast/internal/policy"
)

// OpenDB returns a pool of connections for one dependency alone, under its policy:
// of at most bulkhead.max_connections, with timeouts.connect for making one and
// timeouts.query, else timeouts.call, for each query until its rows are closed. The
// operations sql.connect, sql.ping, sql.prepare, sql.begin, sql.query and sql.exec
// have breakers of their own, may have timeouts and bulkheads of their own under
// these names, and are admitted one by one; commits and rollbacks always are.
// Nothing is retried beyond what database/sql does. Whoever opens the pool closes
// it.
//
// (*sql.Conn).Raw gets a connection whose method Unwrap returns the driver's.
func (c *Client) OpenDB(dependency string, connector driver.Connector) *sql.DB {
	return openDB(c.calls.client(dependency), connector)
}

func openDB(dependency *dependency, connector driver.Connector) *sql.DB {
	operation := func(name string) *target { return dependency.target(name, guard.Operation) }
	d := &database{
		Connector: connector, dependency: dependency,
		connect: operation("sql.connect"), ping: operation("sql.ping"), prepare: operation("sql.prepare"),
		begin: operation("sql.begin"), query: operation("sql.query"), exec: operation("sql.exec"),
	}
	d.pool = sql.OpenDB(d)
	d.resize()
	return d.pool
}

// database makes the connections of a pool.
type database struct {
	driver.Connector
	dependency *dependency
	pool       *sql.DB

	sizing sync.Mutex                    // held while size changes
	size   atomic.Pointer[policy.Policy] // by which the pool was sized last

	connect, ping, prepare, begin, query, exec *target
}

// Connect implements driver.Connector.
func (d *database) Connect(ctx context.Context) (driver.Conn, error) {
	d.resize()
	s := d.connect.Now()
	if s.Disabled {
		return d.Connector.Connect(ctx)
	}
	ctx, cancel, err := bounded(ctx, d.connect, s, timeoutOr(s, d.connect.Name(), s.Policy.Timeouts.Connect))
	if err != nil {
		return nil, err
	}
	defer cancel()
	c, err := admitted(ctx, d.connect, s, failsToConnect, d.Connector.Connect)
	if err != nil {
		return nil, err
	}
	return &sqlConn{Conn: c, database: d}, nil
}

// Close implements io.Closer, by which a pool closes its connector.
func (d *database) Close() error {
	if closer, ok := d.Connector.(io.Closer); ok {
		return closer.Close()
	}
	return nil
}

// resize gives the pool the size of the policy. Every operation asks for it: a pool
// that nobody uses needs no size.
func (d *database) resize() {
	if d.size.Load() == d.dependency.Policy() {
		return
	}
	d.sizing.Lock()
	defer d.sizing.Unlock()
	now := d.dependency.Policy()
	open := now.Bulkhead.MaxConnections
	if now.Enforcement != policy.Enforce {
		open = 0 // no bound
	}
	d.pool.SetMaxOpenConns(open)
	d.pool.SetMaxIdleConns(now.Bulkhead.MaxConnections)
	d.size.Store(now)
}

// queryTimeout returns how long an operation on a connection may take.
func queryTimeout(s *guard.Setting, name string) time.Duration {
	t := s.Policy.Timeouts
	if t.Query > 0 {
		return timeoutOr(s, name, t.Query)
	}
	return timeoutOr(s, name, t.Call)
}

func timeoutOr(s *guard.Setting, name string, otherwise time.Duration) time.Duration {
	if own, ok := s.Policy.Timeouts.Named[name]; ok {
		return own
	}
	return otherwise
}

// bounded returns the context of an operation with its deadline.
func bounded(ctx context.Context, t *target, s *guard.Setting, own time.Duration) (context.Context, context.CancelFunc, error) {
	limit, needed, err := t.Limit(ctx, s, own)
	if err != nil || !needed {
		return ctx, func() {}, err
	}
	var cause error
	if limit == own {
		cause = errOwnTime
	}
	ctx, cancel := context.WithTimeoutCause(ctx, limit, cause)
	return ctx, cancel, nil
}

// errOwnTime says that an operation had all the time that the policy gives it, so
// that it counts as a failure however short that was.
var errOwnTime = errors.New("the timeout of the policy is over")

// admitted makes one call of the driver under breaker and bulkhead.
func admitted[T any](ctx context.Context, t *target, s *guard.Setting, result func(context.Context, error) guard.Result, call func(context.Context) (T, error)) (T, error) {
	var answer T
	if !s.Plan.Empty() {
		if _, err := t.point.Before(ctx, s, nil); err != nil {
			return answer, err
		}
	}
	permit, err := t.Admit(ctx, s)
	if err != nil {
		return answer, err
	}
	ended := guard.Result{Class: breaker.Failure, Classified: true} // by a panic, which goes on to the host
	defer func() { permit.Done(ended, 0) }()
	answer, err = call(ctx)
	ended = result(ctx, err)
	return answer, err
}

// failsToConnect is what the end of a try to connect says.
func failsToConnect(ctx context.Context, err error) guard.Result {
	if r := sqlResult(ctx, err); err == nil || r.Code != codes.FailedPrecondition {
		return r
	}
	return guard.Result{Code: codes.Unavailable}
}

// sqlResult is what an error of a driver says. Errors that are not known to be the
// connection's are answers, such as a violated constraint.
func sqlResult(ctx context.Context, err error) guard.Result {
	if err == nil {
		return guard.Result{}
	}
	var network net.Error
	var system syscall.Errno
	switch ended := ctx.Err(); {
	case errors.Is(err, driver.ErrSkip):
		return guard.Result{Class: breaker.Neutral, Classified: true}
	case errors.Is(ended, context.Canceled), errors.Is(err, context.Canceled):
		return guard.Result{Code: codes.Canceled}
	case errors.Is(context.Cause(ctx), errOwnTime), errors.Is(err, errTooLate):
		return guard.Result{Code: codes.DeadlineExceeded, Class: breaker.Failure, Classified: true}
	case ended != nil, errors.Is(err, context.DeadlineExceeded):
		return guard.Result{Code: codes.DeadlineExceeded}
	case errors.Is(err, driver.ErrBadConn), errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF),
		errors.As(err, &network), errors.As(err, &system), errors.Is(err, net.ErrClosed):
		return guard.Result{Code: codes.Unavailable}
	default:
		return guard.Result{Code: codes.FailedPrecondition}
	}
}

// positional returns arguments for a driver that knows no names.
func positional(named []driver.NamedValue) ([]driver.Value, error) {
	values := make([]driver.Value, len(named))
	for i, n := range named {
		if n.Name != "" {
			return nil, fmt.Errorf("argument %q: the driver knows no named arguments; use positions", n.Name)
		}
		values[i] = n.Value
	}
	return values, nil
}
