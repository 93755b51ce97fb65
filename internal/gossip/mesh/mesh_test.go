package mesh

import (
	"fmt"
	"io"
	"net"
	"slices"
	"testing"
	"testing/synctest"
	"time"
)

// attach attaches n transports at 10.0.0.1:1 and so on.
func attach(t *testing.T, network *Network, n int) []*Transport {
	t.Helper()
	all := make([]*Transport, n)
	for i := range all {
		transport, err := network.Transport(fmt.Sprintf("10.0.%d.%d:1", i/250, i%250+1))
		if err != nil {
			t.Fatal(err)
		}
		all[i] = transport
		t.Cleanup(func() { _ = transport.Shutdown() })
	}
	return all
}

func send(t *testing.T, from, to *Transport, body string) {
	t.Helper()
	if _, err := from.WriteTo([]byte(body), to.name); err != nil {
		t.Fatal(err)
	}
}

// waiting takes what has arrived.
func waiting(t *Transport) []string {
	var all []string
	for {
		select {
		case p := <-t.packets:
			all = append(all, string(p.Buf))
		default:
			return all
		}
	}
}

func TestDelaysAreLogNormal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := New(1)
		network.Links(Link{Latency: 2 * time.Millisecond, Spread: 0.5})
		ends := attach(t, network, 2)
		var delays []time.Duration
		for range 2000 {
			start := time.Now()
			send(t, ends[0], ends[1], "x")
			<-ends[1].packets
			delays = append(delays, time.Since(start))
		}
		slices.Sort(delays)
		if median := delays[1000]; median < 1850*time.Microsecond || median > 2200*time.Microsecond {
			t.Errorf("median is %v", median)
		}
		// exp(0.5 × 2.33) is 3.2.
		if late := delays[1980]; late < 5500*time.Microsecond || late > 8*time.Millisecond {
			t.Errorf("99 in a hundred take %v", late)
		}
	})
}

func TestLossesAreRepeatable(t *testing.T) {
	run := func() (got []string) {
		synctest.Test(t, func(t *testing.T) {
			network := New(7)
			network.Shape(time.Millisecond, 0.25)
			ends := attach(t, network, 2)
			for i := range 400 {
				send(t, ends[0], ends[1], fmt.Sprint(i))
			}
			<-time.After(10 * time.Millisecond)
			got = waiting(ends[1])
			if len(got)+network.Dropped() != 400 {
				t.Errorf("%d arrived and %d dropped of 400", len(got), network.Dropped())
			}
		})
		return got
	}
	first := run()
	if len(first) < 270 || len(first) > 330 {
		t.Errorf("%d of 400 arrived, want about 300", len(first))
	}
	if !slices.Equal(first, run()) {
		t.Error("the same seed loses other packets")
	}
}

func TestSitesHaveLinksOfTheirOwn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := New(1)
		network.Shape(time.Millisecond, 0)
		network.Between(0, 1, Link{Latency: 50 * time.Millisecond})
		ends := attach(t, network, 3)
		ends[2].Place(1)
		send(t, ends[0], ends[1], "near")
		send(t, ends[0], ends[2], "far")
		send(t, ends[2], ends[0], "back")
		<-time.After(2 * time.Millisecond)
		if len(waiting(ends[1])) != 1 || len(waiting(ends[0])) != 1 || len(waiting(ends[2])) != 0 {
			t.Error("only the link from site 0 to site 1 is slow")
		}
		<-time.After(50 * time.Millisecond)
		if len(waiting(ends[2])) != 1 {
			t.Error("nothing arrived at the far site")
		}
	})
}

func TestGroupsAreCutOneWay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := New(1)
		ends := attach(t, network, 4)
		network.CutGroup([]string{ends[0].name, ends[1].name}, []string{ends[2].name, ends[3].name})
		send(t, ends[0], ends[2], "cut")
		send(t, ends[2], ends[0], "back")
		send(t, ends[0], ends[1], "within")
		if len(waiting(ends[2])) != 0 || len(waiting(ends[0])) != 1 || len(waiting(ends[1])) != 1 {
			t.Error("the cut is not from the first group to the second")
		}
		for _, way := range [][2]int{{0, 2}, {2, 0}} {
			start := time.Now()
			if _, err := ends[way[0]].DialTimeout(ends[way[1]].name, time.Second); err == nil || time.Since(start) != time.Second {
				t.Errorf("a stream needs both ways: %v after %v", err, time.Since(start))
			}
		}
		network.Heal()
		send(t, ends[0], ends[2], "healed")
		if len(waiting(ends[2])) != 1 {
			t.Error("nothing arrived after healing")
		}
	})
}

func TestStreamsTakeARoundTripAndBreak(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := New(1)
		network.Shape(3*time.Millisecond, 0)
		ends := attach(t, network, 3)
		open := func(to *Transport) (near, far net.Conn) {
			start := time.Now()
			near, err := ends[0].DialTimeout(to.name, time.Second)
			if err != nil {
				t.Fatal(err)
			}
			if took := time.Since(start); took != 6*time.Millisecond {
				t.Errorf("dialling took %v, want a round trip", took)
			}
			return near, <-to.conns
		}
		near, far := open(ends[1])
		go func() { _, _ = near.Write([]byte("hello")) }()
		body := make([]byte, 5)
		if _, err := io.ReadFull(far, body); err != nil || string(body) != "hello" {
			t.Fatalf("read %q, %v", body, err)
		}
		synctest.Wait()
		if sent := ends[0].Traffic().SentBytes; sent != 5 {
			t.Errorf("%d bytes sent, want 5", sent)
		}
		other, _ := open(ends[2])
		network.Cut(ends[1].name, ends[0].name)
		if _, err := near.Read(body); err == nil {
			t.Error("the stream outlived its link")
		}
		_ = ends[2].Shutdown()
		if _, err := other.Read(body); err == nil {
			t.Error("the stream outlived its far end")
		}
		if len(network.streams) != 0 {
			t.Errorf("%d streams are still known", len(network.streams))
		}
	})
}

// A flood costs bounded memory: what is beyond is dropped and counted.
func TestQueuesAndFlightsAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := New(1)
		ends := attach(t, network, 2)
		for range queueSize + 10 {
			send(t, ends[0], ends[1], "x")
		}
		if network.Dropped() != 10 {
			t.Errorf("%d dropped by the queue, want 10", network.Dropped())
		}
		waiting(ends[1])
		network.Shape(time.Second, 0)
		for range flightLimit + 10 {
			send(t, ends[0], ends[1], "x")
		}
		if network.Dropped() != 20 {
			t.Errorf("%d dropped under way, want 10", network.Dropped()-10)
		}
		<-time.After(2 * time.Second)
		if got := len(waiting(ends[1])); got != queueSize {
			t.Errorf("%d arrived, want %d", got, queueSize)
		}
		send(t, ends[0], ends[1], "x")
		<-time.After(2 * time.Second)
		if len(waiting(ends[1])) != 1 {
			t.Error("what has landed still counts as under way")
		}
	})
}

func BenchmarkPacket(b *testing.B) {
	network := New(1)
	network.Links(Link{Latency: time.Millisecond, Spread: 0.3})
	from, err := network.Transport("10.0.0.1:1")
	if err != nil {
		b.Fatal(err)
	}
	to, err := network.Transport("10.0.0.2:1")
	if err != nil {
		b.Fatal(err)
	}
	body := make([]byte, 200)
	b.ReportAllocs()
	for b.Loop() {
		_, _ = from.WriteTo(body, "10.0.0.2:1")
		waiting(to)
	}
}
