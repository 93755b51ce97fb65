package client

import (
	"context"
	"database/sql/driver"
	"errors"
	"time"
)

// sqlConn is a connection under the policy of its database. It has every optional
// method of a driver's connection, and does what database/sql would do itself where
// the driver has none.
type sqlConn struct {
	driver.Conn
	database *database
}

var (
	_ driver.Pinger             = (*sqlConn)(nil)
	_ driver.ConnPrepareContext = (*sqlConn)(nil)
	_ driver.ConnBeginTx        = (*sqlConn)(nil)
	_ driver.QueryerContext     = (*sqlConn)(nil)
	_ driver.ExecerContext      = (*sqlConn)(nil)
	_ driver.SessionResetter    = (*sqlConn)(nil)
	_ driver.Validator          = (*sqlConn)(nil)
	_ driver.NamedValueChecker  = (*sqlConn)(nil)
)

// Unwrap returns the connection of the driver.
func (c *sqlConn) Unwrap() driver.Conn { return c.Conn }

// operate makes an operation that is over when it returns.
func operate[T any](ctx context.Context, d *database, t *target, call func(context.Context) (T, error)) (T, error) {
	d.resize()
	s := t.Now()
	if s.Disabled {
		return call(ctx)
	}
	ctx, cancel, err := bounded(ctx, t, s, queryTimeout(s, t.Name()))
	if err != nil {
		var none T
		return none, err
	}
	defer cancel()
	return admitted(ctx, t, s, sqlResult, call)
}

// queryRows makes a query whose context lives until the rows are closed.
func queryRows(ctx context.Context, d *database, call func(context.Context) (driver.Rows, error)) (driver.Rows, error) {
	d.resize()
	s := d.query.Now()
	if s.Disabled {
		return call(ctx)
	}
	ctx, cancel, err := bounded(ctx, d.query, s, queryTimeout(s, d.query.Name()))
	if err != nil {
		return nil, err
	}
	r := &sqlRows{ctx: ctx, end: cancel}
	defer func() {
		if r.Rows == nil {
			cancel()
		}
	}()
	if r.Rows, err = admitted(ctx, d.query, s, sqlResult, call); err != nil {
		return nil, err
	}
	return r, nil
}

// Ping implements driver.Pinger.
func (c *sqlConn) Ping(ctx context.Context) error {
	pinger, ok := c.Conn.(driver.Pinger)
	if !ok {
		return nil
	}
	_, err := operate(ctx, c.database, c.database.ping, func(ctx context.Context) (struct{}, error) {
		return struct{}{}, pinger.Ping(ctx)
	})
	return err
}

// PrepareContext implements driver.ConnPrepareContext.
func (c *sqlConn) PrepareContext(ctx context.Context, query string) (driver.Stmt, error) {
	s, err := operate(ctx, c.database, c.database.prepare, func(ctx context.Context) (driver.Stmt, error) {
		if p, ok := c.Conn.(driver.ConnPrepareContext); ok {
			return p.PrepareContext(ctx, query)
		}
		s, err := c.Prepare(query)
		if err == nil && ctx.Err() != nil {
			return nil, errors.Join(ctx.Err(), s.Close())
		}
		return s, err
	})
	if err != nil {
		return nil, err
	}
	return newSQLStmt(s, c), nil
}

// QueryContext implements driver.QueryerContext.
func (c *sqlConn) QueryContext(ctx context.Context, query string, args []driver.NamedValue) (driver.Rows, error) {
	q, ok := c.Conn.(driver.QueryerContext)
	if !ok {
		return nil, driver.ErrSkip
	}
	return queryRows(ctx, c.database, func(ctx context.Context) (driver.Rows, error) { return q.QueryContext(ctx, query, args) })
}

// ExecContext implements driver.ExecerContext.
func (c *sqlConn) ExecContext(ctx context.Context, query string, args []driver.NamedValue) (driver.Result, error) {
	e, ok := c.Conn.(driver.ExecerContext)
	if !ok {
		return nil, driver.ErrSkip
	}
	return operate(ctx, c.database, c.database.exec, func(ctx context.Context) (driver.Result, error) {
		return e.ExecContext(ctx, query, args)
	})
}

// errTooLate says that the connection did not begin a transaction in time.
var errTooLate = errors.New("begin transaction: out of time")

// BeginTx implements driver.ConnBeginTx. Drivers may watch the context until the
// transaction ends, so that it has no deadline of the policy: a timer ends it
// where the beginning takes too long.
func (c *sqlConn) BeginTx(ctx context.Context, opts driver.TxOptions) (driver.Tx, error) {
	d := c.database
	d.resize()
	s := d.begin.Now()
	if s.Disabled {
		return c.beginTx(ctx, opts)
	}
	limit, needed, err := d.begin.Limit(ctx, s, queryTimeout(s, d.begin.Name()))
	if err != nil {
		return nil, err
	}
	inner, cancel := context.WithCancelCause(ctx)
	tx := &sqlTx{end: func() { cancel(nil) }}
	defer func() {
		if tx.Tx == nil {
			tx.end()
		}
	}()
	if needed {
		timer := time.AfterFunc(limit, func() { cancel(errors.Join(errTooLate, context.DeadlineExceeded)) })
		defer timer.Stop()
	}
	tx.Tx, err = admitted(ctx, d.begin, s, sqlResult, func(context.Context) (driver.Tx, error) {
		tx, err := c.beginTx(inner, opts)
		if cause := context.Cause(inner); err != nil && errors.Is(cause, errTooLate) {
			return nil, cause
		}
		return tx, err
	})
	if err != nil {
		return nil, err
	}
	return tx, nil
}

func (c *sqlConn) beginTx(ctx context.Context, opts driver.TxOptions) (driver.Tx, error) {
	if b, ok := c.Conn.(driver.ConnBeginTx); ok {
		return b.BeginTx(ctx, opts)
	}
	if opts != (driver.TxOptions{}) {
		return nil, errors.New("begin transaction: the driver knows neither isolation levels nor read-only transactions; leave the options out")
	}
	tx, err := c.Begin()
	if err == nil && ctx.Err() != nil {
		return nil, errors.Join(ctx.Err(), tx.Rollback())
	}
	return tx, err
}

// ResetSession implements driver.SessionResetter.
func (c *sqlConn) ResetSession(ctx context.Context) error {
	if r, ok := c.Conn.(driver.SessionResetter); ok {
		return r.ResetSession(ctx)
	}
	return nil
}

// IsValid implements driver.Validator.
func (c *sqlConn) IsValid() bool {
	v, ok := c.Conn.(driver.Validator)
	return !ok || v.IsValid()
}

// CheckNamedValue implements driver.NamedValueChecker.
func (c *sqlConn) CheckNamedValue(v *driver.NamedValue) error {
	if n, ok := c.Conn.(driver.NamedValueChecker); ok {
		return n.CheckNamedValue(v)
	}
	return driver.ErrSkip
}

// sqlTx is a transaction: it ends its context with itself.
type sqlTx struct {
	driver.Tx
	end func()
}

// Commit implements driver.Tx.
func (t *sqlTx) Commit() error {
	defer t.end()
	return t.Tx.Commit()
}

// Rollback implements driver.Tx.
func (t *sqlTx) Rollback() error {
	defer t.end()
	return t.Tx.Rollback()
}
