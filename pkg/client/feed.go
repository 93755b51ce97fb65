package client

import (
	"github.com/holdfast-dev/holdfast/internal/document"
	"github.com/holdfast-dev/holdfast/internal/guard"
	"github.com/holdfast-dev/holdfast/internal/policy"
	"github.com/holdfast-dev/holdfast/pkg/client/internal/feed"
)

// OpenFeed opens a client without network, whose view comes from a test. Use package
// clienttest.
func OpenFeed(config Config, f *feed.Feed) (*Client, error) {
	c, err := build(config, f.Clock)
	if err != nil {
		return nil, err
	}
	f.Install = func(d document.Delta, stateTime int64) []string {
		c.holder.setTime(stateTime, false)
		c.holder.install(d, false, FromTest)
		return c.holder.current.Load().problems
	}
	f.Expire = func() { c.holder.expire() }
	f.Heed = func(dependency string, broken bool) {
		var v guard.FleetVerdict
		if broken {
			v = guard.FleetVerdict{Mode: policy.FleetEnforce, WithoutTraffic: true, Reason: "the test says so"}
		}
		c.calls.guard.Dependency(dependency).Heed(v)
	}
	c.start(nil)
	return c, nil
}
