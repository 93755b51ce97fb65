package conformance

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	flagd "github.com/open-feature/go-sdk-contrib/providers/flagd/pkg"

	"google.golang.org/protobuf/types/known/durationpb"

	holdfastv1 "github.com/holdfast-dev/holdfast/proto/holdfast/v1"
	"github.com/holdfast-dev/holdfast/test/cluster"
)

// providers are all that are tested, with what they do in ways of their own.
var providers = []traits{
	{name: "go-in-process", local: true, connect: connectGo(flagd.WithInProcessResolver())},
	{name: "go-rpc", caches: true, connect: connectGo(flagd.WithRPCResolver(), flagd.WithLRUCache(100))},
	{name: "js-in-process", local: true, connect: connectNode("flagd-in-process")},
	{name: "js-rpc", caches: true, connect: connectNode("flagd-rpc")},
	{name: "js-ofrep", noEvents: true, noNothing: true, connect: connectNode("ofrep")},
	{name: "js-flagd-web", web: true, noKeys: true, noMetadata: true, oldProtocol: true, local: true, connect: connectNode("flagd-web")},
	{name: "js-ofrep-web", web: true, local: true, connect: connectNode("ofrep-web")},
}

// servers is the cluster that all tests share.
var servers *cluster.Cluster

func TestMain(m *testing.M) {
	os.Exit(run(m))
}

func run(m *testing.M) int {
	if _, err := exec.LookPath("node"); err != nil {
		fmt.Fprintln(os.Stderr, "conformance needs Node 20 or newer; run it by `make conformance`")
		return 1
	}
	if _, err := os.Stat(filepath.Join("clients", "node_modules")); err != nil {
		fmt.Fprintln(os.Stderr, "the packages of clients are not installed; run it by `make conformance`")
		return 1
	}
	dir, err := os.MkdirTemp("", "holdfast-conformance-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	server, err := cluster.BuildServer(ctx, dir)
	if err == nil {
		servers, err = cluster.Start(ctx, cluster.Options{Server: server, Args: []string{"--flags-cors-origins", "*"}})
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer servers.Close()
	if err := define(ctx); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	code := m.Run()
	if code != 0 {
		servers.Logs(os.Stderr)
	}
	return code
}

// define writes the flags and waits until every server has them.
func define(ctx context.Context) error {
	var ops []*holdfastv1.Operation
	for name, spec := range definitions {
		ops = append(ops, put("", holdfastv1.Kind_KIND_FLAG, name, spec))
	}
	for name, spec := range definitionsElsewhere {
		ops = append(ops, put(elsewhere, holdfastv1.Kind_KIND_FLAG, name, spec))
	}
	if err := write(ctx, ops...); err != nil {
		return err
	}
	_, err := servers.Agree(ctx)
	return err
}

func put(namespace string, kind holdfastv1.Kind, name, spec string) *holdfastv1.Operation {
	return &holdfastv1.Operation{Action: &holdfastv1.Operation_Put{Put: &holdfastv1.Put{
		Key: &holdfastv1.ResourceKey{Namespace: namespace, Kind: kind, Name: name}, Spec: []byte(spec),
	}}}
}

// override is a put of an override, which outlives the test.
func override(name, spec string) *holdfastv1.Operation {
	op := put("", holdfastv1.Kind_KIND_OVERRIDE, name, spec)
	op.GetPut().Ttl = durationpb.New(time.Hour)
	return op
}

func remove(kind holdfastv1.Kind, name string) *holdfastv1.Operation {
	return &holdfastv1.Operation{Action: &holdfastv1.Operation_Delete{Delete: &holdfastv1.Delete{
		Key: &holdfastv1.ResourceKey{Kind: kind, Name: name},
	}}}
}

func write(ctx context.Context, ops ...*holdfastv1.Operation) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	_, err := servers.Writer(0, 5*time.Second).Write(ctx, "conformance", ops...)
	return err
}

// change writes while a test runs.
func change(t *testing.T, ops ...*holdfastv1.Operation) {
	t.Helper()
	if err := write(t.Context(), ops...); err != nil {
		t.Fatal(err)
	}
}

// restore undoes at the end of a test what it does to a flag.
func restore(t *testing.T, name string) {
	t.Helper()
	t.Cleanup(func() {
		if err := write(context.Background(), put("", holdfastv1.Kind_KIND_FLAG, name, definitions[name])); err != nil {
			t.Error(err)
		}
	})
}

// at is the port of server i for all protocols.
func at(t *testing.T, i int) address {
	t.Helper()
	a := api(t, i)
	a.port += 4
	return a
}

// api is the port of server i for Holdfast's own clients, which serves flagd's
// protocols by gRPC as well.
func api(t *testing.T, i int) address {
	t.Helper()
	host, text, err := net.SplitHostPort(servers.Addr(i))
	if err != nil {
		t.Fatal(err)
	}
	port, err := strconv.Atoi(text)
	if err != nil {
		t.Fatal(err)
	}
	return address{host: host, port: port}
}

// session is the test of one provider at one server.
type session struct {
	*testing.T
	traits
	server int
}

// eachProvider runs a test for every provider, each connected to another server.
func eachProvider(t *testing.T, test func(s session)) {
	t.Helper()
	for i, p := range providers {
		t.Run(p.name, func(t *testing.T) { test(session{t, p, i % servers.Len()}) })
	}
}

// wrong tells what is wrong with a provider's answer.
func (p traits) wrong(q question, got details) error {
	value, reason, code, variant := q.value, q.reason, q.code, q.variant
	if value == nil {
		value = q.byDefault
		if p.noNothing && code == "" {
			reason, code = "ERROR", "GENERAL"
		}
		if p.oldProtocol {
			reason, code = "ERROR", p.oldCode(q)
		}
	}
	if p.caches && got.Reason == "CACHED" && reason == "STATIC" {
		got.Reason = reason
	}
	// A failure may say which variant there would have been.
	if got.Value = settle(got.Value); !same(got.Value, value) || got.Reason != reason || got.Code != code ||
		reason != "ERROR" && got.Variant != variant {
		return fmt.Errorf("%s as %s for %v is %+v, want %v, %q, %s %s", q.key, q.kind, q.context, got, value, variant, reason, code)
	}
	return nil
}

// oldCode is the error of a flag without a value in the first version of the
// protocol: a disabled one has no type, and what fails is not there.
func (p traits) oldCode(q question) string {
	if q.code == "TYPE_MISMATCH" || q.reason == "DISABLED" {
		return "TYPE_MISMATCH"
	}
	return "FLAG_NOT_FOUND"
}

// settle has no nil maps, which Go has where JSON has objects.
func settle(value any) any {
	if m, ok := value.(map[string]any); ok && m == nil {
		return map[string]any{}
	}
	return value
}

func TestValues(t *testing.T) {
	eachProvider(t, func(s session) {
		t, p, server := s.T, s.traits, s.server
		client := p.connect(t, at(t, server))
		for _, q := range values {
			if err := p.wrong(q, client.evaluate(t, q.kind, q.key, q.byDefault, q.context)); err != nil {
				t.Error(err)
			}
		}
	})
}

// TestAPIPort does the same where Holdfast's own clients are served.
func TestAPIPort(t *testing.T) {
	eachProvider(t, func(s session) {
		t, p, server := s.T, s.traits, s.server
		if !p.speaksGRPC() {
			t.Skip("the provider does not speak gRPC")
		}
		client := p.connect(t, api(t, server))
		for _, q := range slices.Concat(values, targeting) {
			if err := p.wrong(q, client.evaluate(t, q.kind, q.key, q.byDefault, q.context)); err != nil {
				t.Error(err)
			}
		}
	})
}

func (p traits) speaksGRPC() bool {
	return slices.Contains([]string{"go-in-process", "js-in-process", "js-rpc"}, p.name)
}

func TestTargeting(t *testing.T) {
	eachProvider(t, func(s session) {
		t, p, server := s.T, s.traits, s.server
		client := p.connect(t, at(t, server))
		for _, q := range targeting {
			if err := p.wrong(q, client.evaluate(t, q.kind, q.key, q.byDefault, q.context)); err != nil {
				t.Error(err)
			}
		}
	})
}

func TestMetadata(t *testing.T) {
	eachProvider(t, func(s session) {
		t, p, server := s.T, s.traits, s.server
		if p.noMetadata {
			t.Skip("the provider drops the metadata of flags")
		}
		got := p.connect(t, at(t, server)).evaluate(t, boolean, "described", false, nil).Metadata
		for key, want := range map[string]any{"owner": "shop", "level": 3, "paged": true} {
			if !same(got[key], want) {
				t.Errorf("metadata %q is %v, want %v; all of it is %v", key, got[key], want, got)
			}
		}
	})
}

// TestSelectors reads a namespace, and a flag set, which are not the default.
func TestSelectors(t *testing.T) {
	greeting := question{key: "greeting", kind: text, byDefault: "d", value: "hello from b", variant: "b", reason: "STATIC"}
	there := question{key: "only-there", kind: boolean, byDefault: false, value: true, variant: "on", reason: "STATIC"}
	missing := func(key string) question {
		return question{key: key, kind: boolean, byDefault: true, reason: "ERROR", code: "FLAG_NOT_FOUND"}
	}
	member := question{key: "in-a-set", kind: text, byDefault: "d", value: "set", variant: "set", reason: "STATIC"}
	for _, c := range []struct {
		name, selector string
		questions      []question
	}{
		{"bare", elsewhere, []question{greeting, there, missing("yes")}},
		{"source", "source=" + elsewhere, []question{greeting, there, missing("yes")}},
		{"set", "flagSetId=storefront", []question{member, missing("yes")}},
		{"no-set", "flagSetId=", []question{values[0], missing("in-a-set")}},
	} {
		t.Run(c.name, func(t *testing.T) {
			eachProvider(t, func(s session) {
				t, p, server := s.T, s.traits, s.server
				where := at(t, server)
				where.selector = c.selector
				client := p.connect(t, where)
				for _, q := range c.questions {
					if err := p.wrong(q, client.evaluate(t, q.kind, q.key, q.byDefault, q.context)); err != nil {
						t.Error(err)
					}
				}
			})
		})
	}
}

// TestChanges edits a flag, and then overrides another one.
func TestChanges(t *testing.T) {
	eachProvider(t, func(s session) {
		t, p, server := s.T, s.traits, s.server
		client := p.connect(t, at(t, server))
		is := func(key, want string) func() error {
			return func() error {
				if got := client.evaluate(t, text, key, "d", nil); !same(got.Value, want) {
					return fmt.Errorf("%s is %+v, want %q", key, got, want)
				}
				return nil
			}
		}
		restore(t, "changing")
		eventually(t, "start", is("changing", "1"))
		mark := client.events().mark()
		edited := strings.Replace(definitions["changing"], `"defaultVariant":"first"`, `"defaultVariant":"second"`, 1)
		change(t, put("", holdfastv1.Kind_KIND_FLAG, "changing", edited))
		if !p.noEvents {
			if ev := client.events().wait(t, mark, changed); !p.noKeys && !slices.Contains(ev.Flags, "changing") {
				t.Errorf("the event names %q, not the flag that changed", ev.Flags)
			}
		}
		eventually(t, "edit", is("changing", "2"))

		eventually(t, "before the override", is("overridden", "on"))
		mark = client.events().mark()
		change(t, override("force", `{"flag":"overridden","variant":"off"}`))
		if !p.noEvents {
			client.events().wait(t, mark, changed)
		}
		eventually(t, "override", is("overridden", "off"))
		change(t, remove(holdfastv1.Kind_KIND_OVERRIDE, "force"))
		eventually(t, "end of the override", is("overridden", "on"))
	})
}

// TestReconnect kills the server that a provider is connected to, changes a flag
// meanwhile, and starts the server again.
func TestReconnect(t *testing.T) {
	eachProvider(t, func(s session) {
		t, p, server := s.T, s.traits, s.server
		client := p.connect(t, at(t, server))
		restore(t, "reconnecting")
		ask := func() details { return client.evaluate(t, text, "reconnecting", "d", nil) }
		eventually(t, "start", func() error {
			if got := ask(); !same(got.Value, "1") {
				return fmt.Errorf("it is %+v", got)
			}
			return nil
		})
		mark := client.events().mark()
		if err := servers.Kill(server); err != nil {
			t.Fatal(err)
		}
		edited := strings.Replace(definitions["reconnecting"], `"defaultVariant":"first"`, `"defaultVariant":"third"`, 1)
		change(t, put("", holdfastv1.Kind_KIND_FLAG, "reconnecting", edited))
		if p.local {
			if got := ask(); !same(got.Value, "1") {
				t.Errorf("without its server the flag is %+v, want what it was", got)
			}
		} else {
			eventually(t, "loss of the server", func() error {
				if got := ask(); !same(got.Value, "d") || got.Reason != "ERROR" {
					return fmt.Errorf("it is %+v", got)
				}
				return nil
			})
		}
		if !p.noEvents && !p.web {
			client.events().wait(t, mark, stale, failed)
		}
		mark = client.events().mark()
		if err := servers.Restart(server); err != nil {
			t.Fatal(err)
		}
		if err := servers.WaitReady(t.Context(), server); err != nil {
			t.Fatal(err)
		}
		if !p.noEvents && !p.web {
			client.events().wait(t, mark, ready, changed)
		}
		eventually(t, "return of the server", func() error {
			if got := ask(); !same(got.Value, "3") {
				return fmt.Errorf("it is %+v", got)
			}
			return nil
		})
		change(t, put("", holdfastv1.Kind_KIND_FLAG, "reconnecting", definitions["reconnecting"]))
		eventually(t, "a change after that", func() error {
			if got := ask(); !same(got.Value, "1") {
				return fmt.Errorf("it is %+v", got)
			}
			return nil
		})
	})
}
