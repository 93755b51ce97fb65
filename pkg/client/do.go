package client

import (
	"context"
	"fmt"
	"reflect"

	"google.golang.org/grpc/metadata"

	"github.com/holdfast-dev/holdfast/internal/degrade"
	"github.com/holdfast-dev/holdfast/internal/guard"
	"github.com/holdfast-dev/holdfast/internal/replies"
)

// Do makes a call that is no RPC under the policy of a dependency: fn may be called
// several times, with contexts that end earlier than ctx, and under ReadOnly also on
// other goroutines at the same time. What fn returns beside an error is returned as
// well.
//
// A fallback must return a T. Where CacheKey is given and a level of a mode may
// answer from the cache, values are kept, each taken for as large as what it points
// to; those that cannot be measured, because they are too large or refer to
// themselves, are not.
func Do[T any](ctx context.Context, c *Client, dependency string, fn func(context.Context) (T, error), options ...CallOption) (T, error) {
	var o callOptions
	o.take(options)
	d := c.calls.client(dependency)
	if o.operation == "" {
		o.operation = dependency
	}
	t := d.target(o.operation, guard.Operation)
	s := o.setting(t)
	if s.Disabled {
		return fn(ctx)
	}
	call, ok := t.spare.Get().(*operationCall[T])
	if !ok {
		call = new(operationCall[T])
	}
	call.dependency, call.fn, call.options, call.setting = dependency, fn, o, s
	if !s.Plan.Empty() || len(s.Recordings) > 0 {
		return doDegradable(ctx, t, call)
	}
	err := t.Call(ctx, s, call)
	if err != nil && t.point.Prepared(s) {
		return fallBackTo(ctx, t, call, newAnswer(ctx, call), err)
	}
	value := call.value
	*call = operationCall[T]{}
	t.spare.Put(call)
	return value, err
}

// doDegradable makes a call that a level of a mode degrades or may degrade later.
func doDegradable[T any](ctx context.Context, t *target, call *operationCall[T]) (T, error) {
	q := newAnswer(ctx, call)
	by, err := t.point.Before(ctx, call.setting, q)
	if err != nil || by != "" {
		return q.value, err
	}
	if err := t.Call(ctx, call.setting, call); err != nil {
		return fallBackTo(ctx, t, call, q, err)
	}
	q.value = call.value
	t.point.Record(call.setting, q)
	return q.value, nil
}

// fallBackTo lets the policy's fallback answer for a call that failed.
func fallBackTo[T any](ctx context.Context, t *target, call *operationCall[T], q *answer[T], err error) (T, error) {
	outcome := degrade.Outcome(call.setting.Policy, call.options.result(call.setting, err), notMade(err))
	if t.point.After(ctx, call.setting, outcome, err, q) != "" {
		return q.value, nil
	}
	return call.value, err
}

// operationCall is a call of Do as the guard makes it.
type operationCall[T any] struct {
	dependency string
	fn         func(context.Context) (T, error)
	options    callOptions
	setting    *guard.Setting
	value      T
}

// Invoke implements guard.Invocation.
func (c *operationCall[T]) Invoke(ctx context.Context, _ int) (err error) {
	c.value, err = c.fn(ctx)
	return err
}

// Result implements guard.Invocation.
func (c *operationCall[T]) Result(_ context.Context, err error) guard.Result {
	if err == nil {
		return guard.Result{}
	}
	return c.options.result(c.setting, err)
}

// Twin implements guard.Invocation.
func (c *operationCall[T]) Twin() guard.Invocation {
	return &operationCall[T]{fn: c.fn, options: c.options, setting: c.setting}
}

// Adopt implements guard.Invocation.
func (c *operationCall[T]) Adopt(twin guard.Invocation) {
	if other, ok := twin.(*operationCall[T]); ok {
		c.value = other.value
	}
}

// answer is a call of Do that something else may answer.
type answer[T any] struct {
	dependency, operation, key string
	keyed                      bool
	outgoing, incoming         metadata.MD
	value                      T
}

func newAnswer[T any](ctx context.Context, call *operationCall[T]) *answer[T] {
	q := &answer[T]{dependency: call.dependency, operation: call.options.operation, key: call.options.key, keyed: call.options.keyed}
	if q.keyed {
		q.outgoing, _ = metadata.FromOutgoingContext(ctx)
		q.incoming, _ = metadata.FromIncomingContext(ctx)
	}
	return q
}

// Request implements degrade.Question.
func (q *answer[T]) Request() any { return nil }

// Key implements degrade.Question. The call may be made for somebody whose request
// is being handled, so that what tells them apart counts as well.
func (q *answer[T]) Key(vary []string) (replies.Key, bool) {
	pairs := append(degrade.Pairs(vary, q.outgoing), replies.Pair{})
	pairs = append(pairs, degrade.Pairs(vary, q.incoming)...)
	return replies.NewKey(q.dependency, q.operation, []byte(q.key), pairs), q.keyed
}

// Reply implements degrade.Question.
func (q *answer[T]) Reply() (reply any, size int, ok bool) {
	size, ok = sizeOf(reflect.ValueOf(&q.value).Elem())
	return q.value, size, ok
}

// Recall implements degrade.Question.
func (q *answer[T]) Recall(reply any) error {
	if err := q.Check(reply); err != nil {
		return err
	}
	q.Accept(reply)
	return nil
}

// Check implements degrade.Question.
func (q *answer[T]) Check(value any) error {
	if _, ok := value.(T); !ok {
		return fmt.Errorf("is a %T, but the call wants a %s", value, reflect.TypeFor[T]())
	}
	return nil
}

// Accept implements degrade.Question.
func (q *answer[T]) Accept(value any) { q.value, _ = value.(T) }

// maxMeasured bounds the parts of a value that are looked at to measure it.
const maxMeasured = 10_000

// sizeOf returns about how many bytes a value takes with all that it points to;
// false if it has too many parts.
func sizeOf(v reflect.Value) (int, bool) {
	m := measure{left: maxMeasured}
	m.add(v)
	return m.bytes + int(v.Type().Size()), m.left > 0
}

type measure struct{ bytes, left int }

// add adds what a value points to.
func (m *measure) add(v reflect.Value) {
	if m.left--; m.left <= 0 {
		return
	}
	switch v.Kind() {
	case reflect.String:
		m.bytes += v.Len()
	case reflect.Pointer, reflect.Interface:
		if !v.IsNil() {
			m.bytes += int(v.Elem().Type().Size())
			m.add(v.Elem())
		}
	case reflect.Slice:
		m.bytes += v.Cap() * int(v.Type().Elem().Size())
		m.elements(v)
	case reflect.Array:
		m.elements(v)
	case reflect.Map:
		for i := v.MapRange(); i.Next() && m.left > 0; {
			m.bytes += int(v.Type().Key().Size() + v.Type().Elem().Size())
			m.add(i.Key())
			m.add(i.Value())
		}
	case reflect.Struct:
		for i := 0; i < v.NumField() && m.left > 0; i++ {
			m.add(v.Field(i))
		}
	default: // what has its bytes in itself
	}
}

// elements adds what the elements of a list point to, if they can.
func (m *measure) elements(v reflect.Value) {
	if k := v.Type().Elem().Kind(); k <= reflect.Complex128 {
		return
	}
	for i := 0; i < v.Len() && m.left > 0; i++ {
		m.add(v.Index(i))
	}
}
