package consensus

import (
	"bytes"
	"errors"
	"io"
	"log/slog"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"
)

func textLogger(w io.Writer) *slog.Logger { return slog.New(slog.NewTextHandler(w, nil)) }

func TestLoggerHandsOverToSlog(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	l := newLogger(textLogger(&out)).Named("net").With("peer", "b")
	l.Debug("not wanted")
	l.Warn("late", "servers", hclog.Fmt("%+v", []int{1, 2}))
	if got := out.String(); strings.Contains(got, "not wanted") ||
		!strings.Contains(got, `level=WARN msg="raft.net: late" peer=b servers="[1 2]"`) {
		t.Errorf("log is %q", got)
	}
	if l.IsDebug() || !l.IsInfo() || l.GetLevel() != hclog.Info {
		t.Errorf("level %v", l.GetLevel())
	}
}

func TestHealthyPathsAreQuiet(t *testing.T) {
	t.Parallel()
	closed := &net.OpError{Op: "read", Err: net.ErrClosed}
	for _, test := range []struct {
		msg  string
		args []any
		want slog.Level
	}{
		{"failed to get previous log", []any{"error", errors.New("log not found")}, slog.LevelDebug},
		{"no known peers, aborting election", nil, slog.LevelDebug},
		{"failed to decode incoming command", []any{"error", closed}, slog.LevelDebug},
		{"failed to decode incoming command", []any{"error", io.ErrUnexpectedEOF}, slog.LevelWarn},
		{"heartbeat timeout reached, starting election", []any{"last-leader-addr", raft.ServerAddress(""), "last-leader-id", raft.ServerID("")}, slog.LevelInfo},
		{"heartbeat timeout reached, starting election", []any{"last-leader-addr", "a:1", "last-leader-id", raft.ServerID("a")}, slog.LevelWarn},
		{"anything else", nil, slog.LevelWarn},
	} {
		if got := slogLevel(tempered(hclog.Warn, test.msg, test.args)); got != test.want {
			t.Errorf("%s %v: level %v, want %v", test.msg, test.args, got, test.want)
		}
	}
}

func TestLatency(t *testing.T) {
	t.Parallel()
	var l latency
	for _, d := range []time.Duration{100 * time.Microsecond, 3 * time.Millisecond, time.Minute} {
		l.observe(d)
	}
	h := l.snapshot()
	if h.Count != 3 || h.Max != 60 || h.Counts[0] != 1 || h.Counts[4] != 2 || h.Counts[len(h.Counts)-1] != 2 {
		t.Errorf("histogram %+v", h)
	}
}
