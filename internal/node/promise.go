package node

import (
	"errors"
	"fmt"
	"sync"
)

// promise is whom this server has promised itself to, in a cluster that does not
// exist yet. It is what makes two founders impossible:
//
//   - A server founds only while it has promised itself to itself, and only with
//     the promises of all other servers of the first configuration.
//   - A promise is on disk before it is given, and is given to one founder. It
//     has no timeout: a founder that cannot be seen may have founded, and would
//     find its followers again.
//   - It moves from founder A to founder B only when A has itself promised
//     itself to B: then A can never found. A does so only for a lower id, so
//     promises run towards the lowest server that is alive and never in a circle.
//
// A founder that restarts goes on where it was. Only when a founder loses its
// disk in the moments between the first promise and the cluster's first entry,
// somebody has to delete the promise file, or the whole data directory, of the
// servers that wait for it; they have nothing to lose, and say so in their log.
type promise struct {
	dir  *dataDir
	self string

	mu      sync.Mutex // guards founder; held while a cluster is founded
	founder string
}

var errPromiseKept = errors.New("promised elsewhere")

type promiseFile struct {
	Founder string `json:"founder"`
}

func openPromise(dir *dataDir, self string) (*promise, error) {
	var kept promiseFile
	if _, err := dir.readJSON(filePromise, &kept); err != nil {
		return nil, err
	}
	return &promise{dir: dir, self: self, founder: kept.Founder}, nil
}

// to returns whom this server is promised to; empty when nobody.
func (p *promise) to() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.founder
}

// give promises this server to a founder. gaveUp tells whom a founder has
// promised itself to, as far as is known.
func (p *promise) give(founder string, gaveUp func(founder string) string) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case p.founder == founder:
		return nil
	case p.founder == "":
	case p.founder == p.self && founder < p.self:
	case p.founder != p.self && gaveUp(p.founder) == founder:
	default:
		return fmt.Errorf("%w: to %s", errPromiseKept, p.founder)
	}
	if err := p.dir.writeJSON(filePromise, promiseFile{founder}); err != nil {
		return err
	}
	p.founder = founder
	return nil
}

// found runs the founding while this server is still its own founder.
func (p *promise) found(bootstrap func() error) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.founder != p.self {
		return fmt.Errorf("%w: to %s", errPromiseKept, p.founder)
	}
	return bootstrap()
}

// clear forgets the promise of a server that belongs to a cluster now.
func (p *promise) clear() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.founder == "" {
		return nil
	}
	p.founder = ""
	return p.dir.remove(filePromise)
}
