package bulkhead

import (
	"container/list"
	"time"
)

// queue holds the calls that wait, in classes by rank, each in the order in which
// they came. The zero queue is empty.
type queue struct {
	class [priorities]list.List
	n     int
}

// waiter is a call that waits. It is told once: nil that it has its places, or why
// not.
type waiter struct {
	weight int64
	rank   int
	since  time.Time
	told   chan error
	in     *list.Element // nil once it is out of the queue
}

func (q *queue) len() int { return q.n }

func (q *queue) push(weight int64, rank int, now time.Time) *waiter {
	w := &waiter{weight: weight, rank: rank, since: now, told: make(chan error, 1)}
	w.in = q.class[rank].PushBack(w)
	q.n++
	return w
}

func (q *queue) remove(w *waiter) {
	q.class[w.rank].Remove(w.in)
	w.in = nil
	q.n--
}

// first returns whose turn it is, nil if nobody waits.
func (q *queue) first() *waiter {
	for rank := priorities - 1; rank >= 0; rank-- {
		if e := q.class[rank].Front(); e != nil {
			return e.Value.(*waiter)
		}
	}
	return nil
}

// last returns who waits with the least claim: of the least important the newest.
func (q *queue) last() *waiter {
	for rank := range q.class {
		if e := q.class[rank].Back(); e != nil {
			return e.Value.(*waiter)
		}
	}
	return nil
}
