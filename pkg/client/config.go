package client

import (
	"crypto/tls"
	"log/slog"
	"time"

	"google.golang.org/grpc"
)

// Config says what an instance is and where its control plane is. Only Service is
// required: without Servers only the code and the local overrides decide.
type Config struct {
	// Servers are the addresses of the control plane's API, host:port.
	Servers []string
	// Namespace is "default" where it is empty.
	Namespace string
	// Service is the name of the service that the process is an instance of, and
	// becomes its label "service".
	Service string
	// Labels are what scopes select by, such as zone.
	Labels map[string]string
	// InstanceID is unique in the namespace; empty draws one and, with a CacheDir,
	// keeps it across restarts.
	InstanceID string
	// CacheDir is where the view is kept for a start without a control plane. Empty
	// keeps it in memory only. A directory belongs to one process at a time.
	CacheDir string
	// OpenTimeout is how long Open waits for the first view where none is cached;
	// 0 means 5 s, below 0 not at all.
	OpenTimeout time.Duration
	// TLS secures the connection to the control plane; nil means plaintext.
	TLS *tls.Config
	// ServerDialOptions are added to the connection to the control plane.
	ServerDialOptions []grpc.DialOption
	// LocalAddr is the address that connections to the control plane come from;
	// empty leaves it to the system.
	LocalAddr string
	// Gossip is how the instance takes part in what instances tell each other of their
	// dependencies: GossipOff, GossipRelayed or GossipDirect (docs/sdk.md); empty means
	// GossipRelayed. Without Servers, and with HOLDFAST_DISABLE, it is off.
	Gossip string
	// GossipAddr is the address, IP:port, that a direct instance binds for UDP and TCP;
	// empty means a free port of LocalAddr, or of all addresses. GossipAdvertise is the
	// one that others reach it at, where that is another one.
	GossipAddr, GossipAdvertise string
	// Policies are settings of dependencies given in code, as JSON definitions by
	// name; what the control plane says of a dependency wins key by key. Package
	// policyfile reads them from YAML.
	Policies map[string]string
	// LocalOverrides is a file of local overrides (docs/sdk.md), looked at every
	// second; empty means what HOLDFAST_LOCAL_OVERRIDES says.
	LocalOverrides string
	// ReplyCacheBytes bounds the replies kept for "cache" effects; 0 means 16 MiB,
	// below 0 none.
	ReplyCacheBytes int64
	// CoarseClock lets breakers read a clock that is up to a few milliseconds late instead of
	// one that costs tens of nanoseconds: for operations of less than a microsecond.
	CoarseClock bool
	// Logger gets changes of breakers, connection and view; nil means slog.Default.
	Logger *slog.Logger
}
