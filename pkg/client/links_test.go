package client_test

import (
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestWhatAServiceLinks pins the modules, and the packages of this one, that a
// service gets by importing the SDK. Each is a promise to somebody's build: add one
// knowingly.
func TestWhatAServiceLinks(t *testing.T) {
	const module = "github.com/holdfast-dev/holdfast"
	cmd := exec.CommandContext(t.Context(), "go", "list", "-deps", "-f", "{{with .Module}}{{.Path}} {{$.ImportPath}}{{else}}std {{.ImportPath}}{{end}}", ".")
	cmd.Env = append(os.Environ(), "GOOS=linux", "GOFLAGS=")
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("list what is linked: %v", err)
	}
	var modules, own []string
	for line := range strings.Lines(string(out)) {
		from, name, _ := strings.Cut(strings.TrimSpace(line), " ")
		switch from {
		case "std":
			if name == "testing" || name == "net/http/pprof" || name == "expvar" {
				t.Errorf("%s has effects on whoever links it", name)
			}
		case module:
			own = append(own, strings.TrimPrefix(name, module+"/"))
		default:
			modules = append(modules, from)
		}
	}
	slices.Sort(modules)
	slices.Sort(own)
	if diff := cmp.Diff([]string{
		"github.com/google/btree", // this and hashicorp's, miekg/dns and sean-/seed: memberlist, for gossip
		"github.com/grpc-ecosystem/go-grpc-middleware/v2",
		"github.com/hashicorp/errwrap",
		"github.com/hashicorp/go-immutable-radix",
		"github.com/hashicorp/go-metrics",
		"github.com/hashicorp/go-msgpack/v2",
		"github.com/hashicorp/go-multierror",
		"github.com/hashicorp/go-sockaddr",
		"github.com/hashicorp/golang-lru",
		"github.com/hashicorp/memberlist",
		"github.com/miekg/dns",
		"github.com/sean-/seed",
		"golang.org/x/net",
		"golang.org/x/sys",
		"golang.org/x/text",
		"google.golang.org/genproto/googleapis/rpc",
		"google.golang.org/grpc",
		"google.golang.org/protobuf",
	}, slices.Compact(modules)); diff != "" {
		t.Errorf("modules that are linked:\n%s", diff)
	}
	if diff := cmp.Diff([]string{
		"internal/breaker", "internal/btree", "internal/bulkhead", "internal/clock", "internal/degrade", "internal/document", "internal/filelock",
		"internal/flags", "internal/fleet", "internal/gossip", "internal/guard", "internal/hamt", "internal/hash", "internal/health", "internal/mirror", "internal/pace", "internal/policy",
		"internal/relay", "internal/replies", "internal/schema", "internal/seam", "internal/session", "internal/stripe", "internal/trust", "internal/version", "pkg/client", "pkg/client/internal/feed", "proto/holdfast/v1",
	}, own); diff != "" {
		t.Errorf("own packages that are linked:\n%s", diff)
	}
}
