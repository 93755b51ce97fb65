package session

import (
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"time"

	"google.golang.org/grpc"

	"github.com/holdfast-dev/holdfast/internal/document"
	"github.com/holdfast-dev/holdfast/internal/mirror"
	holdfastv1 "github.com/holdfast-dev/holdfast/proto/holdfast/v1"
)

// Config says what a Session is made of. Handler and Servers are required.
type Config struct {
	// Servers are the addresses of the servers' API, host:port.
	Servers []string
	// Namespace is the one that the instance follows; empty means "default".
	Namespace string
	// Identity is told to the servers.
	Identity Identity
	// Handler is told what happens.
	Handler Handler
	// Dir is where the cache is kept; it is made if it does not exist. Empty keeps
	// none.
	Dir string
	// TLS secures the connections; nil means plaintext.
	TLS *tls.Config
	// LocalAddr is the IP address that connections come from; empty leaves it to the
	// system.
	LocalAddr string
	// DialOptions win over the session's own.
	DialOptions []grpc.DialOption
	// ProgressInterval is how often servers are asked to report while nothing
	// changes; 0 means 5 s. Servers clamp it to between 100 ms and 1 min.
	ProgressInterval time.Duration
	// Gossip is how the instance takes part in gossip; nil for not at all.
	Gossip *Gossip
	// Logger may be nil, which logs nothing.
	Logger *slog.Logger
}

// Identity is who the instance is. It must not be changed.
type Identity struct {
	// ID is unique among the instances of the namespace.
	ID string
	// Service and Labels are what selectors look at.
	Service string
	Labels  map[string]string
	// Incarnation grows with each start of an instance with this id.
	Incarnation uint64
	// SDK is name and version of the SDK, Host the name of the host.
	SDK, Host string
}

// Handler is told what happens to a session, by one goroutine at a time, but for
// Report. See the package's documentation for when. It must not wait for anything: the
// session waits for it.
type Handler interface {
	// Install makes a change effective before it returns.
	Install(Change)
	// Report tells how well the instance obeys now, as of the last Install or later. It
	// is called by another goroutine, also while Install is.
	Report() Report
	// StateTime tells the state time now, in milliseconds since 1970.
	StateTime(now int64)
	// Connected tells that a server answers, or speaks again.
	Connected(server Server)
	// Disconnected tells that the server at an address has been lost, has fallen silent
	// or could not be reached, and why.
	Disconnected(addr string, err error)
}

// Change is what a handler has to make effective.
type Change struct {
	// Update has been checked against its root. With Replace its delta is the whole
	// namespace and everything before it is void, otherwise it goes with the change
	// before. A delta without puts and deletes moves only the revision.
	mirror.Update
	// Source is where it comes from: disk, server or peer.
	Source Source
	// StateTime is the state time now, in milliseconds since 1970; 0 if it is not
	// known.
	StateTime int64
}

// Source is where an instance has its view from. The numbers are those of the wire.
type Source uint8

// Where a view comes from.
const (
	Defaults   = Source(holdfastv1.Source_SOURCE_DEFAULTS)
	Disk       = Source(holdfastv1.Source_SOURCE_DISK)
	FromServer = Source(holdfastv1.Source_SOURCE_SERVER)
	FromPeer   = Source(holdfastv1.Source_SOURCE_PEER)
)

// String returns "defaults", "disk", "server" or "peer".
func (s Source) String() string {
	switch s {
	case Defaults:
		return "defaults"
	case Disk:
		return "disk"
	case FromServer:
		return "server"
	case FromPeer:
		return "peer"
	default:
		return "unknown"
	}
}

// Server is a server that answers.
type Server struct {
	// Addr is the address that it was reached at.
	Addr string
	// ID is what it calls itself; empty of one of the previous version.
	ID string
	// Previous tells that it is of the previous version: it is watched, and nothing
	// is acknowledged.
	Previous bool
}

// Report is how well an instance obeys what it was given.
type Report struct {
	// Problems are what it cannot obey. Servers are told of the first 32.
	Problems []Problem
	// OverriddenBy is what beats the control plane here, such as "HOLDFAST_DISABLE";
	// empty if nothing does.
	OverriddenBy string
}

// Problem is a resource that an instance cannot obey.
type Problem struct {
	Key     document.Key
	Message string
}

// Status is how a session is doing.
type Status struct {
	// Source, Position and Root are of what is held; Position is not set while
	// nothing is.
	Source   Source
	Position mirror.Position
	Root     document.Root
	// Connected tells whether there is a server, which has not fallen silent, and Server
	// which; otherwise Server is the zero value.
	Connected bool
	Server    Server
	// Since is when that became so. Heard is when a server said something last, to this
	// process or to the one that left its cache: the zero time if none ever did.
	Since, Heard time.Time
	// Attempts counts the attempts to connect, Connects those that came to be followed,
	// Resyncs how often a snapshot was needed because something did not fit.
	Attempts, Connects, Resyncs uint64
	// Err is why the last stream or attempt ended; nil before any did.
	Err error
	// Foreign is an error that says what to do while the servers belong to another
	// cluster than what is held, from the first that does to the next one that does
	// not; otherwise nil.
	Foreign error
	// Disk says what is wrong with the cache on disk; nil if nothing is, or if there
	// is none. ErrLocked means that another process writes it.
	Disk error
}

// DefaultProgressInterval is how often servers report while nothing changes.
const DefaultProgressInterval = 5 * time.Second

// complete checks the configuration and fills in what it leaves open.
func (c *Config) complete() error {
	if c.Namespace == "" {
		c.Namespace = document.DefaultNamespace
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.ProgressInterval == 0 {
		c.ProgressInterval = DefaultProgressInterval
	}
	c.Servers = slices.Clone(c.Servers)
	switch {
	case len(c.Servers) == 0:
		return errors.New("open session: no server is given: name at least one address, host:port")
	case slices.Contains(c.Servers, ""):
		return errors.New("open session: the address of a server is empty")
	case c.Handler == nil:
		return errors.New("open session: no handler is given")
	case c.LocalAddr != "" && net.ParseIP(c.LocalAddr) == nil:
		return fmt.Errorf("open session: the local address %q is not an IP address", c.LocalAddr)
	case c.ProgressInterval < 0:
		return fmt.Errorf("open session: the progress interval %v is negative", c.ProgressInterval)
	}
	if err := document.CheckStored(c.Namespace); err != nil {
		return fmt.Errorf("open session: namespace: %w", err)
	}
	return nil
}
