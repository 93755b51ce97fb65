package gossip

import (
	"fmt"
	"log"
	"net"
	"strconv"
	"testing"
	"time"

	"github.com/hashicorp/memberlist"
)

// One packet over loopback, sent and received: the pool's own sockets, and the
// library's transport, which they replace.
func BenchmarkPacket(b *testing.B) {
	for _, size := range []int{100, 1300} {
		b.Run(fmt.Sprintf("own/%d", size), func(b *testing.B) {
			s, err := openSockets("127.0.0.1:0", "", "")
			if err != nil {
				b.Fatal(err)
			}
			defer func() { _ = s.Shutdown() }()
			benchmarkPacket(b, s, s.advertise.String(), size)
		})
		b.Run(fmt.Sprintf("library/%d", size), func(b *testing.B) {
			nt, err := memberlist.NewNetTransport(&memberlist.NetTransportConfig{BindAddrs: []string{"127.0.0.1"}, Logger: log.Default()})
			if err != nil {
				b.Fatal(err)
			}
			defer func() { _ = nt.Shutdown() }()
			benchmarkPacket(b, nt, net.JoinHostPort("127.0.0.1", strconv.Itoa(nt.GetAutoBindPort())), size)
		})
	}
}

func benchmarkPacket(b *testing.B, t memberlist.Transport, addr string, size int) {
	b.Helper()
	b.ReportAllocs()
	body := make([]byte, size)
	for b.Loop() {
		if _, err := t.WriteTo(body, addr); err != nil {
			b.Fatal(err)
		}
		if p := <-t.PacketCh(); len(p.Buf) != size {
			b.Fatal(len(p.Buf))
		}
	}
}

// What an acknowledgement costs: the digests of a channel.
func BenchmarkDigests(b *testing.B) {
	for _, n := range []int{64, 500} {
		b.Run(strconv.Itoa(n), func(b *testing.B) {
			p, err := New(Config{Name: "x"})
			if err != nil {
				b.Fatal(err)
			}
			f := newFacts()
			p.AddRecords("facts", f)
			for i := range n {
				f.set(strconv.Itoa(i), 1)
			}
			b.ReportAllocs()
			for b.Loop() {
				if len(p.digests()) != digestSize {
					b.Fatal("no digest")
				}
			}
		})
	}
}

func BenchmarkSpread(b *testing.B) {
	p, err := New(Config{Name: "x"})
	if err != nil {
		b.Fatal(err)
	}
	p.arrive(Member{Name: "y", Addr: "127.0.0.1:1", Since: time.Now()})
	c := p.AddRecords("facts", newFacts())
	b.ReportAllocs()
	for b.Loop() {
		c.Spread("x")
	}
}
