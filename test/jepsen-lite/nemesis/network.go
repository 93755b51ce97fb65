package nemesis

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/holdfast-dev/holdfast/test/jepsen-lite/fabric"
	"github.com/holdfast-dev/holdfast/test/jepsen-lite/process"
)

// cutHold is how long a cut lasts: shorter and longer than what servers and clients
// wait for each other.
func cutHold() Span { return Span{500 * time.Millisecond, 4 * time.Second} }

// aim chooses what a cut takes away and whom it disturbs.
type aim func(ctx context.Context, s *Strike) (links []fabric.Link, targets []fabric.Node, err error)

func networked(e *Env) error {
	if e.Network == nil {
		return errors.New("the run has a plain network")
	}
	return nil
}

// cut takes links away, all at once, and proves for each that nothing arrives there.
func cut(name string, choose aim) Fault {
	return Fault{
		Name: "net-" + name, Hold: cutHold(), Able: networked,
		Do: func(ctx context.Context, s *Strike) (func(context.Context) error, error) {
			links, targets, err := choose(ctx, s)
			if err != nil {
				return nil, err
			}
			s.Aim(names(targets)...)
			began := time.Now()
			if err := s.Cuts.set(s.number, links); err != nil {
				return nil, fmt.Errorf("cut %d links: %w", len(links), err)
			}
			heal := func(context.Context) error { return s.Cuts.set(s.number, nil) }
			s.Prove("%d links cut in %v", len(links), time.Since(began).Round(10*time.Microsecond))
			return heal, proveCut(ctx, s, links)
		},
	}
}

// proveCut probes up to 16 of the links: nothing may arrive; and where only one
// direction is cut, the other has to work.
func proveCut(ctx context.Context, s *Strike, links []fabric.Link) error {
	const most = 16
	gone := make(map[fabric.Link]bool, len(links))
	for _, l := range links {
		gone[l] = true
	}
	probed := slices.Clone(links)
	s.Rand.Shuffle(len(probed), func(i, j int) { probed[i], probed[j] = probed[j], probed[i] })
	probed = probed[:min(most, len(probed))]
	errs := make([]error, len(probed))
	var all sync.WaitGroup
	for i, l := range probed {
		all.Go(func() {
			proto := l.Proto
			if proto == "" {
				proto = fabric.UDP
			}
			if s.Network.Reaches(ctx, l.From, l.To, proto) {
				errs[i] = fmt.Errorf("%w: %s still reaches %s over %s", errToothless, l.From, l.To, proto)
				return
			}
			back := fabric.Link{From: l.To, To: l.From, Proto: l.Proto}
			if !gone[back] && !s.Cuts.others(s.number, back) && !s.Network.Reaches(ctx, l.To, l.From, proto) {
				errs[i] = fmt.Errorf("%w: the way back from %s to %s was to stay open", errToothless, l.To, l.From)
			}
		})
	}
	all.Wait()
	if err := errors.Join(errs...); err != nil {
		return err
	}
	s.Prove("no probe arrived on %d of them", len(probed))
	return nil
}

// Cuts is what all present faults cut together: the network knows one set only.
type Cuts struct {
	Network fabric.Fabric

	mu  sync.Mutex // guards now
	now map[int][]fabric.Link
}

// set replaces what one fault cuts.
func (c *Cuts) set(fault int, links []fabric.Link) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.now == nil {
		c.now = make(map[int][]fabric.Link)
	}
	c.now[fault] = links
	if links == nil {
		delete(c.now, fault)
	}
	var union []fabric.Link
	for _, some := range c.now {
		union = append(union, some...)
	}
	if err := c.Network.Cut(union); err != nil {
		return fmt.Errorf("set the cut links: %w", err)
	}
	return nil
}

// others tells whether a fault other than this one cuts a link.
func (c *Cuts) others(fault int, link fabric.Link) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	for id, links := range c.now {
		if id != fault && slices.Contains(links, link) {
			return true
		}
	}
	return false
}

func nodes(servers []*process.Server) []fabric.Node {
	all := make([]fabric.Node, len(servers))
	for i, s := range servers {
		all[i] = fabric.Node(s.ID)
	}
	return all
}

func names(all []fabric.Node) []string {
	out := make([]string, len(all))
	for i, n := range all {
		out[i] = string(n)
	}
	return out
}

func both(a, b []fabric.Node) []fabric.Link {
	return append(fabric.Between(a, b), fabric.Between(b, a)...)
}

// isolate cuts picked servers off from the other servers. Clients and instances
// still reach both sides.
func isolate(pick Pick) aim {
	return func(ctx context.Context, s *Strike) ([]fabric.Link, []fabric.Node, error) {
		servers, err := pick(ctx, s)
		if err != nil {
			return nil, nil, err
		}
		return both(nodes(servers), nodes(s.Cluster.Except(servers...))), nodes(servers), nil
	}
}

// shatter cuts every server off from every other.
func shatter(_ context.Context, s *Strike) ([]fabric.Link, []fabric.Node, error) {
	all := nodes(s.Cluster.Servers)
	return fabric.Between(all, all), all, nil
}

// halves splits everybody, servers, instances and clients, in two. Each side has as many
// instances and clients as the other, give or take one.
func halves(ctx context.Context, s *Strike) ([]fabric.Link, []fabric.Node, error) {
	minority, err := One(ctx, s)
	if err != nil {
		return nil, nil, err
	}
	left, right := nodes(minority), nodes(s.Cluster.Except(minority...))
	for _, some := range [][]fabric.Node{s.Instances, s.Clients} {
		rest := slices.Clone(some)
		s.Rand.Shuffle(len(rest), func(i, j int) { rest[i], rest[j] = rest[j], rest[i] })
		left, right = append(left, rest[:len(rest)/2]...), append(right, rest[len(rest)/2:]...)
	}
	return both(left, right), left, nil
}

// bridge cuts the leader off from one follower; the other sees both.
func bridge(ctx context.Context, s *Strike) ([]fabric.Link, []fabric.Node, error) {
	leader, err := Leader(ctx, s)
	if err != nil {
		return nil, nil, err
	}
	others := s.Cluster.Except(leader...)
	end := others[s.Rand.IntN(len(others))]
	return both(nodes(leader), []fabric.Node{fabric.Node(end.ID)}), append(nodes(leader), fabric.Node(end.ID)), nil
}

// deaf lets the leader speak to the other servers and hear nothing of them; mute is
// the other way round.
func deaf(ctx context.Context, s *Strike) ([]fabric.Link, []fabric.Node, error) {
	leader, err := Leader(ctx, s)
	if err != nil {
		return nil, nil, err
	}
	return fabric.Between(nodes(s.Cluster.Except(leader...)), nodes(leader)), nodes(leader), nil
}

func mute(ctx context.Context, s *Strike) ([]fabric.Link, []fabric.Node, error) {
	leader, err := Leader(ctx, s)
	if err != nil {
		return nil, nil, err
	}
	return fabric.Between(nodes(leader), nodes(s.Cluster.Except(leader...))), nodes(leader), nil
}

// replyLoss loses what the servers say to clients; requests arrive.
func replyLoss(_ context.Context, s *Strike) ([]fabric.Link, []fabric.Node, error) {
	all := nodes(s.Cluster.Servers)
	return fabric.Between(all, s.Clients), all, nil
}

// sdk cuts some instances off from the servers, and clients from none.
func sdk(servers Pick, share func(r *rand.Rand, all []fabric.Node) []fabric.Node) aim {
	return func(ctx context.Context, s *Strike) ([]fabric.Link, []fabric.Node, error) {
		from, err := servers(ctx, s)
		if err != nil {
			return nil, nil, err
		}
		if len(s.Instances) == 0 {
			return nil, nil, errors.New("the run has no instances")
		}
		some := share(s.Rand, s.Instances)
		return both(some, nodes(from)), some, nil
	}
}

func everyone(_ *rand.Rand, all []fabric.Node) []fabric.Node { return all }

func someone(r *rand.Rand, all []fabric.Node) []fabric.Node {
	some := slices.Clone(all)
	r.Shuffle(len(some), func(i, j int) { some[i], some[j] = some[j], some[i] })
	return some[:1+r.IntN(max(1, len(some)/2))]
}

// gossipOnly cuts the datagrams among servers and among instances; streams work.
func gossipOnly(_ context.Context, s *Strike) ([]fabric.Link, []fabric.Node, error) {
	all := append(nodes(s.Cluster.Servers), s.Instances...)
	victim := all[s.Rand.IntN(len(all))]
	links := both([]fabric.Node{victim}, all)
	for i := range links {
		links[i].Proto = fabric.UDP
	}
	return links, []fabric.Node{victim}, nil
}

// flap cuts a follower off and lets it back in, again and again.
func flap() Fault {
	f := cut("flap", isolate(Follower))
	once := f.Do
	f.Hold = Span{2 * time.Second, 4 * time.Second}
	f.Do = func(ctx context.Context, s *Strike) (func(context.Context) error, error) {
		heal, err := once(ctx, s)
		if err != nil {
			return heal, err
		}
		links := s.Cuts.of(s.number)
		flapping, stop := context.WithCancel(context.WithoutCancel(ctx))
		var flaps sync.WaitGroup
		var failed error
		flaps.Go(func() {
			for on := false; flapping.Err() == nil && failed == nil; on = !on {
				wait(flapping, 150*time.Millisecond)
				if on {
					failed = s.Cuts.set(s.number, links)
				} else {
					failed = s.Cuts.set(s.number, nil)
				}
			}
		})
		return func(ctx context.Context) error {
			stop()
			flaps.Wait()
			return errors.Join(failed, heal(ctx))
		}, nil
	}
	return f
}

// of is what a fault cuts at present.
func (c *Cuts) of(fault int) []fabric.Link {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.now[fault])
}

// shape makes all links of the leader, to the other servers and to instances, bad. It
// disturbs them all: a follower is as late as what it hears from the leader.
func shape(name string, to fabric.Shape, able func(fabric.Caps) bool) Fault {
	return Fault{
		Name: "net-" + name, Hold: Span{2 * time.Second, 5 * time.Second},
		Able: func(e *Env) error {
			if err := networked(e); err != nil {
				return err
			}
			if caps := e.Network.Caps(); !able(caps) {
				return errors.New(caps.Why)
			}
			return nil
		},
		Do: func(ctx context.Context, s *Strike) (func(context.Context) error, error) {
			leader, err := Leader(ctx, s)
			if err != nil {
				return nil, err
			}
			others := append(nodes(s.Cluster.Except(leader...)), s.Instances...)
			links := both(nodes(leader), others)
			s.Aim(append(ids(leader), names(others)...)...)
			set := func(shape fabric.Shape) error {
				var errs []error
				for _, l := range links {
					errs = append(errs, s.Network.Shape(l, shape))
				}
				return errors.Join(errs...)
			}
			heal := func(context.Context) error { return set(fabric.Shape{}) }
			before := medianTrip(ctx, s, links[0])
			if err := set(to); err != nil {
				return heal, err
			}
			if to.Delay > 0 {
				after := medianTrip(ctx, s, links[0])
				if after < before+to.Delay/2 {
					return heal, fmt.Errorf("%w: a packet from %s to %s took %v before and takes %v", errToothless, links[0].From, links[0].To, before, after)
				}
				s.Prove("a packet from %s to %s took %v before and takes %v", links[0].From, links[0].To, before.Round(10*time.Microsecond), after.Round(10*time.Microsecond))
				return heal, nil
			}
			lost := 0
			const tries = 60
			for range tries {
				short, cancel := context.WithTimeout(ctx, 20*time.Millisecond)
				if !s.Network.Reaches(short, links[0].From, links[0].To, fabric.UDP) {
					lost++
				}
				cancel()
			}
			if lost == 0 {
				return heal, fmt.Errorf("%w: %d probes arrived in spite of a loss of %v", errToothless, tries, to.Loss)
			}
			s.Prove("%d of %d probes from %s to %s were late or lost", lost, tries, links[0].From, links[0].To)
			return heal, nil
		},
	}
}

// medianTrip is how long a probe takes.
func medianTrip(ctx context.Context, s *Strike, l fabric.Link) time.Duration {
	const tries = 5
	took := make([]time.Duration, tries)
	for i := range took {
		began := time.Now()
		s.Network.Reaches(ctx, l.From, l.To, fabric.UDP)
		took[i] = time.Since(began)
	}
	slices.Sort(took)
	return took[tries/2]
}
