package client

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"weak"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/proto"

	"github.com/holdfast-dev/holdfast/internal/degrade"
	"github.com/holdfast-dev/holdfast/internal/flags"
	"github.com/holdfast-dev/holdfast/internal/replies"
)

// question is a unary call that something else may answer. Only messages of
// protobuf can be recorded or answered.
type question struct {
	dependency, method string
	request, reply     any
	sent               metadata.MD
	// known tells that everything the answer may depend on is known; origin is the
	// connection then.
	known  bool
	origin uint64
	wire   []byte // the request
}

func newQuestion(ctx context.Context, r *rpc, opts []grpc.CallOption) *question {
	q := &question{dependency: r.connection.name, method: r.method, request: r.req, reply: r.reply}
	q.sent, _ = metadata.FromOutgoingContext(ctx)
	if !slices.ContainsFunc(opts, isIdentity) {
		q.origin, q.known = r.connection.origins.of(r.cc)
	}
	return q
}

// isIdentity tells whether an option says who calls, or who is called, for one call.
func isIdentity(o grpc.CallOption) bool {
	switch o.(type) {
	case grpc.PerRPCCredsCallOption, grpc.AuthorityOverrideCallOption:
		return true
	default:
		return false
	}
}

// Request implements degrade.Question.
func (q *question) Request() any { return q.request }

// Key implements degrade.Question.
func (q *question) Key(vary []string) (replies.Key, bool) {
	request, ok := q.request.(proto.Message)
	if !ok || !q.known {
		return replies.Key{}, false
	}
	if q.wire == nil {
		wire, err := proto.MarshalOptions{Deterministic: true}.Marshal(request)
		if err != nil {
			return replies.Key{}, false
		}
		q.wire = wire
	}
	where := q.dependency + "\x00" + strconv.FormatUint(q.origin, 10)
	return replies.NewKey(where, q.method, q.wire, degrade.Pairs(vary, q.sent)), true
}

// Reply implements degrade.Question.
func (q *question) Reply() (reply any, size int, ok bool) {
	message, ok := q.reply.(proto.Message)
	if !ok {
		return nil, 0, false
	}
	wire, err := proto.Marshal(message)
	return wire, len(wire), err == nil
}

// Recall implements degrade.Question.
func (q *question) Recall(reply any) error {
	wire, ok := reply.([]byte)
	message, isProto := q.reply.(proto.Message)
	if !ok || !isProto {
		return errors.New("is no reply to this call")
	}
	if err := proto.Unmarshal(wire, message); err != nil {
		return fmt.Errorf("read the recorded reply: %w", err)
	}
	return nil
}

// Check implements degrade.Question.
func (q *question) Check(answer any) error {
	reply, ok := q.reply.(proto.Message)
	if !ok {
		return errors.New("the call has no message of protobuf for a reply")
	}
	message, ok := answer.(proto.Message)
	if !ok || message.ProtoReflect().Descriptor() != reply.ProtoReflect().Descriptor() {
		return fmt.Errorf("is a %T, but the call wants a %T", answer, reply)
	}
	if !message.ProtoReflect().IsValid() {
		return fmt.Errorf("is a nil %T", answer)
	}
	return nil
}

// Accept implements degrade.Question.
func (q *question) Accept(answer any) {
	reply := q.reply.(proto.Message)
	proto.Reset(reply)
	proto.Merge(reply, answer.(proto.Message))
}

// witness sees what a call really sends: credentials of a call are asked at the end
// of all interceptors. It adds nothing.
type witness struct {
	sent       metadata.MD // what was known before the call
	recordings []flags.Recording

	asked, differed atomic.Bool
}

// GetRequestMetadata implements credentials.PerRPCCredentials.
func (w *witness) GetRequestMetadata(ctx context.Context, _ ...string) (map[string]string, error) {
	w.asked.Store(true)
	sent, _ := metadata.FromOutgoingContext(ctx)
	for _, r := range w.recordings {
		vary := degrade.Names(r.Vary)
		if !slices.Equal(degrade.Pairs(vary, sent), degrade.Pairs(vary, w.sent)) {
			w.differed.Store(true)
		}
	}
	return nil, nil
}

// RequireTransportSecurity implements credentials.PerRPCCredentials.
func (w *witness) RequireTransportSecurity() bool { return false }

// agrees tells that all attempts sent the metadata that was known before, and no
// credentials of others took the witness's place.
func (w *witness) agrees() bool { return w.asked.Load() && !w.differed.Load() }

// origins tells connections apart: who speaks over one, by its certificate or
// credentials, may get other answers than over another.
type origins struct {
	shared  bool // credentials of connections are the same for all their calls
	numbers *atomic.Uint64

	mu    sync.Mutex
	known []origin // of connections in use
}

type origin struct {
	conn    weak.Pointer[grpc.ClientConn]
	number  uint64
	private bool // it has credentials that may be another user's with each call
}

// of returns the number of a connection; false where nobody can know on whose behalf
// its calls are made.
func (o *origins) of(cc *grpc.ClientConn) (number uint64, ok bool) {
	if cc == nil {
		return 0, false
	}
	conn := weak.Make(cc)
	o.mu.Lock()
	defer o.mu.Unlock()
	i := slices.IndexFunc(o.known, func(k origin) bool { return k.conn == conn })
	if i < 0 {
		o.known = slices.DeleteFunc(o.known, func(k origin) bool { return k.conn.Value() == nil })
		i = len(o.known)
		o.known = append(o.known, origin{conn, o.numbers.Add(1), !o.shared && hasCredentials(cc)})
	}
	return o.known[i].number, !o.known[i].private
}

// hasCredentials tells whether a connection adds credentials to each call. gRPC
// shows that to nobody, so its fields are looked at; where they are not as expected,
// it may have some.
func hasCredentials(cc *grpc.ClientConn) bool {
	v := reflect.ValueOf(cc).Elem()
	for _, name := range []string{"dopts", "copts"} {
		if v = v.FieldByName(name); v.Kind() != reflect.Struct {
			return true
		}
	}
	list, bundle := v.FieldByName("PerRPCCredentials"), v.FieldByName("CredsBundle")
	if list.Kind() != reflect.Slice || bundle.Kind() != reflect.Interface {
		return true
	}
	return list.Len() > 0 || !bundle.IsNil()
}
