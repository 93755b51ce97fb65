package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	holdfastv1 "github.com/holdfast-dev/holdfast/proto/holdfast/v1"
)

const (
	// barWidth is the length of the progress bar.
	barWidth = 16
	// countWait is how long one question to the servers waits for its answer. Servers
	// look more closely after a second; a server that is silent is left soon after.
	countWait = 3 * time.Second
	// tickInterval is how often the time left is shown anew.
	tickInterval = 200 * time.Millisecond
	// lineInterval is how often progress is told where there is no terminal.
	lineInterval = 2 * time.Second
	// namedInstances is how many instances a message names.
	namedInstances = 5
)

// countView is how many instances obey a revision, in JSON and YAML.
type countView struct {
	Reached   bool `json:"reached"`
	Connected int  `json:"connected"`
	Obeying   int  `json:"obeying"`
	// Impaired are those of Obeying that cannot obey all of it, or are overridden
	// where they run.
	Impaired int `json:"impaired"`
	// Behind and ImpairedInstances name some of them.
	Behind            []instanceView    `json:"behind"`
	ImpairedInstances []instanceView    `json:"impaired_instances"`
	Unreachable       []unreachableView `json:"unreachable"`
}

// unreachableView is a server that could not be asked for its instances.
type unreachableView struct {
	ServerID string `json:"server_id"`
	Error    string `json:"error"`
}

func unreachableViews(list []*holdfastv1.UnreachableServer) []unreachableView {
	out := make([]unreachableView, 0, len(list))
	for _, s := range list {
		out = append(out, unreachableView{s.GetServerId(), dialReason(s.GetError())})
	}
	return out
}

// countViewOf returns an answer for output.
func countViewOf(res *holdfastv1.AwaitInstancesResponse) *countView {
	return &countView{
		Reached: res.GetReached(), Connected: int(res.GetConnected()), Obeying: int(res.GetObeying()), Impaired: int(res.GetImpaired()),
		Behind: instanceViews(res.GetBehind(), nil), ImpairedInstances: instanceViews(res.GetImpairedInstances(), nil),
		Unreachable: unreachableViews(res.GetUnreachable()),
	}
}

// plus adds the instances of another namespace.
func (c *countView) plus(other *countView) *countView {
	if c == nil {
		return other
	}
	sum := &countView{
		Reached: c.Reached && other.Reached, Connected: c.Connected + other.Connected, Obeying: c.Obeying + other.Obeying,
		Impaired: c.Impaired + other.Impaired, Behind: slices.Concat(c.Behind, other.Behind),
		ImpairedInstances: slices.Concat(c.ImpairedInstances, other.ImpairedInstances), Unreachable: slices.Clone(c.Unreachable),
	}
	for _, s := range other.Unreachable {
		if !slices.ContainsFunc(sum.Unreachable, func(have unreachableView) bool { return have.ServerID == s.ServerID }) {
			sum.Unreachable = append(sum.Unreachable, s)
		}
	}
	return sum
}

// unreachable returns the servers whose instances are not counted.
func (c *countView) unreachable() []unreachableView {
	if c == nil {
		return nil
	}
	return c.Unreachable
}

// missing describes the instances that do not obey, a few by name, and the servers
// whose instances are not counted.
func (c *countView) missing() []string {
	if c == nil {
		return nil
	}
	var out []string
	for _, i := range c.Behind[:min(len(c.Behind), namedInstances)] {
		obeys := "has told nothing yet"
		if i.Revision > 0 {
			obeys = fmt.Sprintf("obeys revision %d", i.Revision)
		}
		out = append(out, fmt.Sprintf("%s %s", i, obeys))
	}
	if rest := c.Connected - c.Obeying - len(out); rest > 0 && len(out) > 0 {
		out = append(out, "and "+humanCount(rest)+" more")
	}
	for _, s := range c.Unreachable {
		out = append(out, s.String())
	}
	return out
}

// String says whose instances are missing.
func (s unreachableView) String() string {
	return fmt.Sprintf("the instances of server %s are not counted: %s", s.ServerID, cmp.Or(s.Error, "it cannot be asked"))
}

// disobey is the beginning of a sentence about those that do not obey.
func disobey(n, all int) string {
	do := "do"
	if n == 1 {
		do = "does"
	}
	return fmt.Sprintf("%s of %s %s not obey", humanCount(n), plural(all, "connected instance"), do)
}

// instances waits until all connected instances that the filters choose obey the
// revision or the time is over. Servers of a version that does not know its
// instances are no failure, but are told.
func (w *waiting) instances(ctx context.Context, filters []*holdfastv1.InstanceFilter) error {
	for _, filter := range filters {
		before := w.view.Instances
		err := w.count(ctx, filter, func(c *countView) {
			w.view.Instances = before.plus(c)
			w.tellCount()
		})
		switch {
		case status.Code(err) == codes.Unimplemented:
			w.clearProgress()
			w.warn("the instances could not be counted: the servers are of a version that does not know them; compare `holdfast version`")
			return nil
		case ctx.Err() != nil || errors.Is(err, errInterrupted):
			return w.interrupted()
		case err != nil:
			f := fail(exitNotConverged, "the change is committed at revision %d, but it could not be learned which instances obey it: %s", w.revision, briefly(err))
			f.cause = err
			f.details = w.view.missing()
			return f.hint("look with `holdfast instances --behind %d`", w.revision)
		}
	}
	if c := w.view.Instances; c != nil && c.Reached {
		w.clearProgress()
		w.notice("%s", allObey(c.Connected, scoped(filters)))
	}
	return nil
}

// scoped tells whether only some instances of the namespaces were waited for.
func scoped(filters []*holdfastv1.InstanceFilter) bool {
	return slices.ContainsFunc(filters, func(f *holdfastv1.InstanceFilter) bool { return f.GetSelector() != "" || f.Percent != nil })
}

// allObey says that nobody is missing.
func allObey(n int, scoped bool) string {
	where := ""
	if scoped {
		where = " in the scope"
	}
	switch n {
	case 0:
		return "no instance" + where + " is connected"
	case 1:
		return "the connected instance" + where + " obeys"
	default:
		return "all " + plural(n, "connected instance") + where + " obey"
	}
}

// count tells the counts as they change, until all instances of the filter obey or
// the time is over; then it asks a last time.
func (w *waiting) count(ctx context.Context, filter *holdfastv1.InstanceFilter, tell func(*countView)) error {
	for {
		begin := w.now()
		wait := max(0, min(countWait, w.left()-leastAttempt)) // what is left is for the last question
		last, err := w.countOnce(ctx, &holdfastv1.AwaitInstancesRequest{
			Filter: filter, Revision: w.revision, Wait: durationpb.New(wait),
		}, tell)
		if err != nil || last.Reached || wait == 0 {
			return err
		}
		if w.now().Sub(begin) < minPause {
			sleep(ctx, minPause) // whatever the server means by it
		}
	}
}

// countOnce asks once how many obey. A server that does not know its instances is
// passed over: during an upgrade the next one may.
func (w *waiting) countOnce(ctx context.Context, req *holdfastv1.AwaitInstancesRequest, tell func(*countView)) (*countView, error) {
	ctx, cancel := context.WithTimeout(ctx, req.GetWait().AsDuration()+attemptTimeout)
	defer cancel()
	var last *countView
	var err error
	for range w.remote.addrs {
		_, err = w.remote.call(ctx, func(ctx context.Context, conn *grpc.ClientConn, _ time.Duration) error {
			last = nil
			err := w.hear(ctx, conn, req, func(c *countView) {
				last = c
				tell(c)
			})
			if err == nil && last == nil {
				return status.Error(codes.Unavailable, "the server counted no instances")
			}
			return err
		})
		if status.Code(err) != codes.Unimplemented {
			break
		}
		w.remote.current = (w.remote.current + 1) % len(w.remote.addrs)
	}
	return last, err
}

// hear tells what a server answers to one question, and meanwhile has the time left
// be seen to pass.
func (w *waiting) hear(ctx context.Context, conn *grpc.ClientConn, req *holdfastv1.AwaitInstancesRequest, tell func(*countView)) error {
	ctx, cancel := context.WithCancel(ctx)
	stream, err := holdfastv1.NewInstanceServiceClient(conn).AwaitInstances(ctx, req)
	if err != nil {
		cancel()
		return err
	}
	answers, ended := make(chan *countView), make(chan error, 1)
	var receiving sync.WaitGroup
	receiving.Go(func() {
		for {
			res, err := stream.Recv()
			if err != nil {
				ended <- err
				return
			}
			select {
			case answers <- countViewOf(res):
			case <-ctx.Done():
				ended <- ctx.Err()
				return
			}
		}
	})
	defer receiving.Wait()
	defer cancel()
	tick := time.NewTicker(tickInterval)
	defer tick.Stop()
	for {
		select {
		case c := <-answers:
			tell(c)
		case <-tick.C:
			w.tellCount()
		case err := <-ended:
			if errors.Is(err, io.EOF) {
				return nil
			}
			return err
		}
	}
}

// tellCount shows how far the instances are: a bar on a terminal, else a line now
// and then.
func (w *waiting) tellCount() {
	c, left := w.view.Instances, max(0, w.left())
	if c == nil || c.Reached {
		return
	}
	obey := fmt.Sprintf("%s of %s %s", humanCount(c.Obeying), plural(c.Connected, "instance"), verb(c.Connected, "obeys", "obey"))
	if n := len(c.Unreachable); n > 0 {
		obey += fmt.Sprintf(", %s cannot be asked", plural(n, "server"))
	}
	if w.io.ErrTTY {
		w.progress("%s %s, %s left", bar(c.Obeying, c.Connected), obey, tenths(left))
		return
	}
	if now := w.now(); w.told.IsZero() || c.Obeying != w.toldCount && now.Sub(w.told) >= lineInterval {
		w.told, w.toldCount = now, c.Obeying
		w.notice("%s, %s left", obey, tenths(left))
	}
}

// bar draws a share. It is full only when nothing is missing.
func bar(n, all int) string {
	full := barWidth
	if n < all {
		full = n * barWidth / all
	}
	return "[" + strings.Repeat("#", full) + strings.Repeat("-", barWidth-full) + "]"
}

// tenths writes a short time with tenths of seconds.
func tenths(d time.Duration) string {
	if d >= time.Minute {
		return human(d)
	}
	return fmt.Sprintf("%.1f s", d.Seconds())
}

// warnOfImpaired names instances that obey the revision and yet do not do all that
// was decided.
func (w *waiting) warnOfImpaired() {
	c := w.view.Instances
	if c == nil || c.Impaired == 0 {
		return
	}
	w.warn("%s that %s the revision cannot obey all of it, or %s overridden locally:", plural(c.Impaired, "instance"),
		verb(c.Impaired, "obeys", "obey"), verb(c.Impaired, "is", "are"))
	named := c.ImpairedInstances[:min(len(c.ImpairedInstances), namedInstances)]
	for _, i := range named {
		writef(w.io.Err, "  %s\n", printable(fmt.Sprintf("%s %s", i, strings.Join(i.impairments(), "; "))))
	}
	if rest := c.Impaired - len(named); rest > 0 && len(named) > 0 {
		writef(w.io.Err, "  and %s more\n", humanCount(rest))
	}
}

// verb is a verb in the number that fits.
func verb(n int, one, several string) string {
	if n == 1 {
		return one
	}
	return several
}
