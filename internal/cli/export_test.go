package cli

import (
	"encoding/json"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/holdfast-dev/holdfast/internal/document"
	holdfastv1 "github.com/holdfast-dev/holdfast/proto/holdfast/v1"
)

// serve has the fake answer watches with a snapshot of what it holds.
func (f *fake) serve() {
	f.onWatch = func(_ int, _ *holdfastv1.WatchRequest, send func(*holdfastv1.WatchResponse)) error {
		for i := range f.resources {
			send(&holdfastv1.WatchResponse{StateTime: timestamppb.Now(), Event: &holdfastv1.WatchResponse_Snapshot{Snapshot: &holdfastv1.Snapshot{
				Revision: 7, Chunk: uint32(i), Last: i == len(f.resources)-1, Resources: f.resources[i : i+1],
			}}})
		}
		return nil
	}
}

// TestFlagdRoundTrip imports the flags of a real system and compares what is
// exported with the file.
func TestFlagdRoundTrip(t *testing.T) {
	file := filepath.Join("..", "..", "examples", "otel-demo", "otel-demo.flagd.json")
	src, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	manifests, problems := readFlagd(file, src, "default", nil)
	if len(problems) > 0 {
		t.Fatal(problems)
	}
	f := newFake(t)
	for _, m := range manifests {
		f.resources = append(f.resources, &holdfastv1.Resource{Key: m.key.Proto("default"), Spec: m.spec, ModRevision: 3, Version: 1})
	}
	f.serve()
	got := run(inTime(t), t, terminal{}, "", nil, "export", "flagd", "--addr", f.addr)
	got.want(t, exitOK, "")
	var have, want any
	if err := json.Unmarshal([]byte(got.out), &have); err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(src, &want); err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(have, want) {
		t.Errorf("exported:\n%s", got.out)
	}
}

// TestSnapshotIsWhole breaks a snapshot off in the middle: the next one counts
// alone.
func TestSnapshotIsWhole(t *testing.T) {
	f := newFake(t)
	for _, name := range []string{"a", "b", "c"} {
		f.resources = append(f.resources, &holdfastv1.Resource{
			Key:  document.Key{Kind: document.Flag, Name: name}.Proto("default"),
			Spec: []byte(`{"state":"ENABLED","variants":{"on":true},"defaultVariant":"on"}`), ModRevision: 3, Version: 1,
		})
	}
	f.serve()
	whole := f.onWatch
	f.onWatch = func(n int, req *holdfastv1.WatchRequest, send func(*holdfastv1.WatchResponse)) error {
		if n > 1 {
			f.resources = f.resources[2:] // a and the mode are gone by now
			return whole(n, req, send)
		}
		last := 0
		_ = whole(n, req, func(res *holdfastv1.WatchResponse) {
			if last++; last < len(f.resources) {
				send(res)
			}
		})
		return status.Error(codes.Unavailable, "shutting down")
	}
	got := run(inTime(t), t, terminal{}, "", nil, "export", "flagd", "--addr", f.addr)
	got.want(t, exitOK, `"b": {`)
	if strings.Contains(got.out, `"a": {`) || !strings.Contains(got.out, `"c": {`) {
		t.Error(got.out)
	}
}
