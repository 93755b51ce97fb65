package sim

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/holdfast-dev/holdfast/internal/clock"
	"github.com/holdfast-dev/holdfast/internal/fleet"
	"github.com/holdfast-dev/holdfast/internal/gossip"
	"github.com/holdfast-dev/holdfast/internal/health"
	"github.com/holdfast-dev/holdfast/internal/policy"
	"github.com/holdfast-dev/holdfast/internal/trust"
)

// Liar is a process with a valid certificate that says what it likes. It makes no calls.
type Liar struct {
	*Instance
	key         *trust.Key
	certificate []byte
	channel     *gossip.Channel
	held        *lies
	cancel      context.CancelFunc
	work        sync.WaitGroup
}

// lies is what a liar hands to the others: envelopes as it likes, by any key. It keeps
// what it hears.
type lies struct {
	mu    sync.Mutex // guards what follows
	told  map[string][]byte
	heard map[string][]byte // the last envelope of each that was not Well, as it came
}

var _ gossip.Records = (*lies)(nil)

// Keys implements gossip.Records.
func (l *lies) Keys() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	var keys []string
	for key := range l.told {
		keys = append(keys, key)
	}
	return keys
}

// Encode implements gossip.Records.
func (l *lies) Encode(key string) []byte {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.told[key]
}

// Merge implements gossip.Records.
func (l *lies) Merge(b []byte) (string, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if origin, opens := readEnvelope(b); opens {
		l.heard[origin] = slices.Clone(b)
	}
	return "", false
}

// Digest implements gossip.Records.
func (l *lies) Digest(string) uint64 { return 0 }

func (l *lies) tell(key string, envelope []byte) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.told[key] = envelope
}

// newLiar lets a process join that is no instance of the world.
func (w *World) newLiar(n int) (*Liar, error) {
	i := &Instance{ID: fmt.Sprintf("liar%04d", n), N: n, Place: w.plan.place(n), world: w, random: newRandom(w.plan.Seed, uint64(n)+1)} //nolint:gosec // not negative
	l := &Liar{Instance: i, held: &lies{told: map[string][]byte{}, heard: map[string][]byte{}}}
	var err error
	if l.key, l.certificate, err = w.trust.certify(w.plan.Seed, i.serial(), i.ID, i.Place); err != nil {
		return nil, err
	}
	p := &peer{addr: i.addr()}
	if p.transport, err = w.network.Transport(p.addr); err != nil {
		return nil, fmt.Errorf("attach %s: %w", i.ID, err)
	}
	p.transport.Place(i.zone)
	join := []string{w.instances[0].addr(), w.instances[1].addr()}
	p.pool, err = gossip.New(gossip.Config{Name: i.ID, Label: "sim", Transport: p.transport, Join: join, Profile: gossip.Instances})
	if err != nil {
		return nil, fmt.Errorf("make %s: %w", i.ID, err)
	}
	l.channel = p.pool.AddRecords("evidence", l.held)
	if err := p.pool.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", i.ID, err)
	}
	i.peer.Store(p)
	w.liars = append(w.liars, l)
	return l, nil
}

// Lie does something each second until the liar is stopped.
func (l *Liar) Lie(each func(sequence uint64)) {
	ctx, cancel := context.WithCancel(context.Background())
	l.cancel = cancel
	l.work.Go(func() {
		ticker := time.NewTicker(time.Second)
		defer ticker.Stop()
		for sequence := uint64(1); ; sequence++ {
			each(sequence)
			select {
			case <-ctx.Done():
				return
			case <-ticker.C:
			}
		}
	})
}

// Hush ends what Lie began.
func (l *Liar) Hush() {
	if l.cancel != nil {
		l.cancel()
	}
	l.work.Wait()
}

// EverythingIsOpen is a lie: all dependencies have failed a hundred thousand calls.
func (l *Liar) EverythingIsOpen(sequence uint64) {
	l.say(sequence, health.Report{Opinion: health.Open, Cause: health.TooManyFailures, Calls: 100_000, Failures: 100_000, Since: 30 * time.Second})
}

// EverythingIsWell is a lie where something is broken: all calls succeed.
func (l *Liar) EverythingIsWell(sequence uint64) {
	l.say(sequence, health.Report{Opinion: health.Well, Calls: 100_000, Successes: 100_000, Since: 30 * time.Second})
}

// say says the same of all dependencies.
func (l *Liar) say(sequence uint64, r health.Report) {
	record := health.Record{Incarnation: 1, Sequence: sequence}
	for _, d := range l.world.dependencies {
		r.Dependency = d.name
		record.Reports = append(record.Reports, r)
	}
	record.Normalize()
	envelope, err := fleet.Seal(l.key, l.certificate, &record, time.Now())
	if err != nil {
		l.world.t.Error(err)
		return
	}
	l.held.tell(l.ID, envelope)
	l.channel.Spread(l.ID)
}

// readEnvelope returns whose an envelope is, and whether it finds anything broken.
func readEnvelope(b []byte) (id string, opens bool) {
	store := fleet.NewStore(fleet.StoreConfig{Namespace: namespace, Clock: clock.New(), Verify: trusting})
	id, news := store.Merge(b)
	if !news {
		return id, false
	}
	for _, d := range store.Picture("", func(string) policy.Policy { return policy.Default() }, func(string) string { return "" }).GetDependencies() {
		for _, r := range d.GetReports() {
			opens = opens || r.GetOpinion() == health.Open.String()
		}
	}
	return id, opens
}

func trusting(c *fleet.Claim) (trust.Certificate, error) {
	return trust.ReadCertificate(c.Certificate) //nolint:wrapcheck // of a liar
}
