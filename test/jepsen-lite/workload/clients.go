package workload

import (
	"context"
	"math/rand/v2"
	"time"

	holdfastv1 "github.com/holdfast-dev/holdfast/proto/holdfast/v1"
	"github.com/holdfast-dev/holdfast/test/jepsen-lite/history"
)

// registerClient works on registers, one operation after the other.
type registerClient struct {
	session
	registers *registers
	random    *rand.Rand
	pace      time.Duration // between two operations
	// known is the revision that each register had when the client last heard of it.
	known map[string]uint64
	// wrote is the revision of its last write, which its local reads include.
	wrote uint64
}

// knownLimit bounds what a client remembers of registers that are no longer in use.
const knownLimit = 100

func (c *registerClient) run(ctx context.Context) {
	for ctx.Err() == nil {
		op := c.step(ctx)
		c.learn(&op)
		if op.Outcome == history.OK && op.F != history.Get && !c.pinned {
			c.chase(ctx, op.Cells[0].Key)
		}
		pause(ctx, time.Duration((0.5+c.random.Float64())*float64(c.pace)))
	}
}

// step does one operation, drawn by chance.
func (c *registerClient) step(ctx context.Context) history.Op {
	key := c.registers.take(c.random)
	cell := history.Cell{Key: key}
	switch n := c.random.IntN(100); {
	case n < 30:
		return c.read(ctx, history.Op{Cells: []history.Cell{cell}})
	case n < 45:
		return c.read(ctx, history.Op{Cells: []history.Cell{cell}, Local: true, MinRevision: c.wrote})
	case n < 65:
		cell.Value = c.value()
		return c.write(ctx, history.Op{F: history.Put, Cells: []history.Cell{cell}}, "put", put(key, cell.Value))
	case n < 82:
		cell.Value = c.value()
		return c.write(ctx, history.Op{F: history.CAS, Cells: []history.Cell{c.expecting(cell)}}, "cas", c.demanding(key, put(key, cell.Value)))
	case n < 88:
		cell.Absent = true
		return c.write(ctx, history.Op{F: history.Delete, Cells: []history.Cell{cell}}, "delete", remove(key))
	default:
		return c.both(ctx, key)
	}
}

// chase reads what it has just written at another server, which may not have it yet:
// half of the time by asking that server for its own state of that revision.
func (c *registerClient) chase(ctx context.Context, key string) {
	c.next()
	op := history.Op{Cells: []history.Cell{{Key: key}}}
	if c.random.IntN(2) == 0 {
		op.Local, op.MinRevision = true, c.wrote
	}
	op = c.read(ctx, op)
	c.learn(&op)
}

// both writes two registers at once, half of the time only if they are as the client
// knows them.
func (c *registerClient) both(ctx context.Context, one string) history.Op {
	demand := c.random.IntN(2) == 0
	op := history.Op{F: history.Txn}
	var ops []*holdfastv1.Operation
	for _, key := range []string{one, c.registers.take(c.random)} {
		if len(ops) == 1 && key == one {
			break
		}
		cell := history.Cell{Key: key, Value: c.value()}
		step := put(key, cell.Value)
		if demand {
			cell, step = c.expecting(cell), c.demanding(key, step)
		}
		op.Cells, ops = append(op.Cells, cell), append(ops, step)
	}
	return c.write(ctx, op, "txn", ops...)
}

func (c *registerClient) expecting(cell history.Cell) history.Cell {
	cell.Expects, cell.Expect = true, c.known[cell.Key]
	return cell
}

func (c *registerClient) demanding(key string, op *holdfastv1.Operation) *holdfastv1.Operation {
	expected := c.known[key]
	op.ExpectedRevision = &expected
	return op
}

// learn remembers what an operation tells of its registers.
func (c *registerClient) learn(op *history.Op) {
	if len(c.known) > knownLimit {
		clear(c.known)
	}
	for _, cell := range op.Cells {
		switch {
		case op.Outcome == history.Unknown:
			c.registers.unknown(cell.Key)
		case op.Outcome != history.OK:
			// What it knew may be out of date; a read tells.
		case op.F == history.Get:
			c.known[cell.Key] = cell.Revision
		case cell.Absent:
			c.known[cell.Key] = 0
		default:
			c.known[cell.Key] = op.Revision
		}
	}
	if op.Outcome == history.OK && op.F != history.Get {
		c.wrote = op.Revision
	}
}

// decider writes the flags that SDK processes decide by, and the pair always at once.
type decider struct {
	session
	random *rand.Rand
	pace   time.Duration
}

func (d *decider) run(ctx context.Context) {
	for ctx.Err() == nil {
		d.step(ctx)
		pause(ctx, time.Duration((0.5+d.random.Float64())*float64(d.pace)))
	}
}

func (d *decider) step(ctx context.Context) {
	keys, pair := DecisionKeys(), PairKeys()
	key := keys[d.random.IntN(len(keys))]
	if key == pair[0] || key == pair[1] || d.random.IntN(4) == 0 {
		d.together(ctx)
		return
	}
	cell := history.Cell{Key: key, Value: d.value()}
	d.write(ctx, history.Op{F: history.Put, Cells: []history.Cell{cell}}, "decide", put(key, cell.Value))
}

func (d *decider) together(ctx context.Context) history.Op {
	op := history.Op{F: history.Txn}
	var ops []*holdfastv1.Operation
	for _, key := range PairKeys() {
		cell := history.Cell{Key: key, Value: d.value()}
		op.Cells, ops = append(op.Cells, cell), append(ops, put(key, cell.Value))
	}
	return d.write(ctx, op, "decide together", ops...)
}
