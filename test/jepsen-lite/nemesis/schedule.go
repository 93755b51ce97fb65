package nemesis

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/holdfast-dev/holdfast/test/jepsen-lite/history"
)

// Plan is a phase of faults.
type Plan struct {
	// Lanes run at the same time; within one, faults follow each other.
	Lanes [][]Fault
	// Gap is the time between two faults of a lane.
	Gap Span
	// For is how long faults are begun. Each fault is done at least once, however long
	// that takes, if Each is set.
	For  time.Duration
	Each bool
}

// Summary is what came of the faults of a phase.
type Summary struct{ Bitten, Toothless, Skipped int }

// Run does the faults of a plan until its time is over. All faults have ended when it
// returns, also where ctx ends it. What went wrong while ending one is returned.
func Run(ctx context.Context, env *Env, plan Plan, seed uint64) (Summary, error) {
	p := &phase{
		env: env, plan: plan, until: time.Now().Add(plan.For),
		offset: rand.New(rand.NewPCG(seed, 1<<32)).Float64(), //nolint:gosec // a run is to be repeatable
	}
	errs := make([]error, len(plan.Lanes))
	var lanes sync.WaitGroup
	for i, faults := range plan.Lanes {
		r := rand.New(rand.NewPCG(seed, uint64(i)))
		lanes.Go(func() { errs[i] = p.lane(ctx, faults, r) })
	}
	lanes.Wait()
	return p.summary, errors.Join(errs...)
}

type phase struct {
	env   *Env
	plan  Plan
	until time.Time
	// offset is where the sequence of times begins that are spread evenly.
	offset float64

	mu      sync.Mutex // guards the fields below
	number  int
	summary Summary
}

func (p *phase) lane(ctx context.Context, faults []Fault, r *rand.Rand) error {
	able := p.able(faults)
	if len(able) == 0 {
		return nil
	}
	var errs []error
	for round := 0; ctx.Err() == nil; round++ {
		if round%len(able) == 0 {
			// Each in turn before any comes twice, in an order of the seed's.
			r.Shuffle(len(able), func(i, j int) { able[i], able[j] = able[j], able[i] })
		}
		owed := p.plan.Each && round < len(able)
		if !owed && time.Now().After(p.until) {
			break
		}
		errs = append(errs, p.strike(ctx, able[round%len(able)], r))
		wait(ctx, p.plan.Gap.draw(r))
	}
	return errors.Join(errs...)
}

// able leaves out what cannot be done here, on the record.
func (p *phase) able(faults []Fault) []Fault {
	var can []Fault
	for _, f := range faults {
		if f.Able != nil {
			if err := f.Able(p.env); err != nil {
				p.record(history.Fault{ID: p.next(), Name: f.Name, Event: history.FaultSkipped, T: history.Now(), Proof: err.Error()})
				p.count(func(s *Summary) { s.Skipped++ })
				continue
			}
		}
		can = append(can, f)
	}
	return can
}

func (p *phase) strike(ctx context.Context, f Fault, r *rand.Rand) error {
	id := p.next()
	say := func(event string, targets []string, proof string) {
		p.record(history.Fault{ID: id, Name: f.Name, Targets: targets, Event: event, T: history.Now(), Proof: proof})
	}
	s := &Strike{Env: p.env, Rand: r, number: id}
	begun := false
	s.aimed = func() { begun = true; say(history.FaultBegin, s.targets, "") }
	beginning, cancel := context.WithTimeout(ctx, beginLimit)
	end, err := f.Do(beginning, s)
	cancel()
	if !begun {
		s.Aim()
	}
	switch {
	case err != nil && ctx.Err() != nil: // cut short from outside
	case err != nil || len(s.proofs) == 0:
		if err == nil {
			err = fmt.Errorf("%w: it has shown no sign", errToothless)
		}
		say(history.FaultToothless, s.targets, err.Error())
		p.count(func(s *Summary) { s.Toothless++ })
	default:
		say(history.FaultBit, s.targets, s.proof())
		p.count(func(s *Summary) { s.Bitten++ })
		wait(ctx, p.hold(f, id, r))
	}
	if end == nil {
		say(history.FaultEnd, s.targets, "")
		return nil
	}
	ending, cancel := context.WithTimeout(context.WithoutCancel(ctx), endLimit)
	defer cancel()
	if err := end(ending); err != nil {
		say(history.FaultEnd, s.targets, err.Error())
		return fmt.Errorf("end %s: %w", f.Name, err)
	}
	say(history.FaultEnd, s.targets, "")
	return nil
}

// hold is how long a strike lasts. Multiples of the golden ratio leave no large part of
// a range without one, however few there are.
func (p *phase) hold(f Fault, id int, r *rand.Rand) time.Duration {
	if !f.EvenHolds {
		return f.Hold.draw(r)
	}
	_, share := math.Modf(p.offset + float64(id)/math.Phi)
	return f.Hold.at(share)
}

func (p *phase) record(f history.Fault) { p.env.Record(f) }

func (p *phase) next() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.number++
	return p.number
}

func (p *phase) count(add func(*Summary)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	add(&p.summary)
}
