package cluster

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	holdfastv1 "github.com/holdfast-dev/holdfast/proto/holdfast/v1"
)

// Writer applies transactions as a careful client does: one request id per
// transaction, retried through one server after the other, each time with the
// time since the first attempt, until there is an answer. It is used by one
// goroutine at a time.
type Writer struct {
	clients []holdfastv1.StateServiceClient
	next    int
	// Attempt is how long one try may take. Short times make a writer retry what
	// is still under way, which is the interesting case.
	Attempt time.Duration
	// Actor is claimed with each write.
	Actor string
}

// Writer returns a writer that begins with server first.
func (c *Cluster) Writer(first int, attempt time.Duration) *Writer {
	w := &Writer{next: first, Attempt: attempt, Actor: "cluster-test"}
	for i := range c.servers {
		w.clients = append(w.clients, c.Client(i))
	}
	return w
}

// Ack is an acknowledged write.
type Ack struct {
	Request  *holdfastv1.ApplyRequest
	Response *holdfastv1.ApplyResponse
	Began    time.Time // of the first attempt
	Took     time.Duration
	Attempts int
}

// NewRequest names a transaction with a fresh request id.
func (w *Writer) NewRequest(reason string, ops ...*holdfastv1.Operation) *holdfastv1.ApplyRequest {
	return &holdfastv1.ApplyRequest{RequestId: NewRequestID(), Operations: ops, Reason: reason, ClaimedActor: w.Actor}
}

// Write applies a new transaction.
func (w *Writer) Write(ctx context.Context, reason string, ops ...*holdfastv1.Operation) (Ack, error) {
	return w.Send(ctx, w.NewRequest(reason, ops...), time.Now())
}

// Send applies a transaction that was first tried at began. It returns an error
// only for a definite refusal or when ctx ends.
func (w *Writer) Send(ctx context.Context, req *holdfastv1.ApplyRequest, began time.Time) (Ack, error) {
	ack := Ack{Request: req, Began: began}
	for {
		client := w.clients[w.next%len(w.clients)]
		if ack.Attempts > 0 || time.Since(began) > time.Second {
			req.Age = durationpb.New(time.Since(began))
		}
		ack.Attempts++
		try, cancel := context.WithTimeout(ctx, w.Attempt)
		resp, err := client.Apply(try, req)
		cancel()
		if err == nil {
			ack.Response, ack.Took = resp, time.Since(began)
			return ack, nil
		}
		if final(err) {
			return ack, fmt.Errorf("write refused: %w", err)
		}
		w.next++
		select {
		case <-ctx.Done():
			return ack, fmt.Errorf("write gave up after %d attempts: %w; last: %w", ack.Attempts, context.Cause(ctx), err)
		case <-time.After(5 * time.Millisecond):
		}
	}
}

// final tells whether no retry can change the answer.
func final(err error) bool {
	if errors.Is(err, context.Canceled) {
		return true
	}
	switch status.Code(err) {
	case codes.Unavailable, codes.DeadlineExceeded, codes.Canceled, codes.Aborted, codes.ResourceExhausted, codes.Unknown:
		return false
	default:
		return true
	}
}

// NewRequestID draws 16 random bytes.
func NewRequestID() []byte {
	id := make([]byte, 16)
	_, _ = rand.Read(id) // never fails
	return id
}

// Flag is a put of a flag whose off variant carries a text, so that every value
// is a different definition.
func Flag(namespace, name, text string) *holdfastv1.Operation {
	return put(&holdfastv1.Put{Key: key(namespace, holdfastv1.Kind_KIND_FLAG, name), Spec: FlagSpec(text)})
}

// FlagSpec is a flag definition that carries a text without quotes or backslashes.
func FlagSpec(text string) []byte {
	return fmt.Appendf(nil, `{"defaultVariant":"off","state":"ENABLED","variants":{"off":%q,"on":"on"}}`, text)
}

// Create makes an operation conditional on the resource not being there.
func Create(op *holdfastv1.Operation) *holdfastv1.Operation { return Expect(op, 0) }

// Expect makes an operation conditional on the resource's revision.
func Expect(op *holdfastv1.Operation, revision uint64) *holdfastv1.Operation {
	op.ExpectedRevision = &revision
	return op
}

// Delete is a removal of a flag.
func Delete(namespace, name string) *holdfastv1.Operation {
	return &holdfastv1.Operation{Action: &holdfastv1.Operation_Delete{
		Delete: &holdfastv1.Delete{Key: key(namespace, holdfastv1.Kind_KIND_FLAG, name)},
	}}
}

// Override is a put of an override of a flag's variant that ends after ttl.
func Override(namespace, name string, ttl time.Duration) *holdfastv1.Operation {
	return put(&holdfastv1.Put{
		Key:  key(namespace, holdfastv1.Kind_KIND_OVERRIDE, name),
		Spec: []byte(`{"flag":"some-flag","variant":"off"}`),
		Ttl:  durationpb.New(ttl),
	})
}

func put(p *holdfastv1.Put) *holdfastv1.Operation {
	return &holdfastv1.Operation{Action: &holdfastv1.Operation_Put{Put: p}}
}

func key(namespace string, kind holdfastv1.Kind, name string) *holdfastv1.ResourceKey {
	return &holdfastv1.ResourceKey{Namespace: namespace, Kind: kind, Name: name}
}
