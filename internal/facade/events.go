package facade

import (
	"context"
	"time"

	"google.golang.org/protobuf/types/known/structpb"
)

// The types of events.
const (
	eventReady    = "provider_ready"
	eventChange   = "configuration_change"
	eventAlive    = "keep_alive"
	eventShutdown = "provider_shutdown"
)

// eventStream tells a client when flags change, until the client or the server
// ends the stream.
func (s *service) eventStream(ctx context.Context, send func(kind string, data *structpb.Struct) error) error {
	sel, err := selectorOf(ctx, "")
	if err != nil {
		return err
	}
	f, err := s.follow(ctx, sel, "events")
	if err != nil {
		return err
	}
	defer f.done()
	seen := f.now()
	if err := send(eventReady, nil); err != nil {
		return err
	}
	alive := time.NewTicker(s.keepAlive)
	defer alive.Stop()
	for {
		select {
		case <-f.ctx.Done():
			why := f.ended()
			if why != nil {
				_ = send(eventShutdown, nil) // as a courtesy
			}
			return why
		case <-alive.C:
			if err := send(eventAlive, nil); err != nil {
				return err
			}
		case <-seen.over:
			if err := s.serving(); err != nil {
				return err
			}
			now := f.now()
			for _, data := range now.since(sel, seen) {
				if err := send(eventChange, data); err != nil {
					return err
				}
			}
			seen = now
		}
	}
}
