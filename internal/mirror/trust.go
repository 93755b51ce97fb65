package mirror

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"

	"google.golang.org/protobuf/proto"

	holdfastv1 "github.com/holdfast-dev/holdfast/proto/holdfast/v1"
)

// Trust is what an instance needs to find its peers, and to know whom to believe,
// while no server can be reached. It holds secrets: the instance's own key, and those
// of its pool. The zero value knows nothing.
type Trust struct {
	// Key is the seed of the instance's own Ed25519 key.
	Key []byte
	// Settings are those that a server gave last: signers, certificate, label, keys,
	// and members to join through. Nobody may change them.
	Settings *holdfastv1.GossipSettings
}

// String keeps the secrets out of what is printed.
func (Trust) String() string { return "trust" }

// GoString keeps the secrets out of what is printed.
func (Trust) GoString() string { return "mirror.Trust{}" }

// EncodeTrust returns the bytes of a file. The same trust has the same bytes.
func EncodeTrust(namespace string, t Trust) ([]byte, error) {
	data := title(trustMagic, fileVersion, namespace)
	data = append(binary.AppendUvarint(data, uint64(len(t.Key))), t.Key...)
	data, err := (proto.MarshalOptions{Deterministic: true}).MarshalAppend(data, t.Settings)
	if err != nil {
		return nil, fmt.Errorf("encode trust: %w", err)
	}
	sum := sha256.Sum256(data)
	return append(data, sum[:]...), nil
}

// DecodeTrust is the inverse of EncodeTrust. The errors are those of DecodeCache.
func DecodeTrust(data []byte, namespace string) (Trust, error) {
	r, err := unseal(data, trustMagic, fileVersion, namespace)
	if err != nil {
		return Trust{}, fmt.Errorf("read trust: %w", err)
	}
	t := Trust{Key: append([]byte(nil), r.take(r.length())...), Settings: new(holdfastv1.GossipSettings)}
	if r.err == nil {
		if err := proto.Unmarshal(r.data, t.Settings); err != nil {
			r.fail(err.Error())
		}
	}
	if r.err != nil {
		return Trust{}, fmt.Errorf("read trust: %w", r.err)
	}
	return t, nil
}
