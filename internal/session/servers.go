package session

import (
	"errors"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/holdfast-dev/holdfast/internal/mirror"
)

// maxLearned is how many addresses are taken from what servers tell; further ones
// are not used.
const maxLearned = 32

// rotation chooses the next server. One goroutine may use it.
type rotation struct {
	configured, learned []string
	round               []string // still to be tried before any is tried again
	last                string
}

// learn takes in the addresses that servers have for each other. They are tried
// after those of the configuration: an instance may not be able to reach them.
func (r *rotation) learn(addrs []string) {
	r.learned = nil
	for _, a := range addrs {
		if len(r.learned) < maxLearned && strings.Contains(a, ":") && !slices.Contains(r.configured, a) && !slices.Contains(r.learned, a) {
			r.learned = append(r.learned, a)
		}
	}
}

// next returns the address to try: each once in a random order, then again. The one
// that was tried last is not the first of a round, if there is another.
func (r *rotation) next() string {
	if len(r.round) == 0 {
		r.round = append(r.shuffled(r.configured), r.shuffled(r.learned)...)
		if r.round[0] == r.last {
			r.round = append(r.round[1:], r.last)
		}
	}
	r.last, r.round = r.round[0], r.round[1:]
	return r.last
}

func (r *rotation) shuffled(of []string) []string {
	c := slices.Clone(of)
	rand.Shuffle(len(c), func(i, j int) { c[i], c[j] = c[j], c[i] })
	if i := slices.Index(c, r.last); i >= 0 {
		c = append(slices.Delete(c, i, i+1), r.last)
	}
	return c
}

const (
	// firstPause doubles with each failure, to longestPause, or to longestRefused
	// where trying again will hardly help.
	firstPause     = 100 * time.Millisecond
	longestPause   = 5 * time.Second
	longestRefused = time.Minute
	// longestSilent is the same after a server that has not answered, which has taken its
	// time already. What it was sent is lost where the network is down, and TCP says it
	// again ever more seldom: only a new attempt finds out soon that the network is back.
	longestSilent = time.Second
	// longestAsked is the most time that a server gets which asks for some.
	longestAsked = time.Minute
	// steady is how long a server has to have been there for failures to be forgotten.
	steady = 10 * time.Second
)

// backoff chooses how long to wait before the next attempt.
type backoff struct {
	failures int // one after the other
	refusals int // the same, of those that the next attempt will meet as well
}

// pause returns the wait after a stream that lasted so long and ended with err:
// random between 0 and what doubles with each failure ("full jitter"), so that
// instances that lost a server together come back one by one.
func (b *backoff) pause(lasted time.Duration, err error) time.Duration {
	if lasted >= steady {
		*b = backoff{}
	}
	n, longest := b.failures, longestPause
	switch {
	case hopeless(err):
		n, longest = b.refusals, longestRefused
		b.refusals++
	case errors.Is(err, errSilent):
		longest = longestSilent
		b.refusals = 0
	default:
		b.refusals = 0
	}
	b.failures++
	limit := longest
	if n < 16 {
		limit = min(longest, firstPause<<n)
	}
	wait := rand.N(limit)
	if asked := min(retryDelay(err), longestAsked); asked > 0 {
		wait += asked + rand.N(asked)
	}
	return wait
}

// hopeless tells of failures that a further attempt will hardly heal: somebody has
// to do something.
func hopeless(err error) bool {
	for _, e := range []error{
		mirror.ErrForeign, mirror.ErrForked, mirror.ErrMalformed, mirror.ErrTooLarge, mirror.ErrRoot, errPanic,
	} {
		if errors.Is(err, e) {
			return true
		}
	}
	switch status.Code(err) {
	case codes.InvalidArgument, codes.Unauthenticated, codes.PermissionDenied, codes.FailedPrecondition, codes.Unimplemented, codes.NotFound,
		codes.AlreadyExists: // another process has this id
		return true
	default:
		return false
	}
}

// retryDelay returns the time that a server asks for; 0 if it asks for none.
func retryDelay(err error) time.Duration {
	for _, d := range status.Convert(err).Details() {
		if info, ok := d.(*errdetails.RetryInfo); ok {
			return info.GetRetryDelay().AsDuration()
		}
	}
	return 0
}
