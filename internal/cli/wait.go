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
	Reached bool           `json:"reached"`
	Servers []progressView `json:"servers"`
}

// progressView is how far one server is.
type progressView struct {
	ServerID string `json:"server_id"`
	Revision uint64 `json:"revision"`
	Reached  bool   `json:"reached"`
	Error    string `json:"error,omitempty"`
}

// await waits until every server has applied a revision. It returns what it
// learned, and a failure with exitNotConverged when somebody is missing in the
// end. The change itself is committed whatever await returns.
func (a *app) await(ctx context.Context, revision uint64) (*waitView, error) {
	begin := a.now()
	deadline := begin.Add(a.timeout)
	var view *waitView
	defer a.clearProgress()
	for {
		left := deadline.Sub(a.now())
		res, err := query(ctx, a.remote, &holdfastv1.AwaitRevisionRequest{
			Revision: revision, Wait: durationpb.New(max(0, min(pollWait, left))),
		}, func(c *grpc.ClientConn) func(context.Context, *holdfastv1.AwaitRevisionRequest, ...grpc.CallOption) (*holdfastv1.AwaitRevisionResponse, error) {
			return holdfastv1.NewStateServiceClient(c).AwaitRevision
		})
		switch {
		case ctx.Err() != nil || errors.Is(err, errInterrupted):
			a.clearProgress()
			f := fail(exitInterrupted, "stopped waiting; the change stays: it is committed at revision %d", revision)
			if view != nil {
				f.details = view.missing()
			}
			return view, f
		case err != nil:
			f := fail(exitNotConverged, "the change is committed at revision %d, but it could not be learned who has applied it: %s", revision, briefly(err))
			f.cause = err
			return view, f.hint("see `holdfast cluster members`")
		}
		view = waitViewOf(res)
		if view.Reached {
			a.clearProgress()
			a.notice("%s applied revision %d", everybody(len(view.Servers)), revision)
			return view, nil
		}
		a.progress("waiting for %s: %d of %d servers have revision %d, %s left",
			strings.Join(view.names(false), ", "), len(view.names(true)), len(view.Servers), revision, human(left))
		if left <= 0 {
			f := fail(exitNotConverged, "the change is committed at revision %d, but %s not applied it within %s",
				revision, have(len(view.names(false)), len(view.Servers)), human(a.timeout))
			f.details = view.missing()
			return view, f.hint("servers catch up by themselves once they are reachable: see `holdfast cluster members`")
		}
		if len(view.names(false)) > 0 && view.unreachable() {
			// Servers that cannot be asked answer at once; do not spin.
			sleep(ctx, pollWait)
		}
	}
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

func waitViewOf(res *holdfastv1.AwaitRevisionResponse) *waitView {
	view := &waitView{Reached: res.GetReached(), Servers: []progressView{}}
	for _, s := range res.GetServers() {
		view.Servers = append(view.Servers, progressView{s.GetServerId(), s.GetRevision(), s.GetReached(), s.GetError()})
	}
	return view
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

// unreachable tells whether every missing server is one that cannot be asked.
func (v *waitView) unreachable() bool {
	for _, s := range v.Servers {
		if !s.Reached && s.Error == "" {
			return false
		}
	}
	return true
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
