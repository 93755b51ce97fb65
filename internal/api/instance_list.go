package api

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/holdfast-dev/holdfast/internal/registry"
	peerv1 "github.com/holdfast-dev/holdfast/proto/holdfast/peer/v1"
	holdfastv1 "github.com/holdfast-dev/holdfast/proto/holdfast/v1"
)

const (
	// listTime is what all servers get to list their instances, firstTime what each
	// of them gets to begin.
	listTime  = 10 * time.Second
	firstTime = 2 * time.Second
)

// instanceService shows the instances of all servers.
type instanceService struct {
	holdfastv1.UnimplementedInstanceServiceServer

	reader   *reader
	peers    *peers
	registry *registry.Registry
}

// ListInstances returns a page of the instances of all servers.
func (s *instanceService) ListInstances(ctx context.Context, req *holdfastv1.ListInstancesRequest) (*holdfastv1.ListInstancesResponse, error) {
	var v violations
	filter := v.instances("filter", req.GetFilter())
	size := v.checkPage(req.GetPageSize())
	if err := v.err(); err != nil {
		return nil, err
	}
	token, err := parsePageToken(req.GetPageToken(), filterOf(
		"instances", filter.key(), fmt.Sprint(req.GetIncludeDisconnected(), req.GetBehind())))
	if err != nil {
		return nil, err
	}
	view := s.reader.replica.View()
	resp := &holdfastv1.ListInstancesResponse{Header: s.reader.header(view)}
	demanded := demand(view, filter.namespace, req.GetBehind())
	after, bytes := placeOf(token.after.Name), 0
	asked := &peerv1.ListInstancesRequest{Filter: req.GetFilter(), IncludeDisconnected: req.GetIncludeDisconnected()}
	resp.Unreachable, err = s.merged(ctx, asked, filter, func(i *holdfastv1.Instance) {
		if req.GetBehind() > 0 && demanded.MetBy(i.GetEpoch(), i.GetRevision()) {
			return
		}
		resp.Total++
		if resp.GetNextPageToken() != "" || comparePlaces(placeAt(i), after) <= 0 {
			return
		}
		n := proto.Size(i)
		if len(resp.GetInstances()) == size || len(resp.GetInstances()) > 0 && bytes+n > MaxPageBytes {
			resp.NextPageToken = token.String()
			return
		}
		resp.Instances, bytes = append(resp.Instances, i), bytes+n
		token.after.Name = placeAt(i).text()
	})
	return resp, err
}

// merged calls yield with the instances of all servers, in order and each once, and
// names the servers that could not be asked. It holds a chunk of each server.
func (s *instanceService) merged(
	ctx context.Context, req *peerv1.ListInstancesRequest, filter instanceFilter, yield func(*holdfastv1.Instance),
) ([]*holdfastv1.UnreachableServer, error) {
	within, cancel := context.WithTimeout(ctx, patience(ctx, listTime))
	defer cancel()
	members := s.reader.replica.Members()
	sources := make([]*instanceSource, len(members))
	var opened sync.WaitGroup
	for i, m := range members {
		src := &instanceSource{member: m}
		sources[i] = src
		if m.ID == s.reader.self {
			next, stop := iter.Pull(listed(s.registry, s.reader.self, filter, req.GetIncludeDisconnected()))
			defer stop()
			src.read = func() ([]*holdfastv1.Instance, error) {
				if one, ok := next(); ok {
					return []*holdfastv1.Instance{one}, nil
				}
				return nil, io.EOF
			}
			src.fill()
			continue
		}
		opened.Go(func() { src.open(within, s.peers, req) })
	}
	opened.Wait()
	s.peers.prune(members)
	for i := newest(sources); i != nil; i = newest(sources) {
		yield(i)
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	var unreachable []*holdfastv1.UnreachableServer
	for _, src := range sources {
		if src.err != nil {
			unreachable = append(unreachable, &holdfastv1.UnreachableServer{ServerId: src.member.ID, Error: unreached(src.err)})
		}
	}
	return unreachable, nil
}

// unreached says in words why a server could not be asked for its instances.
func unreached(err error) string {
	for cause := err; cause != nil; cause = errors.Unwrap(cause) {
		if status.Code(cause) == codes.Unimplemented {
			return "it is of a version that has no sessions with instances"
		}
	}
	return status.Convert(asStatus(err)).Message()
}

// listed returns the instances that this server knows and a filter chooses.
func listed(r *registry.Registry, server string, filter instanceFilter, gone bool) iter.Seq[*holdfastv1.Instance] {
	now := time.Now()
	return func(yield func(*holdfastv1.Instance) bool) {
		for i := range r.Instances(now, filter.namespace) {
			if (gone || i.Connected()) && filter.matches(i) && !yield(i.Proto(server, now)) {
				return
			}
		}
	}
}

// instanceSource is the instances of one server, in order, as they come in.
type instanceSource struct {
	member Member
	read   func() ([]*holdfastv1.Instance, error)
	chunk  []*holdfastv1.Instance // what is left; empty at the end
	err    error                  // why it ended early
}

// open begins to list another server's instances.
func (src *instanceSource) open(ctx context.Context, p *peers, req *peerv1.ListInstancesRequest) {
	if src.member.APIAddr == "" {
		src.err = errAddrUnknown
		return
	}
	ctx, cancel := context.WithCancelCause(ctx)
	timer := time.AfterFunc(firstTime, func() { cancel(errSilent) })
	defer timer.Stop()
	src.err = p.call(ctx, src.member.APIAddr, func(ctx context.Context, peer peerv1.PeerServiceClient) error {
		stream, err := peer.ListInstances(ctx, req)
		if err != nil {
			return err
		}
		src.read = func() ([]*holdfastv1.Instance, error) {
			resp, err := stream.Recv()
			return resp.GetInstances(), err
		}
		src.fill()
		return src.err
	})
	if errors.Is(context.Cause(ctx), errSilent) {
		src.err = errSilent
	}
}

var (
	errAddrUnknown = Errorf(ReasonUnavailable, "its API address is not known: the server pool has not seen it")
	errSilent      = Errorf(ReasonUnavailable, "it did not answer within %s", firstTime)
)

// fill gets the next chunk when there is none.
func (src *instanceSource) fill() {
	for len(src.chunk) == 0 && src.err == nil && src.read != nil {
		chunk, err := src.read()
		src.chunk = chunk
		if err != nil {
			src.read = nil
			if !errors.Is(err, io.EOF) {
				src.err = err
			}
		}
	}
}

// newest takes the first instance in order off the sources, the one that counts
// where several servers know it; nil at the end.
func newest(sources []*instanceSource) *holdfastv1.Instance {
	var first *place
	for _, src := range sources {
		if len(src.chunk) > 0 {
			if at := placeAt(src.chunk[0]); first == nil || comparePlaces(at, *first) < 0 {
				first = &at
			}
		}
	}
	if first == nil {
		return nil
	}
	var best *holdfastv1.Instance
	for _, src := range sources {
		if len(src.chunk) == 0 || placeAt(src.chunk[0]) != *first {
			continue
		}
		if i := src.chunk[0]; best == nil || counts(i, best) {
			best = i
		}
		src.chunk = src.chunk[1:]
		src.fill()
	}
	return best
}

// counts tells whether of two entries of one instance the first is the one that
// counts: it is connected, its process is newer, or it has got further. A server that
// has not noticed yet that a connection is gone still tells of it.
func counts(a, b *holdfastv1.Instance) bool {
	return cmp.Or(
		compareBool(a.GetConnected(), b.GetConnected()),
		cmp.Compare(a.GetIdentity().GetIncarnation(), b.GetIdentity().GetIncarnation()),
		cmp.Compare(a.GetEpoch().GetCounter(), b.GetEpoch().GetCounter()),
		cmp.Compare(a.GetRevision(), b.GetRevision()),
		a.GetLastSeen().AsTime().Compare(b.GetLastSeen().AsTime()),
	) > 0
}

func compareBool(a, b bool) int {
	switch {
	case a == b:
		return 0
	case a:
		return 1
	default:
		return -1
	}
}

// place is where an instance is in the order.
type place struct{ service, id string }

func placeAt(i *holdfastv1.Instance) place {
	return place{i.GetIdentity().GetService(), i.GetIdentity().GetId()}
}

// text is the place in a page token. No service and no id holds the byte between.
func (p place) text() string { return p.service + "\x00" + p.id }

func placeOf(text string) place {
	service, id, _ := strings.Cut(text, "\x00")
	return place{service, id}
}

func comparePlaces(a, b place) int {
	return cmp.Or(cmp.Compare(a.service, b.service), cmp.Compare(a.id, b.id))
}

// sendChunks sends instances in messages of about ChunkBytes.
func sendChunks(all iter.Seq[*holdfastv1.Instance], stream grpc.ServerStreamingServer[peerv1.ListInstancesResponse]) error {
	part, size := &peerv1.ListInstancesResponse{}, 0
	for i := range all {
		n := proto.Size(i)
		if size > 0 && size+n > ChunkBytes {
			if err := stream.Send(part); err != nil {
				return err
			}
			part, size = &peerv1.ListInstancesResponse{}, 0
		}
		part.Instances, size = append(part.Instances, i), size+n
	}
	return stream.Send(part)
}
