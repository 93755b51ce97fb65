package registry

import (
	"maps"
	"slices"
)

// MaxNamed is how many instances of a kind Counts names.
const MaxNamed = 100

// Tally counts the connected instances of a namespace that match a filter, and those
// of them that obey what is demanded. It is kept up to date at each change, in the time of
// that change.
type Tally struct {
	registry  *Registry
	namespace string
	match     func(*Instance) bool
	demand    Demand
	changed   chan struct{} // holds one
	reached   chan struct{} // holds one

	// The rest is guarded by the registry's mutex.
	connected        int
	behind, impaired map[key]*Instance
}

// Counts is how far instances are.
type Counts struct {
	// Connected are those that have a session and match, Obeying those of them that
	// obey what is demanded, and Impaired those of the obeying that cannot obey all of it
	// or are overridden where they run.
	Connected, Obeying, Impaired int
	// NotObeying and ImpairedOnes name some of them, in the order of service and id:
	// all up to MaxNamed, and a few where there are more.
	NotObeying, ImpairedOnes []*Instance
}

// few is how many are named where there are too many to name all.
const few = 10

// Tally begins to count. The filter is called with the registry locked. Close must
// be called; ErrTooManyTallies refuses.
func (r *Registry) Tally(namespace string, match func(*Instance) bool, demand Demand) (*Tally, error) {
	t := &Tally{
		registry: r, namespace: namespace, match: match, demand: demand,
		changed: make(chan struct{}, 1), reached: make(chan struct{}, 1),
		behind: make(map[key]*Instance), impaired: make(map[key]*Instance),
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.tallies >= MaxTallies {
		return nil, ErrTooManyTallies
	}
	r.tallies++
	s := r.space(namespace)
	s.tallies[t] = struct{}{}
	for _, e := range s.entries {
		t.count(e.is.Load(), 1)
	}
	return t, nil
}

// Close ends the counting. It may be called again.
func (t *Tally) Close() {
	r := t.registry
	r.mu.Lock()
	defer r.mu.Unlock()
	s := r.spaces[t.namespace]
	if s == nil {
		return
	}
	if _, ok := s.tallies[t]; ok {
		delete(s.tallies, t)
		r.tallies--
		r.drop(t.namespace)
	}
}

// Changed holds a value when the counts have changed since it was emptied.
func (t *Tally) Changed() <-chan struct{} { return t.changed }

// Reached holds a value when a change left nobody behind since it was emptied.
func (t *Tally) Reached() <-chan struct{} { return t.reached }

// Counts returns the counts.
func (t *Tally) Counts() Counts {
	t.registry.mu.Lock()
	defer t.registry.mu.Unlock()
	return Counts{
		Connected: t.connected, Obeying: t.connected - len(t.behind), Impaired: len(t.impaired),
		NotObeying: named(t.behind), ImpairedOnes: named(t.impaired),
	}
}

// named returns all, or a few of many.
func named(all map[key]*Instance) []*Instance {
	list := make([]*Instance, 0, min(len(all), MaxNamed))
	for i := range maps.Values(all) {
		if len(all) > MaxNamed && len(list) == few {
			break
		}
		list = append(list, i)
	}
	slices.SortFunc(list, func(a, b *Instance) int { return a.key().Compare(b.key()) })
	return list
}

// change counts an instance that was known as one value, or not at all, as another
// one. The caller holds the lock.
func (t *Tally) change(was, is *Instance) {
	before := was != nil && t.count(was, -1)
	if after := t.count(is, 1); !before && !after {
		return
	}
	signal(t.changed)
	if len(t.behind) == 0 {
		signal(t.reached)
	}
}

// count counts an instance in or out, if it is to be counted, and tells whether it
// is.
func (t *Tally) count(i *Instance, by int) bool {
	if !i.Connected() || !t.match(i) {
		return false
	}
	t.connected += by
	list := t.behind
	switch {
	case !i.Obeys(t.demand):
	case i.Impaired():
		list = t.impaired
	default:
		return true
	}
	if by > 0 {
		list[i.key()] = i
	} else {
		delete(list, i.key())
	}
	return true
}

// signal leaves a value in a channel that holds one.
func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
