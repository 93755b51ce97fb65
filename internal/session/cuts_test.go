package session

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
)

// lossy is a network that can be cut. Whatever a connection has under way then comes after
// the end of the cut, up to as long as that lasted, as TCP's retransmissions do; a
// connection is made when a SYN gets through, of those after 0, 1, 3 and 7 s.
type lossy struct {
	*network
	mu     sync.Mutex
	began  time.Time
	healed chan struct{} // nil unless it is cut
	late   time.Duration // of what was under way in the last cut
}

func (l *lossy) cut() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.began, l.healed = time.Now(), make(chan struct{})
}

func (l *lossy) heal() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.late = time.Since(l.began)
	close(l.healed)
	l.healed = nil
}

func (l *lossy) broken() <-chan struct{} {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.healed
}

func (l *lossy) dial(ctx context.Context, addr string) (net.Conn, error) {
	for pause := time.Second; l.broken() != nil; pause *= 2 {
		sleep(ctx, pause)
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
	}
	conn, err := l.network.dial(ctx, addr)
	if err != nil {
		return nil, err
	}
	return &lossyConn{Conn: conn, network: l, closed: make(chan struct{})}, nil
}

type lossyConn struct {
	net.Conn
	network *lossy
	closed  chan struct{}
	once    sync.Once
}

func (c *lossyConn) Close() error {
	c.once.Do(func() { close(c.closed) })
	return c.Conn.Close()
}

func (c *lossyConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if healed := c.network.broken(); healed != nil {
		select {
		case <-healed:
		case <-c.closed:
			return 0, net.ErrClosed
		}
		select {
		case <-time.After(rand.N(c.network.late)):
		case <-c.closed:
			return 0, net.ErrClosed
		}
	}
	return n, err
}

// crowd is instances that follow three servers over a network that can be cut.
type crowd struct {
	t        *testing.T
	network  *lossy
	truth    *truth
	servers  []*server
	sessions []*Session
	apps     []*app
}

// followers opens sessions, each at a moment of its own.
func followers(t *testing.T, size int) *crowd {
	t.Helper()
	c := &crowd{t: t, network: &lossy{network: newNetwork(t)}, truth: newTruth()}
	addrs := []string{"a:1", "b:1", "c:1"}
	for _, addr := range addrs {
		c.servers = append(c.servers, c.network.serve(addr, &server{truth: c.truth}))
	}
	for i := range size {
		s, a := c.network.open(func(config *Config) {
			config.Identity.ID, config.DialOptions = fmt.Sprint(i), []grpc.DialOption{grpc.WithContextDialer(c.network.dial)}
		}, addrs...)
		c.sessions, c.apps = append(c.sessions, s), append(c.apps, a)
		wait(rand.N(2 * DefaultProgressInterval / time.Duration(size)))
	}
	return c
}

func (c *crowd) end() {
	for i := range c.sessions {
		end(c.t, c.sessions[i], c.apps[i])
	}
}

// cutOff cuts all of them off for a while, in which something changes. It returns how long
// each took to notice, where it did, and to be back.
func (c *crowd) cutOff(length time.Duration) (noticed, back []time.Duration) {
	c.network.cut()
	began := time.Now()
	c.truth.put("a", fmt.Sprint(began.Unix()))
	wait(length)
	for _, a := range c.apps {
		a.mu.Lock()
		if i := slices.IndexFunc(a.lostAt, began.Before); i >= 0 {
			noticed = append(noticed, a.lostAt[i].Sub(began))
		}
		a.mu.Unlock()
	}
	c.network.heal()
	healed := time.Now()
	at, _ := c.truth.now()
	for behind := slices.Clone(c.sessions); len(behind) > 0 && time.Since(healed) < 2*time.Minute; wait(10 * time.Millisecond) {
		behind = slices.DeleteFunc(behind, func(s *Session) bool {
			st := s.Status()
			done := st.Connected && st.Position.Revision >= at.Revision
			if done {
				back = append(back, time.Since(healed))
			}
			return done
		})
	}
	return noticed, back
}

// write changes something every so often until the test has ended.
func (c *crowd) write(every time.Duration) (stop func()) {
	ctx, end := context.WithCancel(c.t.Context())
	var writing sync.WaitGroup
	writing.Go(func() {
		for i := 0; ctx.Err() == nil; i++ {
			sleep(ctx, every)
			c.truth.put("b", fmt.Sprint(i))
		}
	})
	return func() {
		end()
		writing.Wait()
	}
}

// TestCutsOfAnyLength: after the network is back all instances are within seconds, however
// long it was away, and while it is they say so; also when that happens again and again,
// whether much is written or nothing.
func TestCutsOfAnyLength(t *testing.T) {
	for _, seconds := range []int{1, 3, 5, 6, 8, 10, 13, 16, 25, 60, 300} {
		for _, every := range []time.Duration{2 * time.Second, time.Hour} {
			t.Run(fmt.Sprint(seconds, " s, a write every ", every), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) { cutAgain(t, time.Duration(seconds)*time.Second, every) })
			})
		}
	}
}

func cutAgain(t *testing.T, length, every time.Duration) {
	t.Helper()
	const bound = 4 * time.Second
	size, rounds := 20, 4
	if testing.Short() || raceDetector {
		size, rounds = 8, 3
	}
	c := followers(t, size)
	defer c.end()
	defer c.write(every)()
	for range rounds {
		wait(15 * time.Second)
		noticed, back := c.cutOff(length)
		if len(back) < size || slices.Max(back) > bound {
			t.Errorf("%d of %d are back, the last after %v", len(back), size, slices.Max(append(back, 0)))
		}
		if length > latest+firstSlack && (len(noticed) < size || slices.Max(noticed) > latest+firstSlack) {
			t.Errorf("%d of %d noticed, the last after %v", len(noticed), size, slices.Max(append(noticed, 0)))
		}
		slices.Sort(back)
		t.Logf("%d noticed; back after %v, half of them after %v", len(noticed), back[len(back)-1], back[len(back)/2])
	}
	hellos := 0
	for _, srv := range c.servers {
		hellos += srv.connects()
	}
	if hellos > size+2*rounds*size {
		t.Errorf("%d hellos", hellos)
	}
}
