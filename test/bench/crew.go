package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/holdfast-dev/holdfast/pkg/client"
	holdfastv1 "github.com/holdfast-dev/holdfast/proto/holdfast/v1"
	"github.com/holdfast-dev/holdfast/test/cluster"
)

const (
	crewMode     = "storefront"
	crewOverride = "incident"
	crewFlags    = 100 // that the instances hold beside the mode
	crewPatience = time.Minute
	openAtOnce   = 32
)

// crewLevels are the levels of the mode, which are set in turns.
func crewLevels() []string { return []string{"trimmed", "read-only"} }

// crew is many instances with the SDK in this process, each with a connection of its
// own, which leave when the crew is closed.
type crew struct{ members []*member }

type member struct {
	sdk    *client.Client
	events <-chan client.Event
	mode   *client.Mode
}

// openCrew opens n instances, spread over the servers of the cluster by the SDK, and
// waits until each has a view.
func openCrew(ctx context.Context, h *holdfast, n int) (*crew, error) {
	w := &crew{members: make([]*member, n)}
	servers := addresses(h)
	errs := make([]error, n)
	gate := make(chan struct{}, openAtOnce)
	var group sync.WaitGroup
	for i := range n {
		gate <- struct{}{}
		group.Go(func() {
			defer func() { <-gate }()
			w.members[i], errs[i] = openMember(ctx, servers, i)
		})
	}
	group.Wait()
	if err := errors.Join(errs...); err != nil {
		w.close()
		return nil, err
	}
	return w, nil
}

func openMember(ctx context.Context, servers []string, i int) (*member, error) {
	sdk, err := client.Open(ctx, client.Config{
		Servers: servers, Service: "bench", InstanceID: "bench-" + strconv.Itoa(i), OpenTimeout: crewPatience,
		Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		return nil, fmt.Errorf("open SDK: %w", err)
	}
	m := &member{sdk: sdk, events: sdk.Events(ctx), mode: sdk.Mode(crewMode)}
	if s := sdk.Status(); s.Source != client.FromServer {
		return m, fmt.Errorf("instance %d has no view from a server: %s", i, s.LastError)
	}
	return m, nil
}

func addresses(h *holdfast) []string {
	var all []string
	for i := range h.Len() {
		all = append(all, h.Addr(i))
	}
	return all
}

func (w *crew) close() {
	var group sync.WaitGroup
	for _, m := range w.members {
		if m != nil {
			group.Go(func() { _ = m.sdk.Close(context.Background()) })
		}
	}
	group.Wait()
}

// next returns the first event from now on that is looked for.
func (m *member) next(ctx context.Context, is func(client.Event) bool) (client.Event, error) {
	for {
		select {
		case e, ok := <-m.events:
			switch {
			case !ok:
				return e, errors.New("the instance has stopped")
			case e.Missed > 0:
				return e, fmt.Errorf("%d events of an instance are lost", e.Missed)
			case is(e):
				return e, nil
			}
		case <-ctx.Done():
			return client.Event{}, fmt.Errorf("wait for an instance, which is %+v: %w", m.sdk.Status(), context.Cause(ctx))
		}
	}
}

// obey waits until all instances have a revision in their views and are at the
// level, and returns when each of them had it.
func (w *crew) obey(ctx context.Context, revision uint64, level string) ([]time.Time, error) {
	ctx, cancel := context.WithTimeout(ctx, crewPatience)
	defer cancel()
	at := make([]time.Time, len(w.members))
	for i, m := range w.members {
		e, err := m.next(ctx, func(e client.Event) bool { return e.View != nil && e.View.Revision >= revision })
		if err != nil {
			return nil, err
		}
		if l := m.mode.Level(); l.Name != level {
			return nil, fmt.Errorf("instance %d is at %s of revision %d, want %s", i, l.Name, e.View.Revision, level)
		}
		at[i] = e.Time
	}
	return at, nil
}

// prepareCrew defines the mode and the flags that the instances hold.
func prepareCrew(ctx context.Context, w *cluster.Writer) error {
	spec := `{"levels":[{"name":"` + strings.Join(crewLevels(), `","effects":[{"action":"shed","methods":["*"],"percent":10}]},{"name":"`) +
		`","effects":[{"action":"reject","methods":["/shop.Cart/*"]}]}]}`
	operations := []*holdfastv1.Operation{{Action: &holdfastv1.Operation_Put{Put: &holdfastv1.Put{
		Key: &holdfastv1.ResourceKey{Kind: holdfastv1.Kind_KIND_MODE, Name: crewMode}, Spec: []byte(spec),
	}}}}
	for i := range crewFlags {
		operations = append(operations, cluster.Flag("", fmt.Sprintf("crew-%d", i), "x"))
	}
	_, err := w.Write(ctx, "bench", operations...)
	return err
}

// setLevel is what "holdfast mode set" sends.
func setLevel(level string) *holdfastv1.Operation {
	return &holdfastv1.Operation{Action: &holdfastv1.Operation_Put{Put: &holdfastv1.Put{
		Key:  &holdfastv1.ResourceKey{Kind: holdfastv1.Kind_KIND_OVERRIDE, Name: crewOverride},
		Spec: []byte(`{"mode":"` + crewMode + `","level":"` + level + `"}`),
		Ttl:  durationpb.New(time.Hour),
	}}}
}

// crewSizes reads -instances.
func crewSizes(c config) ([]int, error) {
	var sizes []int
	for text := range strings.SplitSeq(c.instances, ",") {
		n, err := strconv.Atoi(text)
		if err != nil || n < 1 {
			return nil, fmt.Errorf("-instances: %q is not a number of instances", text)
		}
		sizes = append(sizes, n)
	}
	slices.Sort(sizes)
	return sizes, nil
}
