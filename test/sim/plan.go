package sim

import (
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/holdfast-dev/holdfast/internal/gossip/mesh"
	"github.com/holdfast-dev/holdfast/internal/health"
	"github.com/holdfast-dev/holdfast/internal/policy"
)

// Plan says what a fleet is made of.
type Plan struct {
	Seed uint64
	// Instances of one service are spread evenly over Hosts, and hosts over Zones.
	Instances, Hosts, Zones int
	// Dependencies are what each instance calls; each has Methods, of which the first
	// gets most calls.
	Dependencies []string
	Methods      int
	// Rates are the calls a second that an instance makes to each dependency, with the
	// share of instances that make so many.
	Rates []Rate
	// Errors is the share of calls that fail in good times.
	Errors float64
	// Fleet lets instances gossip; without, breakers know only themselves.
	Fleet bool
	// LoadLater leaves it to the scenario to begin with calls.
	LoadLater bool
	// Policy changes the default policy; may be nil.
	Policy func(*policy.Policy)
	// Within and Across are the links of a zone and between zones.
	Within, Across mesh.Link
}

// Rate is how many instances make so many calls.
type Rate struct{ Share, PerSecond float64 }

// NewPlan returns a fleet as services have: few instances are busy, most are not, and
// each dependency has methods that are called rarely.
func NewPlan(instances int, seed uint64) Plan {
	return Plan{
		Seed: seed, Instances: instances, Hosts: max(instances/3, 1), Zones: 3,
		Dependencies: []string{"payments", "stock", "search", "mail"}, Methods: 3,
		Rates:  []Rate{{0.1, 20}, {0.3, 4}, {0.6, 1}},
		Within: mesh.Link{Latency: 250 * time.Microsecond, Spread: 0.4},
		Across: mesh.Link{Latency: time.Millisecond, Spread: 0.4},
	}
}

// shares are those of a dependency's methods.
func (p *Plan) shares() []float64 {
	shares, left := make([]float64, p.Methods), 1.0
	for i := range shares {
		shares[i] = left * 0.6
		left -= shares[i]
	}
	shares[0] += left
	return shares
}

// joining is how long it takes until all instances have begun to gossip.
func (p *Plan) joining() time.Duration { return time.Duration(p.Instances) * 10 * time.Millisecond }

func (p *Plan) rate(random *rand.Rand) float64 {
	at := random.Float64()
	for _, r := range p.Rates {
		if at -= r.Share; at < 0 {
			return r.PerSecond
		}
	}
	return p.Rates[len(p.Rates)-1].PerSecond
}

func (p *Plan) policy() policy.Policy {
	settings := policy.Default()
	settings.Timeouts.Call = time.Second
	if p.Policy != nil {
		p.Policy(&settings)
	}
	return settings
}

// Place is where an instance runs.
type Place struct {
	Host, Zone string
	zone       int
}

func (p *Plan) place(i int) Place {
	host := i % p.Hosts
	zone := host % p.Zones
	return Place{Host: fmt.Sprintf("10.%d.%d.%d", zone, host/250, host%250+1), Zone: fmt.Sprintf("eu-%d", zone+1), zone: zone}
}

// population is what servers tell instances of the fleet.
func (p *Plan) population() map[string]health.Population {
	return map[string]health.Population{service: {Hosts: min(p.Hosts, p.Instances), Zones: min(p.Zones, p.Hosts, p.Instances)}}
}
