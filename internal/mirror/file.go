package mirror

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"google.golang.org/protobuf/proto"

	"github.com/holdfast-dev/holdfast/internal/document"
	holdfastv1 "github.com/holdfast-dev/holdfast/proto/holdfast/v1"
)

var (
	// ErrCorrupt refuses a file that is not what was written.
	ErrCorrupt = errors.New("the file is damaged")
	// ErrVersion refuses a file in the form of another version.
	ErrVersion = errors.New("the file is of another version")
	// ErrNamespace refuses a file about another namespace.
	ErrNamespace = errors.New("the file is of another namespace")
)

// Stamp is the state time at a moment of the wall clock, both in milliseconds since
// 1970. The zero value knows nothing. It is for what outlives a process, and with it
// the monotonic clock.
type Stamp struct {
	Wall, State int64
}

// At returns the state time at another moment of the wall clock, 0 if it is not
// known. A wall clock that was set back does not set state time back.
func (s Stamp) At(wall int64) int64 {
	if s.State == 0 {
		return 0
	}
	return min(s.State+min(max(0, wall-s.Wall), latest), latest)
}

// Mark is what an instance has been at, kept apart from what it holds, so that it
// does not go back when that is lost. It is small, so it is written when the content
// is still the same as well.
type Mark struct {
	Position Position
	Root     document.Root
	Stamp    Stamp
	// Heard is when a server said something last, by the wall clock in milliseconds
	// since 1970; 0 if it is not known.
	Heard int64
}

// Resume returns the mirror of a cache file as of the mark, which is at the mark's
// position if the content was still the same there. Of two lineages that of the cache
// is the newer, because it is written before the mark. The errors are ErrOlderEpoch,
// ErrForked, ErrBehind, ErrGap and ErrRoot: the file is older than the mark.
func (m Mark) Resume(cache *Mirror) (*Mirror, error) {
	if !m.Position.Set() {
		return cache, nil
	}
	if err := m.Position.Admits(cache.at); err == nil || errors.Is(err, ErrForeign) {
		return cache, nil
	}
	return cache.Apply(Update{Epoch: m.Position.Epoch, Delta: document.Delta{
		Namespace: cache.namespace, From: cache.at.Revision, To: m.Position.Revision, Root: m.Root,
	}})
}

// Files are a line that says what they are, the version in two bytes, the body, and
// the SHA-256 of all that. Numbers are big endian, but for lengths and counts, which
// are varints.
//
//	mark    namespace, lineage, counter, nonce, revision, root, wall, state, heard
//	cache   the same up to state, the number of resources, and each one with its length
//	trust   namespace, length and bytes of the key, holdfast.v1.GossipSettings
//
// Resources are holdfast.v1.Resource without a namespace, in the order of their keys.
const (
	cacheMagic  = "holdfast cache\n"
	markMagic   = "holdfast mark\n"
	trustMagic  = "holdfast trust\n"
	fileVersion = 1
	// markVersion is that of marks: those of version 1 do not say when a server was heard.
	markVersion = 2
)

// EncodeCache writes a mirror that holds something, and the state time.
func EncodeCache(to io.Writer, m *Mirror, at Stamp) error {
	sum := sha256.New()
	w := bufio.NewWriterSize(io.MultiWriter(to, sum), 64<<10)
	head := header(cacheMagic, fileVersion, m.namespace, Mark{Position: m.at, Root: m.Root(), Stamp: at})
	head = binary.AppendUvarint(head, uint64(m.Len()))
	_, _ = w.Write(head) // a writer that has failed fails in Flush as well
	var data []byte
	for k, r := range m.All() {
		var err error
		p := r.Proto("")
		if data, err = (proto.MarshalOptions{Deterministic: true}).MarshalAppend(data[:0], p); err != nil {
			return fmt.Errorf("encode %s: %w", k, err)
		}
		_, _ = w.Write(binary.AppendUvarint(nil, uint64(len(data))))
		_, _ = w.Write(data)
	}
	if err := w.Flush(); err != nil {
		return fmt.Errorf("write cache: %w", err)
	}
	if _, err := to.Write(sum.Sum(nil)); err != nil {
		return fmt.Errorf("write cache: %w", err)
	}
	return nil
}

// DecodeCache is the inverse of EncodeCache. The errors are ErrCorrupt, ErrVersion
// and ErrNamespace. The mirror shares no memory with data.
func DecodeCache(data []byte, namespace string) (*Mirror, Stamp, error) {
	r, mark, err := open(data, cacheMagic, fileVersion, namespace)
	if err != nil {
		return nil, Stamp{}, fmt.Errorf("read cache: %w", err)
	}
	u := Update{Epoch: mark.Position.Epoch, Replace: true, Delta: document.Delta{
		Namespace: namespace, To: mark.Position.Revision, Root: mark.Root,
	}}
	for n := r.uvarint(); n > 0 && r.err == nil; n-- {
		u.Delta.Puts = append(u.Delta.Puts, r.resource())
	}
	if err := r.close(); err != nil {
		return nil, Stamp{}, fmt.Errorf("read cache: %w", err)
	}
	m, err := New(namespace, Position{}).Apply(u)
	if err != nil {
		return nil, Stamp{}, fmt.Errorf("read cache: %w: %w", ErrCorrupt, err)
	}
	return m, mark.Stamp, nil
}

// EncodeMark returns the bytes of a mark.
func EncodeMark(namespace string, m Mark) []byte {
	data := binary.BigEndian.AppendUint64(header(markMagic, markVersion, namespace, m), uint64(m.Heard))
	sum := sha256.Sum256(data)
	return append(data, sum[:]...)
}

// DecodeMark is the inverse of EncodeMark. The errors are those of DecodeCache.
func DecodeMark(data []byte, namespace string) (Mark, error) {
	r, mark, err := open(data, markMagic, markVersion, namespace)
	if err == nil {
		if r.version >= markVersion {
			mark.Heard = r.time()
		}
		err = r.close()
	}
	if err != nil {
		return Mark{}, fmt.Errorf("read mark: %w", err)
	}
	return mark, nil
}

// title returns what every file begins with.
func title(magic string, version uint16, namespace string) []byte {
	b := binary.BigEndian.AppendUint16([]byte(magic), version)
	return append(binary.AppendUvarint(b, uint64(len(namespace))), namespace...)
}

// header returns what cache and mark begin with.
func header(magic string, version uint16, namespace string, m Mark) []byte {
	b := title(magic, version, namespace)
	b = append(b, m.Position.Epoch.Lineage[:]...)
	for _, n := range [...]uint64{m.Position.Epoch.Counter, m.Position.Epoch.Nonce, m.Position.Revision} {
		b = binary.BigEndian.AppendUint64(b, n)
	}
	b = append(b, m.Root[:]...)
	b = binary.BigEndian.AppendUint64(b, uint64(m.Stamp.Wall))
	return binary.BigEndian.AppendUint64(b, uint64(m.Stamp.State))
}

// open checks a file as a whole and reads what cache and mark begin with.
func open(data []byte, magic string, newest uint16, namespace string) (*reader, Mark, error) {
	r, err := unseal(data, magic, newest, namespace)
	if err != nil {
		return nil, Mark{}, err
	}
	m := Mark{Position: Position{Epoch: document.Epoch{Lineage: [16]byte(r.take(16)), Counter: r.uint64(), Nonce: r.uint64()}, Revision: r.uint64()}}
	m.Root = document.Root(r.take(len(m.Root)))
	m.Stamp = Stamp{Wall: r.time(), State: r.time()}
	return r, m, nil
}

// unseal checks a file as a whole and that it is of the namespace, and returns what
// follows.
func unseal(data []byte, magic string, newest uint16, namespace string) (*reader, error) {
	body, ok := bytes.CutPrefix(data, []byte(magic))
	switch {
	case !ok:
		return nil, fmt.Errorf("%w: it does not begin with %q", ErrCorrupt, magic)
	case len(body) < 2+sha256.Size:
		return nil, fmt.Errorf("%w: it breaks off after %d bytes", ErrCorrupt, len(data))
	}
	v := binary.BigEndian.Uint16(body)
	if v == 0 || v > newest {
		return nil, fmt.Errorf("%w: %d, and this program reads up to %d", ErrVersion, v, newest)
	}
	end := len(data) - sha256.Size
	if sum := sha256.Sum256(data[:end]); !bytes.Equal(sum[:], data[end:]) {
		return nil, fmt.Errorf("%w: the checksum of its %d bytes is wrong", ErrCorrupt, len(data))
	}
	r := &reader{version: v, data: body[2 : len(body)-sha256.Size]}
	name := string(r.take(r.length()))
	if r.err == nil && name != namespace {
		return nil, fmt.Errorf("%w: %q, not %q", ErrNamespace, name, namespace)
	}
	return r, nil
}

// reader reads the body of a file. Its first error stays, and what is read after it
// is zeros.
type reader struct {
	version uint16
	data    []byte
	err     error
}

func (r *reader) fail(what string) {
	if r.err == nil {
		r.err = fmt.Errorf("%w: %s", ErrCorrupt, what)
	}
}

// take returns the next n bytes, which are data's.
func (r *reader) take(n int) []byte {
	if r.err == nil && n > len(r.data) {
		r.fail("its body breaks off")
	}
	if r.err != nil {
		return make([]byte, min(n, sha256.Size)) // fixed parts are no longer
	}
	b := r.data[:n]
	r.data = r.data[n:]
	return b
}

func (r *reader) uint64() uint64 { return binary.BigEndian.Uint64(r.take(8)) }

// time returns milliseconds since 1970.
func (r *reader) time() int64 {
	t := int64(r.uint64())
	if t < 0 || t > latest {
		r.fail("a time out of range")
	}
	return t
}

func (r *reader) uvarint() uint64 {
	v, n := binary.Uvarint(r.data)
	if n <= 0 {
		r.fail("a number breaks off")
		return 0
	}
	r.take(n)
	return v
}

// length returns a length that what is left has room for.
func (r *reader) length() int {
	n := r.uvarint()
	if n > uint64(len(r.data)) {
		r.fail("its body breaks off")
		return 0
	}
	return int(n)
}

// resource returns the next resource; nil after an error.
func (r *reader) resource() *document.Resource {
	data := r.take(r.length())
	if r.err != nil {
		return nil
	}
	p := new(holdfastv1.Resource)
	if err := proto.Unmarshal(data, p); err != nil {
		r.fail(err.Error())
		return nil
	}
	_, res, err := document.FromProto(p)
	if err != nil {
		r.fail(err.Error())
		return nil
	}
	return res
}

// close checks that everything was read.
func (r *reader) close() error {
	if r.err == nil && len(r.data) > 0 {
		r.fail(fmt.Sprintf("%d bytes are left over", len(r.data)))
	}
	return r.err
}
