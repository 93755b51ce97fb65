package cli

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/holdfast-dev/holdfast/internal/document"
	holdfastv1 "github.com/holdfast-dev/holdfast/proto/holdfast/v1"
)

const (
	// pageSize is how many resources are asked for at once.
	pageSize = 1000
	// suggestPages is how many pages of names "did you mean" looks through.
	suggestPages = 3
)

// get returns one resource of the namespace. A missing one is a failure that
// names those with similar names.
func (a *app) get(ctx context.Context, key document.Key, read *holdfastv1.ReadOptions) (*holdfastv1.Resource, error) {
	r, err := a.fetch(ctx, key.Proto(a.namespace()), read)
	if status.Code(err) == codes.NotFound && !errors.Is(err, errInterrupted) {
		return nil, a.notFound(ctx, key)
	}
	if err != nil {
		return nil, a.rpcFailure("get "+key.String(), err)
	}
	return r, nil
}

// fetch returns one resource, or the error of the call.
func (a *app) fetch(ctx context.Context, key *holdfastv1.ResourceKey, read *holdfastv1.ReadOptions) (*holdfastv1.Resource, error) {
	res, err := query(ctx, a.remote, &holdfastv1.GetRequest{Key: key, Read: read},
		func(c *grpc.ClientConn) func(context.Context, *holdfastv1.GetRequest, ...grpc.CallOption) (*holdfastv1.GetResponse, error) {
			return holdfastv1.NewStateServiceClient(c).Get
		})
	if err != nil {
		return nil, err
	}
	a.learnTime(res.GetHeader())
	return res.GetResource(), nil
}

// notFound says that a resource does not exist, and which ones sound like it.
func (a *app) notFound(ctx context.Context, key document.Key) error {
	f := fail(exitNotFound, "there is no %s %q%s", key.Kind, key.Name, a.inNamespace())
	names, err := a.names(ctx, a.namespace(), key.Kind, "", suggestPages)
	switch {
	case err != nil:
		return f
	case len(names) == 0:
		return f.hint("there are no %s%s yet%s", pluralKind(key.Kind), a.inNamespace(), map[bool]string{
			true: "; is the namespace right?", false: "",
		}[a.settings.Namespace.Origin != "default"])
	}
	if hint := didYouMean(key.Name, names); hint != "" {
		return f.hint("%s", hint)
	}
	return f.hint("see `holdfast %s list`", key.Kind)
}

// names lists the names of a kind in a namespace, of at most so many pages.
func (a *app) names(ctx context.Context, namespace string, kind document.Kind, prefix string, pages int) ([]string, error) {
	var out []string
	req := &holdfastv1.ListRequest{Namespace: namespace, Kind: holdfastv1.Kind(kind), NamePrefix: prefix, PageSize: pageSize}
	for range pages {
		res, err := a.page(ctx, req)
		if err != nil {
			return out, err
		}
		for _, r := range res.GetResources() {
			out = append(out, r.GetKey().GetName())
		}
		if res.GetNextPageToken() == "" {
			break
		}
		req.PageToken = res.GetNextPageToken()
	}
	return out, nil
}

// page returns one page of a list.
func (a *app) page(ctx context.Context, req *holdfastv1.ListRequest) (*holdfastv1.ListResponse, error) {
	return query(ctx, a.remote, req,
		func(c *grpc.ClientConn) func(context.Context, *holdfastv1.ListRequest, ...grpc.CallOption) (*holdfastv1.ListResponse, error) {
			return holdfastv1.NewStateServiceClient(c).List
		})
}

// list returns all pages and the revision of the first; the namespace is this
// run's unless the request names one.
func (a *app) list(ctx context.Context, req *holdfastv1.ListRequest) ([]*holdfastv1.Resource, uint64, error) {
	if req.GetNamespace() == "" {
		req.Namespace = a.namespace()
	}
	req.PageSize = pageSize
	var out []*holdfastv1.Resource
	var revision uint64
	for {
		res, err := a.page(ctx, req)
		if err != nil {
			return nil, 0, err
		}
		a.learnTime(res.GetHeader())
		if revision == 0 {
			revision = res.GetHeader().GetRevision()
		}
		out = append(out, res.GetResources()...)
		if req.PageToken = res.GetNextPageToken(); req.PageToken == "" {
			return out, revision, nil
		}
	}
}

// pluralKind is the kind's word for several.
func pluralKind(k document.Kind) string {
	if k == document.Policy {
		return "policies"
	}
	return k.String() + "s"
}

// parseLabels reads key=value arguments.
func parseLabels(flag string, terms []string) (map[string]string, error) {
	if len(terms) == 0 {
		return nil, nil
	}
	out := map[string]string{}
	for _, list := range terms {
		for term := range strings.SplitSeq(list, ",") {
			key, value, ok := strings.Cut(term, "=")
			if key = strings.TrimSpace(key); !ok || key == "" {
				return nil, usage("%s %q: write key=value", flag, term)
			}
			if old, twice := out[key]; twice && old != value {
				return nil, usage("%s: the label %q is given twice", flag, key)
			}
			out[key] = strings.TrimSpace(value)
		}
	}
	return out, nil
}

// readOptions are the options of a read that must see every acknowledged write.
func readOptions(linearizable bool) *holdfastv1.ReadOptions {
	if !linearizable {
		return nil
	}
	return &holdfastv1.ReadOptions{Consistency: holdfastv1.Consistency_CONSISTENCY_LINEARIZABLE}
}

// keyText names a wire key as "flag/new-checkout".
func keyText(key *holdfastv1.ResourceKey) string {
	return fmt.Sprintf("%s/%s", kindOf(key), key.GetName())
}
