package document

import (
	"fmt"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	holdfastv1 "github.com/holdfast-dev/holdfast/proto/holdfast/v1"
)

// Proto returns the resource's wire form. It shares the bytes of Spec, which
// nobody may change.
func (r *Resource) Proto(namespace string) *holdfastv1.Resource {
	p := &holdfastv1.Resource{
		Key:            r.Key.Proto(namespace),
		Spec:           r.Spec,
		CreateRevision: r.CreateRevision,
		ModRevision:    r.ModRevision,
		Version:        r.Version,
		CreateTime:     timestamp(r.CreateTime),
		UpdateTime:     timestamp(r.UpdateTime),
		EndTime:        timestamp(r.End),
		Reason:         r.Reason,
	}
	if r.Actor != "" || r.ActorVerified {
		p.Actor = &holdfastv1.Actor{Name: r.Actor, Verified: r.ActorVerified}
	}
	if len(r.Labels) > 0 {
		p.Labels = make(map[string]string, len(r.Labels))
		for _, l := range r.Labels {
			p.Labels[l.Key] = l.Value
		}
	}
	return p
}

// FromProto reads a resource from its wire form, so that its Hash is that of
// the resource which was sent. It shares the bytes of the spec. It checks the
// form (key, times in whole milliseconds), not the meaning. An empty namespace
// is returned as DefaultNamespace.
func FromProto(p *holdfastv1.Resource) (namespace string, r *Resource, err error) {
	namespace, key, err := KeyFromProto(p.GetKey())
	if err != nil {
		return "", nil, fmt.Errorf("read resource: %w", err)
	}
	r = &Resource{
		Key:            key,
		Spec:           p.GetSpec(),
		Labels:         LabelsOf(p.GetLabels()),
		CreateRevision: p.GetCreateRevision(),
		ModRevision:    p.GetModRevision(),
		Version:        p.GetVersion(),
		Actor:          p.GetActor().GetName(),
		ActorVerified:  p.GetActor().GetVerified(),
		Reason:         p.GetReason(),
	}
	for _, t := range []struct {
		name string
		from *timestamppb.Timestamp
		to   *int64
	}{
		{"create_time", p.GetCreateTime(), &r.CreateTime},
		{"update_time", p.GetUpdateTime(), &r.UpdateTime},
		{"end_time", p.GetEndTime(), &r.End},
	} {
		if *t.to, err = millis(t.from); err != nil {
			return "", nil, fmt.Errorf("read %s of %s: %w", t.name, key, err)
		}
	}
	return namespace, r, nil
}

// timestamp returns the wire form of state time; 0 is left out.
func timestamp(ms int64) *timestamppb.Timestamp {
	if ms == 0 {
		return nil
	}
	return timestamppb.New(time.UnixMilli(ms))
}

// millis is the inverse of timestamp. A time that is not whole milliseconds is
// refused, because it would not come back.
func millis(t *timestamppb.Timestamp) (int64, error) {
	if t == nil {
		return 0, nil
	}
	if err := t.CheckValid(); err != nil {
		return 0, err
	}
	if t.GetNanos()%int32(time.Millisecond) != 0 {
		return 0, fmt.Errorf("%d ns are not whole milliseconds", t.GetNanos())
	}
	return t.AsTime().UnixMilli(), nil
}
