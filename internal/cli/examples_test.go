package cli

import (
	"context"
	"path/filepath"
	"strings"
	"testing"

	"github.com/holdfast-dev/holdfast/internal/document"
	"github.com/holdfast-dev/holdfast/internal/flags"
)

// TestReadyMadeModes applies the modes of the examples, one at a time, and looks
// at what becomes of some methods.
func TestReadyMadeModes(t *testing.T) {
	const (
		health = "/grpc.health.v1.Health/Check"
		order  = "/shop.Orders/Place"
		browse = "/shop.Catalog/List" // declared NO_SIDE_EFFECTS
	)
	for _, c := range []struct {
		mode, level string
		// on each side: the actions for a health check, a write, a read
		client, server [3]string
	}{
		{"cache-only", "recent", [3]string{"", "", "cache"}, [3]string{}},
		{"cache-only", "any-age", [3]string{"", "", "cache"}, [3]string{}},
		{"read-only", "frozen", [3]string{}, [3]string{"", "reject", ""}},
		{"basic", "trimmed", [3]string{}, [3]string{"", "shed", "shed"}},
		{"basic", "survival", [3]string{}, [3]string{"", "shed", "shed"}},
		{"offline", "closed", [3]string{}, [3]string{"", "reject", "reject"}},
	} {
		t.Run(c.mode+" "+c.level, func(t *testing.T) {
			a := newApp(IO{In: strings.NewReader(""), Getenv: func(string) string { return "" }})
			content, err := a.content(context.Background(), []string{filepath.Join("..", "..", "examples", "modes", c.mode+".yaml")})
			if err != nil {
				t.Fatal(err)
			}
			content.Puts = append(content.Puts, &document.Resource{
				Key:  document.Key{Kind: document.Override, Name: "x"},
				Spec: []byte(`{"mode":"` + c.mode + `","level":"` + c.level + `"}`), ModRevision: content.To + 1,
			})
			view := flags.NewView(flags.Instance{}).Update(content)
			if problems := view.Problems(); len(problems) > 0 || view.Mode(c.mode).Name != c.level {
				t.Fatalf("level %v, problems %v", view.Mode(c.mode), problems)
			}
			for side, want := range map[flags.Side][3]string{flags.ClientSide: c.client, flags.ServerSide: c.server} {
				for i, method := range []string{health, order, browse} {
					if have := actions(view.Method(side, method, method == browse)); have != want[i] {
						t.Errorf("%s on the %s: %q, want %q", method, side, have, want[i])
					}
				}
			}
		})
	}
}

// actions names what a plan does.
func actions(p flags.Plan) string {
	var names []string
	for _, e := range []*flags.MethodEffect{p.Shed, p.Cache, p.Fallback, p.Reject} {
		if e != nil {
			names = append(names, e.Action.String())
		}
	}
	return strings.Join(names, ",")
}
