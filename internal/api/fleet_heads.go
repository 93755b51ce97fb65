package api

import (
	"log/slog"
	"sync"
	"sync/atomic"

	"google.golang.org/protobuf/proto"

	"github.com/holdfast-dev/holdfast/internal/document"
	holdfastv1 "github.com/holdfast-dev/holdfast/proto/holdfast/v1"
)

// signedHeads signs heads of namespaces, each once, for all sessions that are told of
// it. The nil value signs nothing.
type signedHeads struct {
	fleet  Fleet
	logger *slog.Logger
	limit  int
	failed atomic.Bool // the last one could not be signed

	mu    sync.Mutex
	known map[headKey]*signedHead
	order []headKey // of known, oldest first
}

// headKey is what a head is of.
type headKey struct {
	namespace string
	epoch     document.Epoch
	revision  uint64
	root      document.Root
}

// signedHead is a head as the field of a ConnectResponse.
type signedHead struct {
	mu    sync.Mutex
	bytes []byte // nil until it is signed
}

func newSignedHeads(fleet Fleet, logger *slog.Logger) *signedHeads {
	if fleet == nil {
		return nil
	}
	return &signedHeads{fleet: fleet, logger: logger, limit: MaxCachedHeads, known: make(map[headKey]*signedHead)}
}

// of returns a head as the field of a ConnectResponse, which nobody may change;
// nothing where it cannot be signed.
func (s *signedHeads) of(key headKey) []byte {
	s.mu.Lock()
	h, ok := s.known[key]
	if !ok {
		h = &signedHead{}
		s.known[key] = h
		if s.order = append(s.order, key); len(s.order) > s.limit {
			delete(s.known, s.order[0])
			s.order = s.order[1:]
		}
	}
	s.mu.Unlock()
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.bytes == nil {
		h.bytes = s.sign(key)
	}
	return h.bytes
}

// sign signs a head; nil where that does not work, as on a server whose key the others
// do not know yet.
func (s *signedHeads) sign(key headKey) []byte {
	signed, err := s.fleet.SignHead(key.namespace, key.epoch, key.revision, key.root)
	var b []byte
	if err == nil {
		b, err = proto.Marshal(&holdfastv1.ConnectResponse{Head: signed})
	}
	if failed := err != nil; s.failed.Swap(failed) != failed {
		if failed {
			s.logger.Warn("heads are not signed: instances cannot pass on what they hold", "namespace", key.namespace, "cause", err)
		} else {
			s.logger.Info("heads are signed again")
		}
	}
	return b
}
