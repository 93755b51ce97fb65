package check

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"

	"github.com/holdfast-dev/holdfast/test/jepsen-lite/history"
)

const (
	beat     = int64(1_000_000) // between two commits of the simulation
	nServers = 3
)

// simulation is a correct store, clients, watchers and instances, which record what
// they would. It is naive on purpose: one list of commits, and everybody sees a
// prefix of it.
type simulation struct {
	random   *rand.Rand
	h        *history.History
	clients  int
	keys     int
	unknowns float64
	revision uint64
	state    map[string]history.Cell
	commits  []map[string]history.Cell // what each revision changed
	sequence []int                     // of each client
	reached  map[string]uint64         // by each watcher
	index    uint64
	quiet    bool
}

// simulate records n operations and all that goes with them.
func simulate(seed uint64, n, clients, keys int, unknowns float64) *history.History {
	return newSimulation(seed, clients, keys, unknowns).run(n)
}

// simulateClients records n operations, and neither servers, watchers nor instances.
func simulateClients(n, clients, keys int, unknowns float64) *history.History {
	s := newSimulation(1, clients, keys, unknowns)
	s.quiet = true
	return s.run(n)
}

func newSimulation(seed uint64, clients, keys int, unknowns float64) *simulation {
	return &simulation{
		random: rand.New(rand.NewPCG(seed, 1)), h: &history.History{}, clients: clients, keys: keys, unknowns: unknowns,
		state: make(map[string]history.Cell), sequence: make([]int, clients),
		reached: make(map[string]uint64),
	}
}

func (s *simulation) run(n int) *history.History {
	s.h.Run = history.Run{Servers: []string{"s1", "s2", "s3"}, Began: 1, Healed: 0, Settled: int64(n+10) * beat, Ended: int64(n+20) * beat}
	for i := range n {
		s.operation(i)
	}
	return s.h
}

// operation does one thing at its moment, which lies between its call and its
// return; those of one client do not overlap, those of several do.
func (s *simulation) operation(i int) {
	client := i % s.clients
	moment := int64(i+s.clients+1) * beat
	reach := beat * int64(s.clients) / 2
	op := history.Op{
		Client: fmt.Sprintf("c%d", client), Server: fmt.Sprintf("s%d", 1+s.random.IntN(nServers)),
		Call: moment - s.random.Int64N(reach), Return: moment + s.random.Int64N(reach), Outcome: history.OK,
	}
	key := fmt.Sprintf("k%d", s.random.IntN(s.keys))
	other := fmt.Sprintf("k%d", s.random.IntN(s.keys))
	have, there := s.state[key]
	switch what := s.random.IntN(10); {
	case what < 4 || (what == 8 && !there) || (what == 9 && other == key):
		s.get(&op, key)
	case what == 8:
		op.F, op.Cells = history.Delete, []history.Cell{{Key: key, Absent: true}}
		s.write(&op, client)
	case what == 9:
		op.F, op.Cells = history.Txn, []history.Cell{{Key: key}, {Key: other}}
		s.write(&op, client)
	case what == 7:
		op.F, op.Cells = history.CAS, []history.Cell{{Key: key, Expect: have.Revision, Expects: true}}
		if s.random.IntN(3) == 0 { // it expects what is long past
			op.Cells[0].Expect += 1 << 40
		}
		s.write(&op, client)
	default:
		op.F, op.Cells = history.Put, []history.Cell{{Key: key}}
		s.write(&op, client)
	}
	s.h.Ops = append(s.h.Ops, op)
}

func (s *simulation) get(op *history.Op, key string) {
	op.F, op.Store = history.Get, s.revision
	cell, there := s.state[key]
	if !there {
		cell = history.Cell{Key: key, Absent: true}
	}
	op.Cells = []history.Cell{cell}
	op.Local = s.random.IntN(8) == 0
}

func (s *simulation) write(op *history.Op, client int) {
	op.Request = fmt.Sprintf("r%d", len(s.h.Ops))
	for i := range op.Cells {
		if !op.Cells[i].Absent {
			s.sequence[client]++
			op.Cells[i].Value = fmt.Sprintf("c%d.%d", client, s.sequence[client])
		}
	}
	lost := s.random.Float64() < s.unknowns
	if lost {
		op.Outcome = history.Unknown
		if s.random.IntN(2) == 0 {
			return // it never arrived
		}
	}
	s.index++
	if op.F == history.CAS && op.Cells[0].Expect != s.state[op.Cells[0].Key].Revision {
		if !lost {
			op.Outcome, op.Code = history.Failed, history.CodeMismatch
		}
		s.apply(op.Request, false)
		return
	}
	s.revision++
	if !lost {
		op.Revision, op.Store = s.revision, s.revision
	}
	changed := make(map[string]history.Cell)
	for _, c := range op.Cells {
		cell := history.Cell{Key: c.Key, Value: c.Value, Absent: c.Absent, Revision: s.revision}
		changed[c.Key] = cell
		s.state[c.Key] = cell
		if c.Absent {
			delete(s.state, c.Key)
		}
	}
	s.apply(op.Request, true)
	if !s.quiet {
		s.commits = append(s.commits, changed)
		s.tell()
	}
}

// apply records the command on all servers, one of which restarts at times from a
// snapshot.
func (s *simulation) apply(request string, effective bool) {
	for id := 1; id <= nServers && !s.quiet; id++ {
		a := history.Applied{
			Server: fmt.Sprintf("s%d", id), Incarnation: 1, T: int64(len(s.h.Applied) + 1), Index: s.index, Term: 1,
			Command: "command of " + request, State: fmt.Sprintf("state at %d", s.index),
			Revision: s.revision, Request: request, Effective: effective,
		}
		if id == 3 {
			a.Incarnation = 1 + int(s.index/50)
			if s.index > 0 && s.index%50 == 0 {
				a.Restored, a.Effective, a.Command, a.Request = true, false, "", ""
			}
		}
		s.h.Applied = append(s.h.Applied, a)
	}
}

// tell lets watchers and instances catch up, each when it likes.
func (s *simulation) tell() {
	now := int64(len(s.h.Ops)+2*s.clients+2) * beat
	for id := range 3 {
		name := fmt.Sprintf("w%d", id)
		if s.random.IntN(2+id*3) == 0 {
			s.deliver(name, now+int64(id))
		}
	}
	for id := range 2 {
		if s.random.IntN(3+id) == 0 {
			s.decide(fmt.Sprintf("i%d", id), now+int64(id))
		}
	}
}

func (s *simulation) deliver(name string, now int64) {
	position, seen := s.reached[name]
	s.reached[name] = s.revision
	m := history.Watch{Watcher: name, Server: "s1", T: now, To: s.revision, Root: fmt.Sprintf("root at %d", s.revision)}
	if !seen {
		s.h.Watches = append(s.h.Watches, history.Watch{Watcher: name, Server: "s1", T: now, Event: history.WatchOpen})
		m.Event = history.WatchSnapshot
		for _, c := range s.state {
			m.Cells = append(m.Cells, c)
		}
		s.h.Watches = append(s.h.Watches, m)
		return
	}
	if position == s.revision {
		return
	}
	m.Event, m.From = history.WatchDelta, position
	last := make(map[string]history.Cell)
	for _, changed := range s.commits[position:] {
		maps.Copy(last, changed)
	}
	for _, c := range last {
		m.Cells = append(m.Cells, c)
	}
	slices.SortFunc(m.Cells, func(a, b history.Cell) int { return int(a.Revision) - int(b.Revision) })
	s.h.Watches = append(s.h.Watches, m)
}

func (s *simulation) decide(name string, now int64) {
	s.h.Updates = append(s.h.Updates, history.Update{Instance: name, T: now, Revision: s.revision})
	for key, c := range s.state {
		s.h.Decisions = append(s.h.Decisions, history.Decision{
			Instance: name, T: now, Until: now + 1, N: 10, Key: key, Value: c.Value,
			Revision: s.revision, Source: "server", Connected: true, Server: "s2",
		})
	}
}
