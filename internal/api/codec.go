package api

import (
	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/encoding/proto"
	"google.golang.org/grpc/mem"
)

// frame is a message that is encoded already: an own head and a body that many
// frames share. Concatenated encodings of parts of a protobuf message are an
// encoding of the message. Nobody may change the bytes.
type frame struct {
	head, body []byte
}

// encoded is a message of another package's service that is encoded already.
// Many streams may share its bytes, which nobody may change.
type encoded interface{ EncodedMessage() []byte }

// codec passes frames and encoded messages through without copying them and
// leaves every other message to the codec of protobuf.
type codec struct {
	encoding.CodecV2
}

// newCodec returns the codec of the server. It keeps the name of protobuf's, so
// that clients notice nothing.
func newCodec() codec { return codec{encoding.GetCodecV2(proto.Name)} }

// Marshal implements encoding.CodecV2.
func (c codec) Marshal(v any) (mem.BufferSlice, error) {
	// SliceBuffer never returns its bytes to a pool, so sharing them is safe.
	switch m := v.(type) {
	case *frame:
		return mem.BufferSlice{mem.SliceBuffer(m.head), mem.SliceBuffer(m.body)}, nil
	case encoded:
		return mem.BufferSlice{mem.SliceBuffer(m.EncodedMessage())}, nil
	default:
		return c.CodecV2.Marshal(v)
	}
}
