package session

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/holdfast-dev/holdfast/internal/mirror"
)

// foreigner is a truth of another cluster.
func foreigner() *truth {
	w := newTruth()
	w.put("a", "1")
	w.epoch.Lineage[0] = 0xab
	return w
}

func refusal(t *testing.T, code codes.Code, message, reason string, metadata map[string]string) error {
	t.Helper()
	st, err := status.New(code, message).WithDetails(&errdetails.ErrorInfo{Domain: "holdfast", Reason: reason, Metadata: metadata})
	if err != nil {
		t.Fatal(err)
	}
	return st.Err()
}

// TestAnotherCluster: who has a view, or only its mark, of another cluster than the
// servers says so once, with the remedy, for as long as it lasts, and is no burden.
func TestAnotherCluster(t *testing.T) {
	for name, c := range map[string]struct {
		lose string // of the directory
		told map[string]string
		want string
	}{
		"view, told by the server": {"", map[string]string{"epoch": "ab000000/1"}, "another cluster (ab000000/1) than the view of this instance (01000000/1); it goes on with that view. To follow them, remove "},
		"view":                     {"", nil, "another cluster than the view of this instance (01000000/1); it goes on with that view. To follow them, remove "},
		"mark without a cache":     {"holdfast-default.cache", nil, "another cluster (ab000000/1) than the mark of this instance (01000000/1); it goes on with the defaults of the code. To follow them, remove "},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n, w, l := newNetwork(t), newTruth(), &logs{}
				w.put("a", "1")
				dir := stored(t, n, w)
				if c.lose != "" {
					if err := os.Remove(filepath.Join(dir, c.lose)); err != nil {
						t.Fatal(err)
					}
				}
				stranger := &server{truth: foreigner()}
				if c.lose == "" {
					stranger.refuse = func() error {
						return refusal(t, codes.FailedPrecondition, "the cursor belongs to another cluster", "FOREIGN_LINEAGE", c.told)
					}
				}
				srv := n.serve("a:1", stranger)
				s, a := n.open(withDir(dir, l), "a:1")
				defer end(t, s, a)
				wait(time.Hour)
				want := "the servers belong to " + c.want + filepath.Join(dir, "holdfast-default.cache") + " and .mark and restart"
				for _, err := range []error{s.Status().Err, s.Status().Foreign} {
					if err == nil || err.Error() != want || !errors.Is(err, mirror.ErrForeign) {
						t.Errorf("got  %v\nwant %s", err, want)
					}
				}
				l.has(t, "ERROR", want)
				if n := strings.Count(l.buf.String(), "\n"); n != 1 {
					t.Errorf("%d lines:\n%s", n, l.buf.String())
				}
				if c := srv.connects(); c < 60 || c > 400 {
					t.Errorf("%d connections in an hour, want about 120", c)
				}
				n.kill("a:1", srv)
				wait(time.Minute)
				if s.Status().Foreign == nil {
					t.Error("forgotten while nobody answers")
				}
				n.serve("a:1", &server{truth: w})
				wait(5 * time.Minute)
				if err := s.Status().Foreign; err != nil || !s.Status().Connected {
					t.Errorf("the own cluster answers: connected is %v, %v", s.Status().Connected, err)
				}
				a.has(w)
			})
		})
	}
}

// TestWords tells who is refused by whom, and what may be wrong.
func TestWords(t *testing.T) {
	for want, err := range map[string]error{
		`the server refuses this instance, whose id is "i1": another process has a session under this id`: refusal(t, codes.AlreadyExists, "another process has a session under this id", "INSTANCE_REPLACED", nil),
		"the server refuses this instance: the certificate is one of a server":                            status.Error(codes.PermissionDenied, "the certificate is one of a server"),
		"does the server want TLS, or a certificate?":                                                     status.Error(codes.Unavailable, "error reading server preface: EOF"),
	} {
		synctest.Test(t, func(t *testing.T) {
			n, w, l := newNetwork(t), newTruth(), &logs{}
			w.put("a", "1")
			var refuses atomic.Bool
			refuses.Store(true)
			n.serve("a:1", &server{truth: w, refuse: func() error {
				if refuses.Load() {
					return err
				}
				return nil
			}})
			s, a := n.open(func(c *Config) { c.Logger = l.logger() }, "a:1")
			defer end(t, s, a)
			wait(time.Minute)
			if got := s.Status().Err; !strings.Contains(got.Error(), want) || status.Code(got) != status.Code(err) {
				t.Errorf("got  %v (%s)\nwant %s (%s)", got, status.Code(got), want, status.Code(err))
			}
			refuses.Store(false)
			wait(2 * time.Minute)
			a.has(w)
		})
	}
}

// TestNoHintOnceAServerHasSpoken: what breaks later has nothing to do with TLS.
func TestNoHintOnceAServerHasSpoken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, w := newNetwork(t), newTruth()
		w.put("a", "1")
		srv := n.serve("a:1", &server{truth: w})
		s, a := n.open(nil, "a:1")
		defer end(t, s, a)
		synctest.Wait()
		n.kill("a:1", srv)
		synctest.Wait()
		if err := a.lost[0]; err == nil || strings.Contains(err.Error(), "TLS") {
			t.Errorf("got %v", err)
		}
	})
}
