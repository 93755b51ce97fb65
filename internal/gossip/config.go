package gossip

import (
	"time"

	"github.com/hashicorp/memberlist"
)

// listConfig translates the configuration for the library.
func (p *Pool) listConfig() (*memberlist.Config, error) {
	if len(p.config.Keys) > 0 && len(p.ring.GetKeys()) == 0 {
		if err := p.SetKeys(p.config.Keys); err != nil {
			return nil, err
		}
	}
	config := memberlist.DefaultLANConfig()
	config.GossipInterval, config.GossipNodes = p.interval, p.fanout
	if p.config.Profile == Instances {
		config.ProbeInterval, config.ProbeTimeout = 5*time.Second, 2*time.Second
	}
	config.Name = p.name
	config.Label = p.config.Label
	config.Keyring = p.ring
	config.TCPTimeout = streamTimeout
	config.UDPBufferSize = packetSize
	// Compression allocates some 80 KiB a packet and gains nothing on messages
	// this small.
	config.EnableCompression = false
	config.Logger = newLogAdapter(p.log)
	config.Delegate, config.Events, config.Alive, config.Ping = delegate{p}, delegate{p}, delegate{p}, delegate{p}
	// The transport knows what to advertise.
	config.AdvertiseAddr, config.AdvertisePort = "", 0
	transport := p.config.Transport
	if transport == nil {
		s, err := openSockets(p.config.BindAddr, p.config.AdvertiseAddr, p.config.SourceIP)
		if err != nil {
			return nil, err
		}
		transport = s
	}
	p.transport = transport
	config.Transport = meter{transport, &p.counters}
	return config, nil
}
