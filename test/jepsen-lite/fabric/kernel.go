package fabric

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"sync"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/google/nftables/xt"
	"golang.org/x/sys/unix"
)

// kernel drops and shapes packets where they come in from loopback: there a sender
// learns nothing of it, while on the way out it would get an error.
type kernel struct {
	plan
	cut, shaped *nftables.Set
	why         string // why there is no shaper

	mu       sync.Mutex // guards the fields below, and what the kernel was told
	conn     *nftables.Conn
	switcher *shaper // nil where the kernel has no queue
	shapes   map[lane]Shape
}

// queueNumber is any: the namespace is ours.
const queueNumber = 1

// skipMark is on packets that the shaper has made itself.
const skipMark = 0x1

func openKernel(nodes []Node) (Fabric, error) {
	p, err := newPlan(nodes, 127, 9)
	if err != nil {
		return nil, err
	}
	conn, err := nftables.New()
	if err != nil {
		return nil, fmt.Errorf("open nftables: %w", err)
	}
	k := &kernel{plan: p, conn: conn, shapes: make(map[lane]Shape)}
	if err := k.rules(); err != nil {
		return nil, fmt.Errorf("open fabric: set up nftables: %w", err)
	}
	return k, nil
}

// rules makes one table: a set of lanes that are cut, and one of those that are sent
// through the shaper.
func (k *kernel) rules() error {
	key, err := nftables.ConcatSetType(nftables.TypeIPAddr, nftables.TypeIPAddr, nftables.TypeInetProto)
	if err != nil {
		return fmt.Errorf("make key: %w", err)
	}
	table := &nftables.Table{Family: nftables.TableFamilyIPv4, Name: "holdfast"}
	accept := nftables.ChainPolicyAccept
	chain := &nftables.Chain{
		Name: "links", Table: table, Type: nftables.ChainTypeFilter,
		Hooknum: nftables.ChainHookInput, Priority: nftables.ChainPriorityFilter, Policy: &accept,
	}
	set := func(name string) *nftables.Set {
		return &nftables.Set{Table: table, Name: name, KeyType: key, Concatenation: true, Counter: true}
	}
	k.cut, k.shaped = set("cut"), set("shaped")
	base := func() error {
		k.conn.DelTable(k.conn.AddTable(table)) // a former run of this process
		k.conn.AddTable(table)
		k.conn.AddChain(chain)
		err := errors.Join(k.conn.AddSet(k.cut, nil), k.conn.AddSet(k.shaped, nil))
		k.conn.AddRule(&nftables.Rule{Table: table, Chain: chain, Exprs: append(match(k.cut), &expr.Verdict{Kind: expr.VerdictDrop})})
		return err
	}
	// The kernel knows the queue by two names, either of which may be left out.
	targets := []expr.Any{
		&expr.Queue{Num: queueNumber},
		&expr.Target{Name: "NFQUEUE", Info: &xt.Unknown{queueNumber, 0, 0, 0, 0, 0, 0, 0}},
	}
	fresh := &expr.Meta{Key: expr.MetaKeyMARK, Register: 1}
	other := &expr.Cmp{Op: expr.CmpOpNeq, Register: 1, Data: []byte{skipMark, 0, 0, 0}}
	for _, target := range targets {
		exprs := append([]expr.Any{fresh, other}, match(k.shaped)...)
		if err = base(); err != nil {
			return err
		}
		k.conn.AddRule(&nftables.Rule{Table: table, Chain: chain, Exprs: append(exprs, target)})
		if err = k.conn.Flush(); err == nil {
			if k.switcher, err = newShaper(); err == nil {
				return nil
			}
			break
		}
	}
	k.why = fmt.Sprintf("links cannot be shaped: %v: the kernel needs nfnetlink_queue, and nft_queue or xt_NFQUEUE with nft_compat", err)
	if err := base(); err != nil {
		return err
	}
	return k.conn.Flush()
}

// match holds if the lane of a packet is in the set. Registers from 8 on have 4 bytes
// each: source, destination, protocol.
func match(set *nftables.Set) []expr.Any {
	const register, sourceOffset = 8, 12
	return []expr.Any{
		&expr.Payload{DestRegister: register, Base: expr.PayloadBaseNetworkHeader, Offset: sourceOffset, Len: 8},
		&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: register + 2},
		&expr.Lookup{SourceRegister: register, SetName: set.Name, SetID: set.ID},
	}
}

func number(proto string) byte {
	if proto == UDP {
		return unix.IPPROTO_UDP
	}
	return unix.IPPROTO_TCP
}

func (l lane) key() []byte {
	from, to := l.from.As4(), l.to.As4()
	return append(append(from[:], to[:]...), number(l.proto), 0, 0, 0)
}

func laneOf(key []byte) lane {
	l := lane{proto: TCP}
	l.from, _ = netip.AddrFromSlice(key[:4])
	l.to, _ = netip.AddrFromSlice(key[4:8])
	if key[8] == unix.IPPROTO_UDP {
		l.proto = UDP
	}
	return l
}

// replace makes the lanes the content of a set, all at once.
func replace[V any](conn *nftables.Conn, set *nftables.Set, lanes map[lane]V) error {
	elements := make([]nftables.SetElement, 0, len(lanes))
	for l := range lanes {
		elements = append(elements, nftables.SetElement{Key: l.key()})
	}
	conn.FlushSet(set)
	if len(elements) > 0 {
		if err := conn.SetAddElements(set, elements); err != nil {
			return fmt.Errorf("fill set %s: %w", set.Name, err)
		}
	}
	if err := conn.Flush(); err != nil {
		return fmt.Errorf("replace set %s: %w", set.Name, err)
	}
	return nil
}

func (k *kernel) IP(n Node) netip.Addr         { return k.ip[n] }
func (k *kernel) Advertised(n Node) netip.Addr { return k.ip[n] }

func (k *kernel) Cut(links []Link) error {
	lanes, err := k.all(links)
	if err != nil {
		return fmt.Errorf("cut: %w", err)
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	return replace(k.conn, k.cut, lanes)
}

func (k *kernel) Lost() (map[Link]uint64, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	elements, err := k.conn.GetSetElements(k.cut)
	if err != nil {
		return nil, fmt.Errorf("count lost packets: %w", err)
	}
	lost := make(map[Link]uint64, len(elements))
	for _, e := range elements {
		if e.Counter != nil {
			lost[k.link(laneOf(e.Key))] = e.Counter.Packets
		}
	}
	return lost, nil
}

func (k *kernel) Shape(l Link, s Shape) error {
	lanes, err := k.lanes(l)
	if err = errors.Join(err, s.check()); err != nil {
		return err
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.switcher == nil {
		return fmt.Errorf("%w: %s", ErrUnsupported, k.why)
	}
	for _, one := range lanes {
		if k.shapes[one] = s; s == (Shape{}) {
			delete(k.shapes, one)
		}
	}
	return k.reshape()
}

func (k *kernel) reshape() error {
	if k.switcher == nil {
		return nil
	}
	k.switcher.set(k.shapes)
	return replace(k.conn, k.shaped, k.shapes)
}

func (k *kernel) Heal() error {
	k.mu.Lock()
	defer k.mu.Unlock()
	clear(k.shapes)
	return errors.Join(replace(k.conn, k.cut, map[lane]bool{}), k.reshape())
}

func (k *kernel) Reaches(ctx context.Context, from, to Node, proto string) bool {
	lanes, err := k.lanes(Link{from, to, proto})
	return err == nil && len(lanes) == 1 && arrives(ctx, lanes[0])
}

func (k *kernel) Caps() Caps {
	shapes := k.switcher != nil
	return Caps{Driver: Kernel, Drops: true, Delay: shapes, Loss: shapes, Rate: shapes, Why: k.why}
}

func (k *kernel) Close() error {
	err := k.Heal()
	k.mu.Lock()
	defer k.mu.Unlock()
	k.conn.DelTable(k.cut.Table)
	if err2 := k.conn.Flush(); err2 != nil {
		err = errors.Join(err, fmt.Errorf("remove table: %w", err2))
	}
	if k.switcher != nil {
		err = errors.Join(err, k.switcher.close())
		k.switcher, k.why = nil, "closed"
	}
	return err
}
