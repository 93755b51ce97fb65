package gossip

import (
	"encoding/binary"
	"errors"
)

// Bytes that the library puts round one message in a packet: the type byte, the
// checksum, the encryption and the label header.
const (
	packetSize     = 1400
	typeOverhead   = 1
	crcOverhead    = 5
	cryptoOverhead = 29
	labelOverhead  = 2
	metaLimit      = 512
)

// What a record grows by in a message of its own: kind, length, and how old it is;
// and what a message grows by in a batch: the batch's empty name, and its length.
const (
	entryOverhead = 1 + 3 + 5
	batchOverhead = 1 + 3
)

var errTruncated = errors.New("truncated")

// packetBudget is how long a message may be to fit a packet of its own. Room for
// the encryption is always kept: keys may come while the pool runs.
func packetBudget(config Config) int {
	budget := packetSize - typeOverhead - crcOverhead - cryptoOverhead
	if config.Label != "" {
		budget -= labelOverhead + len(config.Label)
	}
	return budget
}

// appendName puts a text of at most 255 bytes behind its length in one byte.
func appendName(b []byte, name string) []byte {
	b = append(b, byte(len(name)))
	return append(b, name...)
}

// cutName is the inverse of appendName.
func cutName(b []byte) (name string, rest []byte, ok bool) {
	if len(b) == 0 || len(b) < 1+int(b[0]) {
		return "", nil, false
	}
	n := 1 + int(b[0])
	return string(b[1:n]), b[n:], true
}

// appendBlock puts a block behind its length.
func appendBlock(b, block []byte) []byte {
	b = binary.AppendUvarint(b, uint64(len(block)))
	return append(b, block...)
}

// eachBlock calls fn for each block. Blocks before the first unreadable byte have
// been handed out when it returns an error.
func eachBlock(b []byte, fn func(block []byte)) error {
	for len(b) > 0 {
		length, n := binary.Uvarint(b)
		if n <= 0 || length > uint64(len(b)-n) {
			return errTruncated
		}
		fn(b[n : n+int(length)])
		b = b[n+int(length):]
	}
	return nil
}
