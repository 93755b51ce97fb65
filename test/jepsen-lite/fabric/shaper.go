package fabric

import (
	"container/heap"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"sync"
	"time"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// shaper is a switch at user level: the kernel holds packets of shaped lanes in a
// queue and tells their headers; the shaper says what becomes of each, and when.
type shaper struct {
	queue *netlink.Conn
	raw   int // socket that sends second copies

	mu     sync.Mutex // guards shapes
	shapes map[lane]Shape

	arrived chan packet
	done    chan struct{}
	wait    sync.WaitGroup
}

// packet is one that the kernel holds; copied has its bytes if they are to be sent
// a second time, and then the kernel holds nothing.
type packet struct {
	id     uint32
	lane   lane
	size   int
	copied []byte
	due    time.Time
	order  uint64
}

// The protocol of nfnetlink_queue, as in the kernel's headers.
const (
	msgPacket  = 3 << 8
	msgVerdict = msgPacket + 1
	msgConfig  = msgPacket + 2

	attrHeader  = 1
	attrVerdict = 2
	attrPayload = 10

	attrCommand, commandBind = 1, 1
	attrParams, copyPacket   = 2, 2
	attrMaxLength            = 3
)

// Packets up to this size can be duplicated; of longer ones only the header is known.
const copied = 2048

// waiting is how many packets may wait; more are lost.
const waiting = 1 << 16

func newShaper() (*shaper, error) {
	queue, err := netlink.Dial(unix.NETLINK_NETFILTER, nil)
	if err != nil {
		return nil, fmt.Errorf("open packet queue: %w", err)
	}
	// What overflows is lost, as in a switch, instead of an error to every reader.
	_ = queue.SetOption(netlink.NoENOBUFS, true)
	_ = queue.SetReadBuffer(8 << 20)
	params := binary.BigEndian.AppendUint32(nil, copied)
	for _, attr := range []netlink.Attribute{
		{Type: attrCommand, Data: []byte{commandBind, 0, 0, unix.AF_INET}},
		{Type: attrParams, Data: append(params, copyPacket)},
		{Type: attrMaxLength, Data: binary.BigEndian.AppendUint32(nil, waiting)},
	} {
		_, err = queue.Execute(queueMessage(msgConfig, netlink.Request|netlink.Acknowledge, attr))
		if err != nil {
			_ = queue.Close()
			return nil, fmt.Errorf("bind packet queue: %w", err)
		}
	}
	raw, err := unix.Socket(unix.AF_INET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_RAW)
	if err == nil {
		err = unix.SetsockoptInt(raw, unix.SOL_SOCKET, unix.SO_MARK, skipMark)
	}
	if err != nil {
		_ = queue.Close()
		return nil, fmt.Errorf("open raw socket: %w", err)
	}
	s := &shaper{queue: queue, raw: raw, arrived: make(chan packet, 256), done: make(chan struct{})}
	s.wait.Go(s.receive)
	s.wait.Go(s.decide)
	return s, nil
}

func queueMessage(kind netlink.HeaderType, flags netlink.HeaderFlags, attr netlink.Attribute) netlink.Message {
	const version = 0
	attrs, _ := netlink.MarshalAttributes([]netlink.Attribute{attr}) // cannot fail: it is short
	return netlink.Message{
		Header: netlink.Header{Type: kind, Flags: flags},
		Data:   append([]byte{unix.AF_UNSPEC, version, 0, queueNumber}, attrs...),
	}
}

// set makes the shapes those in force; it keeps no reference to them.
func (s *shaper) set(shapes map[lane]Shape) {
	own := maps.Clone(shapes)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.shapes = own
}

func (s *shaper) shape(l lane) Shape {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.shapes[l]
}

// close drops what waits.
func (s *shaper) close() error {
	close(s.done)
	err := s.queue.Close()
	s.wait.Wait()
	if err = errors.Join(err, unix.Close(s.raw)); err != nil {
		return fmt.Errorf("close packet queue: %w", err)
	}
	return nil
}

func (s *shaper) receive() {
	for {
		messages, err := s.queue.Receive()
		select {
		case <-s.done:
			return
		default:
		}
		if errors.Is(err, os.ErrClosed) {
			return
		}
		if err != nil {
			continue // a verdict on a packet that was gone
		}
		for _, m := range messages {
			p, ok := parse(m)
			if !ok {
				continue
			}
			select {
			case s.arrived <- p:
			case <-s.done:
				return
			}
		}
	}
}

func parse(m netlink.Message) (p packet, ok bool) {
	const nfHeader, ipHeader = 4, 20
	if m.Header.Type != msgPacket || len(m.Data) < nfHeader {
		return p, false
	}
	attrs, err := netlink.UnmarshalAttributes(m.Data[nfHeader:])
	if err != nil {
		return p, false
	}
	for _, a := range attrs {
		switch {
		case a.Type == attrHeader && len(a.Data) >= 4:
			p.id, ok = binary.BigEndian.Uint32(a.Data), true
		case a.Type == attrPayload && len(a.Data) >= ipHeader:
			p.size = int(binary.BigEndian.Uint16(a.Data[2:]))
			p.lane = laneOf(append(append([]byte(nil), a.Data[12:20]...), a.Data[9]))
			if p.size == len(a.Data) {
				p.copied = a.Data
			}
		}
	}
	return p, ok
}

// decide gives every packet its due time and lets it go when that has come.
func (s *shaper) decide() {
	draw := rand.New(rand.NewPCG(1, 2))
	var queue packets
	last := make(map[lane]time.Time) // due time of the last packet in order
	free := make(map[lane]time.Time) // when the rate lets the next one go
	var order uint64
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		if len(queue) > 0 {
			timer.Reset(time.Until(queue[0].due))
		}
		select {
		case <-s.done:
			return
		case <-timer.C:
			for len(queue) > 0 && !queue[0].due.After(time.Now()) {
				s.release(heap.Pop(&queue).(packet))
			}
		case p := <-s.arrived:
			shape, now := s.shape(p.lane), time.Now()
			due, lost := shape.due(draw, now, p.size, last, free, p.lane)
			if lost {
				s.verdict(p.id, false)
				continue
			}
			second := p.copied
			p.copied, p.due, p.order = nil, due, order
			heap.Push(&queue, p)
			if second != nil && draw.Float64() < shape.Duplicate {
				heap.Push(&queue, packet{copied: second, lane: p.lane, due: due, order: order + 1})
			}
			order += 2
		}
	}
}

// due is when a packet that arrives now goes on.
func (s Shape) due(draw *rand.Rand, now time.Time, size int, last, free map[lane]time.Time, l lane) (due time.Time, lost bool) {
	const longest = time.Second
	if draw.Float64() < s.Loss {
		return now, true
	}
	if draw.Float64() < s.Reorder {
		return now, false
	}
	start := now
	if s.Rate > 0 {
		if free[l].After(now) {
			start = free[l]
		}
		if start.Sub(now) > longest {
			return now, true
		}
		start = start.Add(time.Duration(float64(size) / float64(s.Rate) * float64(time.Second)))
		free[l] = start
	}
	due = start.Add(s.Delay)
	if s.Jitter > 0 {
		due = due.Add(time.Duration(draw.Int64N(int64(s.Jitter))))
	}
	if due.Before(last[l]) {
		due = last[l]
	}
	last[l] = due
	return due, false
}

func (s *shaper) release(p packet) {
	if p.copied == nil {
		s.verdict(p.id, true)
		return
	}
	// A copy that cannot be sent is one that was lost.
	_ = unix.Sendto(s.raw, p.copied, 0, &unix.SockaddrInet4{Addr: p.lane.to.As4()})
}

func (s *shaper) verdict(id uint32, accept bool) {
	data := make([]byte, 8)
	if accept {
		data[3] = 1
	}
	binary.BigEndian.PutUint32(data[4:], id)
	// Without acknowledgement; if it fails, the queue is closed and the packet is gone.
	_, _ = s.queue.Send(queueMessage(msgVerdict, netlink.Request, netlink.Attribute{Type: attrVerdict, Data: data}))
}

// packets is a heap by due time, then by arrival.
type packets []packet

func (q packets) Len() int { return len(q) }
func (q packets) Less(i, j int) bool {
	if q[i].due.Equal(q[j].due) {
		return q[i].order < q[j].order
	}
	return q[i].due.Before(q[j].due)
}
func (q packets) Swap(i, j int) { q[i], q[j] = q[j], q[i] }
func (q *packets) Push(p any)   { *q = append(*q, p.(packet)) }
func (q *packets) Pop() any {
	old := *q
	p := old[len(old)-1]
	*q = old[:len(old)-1]
	return p
}
