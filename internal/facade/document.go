package facade

import (
	"encoding/binary"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/holdfast-dev/holdfast/internal/flags"
	syncv1 "github.com/holdfast-dev/holdfast/proto/flagd/sync/v1"
)

// appendDocument appends the selected flags as a document of flagd.
func appendDocument(b []byte, view *flags.View, s selector) []byte {
	b = append(b, `{"flags":{`...)
	first := true
	for f := range view.Flags() {
		if !s.has(f) {
			continue
		}
		if !first {
			b = append(b, ',')
		}
		first = false
		b = flags.String(f.Key()).AppendJSON(b)
		b = append(b, ':')
		b = append(b, f.Definition()...)
	}
	return append(b, `}}`...)
}

// shared is a message of SyncFlags that is encoded once for all streams. Nobody
// may change the bytes.
type shared struct {
	// frame is the message as gRPC sends it, behind its five bytes of head.
	frame []byte
}

// frameHead is the length of what comes before a message in gRPC: a byte that
// says that it is not compressed, and its length.
const frameHead = 5

// EncodedMessage returns the message; the codec of the gRPC port sends it as it
// is.
func (s *shared) EncodedMessage() []byte { return s.frame[frameHead:] }

// newShared encodes a message.
func newShared(configuration []byte) (*shared, error) {
	message := &syncv1.SyncFlagsResponse{FlagConfiguration: string(configuration), SyncContext: &structpb.Struct{}}
	frame, err := proto.MarshalOptions{}.MarshalAppend(make([]byte, frameHead, len(configuration)+64), message)
	if err != nil {
		return nil, failf(codes.DataLoss, "the definitions cannot be encoded: %v", err)
	}
	binary.BigEndian.PutUint32(frame[1:], uint32(len(frame)-frameHead)) //nolint:gosec // bounded by maxDocumentBytes
	return &shared{frame: frame}, nil
}

// checkSize refuses a document that providers cannot receive.
func checkSize(s selector, size, limit int) error {
	if size <= limit {
		return nil
	}
	return failf(codes.ResourceExhausted,
		"the flags of selector %q take %d bytes as one document, and providers receive %d at most: divide them into flag sets (metadata flagSetId) "+
			"or namespaces, and have each client select one", s.String(), size, limit)
}
