package gossip

import (
	"fmt"
	"testing"
	"time"
)

func newQueue(members int) *queue {
	return &queue{nodes: func() int { return members }}
}

func put(q *queue, key string, local, quiet, eager bool) bool {
	return q.put(item{entry: entry{nil, key}, born: time.Now(), local: local, quiet: quiet}, eager)
}

// order sends each record once and returns the order.
func order(q *queue) []string {
	var keys []string
	var taken []*item
	for {
		it, _ := q.take(1000)
		if it == nil {
			break
		}
		keys, taken = append(keys, it.key), append(taken, it)
	}
	for _, it := range taken {
		q.giveBack(it, 10, 1)
	}
	return keys
}

func TestQueueOrder(t *testing.T) {
	q := newQueue(50)
	put(q, "a", false, false, false)
	put(q, "b", true, false, false)
	put(q, "c", false, false, false)
	put(q, "d", true, false, false)
	if got := fmt.Sprint(order(q)); got != "[d b c a]" {
		t.Errorf("own first, then the newest: %s", got)
	}
	put(q, "e", false, false, false)
	if got := fmt.Sprint(order(q)); got != "[e d b c a]" {
		t.Errorf("least sent first: %s", got)
	}
	put(q, "a", false, false, false)
	if got := fmt.Sprint(order(q)[:2]); got != "[a e]" {
		t.Errorf("put anew: %s", got)
	}
}

func TestQueueForgetsWhatWasSentEnough(t *testing.T) {
	for _, c := range []struct {
		members, loud, quiet int
	}{{2, 6, 4}, {9, 6, 4}, {50, 6, 4}, {999, 9, 6}, {2000, 12, 8}, {50000, 15, 10}, {2000000, 21, 14}} {
		for _, quiet := range []bool{false, true} {
			q := newQueue(c.members)
			put(q, "a", true, quiet, false)
			sent := 0
			for q.len() > 0 {
				sent += len(order(q))
			}
			want := c.loud
			if quiet {
				want = c.quiet
			}
			if sent != want {
				t.Errorf("%d members, quiet %v: sent %d times, want %d", c.members, quiet, sent, want)
			}
		}
	}
}

// What is put while it is being sent goes round from the start, once.
func TestQueueTakesNewsWhileSending(t *testing.T) {
	q := newQueue(2)
	put(q, "a", true, false, false)
	it, _ := q.take(1000)
	if other, _ := q.take(1000); other != nil {
		t.Fatal("handed out twice")
	}
	put(q, "a", true, false, false)
	q.giveBack(it, 10, 6)
	if got := order(q); len(got) != 1 {
		t.Errorf("%q is left", got)
	}
	it, _ = q.take(1000)
	q.drop(it.entry, false) // somebody else's attempt
	if q.len() != 1 {
		t.Error("dropped while taken")
	}
	q.drop(it.entry, true)
	q.giveBack(it, 10, 0)
	if q.len() != 0 || len(order(q)) != 0 {
		t.Error("dropped and still there")
	}
}

func TestQueueIsBounded(t *testing.T) {
	q := newQueue(50)
	put(q, "often sent", false, false, false)
	order(q)
	for i := range queueLimit + 10 {
		put(q, fmt.Sprint(i), true, false, true)
	}
	if q.len() != queueLimit || q.items[entry{nil, "often sent"}] != nil {
		t.Errorf("%d queued", q.len())
	}
	if n := len(q.takePush()); n != eagerLimit {
		t.Errorf("%d to push", n)
	}
	if n := len(order(q)); n != queueLimit {
		t.Errorf("%d are in a lane", n)
	}
}

func TestQueueFillsPackets(t *testing.T) {
	q := newQueue(50)
	for _, size := range []int{100, 400, 900} {
		put(q, fmt.Sprint(size), true, false, false)
		it, _ := q.take(1000)
		q.giveBack(it, size, 0)
	}
	if it, _ := q.take(50); it != nil {
		t.Errorf("%s fits 50 bytes", it.key)
	}
	if it, _ := q.take(450); it == nil || it.key != "400" {
		t.Errorf("not the newest that fits: %v", it)
	}
}

func TestPushesCount(t *testing.T) {
	q := newQueue(2)
	put(q, "a", true, false, true)
	q.credit(entry{nil, "a"}, 5)
	if got := order(q); len(got) != 1 || q.len() != 0 {
		t.Errorf("%d still queued", q.len())
	}
	put(q, "b", true, false, true)
	it, _ := q.take(1000)
	q.credit(it.entry, 50) // under way meanwhile
	q.giveBack(it, 10, 1)
	if q.len() != 1 || len(order(q)) != 1 {
		t.Error("lost while under way")
	}
}
