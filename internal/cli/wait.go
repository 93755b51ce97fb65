package cli

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/durationpb"

	holdfastv1 "github.com/holdfast-dev/holdfast/proto/holdfast/v1"
)

// pollWait is how long one question to the servers waits for their answer, and
// so how often progress is shown.
const pollWait = 500 * time.Millisecond

// waitView is what --wait found.
type waitView struct {
	// Reached tells that all servers and all connected instances have the change.
	Reached bool           `json:"reached"`
	Servers []progressView `json:"servers"`
	// Instances is nil where they could not be counted.
	Instances *countView `json:"instances"`
	// serversReached tells that all servers have it.
	serversReached bool
}

// progressView is how far one server is.
type progressView struct {
	ServerID string `json:"server_id"`
	Revision uint64 `json:"revision"`
	Reached  bool   `json:"reached"`
	Error    string `json:"error,omitempty"`
}

// await waits until every server has applied a revision and every connected
// instance that the filters choose obeys it. It returns what it learned, and a
// failure with exitNotConverged when somebody is missing in the end. The change
// itself is committed whatever await returns.
func (a *app) await(ctx context.Context, revision uint64, filters []*holdfastv1.InstanceFilter) (*waitView, error) {
	w := &waiting{app: a, revision: revision, deadline: a.now().Add(a.timeout), view: &waitView{Servers: []progressView{}}}
	defer a.clearProgress()
	// The instances are counted although a server is lost: it will not come back
	// because somebody waits for it.
	err := w.servers(ctx, true)
	if err == nil {
		err = w.instances(ctx, filters)
	}
	if err == nil && !w.view.serversReached {
		err = w.servers(ctx, false)
	}
	a.clearProgress()
	if err != nil {
		return w.view, err
	}
	return w.view, w.verdict()
}

// waiting is one wait for a revision.
type waiting struct {
	*app
	revision uint64
	deadline time.Time
	view     *waitView
	// told is when progress was last told where there is no terminal, and toldCount
	// how many obeyed.
	told      time.Time
	toldCount int
}

// left is the time that there is still to wait.
func (w *waiting) left() time.Duration { return w.deadline.Sub(w.now()) }

// servers waits until every server has applied the revision or the time is over;
// with passOver also no longer than until all that are missing are out of reach.
func (w *waiting) servers(ctx context.Context, passOver bool) error {
	for {
		res, err := query(ctx, w.remote, &holdfastv1.AwaitRevisionRequest{Revision: w.revision, Wait: durationpb.New(max(0, min(pollWait, w.left())))},
			func(c *grpc.ClientConn) func(context.Context, *holdfastv1.AwaitRevisionRequest, ...grpc.CallOption) (*holdfastv1.AwaitRevisionResponse, error) {
				return holdfastv1.NewStateServiceClient(c).AwaitRevision
			})
		switch {
		case ctx.Err() != nil || errors.Is(err, errInterrupted):
			return w.interrupted()
		case err != nil:
			f := fail(exitNotConverged, "the change is committed at revision %d, but it could not be learned who has applied it: %s", w.revision, briefly(err))
			f.cause = err
			return f.hint("see `holdfast cluster members`")
		}
		v := w.view
		v.take(res)
		left := w.left()
		switch {
		case v.serversReached:
			w.notice("%s applied revision %d", everybody(len(v.Servers)), w.revision)
			return nil
		case left <= 0:
			return nil
		}
		w.progress("waiting for %s: %d of %d servers have revision %d, %s left",
			strings.Join(v.names(false), ", "), len(v.names(true)), len(v.Servers), w.revision, human(left))
		switch {
		case !v.unreachable():
		case passOver:
			return nil
		default:
			// Servers that cannot be asked answer at once; do not spin.
			sleep(ctx, pollWait)
		}
	}
}

// interrupted ends the wait after Ctrl-C.
func (w *waiting) interrupted() error {
	w.clearProgress()
	f := fail(exitInterrupted, "stopped waiting; the change stays: it is committed at revision %d", w.revision)
	f.details = append(w.view.missing(), w.view.Instances.missing()...)
	return f
}

// verdict says who is missing in the end; nil if nobody is.
func (w *waiting) verdict() error {
	v, counts := w.view, w.view.Instances
	w.warnOfImpaired()
	v.Reached = v.serversReached && (counts == nil || counts.Reached)
	if v.Reached {
		return nil
	}
	var what []string
	if !v.serversReached {
		what = append(what, have(len(v.names(false)), len(v.Servers))+" not applied it")
	}
	if counts != nil && counts.Obeying < counts.Connected {
		what = append(what, disobey(counts.Connected-counts.Obeying, counts.Connected)+" it")
	} else if v.serversReached {
		what = append(what, "not every server could be asked for its instances")
	}
	f := fail(exitNotConverged, "the change is committed at revision %d, but %s within %s", w.revision, strings.Join(what, ", and "), human(w.timeout))
	f.details = append(v.missing(), counts.missing()...)
	if counts != nil && counts.Obeying < counts.Connected {
		f.addHint("look again with `holdfast instances --behind %d`", w.revision)
	}
	if !v.serversReached || len(counts.unreachable()) > 0 {
		f.addHint("servers catch up by themselves once they are reachable: see `holdfast cluster members`")
	}
	return f
}

// everybody names all servers as the subject of "applied".
func everybody(n int) string {
	if n == 1 {
		return "the server has"
	}
	return fmt.Sprintf("all %d servers have", n)
}

// have names some of all servers as the subject of "not applied".
func have(n, all int) string {
	if n == 1 {
		return fmt.Sprintf("1 of %s has", plural(all, "server"))
	}
	return fmt.Sprintf("%d of %s have", n, plural(all, "server"))
}

// take takes in how far the servers are.
func (v *waitView) take(res *holdfastv1.AwaitRevisionResponse) {
	v.serversReached, v.Servers = res.GetReached(), []progressView{}
	for _, s := range res.GetServers() {
		v.Servers = append(v.Servers, progressView{s.GetServerId(), s.GetRevision(), s.GetReached(), s.GetError()})
	}
}

// names lists the servers that have, or have not, reached the revision.
func (v *waitView) names(reached bool) []string {
	var out []string
	for _, s := range v.Servers {
		if s.Reached == reached {
			out = append(out, s.ServerID)
		}
	}
	return out
}

// missing describes the servers that have not reached the revision.
func (v *waitView) missing() []string {
	var out []string
	for _, s := range v.Servers {
		switch {
		case s.Reached:
		case s.Error != "":
			out = append(out, fmt.Sprintf("%s: %s", s.ServerID, dialReason(s.Error)))
		default:
			out = append(out, fmt.Sprintf("%s: is at revision %d", s.ServerID, s.Revision))
		}
	}
	return out
}

// unreachable tells whether there are missing servers, and each of them is one
// that cannot be asked.
func (v *waitView) unreachable() bool {
	missing := 0
	for _, s := range v.Servers {
		switch {
		case s.Reached:
		case s.Error == "":
			return false
		default:
			missing++
		}
	}
	return missing > 0
}

// progress replaces the line of progress on a terminal.
func (a *app) progress(format string, args ...any) {
	if a.io.ErrTTY && !a.opt.quiet {
		writef(a.io.Err, "\r\x1b[K%s", a.err.dim(printable(fmt.Sprintf(format, args...))))
	}
}

// clearProgress removes the line of progress.
func (a *app) clearProgress() {
	if a.io.ErrTTY && !a.opt.quiet {
		writef(a.io.Err, "\r\x1b[K")
	}
}
