package node

import (
	"fmt"
	"net"
	"strconv"
	"strings"
	"time"

	"github.com/holdfast-dev/holdfast/internal/facade"
)

// maxFounders bounds the number of servers: more voters make writes slower and
// the cluster no safer.
const maxFounders = 9

// maxIDBytes is the longest identity of a server.
const maxIDBytes = 64

// check returns everything that is wrong with the values together.
func (c *Config) check() []string {
	var problems []string
	add := func(format string, args ...any) { problems = append(problems, fmt.Sprintf(format, args...)) }

	if c.PortBase < 0 || c.PortBase > 65535-portFlags {
		add("port-base %d: must be 0, or leave room for five ports below 65536", c.PortBase)
	}
	for _, a := range c.addresses() {
		if err := checkAddr(a.value); err != nil {
			add("%s %q: %v", a.key, a.value, err)
		}
	}
	if c.SourceIP != "" && net.ParseIP(c.SourceIP) == nil {
		add("source-ip %q: is not an IP address", c.SourceIP)
	}
	if c.DataDir == "" {
		add("data-dir: must not be empty")
	}
	if c.Expect < 0 || c.Expect > maxFounders {
		add("expect %d: must be between 1 and %d", c.Expect, maxFounders)
	}
	if c.Expect > 1 && len(c.Join) == 0 {
		add("expect %d without join: the servers cannot find each other; add join with the addresses of the others", c.Expect)
	}
	for _, seed := range c.Join {
		if err := checkAddr(seed); err != nil {
			add("join %q: %v", seed, err)
		}
	}
	if strings.ContainsAny(c.NodeID, "/=, \t\n") || len(c.NodeID) > maxIDBytes {
		add("node-id %q: must be a word of at most %d bytes without slash, comma or equals sign", c.NodeID, maxIDBytes)
	}
	for _, origin := range c.FlagsCORSOrigins {
		if err := facade.CheckOrigin(origin); err != nil {
			add("flags-cors-origins %q: %v", origin, err)
		}
	}
	if c.SnapshotThreshold < 16 {
		add("snapshot-threshold %d: must be at least 16", c.SnapshotThreshold)
	}
	if c.MaxSessions < 1 {
		add("max-sessions %d: must be at least 1", c.MaxSessions)
	}
	for key, d := range map[string]time.Duration{
		"drain-delay": c.DrainDelay, "drain-jitter": c.DrainJitter,
		"shutdown-timeout": c.ShutdownTimeout, "dead-server-timeout": c.DeadServerTimeout,
	} {
		if d < 0 {
			add("%s %v: must not be negative", key, d)
		}
	}
	return append(problems, c.checkSecurity()...)
}

type namedAddr struct{ key, value string }

func (c *Config) addresses() []namedAddr {
	addrs := []namedAddr{
		{"api-addr", c.APIAddr}, {"http-addr", c.HTTPAddr}, {"raft-addr", c.RaftAddr}, {"gossip-addr", c.GossipAddr},
	}
	if c.FlagsAddr != flagsOff {
		addrs = append(addrs, namedAddr{"flags-addr", c.FlagsAddr})
	}
	return addrs
}

// checkSecurity refuses what would expose the cluster by accident.
func (c *Config) checkSecurity() []string {
	var problems []string
	add := func(format string, args ...any) { problems = append(problems, fmt.Sprintf(format, args...)) }

	set := 0
	for _, file := range []string{c.TLSCA, c.TLSCert, c.TLSKey} {
		if file != "" {
			set++
		}
	}
	if set != 0 && set != 3 {
		add("tls-ca, tls-cert and tls-key: set all three or none")
	}
	for _, a := range c.addresses() {
		host, _, err := net.SplitHostPort(a.value)
		if err != nil {
			continue // reported already
		}
		if c.Dev && !loopback(host) {
			add("%s %q: --dev serves loopback only", a.key, a.value)
		}
		if unspecified(host) && c.Advertise == "" && a.key != "flags-addr" {
			add("%s %q: others cannot dial that; add advertise with this host's address", a.key, a.value)
		}
		if c.Insecure || loopback(host) {
			continue
		}
		switch a.key {
		case "api-addr", "raft-addr", "flags-addr":
			if !c.tls() {
				add("%s %q would be plaintext beyond loopback: make certificates with `holdfast tls ca create` and "+
					"`holdfast tls cert create`, then set tls-ca, tls-cert and tls-key (or allow it with --insecure)", a.key, a.value)
			}
		case "gossip-addr":
			if c.GossipKeyFile == "" {
				add("%s %q would be plaintext beyond loopback: write a key with `head -c 32 /dev/urandom | base64 > gossip.key` "+
					"and set gossip-key-file (or allow it with --insecure)", a.key, a.value)
			}
		}
	}
	return problems
}

func checkAddr(addr string) error {
	_, port, err := net.SplitHostPort(addr)
	if err != nil {
		return fmt.Errorf("must be host:port")
	}
	if n, err := strconv.Atoi(port); err != nil || n < 0 || n > 65535 {
		return fmt.Errorf("port must be a number up to 65535")
	}
	return nil
}

// loopback tells whether only this host reaches the address. A name other than
// localhost may be anything.
func loopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

func unspecified(host string) bool {
	ip := net.ParseIP(host)
	return host == "" || ip != nil && ip.IsUnspecified()
}
