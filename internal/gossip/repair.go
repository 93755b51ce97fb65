package gossip

import (
	"encoding/binary"
	"math/bits"
	"slices"

	"github.com/holdfast-dev/holdfast/internal/hash"
)

const (
	// buckets divide the keys of a channel; one bit each in a mask.
	buckets = 64
	// repairLimit bounds the records that go to one member in answer to one
	// message. The next probe repairs more.
	repairLimit = 64 << 10
	// digestSize is a channel's part of an acknowledgement: which, and its digest.
	digestSize = 4 + 8
)

// Members compare what they hold whenever one probes the other, and exchange what
// differs, by packets only:
//
//	probed → prober   ack with one digest per channel
//	prober → probed   sums: a digest per bucket            (if that differs)
//	probed → prober   have: digests of the keys in the buckets that differ
//	prober → probed   news: what the other lacks or has otherwise
//	prober → probed   want: what it lacks or has otherwise itself
//	probed → prober   news

// hashKey is the same in every process.
func hashKey(key string) uint64 { return hash.Mix(hash.Add(hash.Start, key)) }

func bucketOf(hash uint64) int { return int(hash % buckets) }

// sums returns a digest for each bucket, and one of all. Sets of equal records
// have equal digests, in whatever order they came.
func (c *Channel) sums() (sums [buckets]uint64, all uint64) {
	for _, key := range c.records.Keys() {
		if digest := c.records.Digest(key); digest != 0 {
			h := hashKey(key)
			sums[bucketOf(h)] ^= hash.Mix(h ^ hash.Mix(digest))
		}
	}
	for i, sum := range sums {
		all ^= hash.Mix(sum + uint64(i))
	}
	return sums, all
}

// digests is what an acknowledgement carries.
func (p *Pool) digests() []byte {
	payload := make([]byte, 0, digestSize*len(p.channels))
	for _, c := range p.channels {
		if c.id == 0 {
			continue
		}
		_, all := c.sums()
		payload = binary.BigEndian.AppendUint32(payload, c.id)
		payload = binary.BigEndian.AppendUint64(payload, all)
	}
	return payload
}

// compare begins a repair where another member's digests differ. A channel that
// one side does not have is of no interest.
func (p *Pool) compare(with address, payload []byte) {
	for ; len(payload) >= digestSize; payload = payload[digestSize:] {
		id, theirs := binary.BigEndian.Uint32(payload), binary.BigEndian.Uint64(payload[4:])
		for _, c := range p.channels {
			if c.id == 0 || c.id != id {
				continue
			}
			sums, ours := c.sums()
			if ours == theirs {
				continue
			}
			p.repairs.Add(1)
			message := c.newRepair(kindSums)
			for _, sum := range sums {
				message = binary.BigEndian.AppendUint64(message, sum)
			}
			p.sendPacket(with, message)
		}
	}
}

// newRepair begins a message that names its sender, to be answered.
func (c *Channel) newRepair(kind byte) []byte {
	return appendName(c.newMessage(kind), c.pool.name)
}

// repair answers a message of a repair. One from a stranger cannot be answered.
func (c *Channel) repair(kind byte, body []byte) error {
	name, body, ok := cutName(body)
	if !ok {
		return errTruncated
	}
	from, ok := c.pool.lookup(name)
	if !ok {
		return nil
	}
	switch kind {
	case kindSums:
		if len(body) != 8*buckets {
			return errTruncated
		}
		c.answerSums(from, body)
	case kindHave:
		if len(body) < 8 || len(body)%16 != 8 {
			return errTruncated
		}
		c.answerHave(from, binary.BigEndian.Uint64(body), body[8:])
	case kindWant:
		if len(body)%8 != 0 {
			return errTruncated
		}
		wanted := make(map[uint64]bool)
		for ; len(body) > 0; body = body[8:] {
			wanted[binary.BigEndian.Uint64(body)] = true
		}
		c.sendRecords(from, func(hash uint64) bool { return wanted[hash] })
	}
	return nil
}

// answerSums tells which keys are in the buckets that differ. A message covers
// whole buckets, named by its mask; of a bucket that fits no message a part goes,
// unnamed, from which nobody concludes what is lacking.
func (c *Channel) answerSums(to address, theirs []byte) {
	sums, _ := c.sums()
	differ := uint64(0)
	for i, sum := range sums {
		if sum != binary.BigEndian.Uint64(theirs[8*i:]) {
			differ |= 1 << i
		}
	}
	var lists [buckets][]byte
	for _, key := range shuffled(c.records.Keys()) {
		hash, digest := hashKey(key), c.records.Digest(key)
		if i := bucketOf(hash); digest != 0 && differ&(1<<i) != 0 {
			lists[i] = binary.BigEndian.AppendUint64(lists[i], hash)
			lists[i] = binary.BigEndian.AppendUint64(lists[i], digest)
		}
	}
	head := c.newRepair(kindHave)
	room := (c.pool.budget - len(head) - 8) / 16 * 16
	mask, body := uint64(0), []byte(nil)
	flush := func() {
		if mask != 0 || len(body) > 0 {
			message := append([]byte(nil), head...)
			message = binary.BigEndian.AppendUint64(message, mask)
			c.pool.sendPacket(to, append(message, body...))
		}
		mask, body = 0, nil
	}
	for ; differ != 0; differ &= differ - 1 {
		i := bits.TrailingZeros64(differ)
		if len(body)+len(lists[i]) > room {
			flush()
		}
		if len(lists[i]) > room {
			body = lists[i][:room]
			flush()
			continue
		}
		mask, body = mask|1<<i, append(body, lists[i]...)
	}
	flush()
}

// answerHave sends what the other lacks, and asks for what is lacking here.
func (c *Channel) answerHave(to address, mask uint64, list []byte) {
	theirs := make(map[uint64]uint64, len(list)/16)
	for ; len(list) > 0; list = list[16:] {
		theirs[binary.BigEndian.Uint64(list)] = binary.BigEndian.Uint64(list[8:])
	}
	ours := make(map[uint64]uint64)
	for _, key := range c.records.Keys() {
		if digest := c.records.Digest(key); digest != 0 {
			ours[hashKey(key)] = digest
		}
	}
	want := c.newRepair(kindWant)
	empty := len(want)
	for hash, digest := range theirs {
		if ours[hash] != digest && len(want)+8 <= c.pool.budget {
			want = binary.BigEndian.AppendUint64(want, hash)
		}
	}
	if len(want) > empty {
		c.pool.sendPacket(to, want)
	}
	c.sendRecords(to, func(hash uint64) bool {
		digest, known := theirs[hash]
		if !known {
			return mask&(1<<bucketOf(hash)) != 0
		}
		return digest != ours[hash]
	})
}

// sendRecords sends what is chosen by the hash of its key, several in a packet.
// What fits no packet waits for the periodic exchange.
func (c *Channel) sendRecords(to address, chosen func(hash uint64) bool) {
	head := c.newMessage(kindNews)
	message, total := head, 0
	for _, key := range shuffled(c.records.Keys()) {
		if c.records.Digest(key) == 0 || !chosen(hashKey(key)) {
			continue
		}
		record := c.records.Encode(key)
		if record == nil || len(record) > c.Budget() {
			continue
		}
		if total += len(record); total > repairLimit {
			break
		}
		if len(message) > len(head) && len(message)+len(record)+entryOverhead > c.pool.budget {
			c.pool.sendPacket(to, message)
			message = head
		}
		message = appendRecord(slices.Clip(message), record, item{})
	}
	if len(message) > len(head) {
		c.pool.sendPacket(to, message)
	}
}
