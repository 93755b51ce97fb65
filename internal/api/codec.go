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

// codec passes frames through without copying them and leaves every other
// message to the codec of protobuf.
type codec struct {
	encoding.CodecV2
}

// newCodec returns the codec of the server. It keeps the name of protobuf's, so
// that clients notice nothing.
func newCodec() codec { return codec{encoding.GetCodecV2(proto.Name)} }

// Marshal implements encoding.CodecV2.
func (c codec) Marshal(v any) (mem.BufferSlice, error) {
	f, ok := v.(*frame)
	if !ok {
		return c.CodecV2.Marshal(v)
	}
	// SliceBuffer never returns its bytes to a pool, so sharing them is safe.
	return mem.BufferSlice{mem.SliceBuffer(f.head), mem.SliceBuffer(f.body)}, nil
}
