package gossip

import (
	"context"
	"log"
	"log/slog"
	"strings"
)

// logAdapter turns the library's lines into records. Nothing that the library
// calls an error is one to the operator: it tells of peers and packets, and
// tries again by itself.
type logAdapter struct{ logger *slog.Logger }

func newLogAdapter(logger *slog.Logger) *log.Logger {
	return log.New(logAdapter{logger}, "", 0)
}

// Write implements io.Writer; log.Logger calls it once a line.
func (a logAdapter) Write(line []byte) (int, error) {
	level, text := slog.LevelInfo, strings.TrimSpace(string(line))
	if rest, ok := strings.CutPrefix(text, "["); ok {
		if tag, message, ok := strings.Cut(rest, "]"); ok {
			level, text = levelOf(tag), strings.TrimSpace(message)
		}
	}
	text = strings.TrimPrefix(text, "memberlist: ")
	a.logger.Log(context.Background(), level, text) //nolint:sloglint // the library's own words
	return len(line), nil
}

func levelOf(tag string) slog.Level {
	switch tag {
	case "DEBUG":
		return slog.LevelDebug
	case "WARN", "ERR", "ERROR":
		return slog.LevelWarn
	default:
		return slog.LevelInfo
	}
}
