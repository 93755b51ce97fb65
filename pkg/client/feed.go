package client

import (
	"github.com/holdfast-dev/holdfast/internal/breaker"
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

// fed returns what a test lets others find, as far as the policies let it be heard.
func (c *Client) fed() []FleetVerdict {
	var all []FleetVerdict
	for _, d := range c.calls.guard.Stats().Dependencies {
		if d.Fleet.Mode == "" {
			continue
		}
		v := FleetVerdict{
			Dependency: d.Name, Others: true, Advised: d.Fleet.Mode == policy.FleetAdvise, Mode: string(d.Fleet.Mode), Reason: d.Fleet.Reason,
		}
		for i := range d.Targets {
			state := d.Targets[i].Breaker.State
			v.Hearsay = v.Hearsay || state == breaker.Hearsay
			v.Open = v.Open || state >= breaker.Hearsay && state <= breaker.Open
		}
		all = append(all, v)
	}
	return all
}
