package gossip

import (
	"encoding/binary"
	"errors"
	"maps"
	"slices"
)

// Bytes that the library puts round one broadcast in a packet: the compound
// header, the entry in it, the type byte, the encryption and the label header.
const (
	packetSize       = 1400
	compoundOverhead = 2 + 2
	typeOverhead     = 1
	cryptoOverhead   = 29
	labelOverhead    = 2
	metaLimit        = 512
)

var errTruncated = errors.New("truncated state")

// packetBudget is how long a broadcast may be to fit a packet of its own.
func packetBudget(config Config) int {
	budget := packetSize - compoundOverhead - typeOverhead
	if len(config.Keys) > 0 {
		budget -= cryptoOverhead
	}
	if config.Label != "" {
		budget -= labelOverhead + len(config.Label)
	}
	return budget
}

// encodeMessage is a name with its length in one byte, and the body.
func encodeMessage(name string, body []byte) []byte {
	message := make([]byte, 0, 1+len(name)+len(body))
	message = append(message, byte(len(name)))
	message = append(message, name...)
	return append(message, body...)
}

func decodeMessage(message []byte) (name string, body []byte, ok bool) {
	if len(message) == 0 {
		return "", nil, false
	}
	n := int(message[0])
	if len(message) < 1+n {
		return "", nil, false
	}
	return string(message[1 : 1+n]), message[1+n:], true
}

// encodeStates is a sequence of messages, each with its length before it.
func encodeStates(states map[string]State) []byte {
	var buf []byte
	for _, name := range slices.Sorted(maps.Keys(states)) {
		message := encodeMessage(name, states[name].Encode())
		buf = binary.AppendUvarint(buf, uint64(len(message)))
		buf = append(buf, message...)
	}
	return buf
}

// decodeStates calls fn for each state. States before the first unreadable byte
// have been handed out when it returns an error.
func decodeStates(buf []byte, fn func(name string, body []byte)) error {
	for len(buf) > 0 {
		length, n := binary.Uvarint(buf)
		if n <= 0 || length > uint64(len(buf)-n) {
			return errTruncated
		}
		name, body, ok := decodeMessage(buf[n : n+int(length)])
		if !ok {
			return errTruncated
		}
		fn(name, body)
		buf = buf[n+int(length):]
	}
	return nil
}
