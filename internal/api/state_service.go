package api

import (
	"context"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/holdfast-dev/holdfast/internal/document"
	"github.com/holdfast-dev/holdfast/internal/state"
	"github.com/holdfast-dev/holdfast/internal/watch"
	holdfastv1 "github.com/holdfast-dev/holdfast/proto/holdfast/v1"
)

// stateService reads, changes and watches resources.
type stateService struct {
	holdfastv1.UnimplementedStateServiceServer

	reader    *reader
	leaders   *leadership
	validator Validator
	hub       *watch.Hub
	encoder   *encoder
	// writeTime bounds a write whose caller names no deadline.
	writeTime time.Duration
}

// Get returns one resource.
func (s *stateService) Get(ctx context.Context, req *holdfastv1.GetRequest) (*holdfastv1.GetResponse, error) {
	var v violations
	key, _ := v.key("key", req.GetKey())
	s.reader.check(&v, req.GetRead())
	if err := v.err(); err != nil {
		return nil, err
	}
	view, err := s.reader.view(ctx, req.GetRead())
	if err != nil {
		return nil, err
	}
	resource := view.Namespace(key.namespace).Get(key.Key)
	if resource == nil {
		return nil, Errorf(ReasonNotFound, "there is no %s %q in namespace %q", key.Kind, key.Name, key.namespace).
			with(MetaRevision, formatRevision(view.Revision()))
	}
	return &holdfastv1.GetResponse{Header: s.reader.header(view), Resource: resource.Proto(key.namespace)}, nil
}

// List returns a page of resources in the order of kind and name.
func (s *stateService) List(ctx context.Context, req *holdfastv1.ListRequest) (*holdfastv1.ListResponse, error) {
	var v violations
	l := listing{
		namespace: v.namespace("namespace", req.GetNamespace()),
		kinds:     v.kinds("kind", req.GetKind()),
		prefix:    req.GetNamePrefix(),
		labels:    document.LabelsOf(req.GetLabels()),
		size:      v.checkPage(req.GetPageSize()),
	}
	v.prefix("name_prefix", req.GetNamePrefix())
	v.labels("labels", req.GetLabels())
	s.reader.check(&v, req.GetRead())
	if err := v.err(); err != nil {
		return nil, err
	}
	token, err := parsePageToken(req.GetPageToken(), l.filter())
	if err != nil {
		return nil, err
	}
	view, err := s.reader.view(ctx, req.GetRead())
	if err != nil {
		return nil, err
	}
	resp := &holdfastv1.ListResponse{Header: s.reader.header(view)}
	resp.Resources, resp.NextPageToken = l.page(view, token)
	return resp, nil
}

// listing is what a list asks for.
type listing struct {
	namespace string
	kinds     []document.Kind
	prefix    string
	labels    []document.Label
	size      int
}

// filter identifies the question in page tokens.
func (l *listing) filter() [8]byte {
	parts := []string{"list", l.namespace, l.prefix}
	for _, k := range l.kinds {
		parts = append(parts, k.String())
	}
	for _, label := range l.labels {
		parts = append(parts, label.Key, label.Value)
	}
	return filterOf(parts...)
}

// page returns the resources after the token's, and the token of the next page,
// which is empty when nothing is left.
func (l *listing) page(view *state.View, token pageToken) (resources []*holdfastv1.Resource, next string) {
	namespace, bytes := view.Namespace(l.namespace), 0
	more := func(r *document.Resource) bool {
		if !hasLabels(r, l.labels) {
			return true
		}
		p := r.Proto(l.namespace)
		size := proto.Size(p)
		if len(resources) == l.size || len(resources) > 0 && bytes+size > MaxPageBytes {
			next = token.String()
			return false
		}
		resources, bytes = append(resources, p), bytes+size
		token.after = r.Key
		return true
	}
	first := token.after
	for _, kind := range l.kinds {
		after := ""
		switch {
		case kind < first.Kind:
			continue
		case kind == first.Kind:
			after = first.Name
		}
		if next != "" {
			break
		}
		namespace.Ascend(kind, l.prefix, after, more)
	}
	return resources, next
}

// hasLabels tells whether a resource has all of the labels. Both are sorted.
func hasLabels(r *document.Resource, want []document.Label) bool {
	have := r.Labels
	for _, w := range want {
		for len(have) > 0 && have[0].Key < w.Key {
			have = have[1:]
		}
		if len(have) == 0 || have[0] != w {
			return false
		}
	}
	return true
}
