package api

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"strings"
	"sync"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"
	"google.golang.org/grpc/peer"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/holdfast-dev/holdfast/internal/document"
	"github.com/holdfast-dev/holdfast/internal/pki"
	"github.com/holdfast-dev/holdfast/internal/registry"
	"github.com/holdfast-dev/holdfast/internal/state"
	"github.com/holdfast-dev/holdfast/internal/watch"
	holdfastv1 "github.com/holdfast-dev/holdfast/proto/holdfast/v1"
)

// sessionService is what instances speak with a server.
type sessionService struct {
	holdfastv1.UnimplementedSessionServiceServer

	replica  Replica
	self     string
	hub      *watch.Hub
	encoder  *encoder
	metrics  *metrics
	registry *registry.Registry
	spaces   *fleetSpaces
	heads    *signedHeads
	logger   *slog.Logger
	// helloTime is how long a new session may take to say who it is.
	helloTime time.Duration
	// staleTime is how long this server may hear no leader before it sends its
	// sessions away.
	staleTime time.Duration
	// readers are the goroutines that read from sessions. Each ends with its stream,
	// which is shortly after the handler.
	readers sync.WaitGroup
}

// connectStream is the stream of a session.
type connectStream = grpc.BidiStreamingServer[holdfastv1.ConnectRequest, holdfastv1.ConnectResponse]

// errLeft ends a session whose instance has nothing more to say.
var errLeft = errors.New("the instance left")

// Connect keeps an instance up to date until it leaves, or the server ends the
// stream.
func (s *sessionService) Connect(stream connectStream) error {
	h, err := s.hello(stream)
	if err != nil {
		return err
	}
	ctx, end := context.WithCancelCause(stream.Context())
	defer end(nil)
	// Whoever is refused for its cursor takes nobody's place.
	sub, err := s.hub.Subscribe(h.namespace, h.from(s.hub.View()))
	if err != nil {
		return err
	}
	defer sub.Close()
	joined, err := s.registry.Join(time.Now(), h.instance(stream.Context()), end)
	if err != nil {
		return err
	}
	defer func() { joined.Leave(time.Now()) }()
	defer watchLoyalty(s.replica, s.staleTime, end).stop()
	if err := stream.Send(s.welcome()); err != nil {
		return err
	}
	gossip := s.participate(stream.Context(), &h)
	defer gossip.leave()
	pending := &pendingAck{took: s.metrics.obeyed}
	s.readers.Go(func() { end(s.read(stream, &reading{joined, pending, gossip})) })
	w := &watcher{
		replica: s.replica, encoder: s.encoder, namespace: h.namespace, stream: stream, sending: pending.sending, gossip: gossip,
	}
	err = w.follow(ctx, sub, h.interval)
	if cause := context.Cause(ctx); cause != nil {
		err = cause
	}
	if errors.Is(err, errLeft) {
		return nil
	}
	return err
}

// welcome says who answers.
func (s *sessionService) welcome() *holdfastv1.ConnectResponse {
	w := &holdfastv1.Welcome{ServerId: s.self}
	for _, m := range s.replica.Members() {
		if m.APIAddr != "" {
			w.Servers = append(w.Servers, m.APIAddr)
		}
	}
	return &holdfastv1.ConnectResponse{
		Epoch:     s.replica.View().Epoch().Proto(),
		StateTime: timestamppb.New(s.replica.StateTime()),
		Event:     &holdfastv1.ConnectResponse_Welcome{Welcome: w},
	}
}

// behind counts the sessions whose instances do not obey what this server has.
func (s *sessionService) behind() int {
	view := s.replica.View()
	return s.registry.Count(func(namespace string) registry.Demand {
		return demand(view, namespace, view.Revision())
	})
}

// hello is a checked Hello.
type hello struct {
	namespace string
	identity  *holdfastv1.Identity
	cursor    watch.Cursor
	root      []byte
	interval  time.Duration
	source    holdfastv1.Source
	gossip    *holdfastv1.GossipState // nil for an instance that has none
}

// hello waits for the first message of a session and checks it.
func (s *sessionService) hello(stream connectStream) (hello, error) {
	type received struct {
		req *holdfastv1.ConnectRequest
		err error
	}
	first := make(chan received, 1)
	s.readers.Go(func() {
		req, err := stream.Recv()
		first <- received{req, err}
	})
	timer := time.NewTimer(s.helloTime)
	defer timer.Stop()
	select {
	case r := <-first:
		if r.err != nil {
			return hello{}, r.err
		}
		return checkHello(r.req)
	case <-timer.C:
		return hello{}, Errorf(ReasonInvalidRequest, "the session said nothing for %s; its first message has to be a hello", s.helloTime)
	case <-stream.Context().Done():
		return hello{}, stream.Context().Err()
	}
}

// checkHello says everything that is wrong with the first message of a session.
func checkHello(req *holdfastv1.ConnectRequest) (hello, error) {
	p := req.GetHello()
	var v violations
	if p == nil {
		v.addf("hello", "is missing; it is the first message of a session")
		return hello{}, v.err()
	}
	h := hello{
		namespace: v.namespace("hello.namespace", p.GetNamespace()),
		identity:  p.GetIdentity(),
		cursor:    v.cursor("hello.cursor", p.GetCursor()),
		root:      p.GetRoot(),
		interval:  v.progressInterval("hello.progress_interval", p.GetProgressInterval()),
		source:    p.GetSource(),
		gossip:    p.GetGossip(),
	}
	v.identity("hello.identity", h.identity)
	if n := len(h.root); n != 0 && n != len(document.Root{}) {
		v.addf("hello.root", "has %d bytes; a root has %d", n, len(document.Root{}))
	}
	return h, v.err()
}

// from returns where the session goes on. An instance whose content is another than
// this server's at the same place, whoever is to blame, gets a snapshot. Where the
// namespace has changed since, only the instance can tell, by the root of the delta.
func (h *hello) from(view *state.View) watch.Cursor {
	n := view.Namespace(h.namespace)
	here := h.cursor.Set && h.cursor.Epoch == view.Epoch() &&
		n.ModRevision() <= h.cursor.Revision && h.cursor.Revision <= view.Revision()
	if root := n.Root(); here && len(h.root) > 0 && !bytes.Equal(h.root, root[:]) {
		return watch.Cursor{}
	}
	return h.cursor
}

// instance returns what is known of who says hello.
func (h *hello) instance(ctx context.Context) registry.Instance {
	id := h.identity
	i := registry.Instance{Namespace: h.namespace, Source: h.source, Identity: &holdfastv1.Identity{
		Id: id.GetId(), Service: id.GetService(), Labels: id.GetLabels(), Incarnation: id.GetIncarnation(), Sdk: id.GetSdk(), Host: id.GetHost(),
	}}
	if p, ok := peer.FromContext(ctx); ok {
		i.Address = p.Addr.String()
	}
	if id := identityOf(ctx); id.verified {
		i.AuthenticatedAs = pki.Identity{Role: id.role, Name: id.name}.String()
	}
	return i
}

// identity checks who an instance says that it is.
func (v *violations) identity(field string, id *holdfastv1.Identity) {
	if err := document.CheckName(id.GetId()); err != nil {
		v.addf(field+".id", "%v", err)
	}
	v.text(field+".service", id.GetService(), document.MaxName)
	v.text(field+".sdk", id.GetSdk(), document.MaxName)
	v.text(field+".host", id.GetHost(), document.MaxName)
	v.labels(field+".labels", id.GetLabels())
	if service, ok := id.GetLabels()[serviceLabel]; ok && service != id.GetService() {
		v.addf(field+".labels", "%s is %q, and the service is %q", serviceLabel, service, id.GetService())
	}
}

// serviceLabel is the label under which selectors find an instance's service.
const serviceLabel = "service"

// reading is where what an instance says goes.
type reading struct {
	joined  *registry.Session
	pending *pendingAck
	gossip  *participant // nil for none
}

// read takes in what an instance says and returns why that is over. It runs beside
// the handler, whose interceptor does not see it panic.
func (s *sessionService) read(stream connectStream, to *reading) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = panicked(stream.Context(), s.logger, p)
		}
	}()
	for {
		req, err := stream.Recv()
		switch {
		case errors.Is(err, io.EOF):
			return errLeft
		case err != nil:
			return err
		case req.GetHello() != nil:
			var v violations
			v.addf("hello", "is only the first message of a session")
			return v.err()
		case req.GetAck() != nil:
			ack := kept(req.GetAck())
			to.joined.Ack(ack)
			to.pending.obeyed(ack.GetRevision())
			s.metrics.acks.Inc()
		case req.GetEvidence() != nil:
			to.gossip.hands(req.GetEvidence().GetRecord())
		case req.GetGossip() != nil:
			to.gossip.says(req.GetGossip())
		default: // of a newer version
		}
	}
}

// kept returns what is kept of an Ack, which is nothing that this version does not
// know. That somebody tells too much is no reason to end a session, which would only
// tell it again. The root is not needed: what obeys a revision and has another root
// comes back with a hello.
func kept(ack *holdfastv1.Ack) *holdfastv1.Ack {
	problems := ack.GetProblems()
	k := &holdfastv1.Ack{
		Revision:     ack.GetRevision(),
		ProblemCount: max(ack.GetProblemCount(), uint32(len(problems))), //nolint:gosec // a message holds fewer
		OverriddenBy: cut(ack.GetOverriddenBy(), MaxProblemBytes),
	}
	if epoch, err := document.EpochFromProto(ack.GetEpoch()); err == nil && epoch.HasLineage() {
		k.Epoch = epoch.Proto()
	}
	for _, p := range problems[:min(len(problems), MaxProblems)] {
		one := &holdfastv1.InstanceProblem{Message: cut(p.GetMessage(), MaxProblemBytes)}
		if key := p.GetKey(); key != nil {
			one.Key = &holdfastv1.ResourceKey{Kind: key.GetKind(), Name: cut(key.GetName(), document.MaxName)}
		}
		k.Problems = append(k.Problems, one)
	}
	return k
}

// cut returns the beginning of a text, whole characters only, and without those that
// could garble a terminal.
func cut(text string, limit int) string {
	text = strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return ' '
	}, text)
	if len(text) <= limit {
		return text
	}
	const end = "…"
	limit -= len(end)
	for limit > 0 && !utf8.RuneStart(text[limit]) {
		limit--
	}
	return text[:limit] + end
}

// pendingAck measures how long an instance takes to obey: from when a change is about
// to be sent to the Ack of it. Of the changes that are under way at once it measures
// the first and the last.
type pendingAck struct {
	took prometheus.Observer

	mu          sync.Mutex
	first, last sentChange
}

// sentChange is a change that was sent; its time is zero where there is none.
type sentChange struct {
	revision uint64
	at       time.Time
}

func (p *pendingAck) sending(revision uint64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.last = sentChange{revision, time.Now()}
	if p.first.at.IsZero() || revision < p.first.revision { // as after a restore
		p.first = p.last
	}
}

func (p *pendingAck) obeyed(revision uint64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.first.at.IsZero() || revision < p.first.revision {
		return
	}
	p.took.Observe(time.Since(p.first.at).Seconds())
	if p.first = p.last; revision >= p.last.revision {
		p.first = sentChange{}
	}
}
