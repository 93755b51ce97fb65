// Package breaker is a circuit breaker as a value that knows the rules: no lock,
// no goroutine and no clock. The time is an argument, in nanoseconds of any clock
// that does not go back; whoever owns a Breaker brings it.
//
// # Flow
//
//	a := b.Admit(now)                           // a.Admitted, or a.RetryAfter
//	event := b.Record(now, a.Ticket, class, took) // once for each admitted call
//
// An admitted call carries a Ticket, the round it belongs to; its result comes
// back with it. What an operation changed is returned as an Event, nil nearly
// always, and the caller tells the world: nothing is called back.
//
//	            a trigger fires                 its time is up
//	Closed ────────────────────────▶ Open ─────────────────────▶ HalfOpen
//	  ▲                               ▲ ▲                         │   │
//	  │ last step    a trigger fires  │ │  a probe fails or lapses │   │ enough good
//	  └──────────── Recovering ───────┘ └──────────────────────────┘   │ probes
//	                    ▲                                              │
//	                    └──────────────────────────────────────────────┘
//
// Others who call the same dependency have a say, if whoever owns the Breaker lets them:
//
//	         Heed           Dismiss                  Recover
//	Closed ───────▶ Hearsay ───────▶ Recovering ◀─────────────── Open, HalfOpen
//	  ▲              │   │
//	  │ vetoed       │   │ a trigger fires
//	  └──────────────┘   └─────────────────▶ Open
//
// # The design in which half disappears
//
// A round is an immutable value: state, generation, open-until, leases, ramp step,
// rules, and a pointer to statistics of its own. A Breaker is one atomic pointer to
// its current round, and each transition one compare-and-swap of it. Hence
//
//   - what belongs together is seen together, with no order of writes to get right;
//   - a new round starts with empty statistics; nothing is ever cleared, and a result
//     that races with a transition lands in statistics that nobody reads any more;
//   - the transition to HalfOpen already holds the first lease, so that there is no
//     k+1st probe; and a lease that was given back, has lapsed or was issued anew is
//     simply not in the list, which is all the fencing there is;
//   - new settings are the same round with other rules, so they keep everything.
//
// Closed calls touch the round for reading only. A success is one atomic add to one
// of a few striped counters of the current slice of time; no trigger is evaluated,
// since no success can trip (a failure that comes before the minimum volume is
// weighed again with the next failure). Counters carry their slice as a tag, so
// that nothing has to expire, and reading after a pause sees what is left.
//
// # Rules that are choices
//
//   - A trigger fires at its threshold, not above it. Only failures and slow calls are
//     weighed. A slow failure counts as both.
//   - FailureThreshold counts failures in a row however far apart they are; with
//     FailureWindow it counts failures among the last so many results (up to 64).
//   - Neutral results say nothing: a probe's lease is given back, and nothing else
//     happens. Overload counts apart and does likewise: somebody's quota is not an
//     outage, and a limiter acts on it.
//   - A probe without an answer after ProbeTimeout has failed. So a probe that hangs,
//     panics or gets lost wedges nothing, and a dependency that hangs is left in peace
//     for longer and longer. The time that a probe has grows as the open time does, or
//     a dependency whose good answers take longer than ProbeTimeout would stay open for
//     ever.
//   - A step of the ramp takes RampStep and at least one success. The call that finds
//     RampStep over is admitted whatever the share is, so that few calls are enough to
//     recover. On the ramp triggers need no volume.
//   - The ramp and the Closed that follows are one generation: calls that were
//     admitted on the ramp and fail later still count.
//   - The open time grows with each opening. VolumeThreshold successes, seen since the
//     dependency is back, undo one growth; time undoes nothing.
//   - Released from ForcedOpen it probes and ramps, since all calls were held back.
//     Released from ForcedClosed it is closed, with what it saw meanwhile.
//   - Hearsay is Closed with a share of the calls: the same generation and the same
//     statistics, so that calls under way count and what opens the breaker is its own
//     experience, never the say of others. Beside the share a call goes through after 5
//     seconds, or Timeout if that is less, and again after twice as long each time, up to
//     half a minute; or a second after a success. Breakers that Share their Canaries take
//     turns in that, 5 seconds apart, or Timeout, in the order in which they were called
//     when their own wait was over, until one goes well.
//     VetoSuccesses good results in a row end it, whatever others say, so that it needs no
//     end of its own. They are the first successes of the Closed that follows, with
//     nothing else seen: it takes new failures to heed again.
//   - Whose last result is a success heeds nobody because of a suspicion, however many
//     failures the window holds.
//   - Others may say when to probe, but not before what the dependency ordered, and not
//     later than 10 times MaxTimeout after the breaker's own time.
//   - What is decided about a round from outside names its generation, and does nothing
//     to another one.
//   - Settings out of range count as the nearest in range.
//
// # What a caller owes
//
// Record once for each admitted call, also when it panics; the result of a call
// that was admitted while closed and is recorded twice counts twice. A probe should
// be given no more time than ProbeTime. Who only observes a breaker lets rejected
// calls pass and does not record them.
package breaker
