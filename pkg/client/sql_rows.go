package client

import (
	"context"
	"database/sql/driver"
	"io"
	"reflect"
)

// sqlStmt is a prepared statement under the policy of its database.
type sqlStmt struct {
	driver.Stmt
	conn *sqlConn
}

// convertingStmt is one whose driver converts arguments itself. database/sql treats
// a statement that could but does not in another way than one that could not.
type convertingStmt struct {
	*sqlStmt
	converter driver.ColumnConverter //nolint:staticcheck // drivers still have it
}

// ColumnConverter implements driver.ColumnConverter.
func (s convertingStmt) ColumnConverter(index int) driver.ValueConverter {
	return s.converter.ColumnConverter(index)
}

var (
	_ driver.StmtQueryContext  = (*sqlStmt)(nil)
	_ driver.StmtExecContext   = (*sqlStmt)(nil)
	_ driver.NamedValueChecker = (*sqlStmt)(nil)
)

func newSQLStmt(s driver.Stmt, c *sqlConn) driver.Stmt {
	wrapped := &sqlStmt{Stmt: s, conn: c}
	if converter, ok := s.(driver.ColumnConverter); ok { //nolint:staticcheck // drivers still have it
		return convertingStmt{wrapped, converter}
	}
	return wrapped
}

// QueryContext implements driver.StmtQueryContext.
func (s *sqlStmt) QueryContext(ctx context.Context, args []driver.NamedValue) (driver.Rows, error) {
	return queryRows(ctx, s.conn.database, func(ctx context.Context) (driver.Rows, error) {
		if q, ok := s.Stmt.(driver.StmtQueryContext); ok {
			return q.QueryContext(ctx, args)
		}
		values, err := positional(args)
		if err == nil {
			err = ctx.Err()
		}
		if err != nil {
			return nil, err
		}
		return s.Query(values)
	})
}

// ExecContext implements driver.StmtExecContext.
func (s *sqlStmt) ExecContext(ctx context.Context, args []driver.NamedValue) (driver.Result, error) {
	d := s.conn.database
	return operate(ctx, d, d.exec, func(ctx context.Context) (driver.Result, error) {
		if e, ok := s.Stmt.(driver.StmtExecContext); ok {
			return e.ExecContext(ctx, args)
		}
		values, err := positional(args)
		if err == nil {
			err = ctx.Err()
		}
		if err != nil {
			return nil, err
		}
		return s.Exec(values)
	})
}

// CheckNamedValue implements driver.NamedValueChecker: where the statement has none,
// the connection's is asked.
func (s *sqlStmt) CheckNamedValue(v *driver.NamedValue) error {
	if n, ok := s.Stmt.(driver.NamedValueChecker); ok {
		return n.CheckNamedValue(v)
	}
	return s.conn.CheckNamedValue(v)
}

// sqlRows are the rows of a query, which end its context when they are closed. It
// has every optional method of a driver's rows, and answers as database/sql would
// where the driver has none.
type sqlRows struct {
	driver.Rows
	ctx context.Context //nolint:containedctx // bounds the reading, as database/sql passes none
	end context.CancelFunc
}

var (
	_ driver.RowsNextResultSet              = (*sqlRows)(nil)
	_ driver.RowsColumnTypeScanType         = (*sqlRows)(nil)
	_ driver.RowsColumnTypeDatabaseTypeName = (*sqlRows)(nil)
	_ driver.RowsColumnTypeLength           = (*sqlRows)(nil)
	_ driver.RowsColumnTypeNullable         = (*sqlRows)(nil)
	_ driver.RowsColumnTypePrecisionScale   = (*sqlRows)(nil)
)

// Next implements driver.Rows; drivers that do not watch the context are stopped
// all the same.
func (r *sqlRows) Next(dest []driver.Value) error {
	if err := r.ctx.Err(); err != nil {
		return err
	}
	return r.Rows.Next(dest)
}

// Close implements driver.Rows.
func (r *sqlRows) Close() error {
	defer r.end()
	return r.Rows.Close()
}

// HasNextResultSet implements driver.RowsNextResultSet.
func (r *sqlRows) HasNextResultSet() bool {
	n, ok := r.Rows.(driver.RowsNextResultSet)
	return ok && n.HasNextResultSet()
}

// NextResultSet implements driver.RowsNextResultSet.
func (r *sqlRows) NextResultSet() error {
	if n, ok := r.Rows.(driver.RowsNextResultSet); ok {
		return n.NextResultSet()
	}
	return io.EOF
}

// ColumnTypeScanType implements driver.RowsColumnTypeScanType.
func (r *sqlRows) ColumnTypeScanType(index int) reflect.Type {
	if t, ok := r.Rows.(driver.RowsColumnTypeScanType); ok {
		return t.ColumnTypeScanType(index)
	}
	return reflect.TypeFor[any]()
}

// ColumnTypeDatabaseTypeName implements driver.RowsColumnTypeDatabaseTypeName.
func (r *sqlRows) ColumnTypeDatabaseTypeName(index int) string {
	if t, ok := r.Rows.(driver.RowsColumnTypeDatabaseTypeName); ok {
		return t.ColumnTypeDatabaseTypeName(index)
	}
	return ""
}

// ColumnTypeLength implements driver.RowsColumnTypeLength.
func (r *sqlRows) ColumnTypeLength(index int) (length int64, ok bool) {
	if t, ok := r.Rows.(driver.RowsColumnTypeLength); ok {
		return t.ColumnTypeLength(index)
	}
	return 0, false
}

// ColumnTypeNullable implements driver.RowsColumnTypeNullable.
func (r *sqlRows) ColumnTypeNullable(index int) (nullable, ok bool) {
	if t, ok := r.Rows.(driver.RowsColumnTypeNullable); ok {
		return t.ColumnTypeNullable(index)
	}
	return false, false
}

// ColumnTypePrecisionScale implements driver.RowsColumnTypePrecisionScale.
func (r *sqlRows) ColumnTypePrecisionScale(index int) (precision, scale int64, ok bool) {
	if t, ok := r.Rows.(driver.RowsColumnTypePrecisionScale); ok {
		return t.ColumnTypePrecisionScale(index)
	}
	return 0, 0, false
}
