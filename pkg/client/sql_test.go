package client

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"io"
	"reflect"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/holdfast-dev/holdfast/internal/breaker"
	"github.com/holdfast-dev/holdfast/internal/document"
	"github.com/holdfast-dev/holdfast/internal/flags"
)

// store is a database that does what a test says. What is nil succeeds.
type store struct {
	connect func(context.Context) error
	query   func(ctx context.Context, query string, args []driver.NamedValue) error
	begin   func(context.Context) error
	next    func(context.Context) error

	ctx    context.Context //nolint:containedctx // of the last operation, for the test to look at
	opened atomic.Int32
	closed bool
	old    bool // its connections have only what a driver must have
}

func (s *store) Connect(ctx context.Context) (driver.Conn, error) {
	if s.connect != nil {
		if err := s.connect(ctx); err != nil {
			return nil, err
		}
	}
	s.opened.Add(1)
	if s.old {
		return &oldConn{s}, nil
	}
	return &storeConn{oldConn{s}}, nil
}

func (s *store) Driver() driver.Driver { return nil }
func (s *store) Close() error          { s.closed = true; return nil }

func (s *store) do(ctx context.Context, query string, args []driver.NamedValue) error {
	s.ctx = ctx
	if s.query == nil {
		return nil
	}
	return s.query(ctx, query, args)
}

// oldConn has only what a driver must have.
type oldConn struct{ *store }

func (c *oldConn) Prepare(query string) (driver.Stmt, error) { return &oldStmt{c.store, query}, nil }
func (c *oldConn) Close() error                              { return nil }
func (c *oldConn) Begin() (driver.Tx, error)                 { return storeTx{}, nil }

type oldStmt struct {
	*store
	text string
}

func (s *oldStmt) Close() error  { return nil }
func (s *oldStmt) NumInput() int { return -1 }
func (s *oldStmt) Exec(args []driver.Value) (driver.Result, error) {
	return driver.RowsAffected(len(args)), s.do(nil, s.text, nil) //nolint:staticcheck // it gets none
}

func (s *oldStmt) Query(args []driver.Value) (driver.Rows, error) {
	return &storeRows{store: s.store, left: len(args)}, s.do(nil, s.text, nil) //nolint:staticcheck // it gets none
}

// storeConn has everything that a driver may have.
type storeConn struct{ oldConn }

func (c *storeConn) Ping(ctx context.Context) error { return c.do(ctx, "ping", nil) }

func (c *storeConn) QueryContext(ctx context.Context, query string, args []driver.NamedValue) (driver.Rows, error) {
	if err := c.do(ctx, query, args); err != nil {
		return nil, err
	}
	return &typedRows{storeRows{store: c.store, ctx: ctx, left: 3}}, nil
}

func (c *storeConn) ExecContext(ctx context.Context, query string, args []driver.NamedValue) (driver.Result, error) {
	return driver.RowsAffected(1), c.do(ctx, query, args)
}

func (c *storeConn) PrepareContext(ctx context.Context, query string) (driver.Stmt, error) {
	return &storeStmt{oldStmt{c.store, query}}, c.do(ctx, "prepare", nil)
}

func (c *storeConn) BeginTx(ctx context.Context, _ driver.TxOptions) (driver.Tx, error) {
	c.ctx = ctx
	if c.begin != nil {
		if err := c.begin(ctx); err != nil {
			return nil, err
		}
	}
	return storeTx{}, nil
}

func (c *storeConn) CheckNamedValue(v *driver.NamedValue) error {
	if v.Value == "remove" {
		return driver.ErrRemoveArgument
	}
	return driver.ErrSkip
}

type storeStmt struct{ oldStmt }

func (s *storeStmt) NumInput() int { return 1 }

func (s *storeStmt) ExecContext(ctx context.Context, args []driver.NamedValue) (driver.Result, error) {
	return driver.RowsAffected(1), s.do(ctx, s.text, args)
}

func (s *storeStmt) QueryContext(ctx context.Context, args []driver.NamedValue) (driver.Rows, error) {
	return &storeRows{store: s.store, ctx: ctx, left: 3}, s.do(ctx, s.text, args)
}

func (s *storeStmt) ColumnConverter(int) driver.ValueConverter { return driver.String }

type storeTx struct{}

func (storeTx) Commit() error   { return nil }
func (storeTx) Rollback() error { return nil }

type storeRows struct {
	*store
	ctx  context.Context //nolint:containedctx // as drivers keep it
	left int
}

func (r *storeRows) Columns() []string { return []string{"n"} }
func (r *storeRows) Close() error      { return nil }
func (r *storeRows) Next(dest []driver.Value) error {
	if r.next != nil {
		if err := r.next(r.ctx); err != nil {
			return err
		}
	}
	if r.left == 0 {
		return io.EOF
	}
	r.left--
	dest[0] = int64(r.left)
	return nil
}

type typedRows struct{ storeRows }

func (*typedRows) ColumnTypeScanType(int) reflect.Type               { return reflect.TypeFor[int64]() }
func (*typedRows) ColumnTypeDatabaseTypeName(int) string             { return "BIGINT" }
func (*typedRows) ColumnTypeNullable(int) (nullable, ok bool)        { return true, true }
func (*typedRows) ColumnTypeLength(int) (int64, bool)                { return 8, true }
func (*typedRows) ColumnTypePrecisionScale(int) (int64, int64, bool) { return 18, 2, true }
func (r *typedRows) HasNextResultSet() bool                          { return true }
func (r *typedRows) NextResultSet() error                            { r.left = 1; return nil }

// database opens a pool of a store that ends with the test.
func (d *definitions) database(s *store) *sql.DB {
	db := d.OpenDB("ledger", s)
	d.t.Cleanup(func() {
		if err := db.Close(); err != nil || !s.closed {
			d.t.Errorf("close: %v; the connector was closed: %v", err, s.closed)
		}
	})
	return db
}

// count reads all rows of a query.
func count(rows *sql.Rows, err error) (int, error) {
	if err != nil {
		return 0, err
	}
	defer rows.Close()
	n := 0
	for rows.Next() {
		n++
	}
	return n, rows.Err()
}

func TestSQLPoolIsBounded(t *testing.T) {
	c := opened(t, map[string]string{"ledger": `{"bulkhead":{"max_connections":3}}`})
	s := new(store)
	db := c.database(s)
	a, err := db.Conn(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	b, err := db.Conn(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	third, err := db.Conn(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if got := db.Stats(); got.MaxOpenConnections != 3 || got.OpenConnections != 3 {
		t.Errorf("%+v, want 3 connections of 3", got)
	}
	c.put(document.Policy, "ledger", `{"bulkhead":{"max_connections":4}}`)
	if _, err := a.ExecContext(t.Context(), "x"); err != nil {
		t.Fatal(err)
	}
	if got := db.Stats().MaxOpenConnections; got != 4 {
		t.Errorf("%d connections are allowed after a change, want 4", got)
	}
	c.put(document.Policy, "ledger", `{"enforcement":"observe","bulkhead":{"max_connections":3}}`)
	_, _ = b.ExecContext(t.Context(), "x")
	if got := db.Stats().MaxOpenConnections; got != 0 {
		t.Errorf("%d connections are allowed by a policy that only observes, want no bound", got)
	}
	a.Close()
	b.Close()
	third.Close()
	if got := db.Stats(); got.Idle != 3 || s.opened.Load() != 3 {
		t.Errorf("%d connections are kept of %d that were made, want all 3", got.Idle, s.opened.Load())
	}
}

func TestSQLTimeouts(t *testing.T) {
	hang := func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }
	for _, test := range []struct {
		what     string
		timeouts string
		store    *store
		call     func(context.Context, *sql.DB) error
		want     time.Duration
		failures uint64
	}{
		{"connect", `"connect":"2s"`, &store{connect: hang}, func(ctx context.Context, db *sql.DB) error { return db.PingContext(ctx) }, 2 * time.Second, 1},
		{"exec", `"query":"3s"`, &store{query: func(ctx context.Context, _ string, _ []driver.NamedValue) error { return hang(ctx) }}, func(ctx context.Context, db *sql.DB) error {
			_, err := db.ExecContext(ctx, "x")
			return err
		}, 3 * time.Second, 1},
		{"exec in no time", `"query":"50ms"`, &store{query: func(ctx context.Context, _ string, _ []driver.NamedValue) error { return hang(ctx) }}, func(ctx context.Context, db *sql.DB) error {
			_, err := db.ExecContext(ctx, "x")
			return err
		}, 50 * time.Millisecond, 1},
		{"exec by name", `"query":"3s","sql.exec":"10ms"`, &store{query: func(ctx context.Context, _ string, _ []driver.NamedValue) error { return hang(ctx) }}, func(ctx context.Context, db *sql.DB) error {
			_, err := db.ExecContext(ctx, "x")
			return err
		}, 10 * time.Millisecond, 1},
		{"query without a timeout of its own", `"call":"4s"`, &store{query: func(ctx context.Context, _ string, _ []driver.NamedValue) error { return hang(ctx) }}, func(ctx context.Context, db *sql.DB) error {
			_, err := count(db.QueryContext(ctx, "x"))
			return err
		}, 4 * time.Second, 1},
		{"rows", `"query":"2s"`, &store{next: hang}, func(ctx context.Context, db *sql.DB) error {
			_, err := count(db.QueryContext(ctx, "x"))
			return err
		}, 2 * time.Second, 0},
		{"rows of a driver that looks at no context", `"query":"2s"`, &store{next: func(context.Context) error { <-time.After(1500 * time.Millisecond); return nil }}, func(ctx context.Context, db *sql.DB) error {
			n, err := count(db.QueryContext(ctx, "x"))
			if n != 2 {
				return fmt.Errorf("%d rows: %w", n, err)
			}
			return err
		}, 3 * time.Second, 0},
		{"begin", `"query":"2s"`, &store{begin: hang}, func(ctx context.Context, db *sql.DB) error { _, err := db.BeginTx(ctx, nil); return err }, 2 * time.Second, 1},
		{"the caller's deadline", `"query":"1m"`, &store{query: func(ctx context.Context, _ string, _ []driver.NamedValue) error { return hang(ctx) }}, func(ctx context.Context, db *sql.DB) error {
			ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
			defer cancel()
			_, err := db.ExecContext(ctx, "x")
			return err
		}, 5 * time.Second, 1},
		{"a caller who has hardly any time", `"query":"1m"`, &store{query: func(ctx context.Context, _ string, _ []driver.NamedValue) error { return hang(ctx) }}, func(ctx context.Context, db *sql.DB) error {
			ctx, cancel := context.WithTimeout(ctx, 10*time.Millisecond)
			defer cancel()
			_, err := db.ExecContext(ctx, "x")
			return err
		}, 10 * time.Millisecond, 0},
	} {
		t.Run(test.what, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := opened(t, map[string]string{"ledger": `{"timeouts":{` + test.timeouts + `}}`})
				db := c.database(test.store)
				start := time.Now()
				if err := test.call(t.Context(), db); !errors.Is(err, context.DeadlineExceeded) || time.Since(start) != test.want {
					t.Errorf("%v after %v, want a deadline after %v", err, time.Since(start), test.want)
				}
				failures := uint64(0)
				for _, target := range c.Stats().Dependencies[0].Targets {
					failures += target.Results[breaker.Failure]
				}
				if failures != test.failures {
					t.Errorf("%d failures were counted, want %d", failures, test.failures)
				}
			})
		})
	}
}

// Who answers somebody else's call keeps time to do so, and asks no database that
// could use only that.
func TestSQLRefusesWhatComesTooLate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := opened(t, map[string]string{"ledger": `{"timeouts":{"margin":"1s"}}`})
		asked := 0
		db := c.database(&store{query: func(context.Context, string, []driver.NamedValue) error { asked++; return nil }})
		conn, err := db.Conn(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		ctx, cancel := WithRemaining(t.Context(), time.Second)
		defer cancel()
		if _, err := conn.ExecContext(ctx, "x"); !errors.Is(err, DeadlineTooNear) {
			t.Errorf("exec: %v", err)
		}
		if _, err := conn.QueryContext(ctx, "x"); !errors.Is(err, DeadlineTooNear) {
			t.Errorf("query: %v", err)
		}
		if _, err := conn.BeginTx(ctx, nil); !errors.Is(err, DeadlineTooNear) {
			t.Errorf("begin: %v", err)
		}
		if n := c.stats("ledger", "sql.exec").Rejected[DeadlineTooNear]; n != 1 || asked != 0 {
			t.Errorf("%d were counted, and the database was asked %d times", n, asked)
		}
	})
}

func TestSQLContextsLiveAsLongAsTheirResults(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := opened(t, map[string]string{"ledger": `{"timeouts":{"query":"1s"}}`})
		s := new(store)
		db := c.database(s)
		rows, err := db.QueryContext(t.Context(), "x")
		if err != nil {
			t.Fatal(err)
		}
		if s.ctx.Err() != nil {
			t.Error("the context of a query ended before its rows were read")
		}
		rows.Close()
		if s.ctx.Err() == nil {
			t.Error("the context of a query goes on after its rows were closed")
		}
		tx, err := db.BeginTx(t.Context(), nil)
		if err != nil {
			t.Fatal(err)
		}
		begun := s.ctx
		time.Sleep(time.Minute) //nolint:forbidigo // virtual time
		if begun.Err() != nil {
			t.Error("a transaction has the deadline of a query")
		}
		if err := tx.Commit(); err != nil || begun.Err() == nil {
			t.Errorf("commit: %v; the context of the transaction ended: %v", err, begun.Err())
		}
		if _, err := db.ExecContext(t.Context(), "x"); err != nil || s.ctx.Err() == nil {
			t.Errorf("exec: %v; its context ended: %v", err, s.ctx.Err())
		}
	})
}

func TestSQLBreakersTellReadsFromWrites(t *testing.T) {
	c := opened(t, nil)
	s := &store{query: func(_ context.Context, query string, _ []driver.NamedValue) error {
		switch query {
		case "write":
			return io.ErrUnexpectedEOF
		case "twice":
			return errors.New("violates a constraint")
		}
		return nil
	}}
	db := c.database(s)
	for range 10 {
		if _, err := db.Exec("twice"); err == nil || errors.Is(err, Rejected) {
			t.Fatalf("an answer opened the breaker: %v", err)
		}
	}
	for range 5 {
		if _, err := db.Exec("write"); !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Fatal(err)
		}
	}
	_, err := db.Exec("write")
	var rejection *Rejection
	if !errors.As(err, &rejection) || rejection.Reason != BreakerOpen || rejection.Target != "sql.exec" {
		t.Errorf("a write to a broken database: %v", err)
	}
	if n, err := count(db.Query("read")); n != 3 || err != nil {
		t.Errorf("a read while writes are cut off: %d rows, %v", n, err)
	}
	tx, err := db.Begin()
	if err != nil {
		t.Fatal(err)
	}
	if err := tx.Commit(); err != nil {
		t.Errorf("a commit while writes are cut off: %v", err)
	}
	if got := c.stats("ledger", "sql.exec").Results; got[breaker.Success] != 10 || got[breaker.Failure] != 5 {
		t.Errorf("counted as %v, want 10 successes and 5 failures", got)
	}
}

func TestSQLNoConnection(t *testing.T) {
	c := opened(t, nil)
	calls := 0
	db := c.database(&store{connect: func(context.Context) error { calls++; return errors.New("no such host") }})
	for range 5 {
		_ = db.Ping()
	}
	if err := db.Ping(); !errors.Is(err, BreakerOpen) || calls != 5 {
		t.Errorf("%v after %d tries, want a rejection after 5", err, calls)
	}
}

func TestSQLObeysModes(t *testing.T) {
	c := opened(t, nil)
	db := c.database(new(store))
	c.degraded(`{"action":"reject","operations":["sql.exec"],"side":"client"}`)
	if _, err := db.Exec("x"); !errors.Is(err, Degraded) {
		t.Errorf("a write in a mode without: %v", err)
	}
	if n, err := count(db.Query("x")); n != 3 || err != nil {
		t.Errorf("a read: %d rows, %v", n, err)
	}
}

func TestSQLPanicGivesThePlaceBack(t *testing.T) {
	c := opened(t, map[string]string{"ledger": `{"bulkhead":{"methods":{"sql.exec":1}}}`})
	db := c.database(&store{query: func(context.Context, string, []driver.NamedValue) error { panic("driver") }})
	for range 2 {
		func() {
			defer func() {
				if recover() != "driver" {
					t.Error("the driver's panic was swallowed")
				}
			}()
			_, err := db.Exec("x")
			t.Errorf("got %v", err)
		}()
	}
	if got := c.stats("ledger", "sql.exec").Results[breaker.Failure]; got != 2 {
		t.Errorf("%d failures, want 2", got)
	}
}

func TestSQLDriverWithEverything(t *testing.T) {
	c := opened(t, nil)
	var args []driver.NamedValue
	s := &store{query: func(_ context.Context, _ string, got []driver.NamedValue) error { args = got; return nil }}
	db := c.database(s)
	rows, err := db.Query("x", sql.Named("a", 1), "remove")
	if err != nil {
		t.Fatal(err)
	}
	if len(args) != 1 || args[0].Name != "a" || args[0].Value != int64(1) {
		t.Errorf("the driver got %+v: it has a say in its arguments", args)
	}
	types, err := rows.ColumnTypes()
	if err != nil {
		t.Fatal(err)
	}
	nullable, ok := types[0].Nullable()
	length, _ := types[0].Length()
	precision, scale, _ := types[0].DecimalSize()
	if types[0].DatabaseTypeName() != "BIGINT" || types[0].ScanType() != reflect.TypeFor[int64]() || !nullable || !ok || length != 8 || precision != 18 || scale != 2 {
		t.Errorf("the driver's types are lost: %+v", types[0])
	}
	for rows.Next() {
	}
	if !rows.NextResultSet() || !rows.Next() {
		t.Error("the driver's second set of rows is lost")
	}
	rows.Close()

	stmt, err := db.Prepare("y")
	if err != nil {
		t.Fatal(err)
	}
	defer stmt.Close()
	if _, err := stmt.Exec(7); err != nil || args[0].Value != "7" {
		t.Errorf("%v; the driver got %+v, want what its converter makes of it", err, args)
	}
	if n, err := count(stmt.Query(7)); n != 3 || err != nil {
		t.Errorf("%d rows, %v", n, err)
	}
	conn, err := db.Conn(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := conn.Raw(func(dc any) error {
		if _, ok := dc.(interface{ Unwrap() driver.Conn }).Unwrap().(*storeConn); !ok {
			t.Error("the driver's connection cannot be reached")
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
}

func TestSQLDriverWithLittle(t *testing.T) {
	c := opened(t, nil)
	s := &store{old: true}
	db := c.database(s)
	if err := db.Ping(); err != nil {
		t.Error("ping:", err)
	}
	rows, err := db.Query("x", 1, "2")
	if err != nil {
		t.Fatal(err)
	}
	types, err := rows.ColumnTypes()
	if err != nil || types[0].DatabaseTypeName() != "" || types[0].ScanType() != reflect.TypeFor[any]() {
		t.Errorf("%+v, %v", types, err)
	}
	if n, err := count(rows, nil); n != 2 || err != nil || rows.NextResultSet() {
		t.Errorf("%d rows, %v", n, err)
	}
	if r, err := db.Exec("x", 1); err != nil {
		t.Error(err)
	} else if n, _ := r.RowsAffected(); n != 1 {
		t.Errorf("%d arguments arrived", n)
	}
	if _, err := db.Exec("x", sql.Named("a", 1)); err == nil {
		t.Error("named arguments were taken by a driver that knows none")
	}
	if _, err := db.BeginTx(t.Context(), &sql.TxOptions{ReadOnly: true}); err == nil {
		t.Error("a read-only transaction was begun by a driver that knows none")
	}
	tx, err := db.Begin()
	if err != nil {
		t.Fatal(err)
	}
	if err := tx.Rollback(); err != nil {
		t.Error(err)
	}
	var names []string
	for _, d := range c.Stats().Dependencies {
		for _, target := range d.Targets {
			names = append(names, target.Name)
		}
	}
	if want := []string{"sql.begin", "sql.connect", "sql.exec", "sql.ping", "sql.prepare", "sql.query"}; !slices.Equal(names, want) {
		t.Errorf("the operations are %q, want %q", names, want)
	}
}

func TestSQLDisabled(t *testing.T) {
	c := opened(t, map[string]string{"ledger": `{"timeouts":{"minimum":"10s"}}`})
	s := new(store)
	db := c.database(s)
	short, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	if _, err := db.ExecContext(short, "x"); !errors.Is(err, DeadlineTooNear) {
		t.Errorf("with 5 s where 10 s are needed: %v", err)
	}
	c.holder.decideLocally(&flags.Local{Disable: true}, "test")
	if _, err := db.ExecContext(short, "x"); err != nil {
		t.Errorf("while disabled: %v", err)
	}
	tx, err := db.BeginTx(short, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := tx.Commit(); err != nil {
		t.Error(err)
	}
	if n, err := count(db.QueryContext(short, "x")); n != 3 || err != nil {
		t.Errorf("while disabled: %d rows, %v", n, err)
	}
}
