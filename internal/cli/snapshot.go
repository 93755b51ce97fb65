package cli

import (
	"context"
	"iter"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/holdfast-dev/holdfast/internal/document"
	holdfastv1 "github.com/holdfast-dev/holdfast/proto/holdfast/v1"
)

// snapshot returns the whole namespace as it is at one revision. Lists cannot:
// their pages may be of different ones.
func (a *app) snapshot(ctx context.Context) (document.Delta, error) {
	var d document.Delta
	_, err := a.remote.call(ctx, func(_ context.Context, conn *grpc.ClientConn, _ time.Duration) error {
		var err error
		// Not with the time of an attempt: a large namespace may take longer.
		d, err = a.receive(ctx, conn)
		return err
	})
	if err != nil {
		return d, a.rpcFailure("read namespace "+a.namespace(), err)
	}
	return d, nil
}

// receive reads a snapshot from one server, which may be silent for as long as an
// attempt takes.
func (a *app) receive(ctx context.Context, conn *grpc.ClientConn) (document.Delta, error) {
	d := document.Delta{Namespace: a.namespace()}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	late := time.AfterFunc(attemptTimeout, cancel)
	defer late.Stop()
	stream, err := holdfastv1.NewStateServiceClient(conn).Watch(ctx, &holdfastv1.WatchRequest{
		Namespace: d.Namespace, ProgressInterval: durationpb.New(progressInterval),
	})
	if err != nil {
		return d, err
	}
	for {
		res, err := stream.Recv()
		if !late.Reset(attemptTimeout) {
			return d, status.Error(codes.DeadlineExceeded, "the server fell silent")
		}
		if err != nil {
			return d, err
		}
		s := res.GetSnapshot()
		if s == nil {
			continue
		}
		for _, p := range s.GetResources() {
			_, r, err := document.FromProto(p)
			if err != nil {
				a.warn("left out: %v; the server may be newer than this program", err)
				continue
			}
			d.Puts = append(d.Puts, r)
		}
		if s.GetLast() {
			a.learnTime(&holdfastv1.Header{StateTime: res.GetStateTime()})
			d.To = s.GetRevision()
			copy(d.Root[:], s.GetRoot())
			return d, nil
		}
	}
}

// declared returns what files declare for the namespace as if it were one: of
// several overrides, the last one is the newest.
func (a *app) declared(files []string) (document.Delta, error) {
	r := &manifestReader{namespace: a.namespace(), lenient: true}
	if _, err := a.readInto(r, files); err != nil {
		return document.Delta{}, err
	}
	if len(r.problems) > 0 {
		f := problemFailure(r.problems)
		f.what = plural(len(r.problems), "problem") + " in the files"
		return document.Delta{}, f
	}
	d := document.Delta{Namespace: a.namespace()}
	for _, m := range r.manifests {
		if m.namespace != d.Namespace {
			continue
		}
		d.To++
		d.Puts = append(d.Puts, &document.Resource{
			Key: m.key, Spec: m.spec, Labels: document.LabelsOf(m.labels), CreateRevision: d.To, ModRevision: d.To, Version: 1,
		})
	}
	d.Root = document.Build(hashes(d.Puts)).Root()
	return d, nil
}

// hashes iterates over the keys and hashes of resources.
func hashes(resources []*document.Resource) iter.Seq2[document.Key, [32]byte] {
	return func(yield func(document.Key, [32]byte) bool) {
		for _, r := range resources {
			if !yield(r.Key, r.Hash()) {
				return
			}
		}
	}
}
