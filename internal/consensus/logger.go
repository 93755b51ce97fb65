package consensus

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"log/slog"
	"net"

	"github.com/hashicorp/go-hclog"
)

// logger hands raft's log lines to slog. Levels are slog's to decide.
type logger struct {
	out     *slog.Logger
	name    string
	implied []any
}

func newLogger(out *slog.Logger) hclog.Logger { return &logger{out: out, name: "raft"} }

// slogLevel maps levels; raft's trace is finer than anything that slog names.
func slogLevel(level hclog.Level) slog.Level {
	switch level {
	case hclog.Error:
		return slog.LevelError
	case hclog.Warn:
		return slog.LevelWarn
	case hclog.Info:
		return slog.LevelInfo
	case hclog.Trace:
		return slog.LevelDebug - 4
	default:
		return slog.LevelDebug
	}
}

func (l *logger) enabled(level hclog.Level) bool {
	return l.out.Enabled(context.Background(), slogLevel(level))
}

// tempered lowers what raft takes for worse than it is: a member that is behind
// or waits for a cluster is no fault, nor is a connection that was closed on
// purpose, nor the first election of a node that knows no leader.
func tempered(level hclog.Level, msg string, args []any) hclog.Level {
	switch msg {
	case "failed to get previous log", "no known peers, aborting election":
		return hclog.Debug
	case "failed to decode incoming command":
		for _, arg := range args {
			if err, ok := arg.(error); ok && errors.Is(err, net.ErrClosed) {
				return hclog.Debug
			}
		}
	case "heartbeat timeout reached, starting election":
		if len(args) > 0 && fmt.Sprint(args[len(args)-1]) == "" {
			return hclog.Info
		}
	}
	return level
}

// Log renders hclog's lazily formatted arguments only when they are wanted.
func (l *logger) Log(level hclog.Level, msg string, args ...any) {
	level = tempered(level, msg, args)
	if !l.enabled(level) {
		return
	}
	rendered := make([]any, len(args))
	for i, arg := range args {
		if f, ok := arg.(hclog.Format); ok && len(f) > 0 {
			arg = fmt.Sprintf(fmt.Sprint(f[0]), f[1:]...)
		}
		rendered[i] = arg
	}
	l.out.Log(context.Background(), slogLevel(level), l.name+": "+msg, rendered...) //nolint:sloglint // raft's message
}

func (l *logger) Trace(msg string, args ...any) { l.Log(hclog.Trace, msg, args...) }
func (l *logger) Debug(msg string, args ...any) { l.Log(hclog.Debug, msg, args...) }
func (l *logger) Info(msg string, args ...any)  { l.Log(hclog.Info, msg, args...) }
func (l *logger) Warn(msg string, args ...any)  { l.Log(hclog.Warn, msg, args...) }
func (l *logger) Error(msg string, args ...any) { l.Log(hclog.Error, msg, args...) }

func (l *logger) IsTrace() bool { return l.enabled(hclog.Trace) }
func (l *logger) IsDebug() bool { return l.enabled(hclog.Debug) }
func (l *logger) IsInfo() bool  { return l.enabled(hclog.Info) }
func (l *logger) IsWarn() bool  { return l.enabled(hclog.Warn) }
func (l *logger) IsError() bool { return l.enabled(hclog.Error) }

func (l *logger) ImpliedArgs() []any { return l.implied }
func (l *logger) Name() string       { return l.name }

// With returns a logger that adds args to every line.
func (l *logger) With(args ...any) hclog.Logger {
	implied := append(append([]any(nil), l.implied...), args...)
	return &logger{out: l.out.With(args...), name: l.name, implied: implied}
}

// Named returns a logger whose lines begin with both names.
func (l *logger) Named(name string) hclog.Logger { return l.ResetNamed(l.name + "." + name) }

// ResetNamed returns a logger whose lines begin with name.
func (l *logger) ResetNamed(name string) hclog.Logger {
	return &logger{out: l.out, name: name, implied: l.implied}
}

// SetLevel does nothing: slog's handler decides.
func (l *logger) SetLevel(hclog.Level) {}

// GetLevel returns the finest level that the handler lets through.
func (l *logger) GetLevel() hclog.Level {
	for level := hclog.Trace; level < hclog.Error; level++ {
		if l.enabled(level) {
			return level
		}
	}
	return hclog.Error
}

// StandardLogger returns a logger of the standard library that writes here.
func (l *logger) StandardLogger(*hclog.StandardLoggerOptions) *log.Logger {
	return slog.NewLogLogger(l.out.Handler(), slog.LevelInfo)
}

// StandardWriter returns a writer whose lines are logged here.
func (l *logger) StandardWriter(opts *hclog.StandardLoggerOptions) io.Writer {
	return l.StandardLogger(opts).Writer()
}
