package consensus

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
)

// Page kinds of a bolt database, and the sizes of their elements.
const (
	boltBranch     = 0x01
	boltLeaf       = 0x02
	boltBucketFlag = 0x01
	boltElement    = 16
	boltMaxPage    = 1 << 30 // larger than any batch of entries
)

// boltCheck walks the tree of a database the way bolt does when it opens one,
// but through reads that can fail: bolt follows a damaged pointer into unmapped
// memory, on a goroutine of its own, where nobody can recover.
type boltCheck struct {
	file io.ReaderAt
	meta boltMeta
	seen []bool // pages
}

// check walks the whole tree.
func (c *boltCheck) check() error {
	c.seen = make([]bool, c.meta.pages) // the file is at least as long
	return c.page(c.meta.root, nil, nil, 0)
}

func (c *boltCheck) damaged(id int64, what string) error {
	return fmt.Errorf("%w: page %d: %s", ErrCorrupt, id, what)
}

// load reads a page with its overflow, and its header.
func (c *boltCheck) load(id int64) (page []byte, kind uint16, count int, err error) {
	if id < 2 || id >= c.meta.pages {
		return nil, 0, 0, c.damaged(id, "outside the file")
	}
	var header [boltHeaderSize]byte
	if _, err := c.file.ReadAt(header[:], id*c.meta.pageSize); err != nil {
		return nil, 0, 0, err
	}
	order := binary.NativeEndian
	more := int64(order.Uint32(header[12:]))
	size := (more + 1) * c.meta.pageSize
	switch {
	case int64(order.Uint64(header[:])) != id:
		return nil, 0, 0, c.damaged(id, "carries another number")
	case id+more >= c.meta.pages || size > boltMaxPage:
		return nil, 0, 0, c.damaged(id, "is too long")
	}
	for i := id; i <= id+more; i++ {
		if c.seen[i] {
			return nil, 0, 0, c.damaged(i, "is used twice")
		}
		c.seen[i] = true
	}
	page = make([]byte, size)
	if _, err := c.file.ReadAt(page, id*c.meta.pageSize); err != nil {
		return nil, 0, 0, err
	}
	return page, order.Uint16(header[8:]), int(order.Uint16(header[10:])), nil
}

// page checks a page and all below it: its keys ascend, from low on and below
// high. depth bounds a tree that would never end.
func (c *boltCheck) page(id int64, low, high []byte, depth int) error {
	if depth > 64 {
		return c.damaged(id, "is too deep")
	}
	page, kind, count, err := c.load(id)
	if err != nil {
		return err
	}
	if kind != boltBranch && kind != boltLeaf || kind == boltBranch && count == 0 {
		return c.damaged(id, "is of no known kind")
	}
	elements := make([]boltItem, count)
	for i := range elements {
		if elements[i], err = c.item(id, page, kind, i); err != nil {
			return err
		}
	}
	for i, e := range elements {
		if e.inline != nil {
			if err := c.inline(id, e.inline); err != nil {
				return err
			}
		}
		if i == 0 && bytes.Compare(e.key, low) < 0 || i > 0 && bytes.Compare(elements[i-1].key, e.key) >= 0 ||
			high != nil && bytes.Compare(e.key, high) >= 0 {
			return c.damaged(id, "has keys out of order")
		}
		if !e.descend {
			continue
		}
		from, to := e.key, high
		if i+1 < count {
			to = elements[i+1].key
		}
		if kind == boltLeaf { // a bucket has its own keys
			from, to = nil, nil
		}
		if err := c.page(e.child, from, to, depth+1); err != nil {
			return err
		}
	}
	return nil
}

// boltItem is one element of a page.
type boltItem struct {
	key     []byte
	child   int64
	descend bool
	inline  []byte // page of a small bucket, within its parent's page
}

// inline checks a bucket that is stored within a page.
func (c *boltCheck) inline(id int64, page []byte) error {
	if len(page) < boltHeaderSize || binary.NativeEndian.Uint16(page[8:]) != boltLeaf {
		return c.damaged(id, "has a bucket that is cut off")
	}
	var last []byte
	for i := range int(binary.NativeEndian.Uint16(page[10:])) {
		e, err := c.item(id, page, boltLeaf, i)
		if err != nil {
			return err
		}
		if e.descend || e.inline != nil || i > 0 && bytes.Compare(last, e.key) >= 0 {
			return c.damaged(id, "has a bucket out of order")
		}
		last = e.key
	}
	return nil
}

// item reads element i of a page.
func (c *boltCheck) item(id int64, page []byte, kind uint16, i int) (boltItem, error) {
	at := boltHeaderSize + i*boltElement
	if at+boltElement > len(page) {
		return boltItem{}, c.damaged(id, "has too many elements")
	}
	order, raw := binary.NativeEndian, page[at:at+boltElement]
	if kind == boltBranch {
		from := int64(at) + int64(order.Uint32(raw))
		to := from + int64(order.Uint32(raw[4:]))
		if to > int64(len(page)) {
			return boltItem{}, c.damaged(id, "has an element beyond its end")
		}
		return boltItem{key: page[from:to], child: int64(order.Uint64(raw[8:])), descend: true}, nil
	}
	from := int64(at) + int64(order.Uint32(raw[4:]))
	split := from + int64(order.Uint32(raw[8:]))
	to := split + int64(order.Uint32(raw[12:]))
	if to > int64(len(page)) {
		return boltItem{}, c.damaged(id, "has an element beyond its end")
	}
	item := boltItem{key: page[from:split]}
	if order.Uint32(raw)&boltBucketFlag == 0 {
		return item, nil
	}
	if to-split < boltElement {
		return boltItem{}, c.damaged(id, "has a bucket that is cut off")
	}
	item.child = int64(order.Uint64(page[split:]))
	item.descend = item.child != 0
	if !item.descend {
		item.inline = page[split+boltElement : to]
	}
	return item, nil
}
