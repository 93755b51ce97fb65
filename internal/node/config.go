package node

import (
	"net"
	"slices"
	"strconv"
	"time"

	"github.com/spf13/pflag"

	"github.com/holdfast-dev/holdfast/internal/api"
)

// Default ports, counted from the port base.
const (
	portAPI = iota
	portHTTP
	portRaft
	portGossip
	portFlags
)

// flagsOff is the address of flags where they are not served over HTTP.
const flagsOff = "off"

// defaultGossipPort is the port of a seed that names none.
const defaultGossipPort = 7403

// Config is the configuration of a server. [Load] makes one; its fields are
// documented where [Config.flags] names them.
type Config struct {
	File    string
	DataDir string
	Dev     bool

	Bind       string
	Advertise  string
	PortBase   int
	APIAddr    string
	HTTPAddr   string
	RaftAddr   string
	GossipAddr string
	FlagsAddr  string
	SourceIP   string

	NodeID string
	Expect int
	Join   []string

	TLSCA         string
	TLSCert       string
	TLSKey        string
	GossipKeyFile string
	Insecure      bool

	FlagsTokenFile   string
	FlagsCORSOrigins []string

	Timing            string
	Nudge             bool
	SnapshotThreshold int
	DeadServerTimeout time.Duration
	MaxSessions       int

	LogLevel  string
	LogFormat string

	DrainDelay      time.Duration
	DrainJitter     time.Duration
	ShutdownTimeout time.Duration
}

// flags is the one table of settings: a row is a flag (--raft-addr), a key of
// the file (raft-addr) and a variable (HOLDFAST_RAFT_ADDR). Setting a flag
// writes to c.
func (c *Config) flags() *pflag.FlagSet {
	f := pflag.NewFlagSet("controlplane", pflag.ContinueOnError)
	f.SortFlags = false
	f.StringVar(&c.File, "config", "", "YAML `file` with these settings as keys")
	f.StringVar(&c.DataDir, "data-dir", "holdfast-data", "`directory` of the log, the snapshots and the server's identity")
	f.BoolVar(&c.Dev, "dev", false, "throw-away server: temporary data directory, loopback only")

	f.StringVar(&c.Bind, "bind", "127.0.0.1", "`address` to listen on")
	f.StringVar(&c.Advertise, "advertise", "", "`host` that others reach this server at (default: bind)")
	f.IntVar(&c.PortBase, "port-base", 7400, "first of five `ports`: API, HTTP, Raft, gossip, flags; 0 picks free ones")
	f.StringVar(&c.APIAddr, "api-addr", "", "`host:port` of the gRPC API (default: bind and port-base)")
	f.StringVar(&c.HTTPAddr, "http-addr", "", "`host:port` of health and metrics (default: bind and port-base + 1)")
	f.StringVar(&c.RaftAddr, "raft-addr", "", "`host:port` of Raft (default: bind and port-base + 2)")
	f.StringVar(&c.GossipAddr, "gossip-addr", "", "`host:port` of gossip, of servers and of instances (default: bind and port-base + 3)")
	f.StringVar(&c.FlagsAddr, "flags-addr", "", "`host:port` of OFREP and flagd's protocols for clients without certificates, or off "+
		"(default: port-base + 4, of bind if that is loopback, there is a flags-token-file, or insecure; else of loopback)")
	f.StringVar(&c.SourceIP, "source-ip", "", "`IP` that outgoing connections leave from")

	f.StringVar(&c.NodeID, "node-id", "", "`id` at the first start; never give one to an empty disk twice (default: drawn)")
	f.IntVar(&c.Expect, "expect", 1, "`number` of servers that found the cluster together")
	f.StringSliceVar(&c.Join, "join", nil, "`addresses` (host[:gossip port], comma-separated) to find the other servers by")

	f.StringVar(&c.TLSCA, "tls-ca", "", "`file` with the certificate authority")
	f.StringVar(&c.TLSCert, "tls-cert", "", "`file` with this server's certificate, of role server")
	f.StringVar(&c.TLSKey, "tls-key", "", "`file` with the key of tls-cert")
	f.StringVar(&c.GossipKeyFile, "gossip-key-file", "", "`file` with base64 AES keys, one a line; the first encrypts, all decrypt; the keys of instances' pools follow from them")
	f.BoolVar(&c.Insecure, "insecure", false, "allow plaintext beyond loopback")

	f.StringVar(&c.FlagsTokenFile, "flags-token-file", "", "`file` with tokens, one a line, of which flags-addr wants one from every client (default: it wants none)")
	f.StringSliceVar(&c.FlagsCORSOrigins, "flags-cors-origins", nil, "`origins` (https://shop.example.com, comma-separated, or *) whose pages may ask flags-addr")

	f.Var(newChoice(&c.Timing, "default", "slow"), "timing", "`profile` of timeouts: default, or slow for slow disks and links")
	f.BoolVar(&c.Nudge, "nudge", true, "tell followers of a commit at once")
	f.IntVar(&c.SnapshotThreshold, "snapshot-threshold", 8192, "`entries` in the log that make a snapshot worth while")
	f.DurationVar(&c.DeadServerTimeout, "dead-server-timeout", 10*time.Minute, "`time` after which a silent server beyond the expected number is removed")

	f.IntVar(&c.MaxSessions, "max-sessions", api.DefaultSessions, "`number` of instances that may be connected to this server")

	f.Var(newChoice(&c.LogLevel, "info", "debug", "warn", "error"), "log-level", "lowest `level` that is logged: debug, info, warn or error")
	f.Var(newChoice(&c.LogFormat, "text", "json"), "log-format", "`format` of the log: text or json")

	f.DurationVar(&c.DrainDelay, "drain-delay", 0, "`time` between not being ready and stopping, for load balancers")
	f.DurationVar(&c.DrainJitter, "drain-jitter", 2*time.Second, "`time` over which open streams are ended")
	f.DurationVar(&c.ShutdownTimeout, "shutdown-timeout", 30*time.Second, "`time` that a stop may take after the drain delay")
	return f
}

// derive fills in the addresses that follow from others and returns the keys
// that it filled.
func (c *Config) derive() []string {
	var derived []string
	for _, a := range []struct {
		key    string
		value  *string
		offset int
	}{
		{"api-addr", &c.APIAddr, portAPI},
		{"http-addr", &c.HTTPAddr, portHTTP},
		{"raft-addr", &c.RaftAddr, portRaft},
		{"gossip-addr", &c.GossipAddr, portGossip},
		{"flags-addr", &c.FlagsAddr, portFlags},
	} {
		if *a.value != "" {
			continue
		}
		port := 0
		if c.PortBase != 0 {
			port = c.PortBase + a.offset
		}
		host := c.Bind
		if a.offset == portFlags {
			host = c.flagsHost()
		}
		*a.value = net.JoinHostPort(host, strconv.Itoa(port))
		derived = append(derived, a.key)
	}
	for i, seed := range c.Join {
		c.Join[i] = withPort(seed, defaultGossipPort)
	}
	if len(c.FlagsCORSOrigins) == 0 {
		c.FlagsCORSOrigins = nil // as if it had not been set
	}
	return derived
}

// flagsHost is where flags are served unless told otherwise: beyond this host only
// to clients with a token, or where everything is open anyway.
func (c *Config) flagsHost() string {
	if c.FlagsTokenFile != "" || c.Insecure || loopback(c.Bind) {
		return c.Bind
	}
	return "127.0.0.1"
}

// withPort adds a port where there is none.
func withPort(addr string, port int) string {
	if _, _, err := net.SplitHostPort(addr); err == nil {
		return addr
	}
	if n := len(addr); n > 1 && addr[0] == '[' && addr[n-1] == ']' {
		addr = addr[1 : n-1]
	}
	return net.JoinHostPort(addr, strconv.Itoa(port))
}

// tls tells whether certificates are configured.
func (c *Config) tls() bool { return c.TLSCA != "" && c.TLSCert != "" && c.TLSKey != "" }

// founders tells how many servers found the cluster.
func (c *Config) founders() int { return max(1, c.Expect) }

// alone tells whether this server founds a cluster of its own.
func (c *Config) alone() bool { return c.founders() == 1 && len(c.Join) == 0 }

// clone returns a copy that shares nothing.
func (c *Config) clone() Config {
	copied := *c
	copied.Join = slices.Clone(c.Join)
	copied.FlagsCORSOrigins = slices.Clone(c.FlagsCORSOrigins)
	return copied
}
