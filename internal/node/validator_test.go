package node

import (
	"context"
	"crypto/rand"
	"net/http"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/holdfast-dev/holdfast/internal/api"
	"github.com/holdfast-dev/holdfast/internal/document"
	"github.com/holdfast-dev/holdfast/internal/flags"
	"github.com/holdfast-dev/holdfast/internal/schema"
	holdfastv1 "github.com/holdfast-dev/holdfast/proto/holdfast/v1"
)

// strict refuses every flag.
type strict struct{}

func (strict) Validate(key document.Key, _ []byte) []schema.Violation {
	if key.Kind != document.Flag {
		return nil
	}
	return []schema.Violation{{Message: "a newer language has no such flags"}}
}

// lax lets everything pass.
type lax struct{}

func (lax) Validate(document.Key, []byte) []schema.Violation { return nil }

// Servers of different versions validate differently, and replay one log to equal
// states: what one of them has accepted, no other looks at again.
func TestServersWithDifferentValidatorsAgree(t *testing.T) {
	t.Parallel()
	sites := newSites(t, 3, 3)
	validators := []api.Validator{strict{}, lax{}, flags.Validator{}}
	for i, s := range sites {
		s.setup = func(n *Node) {
			n.tickEvery = 300 * time.Millisecond
			n.validator = validators[i]
		}
	}
	startAll(t, sites)
	until(t, 40*time.Second, "cluster", formed(sites, 3))
	// A busy machine changes leaders: a write whose outcome is unknown is repeated under its id.
	apply := func(s *site, name, spec string) error {
		id := make([]byte, 16)
		_, _ = rand.Read(id)
		ctx, cancel := context.WithTimeout(context.Background(), 40*time.Second)
		defer cancel()
		server := dial(t, s.APIAddr())
		for {
			_, err := server.Apply(ctx, &holdfastv1.ApplyRequest{
				RequestId: id,
				Operations: []*holdfastv1.Operation{{Action: &holdfastv1.Operation_Put{Put: &holdfastv1.Put{
					Key: key(holdfastv1.Kind_KIND_FLAG, name), Spec: []byte(spec),
				}}}},
			})
			if status.Code(err) != codes.Unavailable || ctx.Err() != nil {
				return err
			}
		}
	}
	if err := apply(sites[0], "one", `{"variants":{"on":true},"defaultVariant":"on","state":"ENABLED"}`); status.Code(err) != codes.InvalidArgument {
		t.Errorf("the strict server, given a flag: %v", err)
	}
	if err := apply(sites[1], "odd", `{"variants":7}`); err != nil {
		t.Error(err)
	}
	if err := apply(sites[2], "one", `{"variants":{"on":true},"defaultVariant":"on","state":"ENABLED"}`); err != nil {
		t.Error(err)
	}
	until(t, 20*time.Second, "equal states with both flags", func() bool {
		first := sites[0].View()
		for _, s := range sites[1:] {
			if v := s.View(); v.Index() != first.Index() || v.Hash() != first.Hash() {
				return false
			}
		}
		return first.Revision() == 2
	})
	for i, s := range sites {
		if at := s.hashes.diverged(); at > 0 {
			t.Errorf("server %d saw states that differ at index %d", i, at)
		}
		until(t, 20*time.Second, "the server is ready", func() bool {
			code, _ := get(t, s.HTTPAddr(), "/readyz")
			return code == http.StatusOK
		})
	}
}
