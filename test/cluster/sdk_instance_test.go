package cluster_test

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/holdfast-dev/holdfast/pkg/client"
	holdfastv1 "github.com/holdfast-dev/holdfast/proto/holdfast/v1"
	"github.com/holdfast-dev/holdfast/test/cluster"
)

// instance is the SDK in this process, with what it logs.
type instance struct {
	*client.Client
	log *logs
	// opening is how long Open took.
	opening time.Duration
}

// logs is a log that can be read while it is written.
type logs struct {
	mu   sync.Mutex // guards text
	text bytes.Buffer
}

func (l *logs) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *logs) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// lines are the lines that contain a text.
func (l *logs) lines(text string) (found []string) {
	for line := range strings.Lines(l.String()) {
		if strings.Contains(line, text) {
			found = append(found, line)
		}
	}
	return found
}

// openInstance opens an instance that ends with the test, if not before.
func openInstance(t *testing.T, servers []string, change ...func(*client.Config)) *instance {
	t.Helper()
	in := &instance{log: &logs{}}
	config := client.Config{
		Servers: servers, Service: "checkout", Labels: map[string]string{"zone": "a"}, Logger: slog.New(slog.NewTextHandler(in.log, nil)),
	}
	for _, f := range change {
		f(&config)
	}
	began := time.Now()
	in.Client = get[*client.Client](t)(client.Open(t.Context(), config))
	in.opening = time.Since(began)
	t.Cleanup(func() {
		in.close(t)
		if t.Failed() {
			t.Logf("instance %+v\n%s", in.Status(), in.log)
		}
	})
	return in
}

// keeping lets an instance keep its view in a directory.
func keeping(dir string) func(*client.Config) {
	return func(c *client.Config) { c.CacheDir = dir }
}

func (in *instance) close(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	must(t, in.Close(ctx))
}

// wait waits until the instance is as it should be, and returns how long that took.
func (in *instance) wait(t *testing.T, what string, ok func(client.Status) bool) time.Duration {
	t.Helper()
	began := time.Now()
	err := cluster.Poll(within(t, 20*time.Second), func() error {
		if s := in.Status(); !ok(s) {
			return fmt.Errorf("the instance is not %s: %+v", what, s)
		}
		return nil
	})
	must(t, err)
	return time.Since(began)
}

// has waits until the instance obeys a revision.
func (in *instance) has(t *testing.T, revision uint64) time.Duration {
	t.Helper()
	return in.wait(t, fmt.Sprint("at revision ", revision), func(s client.Status) bool { return s.Revision >= revision })
}

func disconnected(s client.Status) bool { return !s.Connected }

// addresses are those of servers of the cluster, of all if none is named.
func addresses(c *cluster.Cluster, servers ...int) (all []string) {
	if len(servers) == 0 {
		servers = c.Others()
	}
	for _, i := range servers {
		all = append(all, c.Addr(i))
	}
	return all
}

// write writes through one server and returns the revision.
func write(t *testing.T, c *cluster.Cluster, through int, ops ...*holdfastv1.Operation) uint64 {
	t.Helper()
	ack := get[cluster.Ack](t)(c.Writer(through, 5*time.Second).Write(within(t, 20*time.Second), "test", ops...))
	return ack.Response.GetRevision()
}

// storefront is a mode that refuses carts at read-only.
func storefront() *holdfastv1.Operation {
	return &holdfastv1.Operation{Action: &holdfastv1.Operation_Put{Put: &holdfastv1.Put{
		Key:  &holdfastv1.ResourceKey{Kind: holdfastv1.Kind_KIND_MODE, Name: "storefront"},
		Spec: []byte(`{"levels":[{"name":"read-only","effects":[{"action":"reject","operations":["cart"]}]}]}`),
	}}}
}

// readOnly sets the mode to read-only for a while.
func readOnly(ttl time.Duration) *holdfastv1.Operation {
	return &holdfastv1.Operation{Action: &holdfastv1.Operation_Put{Put: &holdfastv1.Put{
		Key:  &holdfastv1.ResourceKey{Kind: holdfastv1.Kind_KIND_OVERRIDE, Name: "incident"},
		Spec: []byte(`{"mode":"storefront","level":"read-only"}`), Ttl: durationpb.New(ttl),
	}}}
}
