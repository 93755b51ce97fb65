package node

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
)

// stops is a stack of what has been started, with how to stop it.
type stops struct {
	log   *slog.Logger
	stack []namedStop
}

type namedStop struct {
	name string
	stop func(ctx context.Context) error
}

func (s *stops) push(name string, stop func(ctx context.Context) error) {
	s.stack = append(s.stack, namedStop{name, stop})
}

// run stops everything, the latest first. It goes on after an error, so that
// what holds locks and files is always reached.
func (s *stops) run(ctx context.Context) error {
	var errs error
	for len(s.stack) > 0 {
		top := s.stack[len(s.stack)-1]
		s.stack = s.stack[:len(s.stack)-1]
		if err := top.stop(ctx); err != nil {
			errs = errors.Join(errs, fmt.Errorf("stop %s: %w", top.name, err))
		}
		s.log.Debug("stopped", "part", top.name)
	}
	return errs
}
