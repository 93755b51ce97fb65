package gossip

import (
	"container/list"
	"math"
	"sync"
	"time"
)

const (
	// queueLimit bounds the records that wait to be sent. When it is full the one
	// that has been sent most often makes room.
	queueLimit = 4096
	// eagerLimit bounds the records that wait to be pushed. Further ones go
	// round by the queue only.
	eagerLimit = 256
	// loudMult and quietMult, times the logarithm of the members, are how often a
	// record is sent. Pushes and digests reach whom that leaves out: with 6 nobody
	// learns sooner, and an outage costs a member twice as much (test/sim).
	loudMult  = 3
	quietMult = 2
	// loudLeast and quietLeast are the least, for pools of a few.
	loudLeast  = 6
	quietLeast = 4
	// lanes is twice the most often that a record can be sent.
	lanes = 60
	// misfits bounds how many records are looked at that are too long for what is
	// left of a packet.
	misfits = 4
)

// entry names a record.
type entry struct {
	channel *Channel
	key     string
}

// item is a record that waits to be sent. It is encoded when it is sent, so that
// its age is right.
type item struct {
	entry
	born  time.Time // when its origin spread it; zero: unknown
	quiet bool      // sent less often, and never pushed
	local bool      // this process's own news

	sent  int
	size  int // when it was last encoded; 0: unknown
	place *list.Element
	busy  bool // taken; it is in no lane
	again bool // it was put anew meanwhile
	eager bool // waits to be pushed
}

// queue holds the records to send: those sent least often first, own ones before
// others', the newest first. Its lock is never held while records are encoded.
type queue struct {
	nodes func() int // members alive; must not block

	mu    sync.Mutex
	items map[entry]*item
	lanes [lanes]list.List
	push  []*item
}

// put queues a record, in the place of its older self; with eager set it is to be
// pushed as well. It tells whether whoever sends must be woken.
func (q *queue) put(it item, eager bool) (wake bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.items == nil {
		q.items = make(map[entry]*item)
	}
	present := q.items[it.entry]
	switch {
	case present == nil:
		if len(q.items) >= queueLimit {
			q.evict()
		}
		present = &it
		wake = len(q.items) == 0
		q.items[it.entry] = present
		q.link(present, true)
	case present.busy:
		present.born, present.local, present.again = it.born, it.local, true
	default:
		q.unlink(present)
		present.born, present.local, present.sent, present.size = it.born, it.local, 0, 0
		q.link(present, true)
	}
	present.quiet = present.quiet && it.quiet
	if !eager || present.eager || len(q.push) >= eagerLimit {
		return wake
	}
	present.eager = true
	q.push = append(q.push, present)
	return true
}

// take hands out the next record that may fit, and a copy to read; the caller
// gives it back or drops it. One whose size is unknown may turn out not to fit.
func (q *queue) take(limit int) (it *item, copied item) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.items) == 0 {
		return nil, item{}
	}
	for i := range q.lanes {
		tried := 0
		for place := q.lanes[i].Front(); place != nil && tried < misfits; place = place.Next() {
			it := place.Value.(*item)
			if it.size <= limit {
				q.unlink(it)
				it.busy = true
				return it, *it
			}
			tried++
		}
	}
	return nil, item{}
}

// giveBack ends a take. A record that has been sent often enough is forgotten.
func (q *queue) giveBack(it *item, size, sent int) {
	q.mu.Lock()
	defer q.mu.Unlock()
	it.busy, it.size = false, size
	if q.items[it.entry] != it {
		return
	}
	if it.again {
		it.again, it.sent, it.size = false, 0, 0
		q.link(it, true)
		return
	}
	it.sent += sent
	if it.sent >= q.limit(it) {
		delete(q.items, it.entry)
		return
	}
	q.link(it, sent == 0)
}

// credit counts pushes of a record among the times that it is sent.
func (q *queue) credit(e entry, pushes int) {
	q.mu.Lock()
	defer q.mu.Unlock()
	it := q.items[e]
	if it == nil || it.busy {
		return
	}
	q.unlink(it)
	it.sent += pushes
	if it.sent >= q.limit(it) {
		delete(q.items, e)
		return
	}
	q.link(it, true)
}

// drop forgets a record that cannot be sent. One that somebody else has taken is
// left to them, and one that was put anew while it was taken goes round once more.
func (q *queue) drop(e entry, taken bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	it := q.items[e]
	switch {
	case it == nil || it.busy != taken:
	case it.again:
		it.again, it.busy, it.sent, it.size = false, false, 0, 0
		q.link(it, true)
	default:
		if !taken {
			q.unlink(it)
		}
		delete(q.items, e)
	}
}

// takePush hands out copies of the records to push.
func (q *queue) takePush() []item {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.push) == 0 {
		return nil
	}
	push := make([]item, len(q.push))
	for i, it := range q.push {
		it.eager = false
		push[i] = *it
	}
	q.push = nil
	return push
}

func (q *queue) len() int {
	q.mu.Lock()
	defer q.mu.Unlock()
	return len(q.items)
}

// limit is how often a record is sent.
func (q *queue) limit(it *item) int {
	scale := int(math.Ceil(math.Log10(float64(q.nodes() + 1))))
	if it.quiet {
		return max(quietLeast, quietMult*scale)
	}
	return min(max(loudLeast, loudMult*scale), lanes/2)
}

func (q *queue) lane(it *item) *list.List {
	i := 2 * min(it.sent, lanes/2-1)
	if !it.local {
		i++
	}
	return &q.lanes[i]
}

func (q *queue) link(it *item, front bool) {
	if front {
		it.place = q.lane(it).PushFront(it)
	} else {
		it.place = q.lane(it).PushBack(it)
	}
}

func (q *queue) unlink(it *item) {
	q.lane(it).Remove(it.place)
	it.place = nil
}

// evict forgets the record sent most often, others' before own ones.
func (q *queue) evict() {
	for i := len(q.lanes) - 1; i >= 0; i-- {
		if place := q.lanes[i].Back(); place != nil {
			it := place.Value.(*item)
			q.unlink(it)
			delete(q.items, it.entry)
			return
		}
	}
}
