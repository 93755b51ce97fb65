package disk_test

import (
	"bytes"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/holdfast-dev/holdfast/test/jepsen-lite/disk"
)

// model is what must be left: of each file its content now and at its last fsync, and
// which names there were at the last fsync of anything.
type model struct {
	t           *testing.T
	dir         string
	draw        *rand.Rand
	names, safe map[string]*inode
}

type inode struct{ now, safe []byte }

func (m *model) pick() string {
	return fmt.Sprintf("%s/f%d", []string{"", "d1", "d2"}[m.draw.IntN(3)], m.draw.IntN(4))
}

// file opens one of the files that there are.
func (m *model) file() (*inode, *os.File) {
	m.t.Helper()
	if len(m.names) == 0 {
		return nil, nil
	}
	all := slices.Sorted(maps.Keys(m.names))
	name := all[m.draw.IntN(len(all))]
	f, err := os.OpenFile(filepath.Join(m.dir, name), os.O_RDWR, 0)
	do(m.t, err)
	return m.names[name], f
}

func (m *model) bytes(most int) []byte {
	data := make([]byte, 1+m.draw.IntN(most))
	for i := range data {
		data[i] = byte('a' + m.draw.IntN(26))
	}
	return data
}

func (m *model) step() {
	m.t.Helper()
	name, other := m.pick(), m.pick()
	switch kind := m.draw.IntN(10); kind {
	case 0, 1: // create, also over an old one: that is a truncation
		data := m.bytes(1500)
		do(m.t, os.WriteFile(filepath.Join(m.dir, name), data, 0o600))
		if m.names[name] == nil {
			m.names[name] = &inode{}
		}
		m.names[name].now = data
	case 2: // remove
		if m.names[name] != nil {
			do(m.t, os.Remove(filepath.Join(m.dir, name)))
			delete(m.names, name)
		}
	case 3: // move
		if m.names[name] != nil && name != other {
			do(m.t, os.Rename(filepath.Join(m.dir, name), filepath.Join(m.dir, other)))
			m.names[other] = m.names[name]
			delete(m.names, name)
		}
	case 4: // fsync of a directory
		d, err := os.Open(filepath.Join(m.dir, "d1"))
		do(m.t, err)
		do(m.t, d.Sync())
		do(m.t, d.Close())
		m.safe = maps.Clone(m.names)
	default:
		node, f := m.file()
		if f == nil {
			return
		}
		switch kind {
		case 5: // fsync
			do(m.t, f.Sync())
			node.safe = slices.Clone(node.now)
			m.safe = maps.Clone(m.names)
		case 6: // shorter or longer
			size := m.draw.IntN(4000)
			do(m.t, f.Truncate(int64(size)))
			node.now = resize(node.now, size)
		default: // write in the middle, or behind the end
			data, off := m.bytes(1500), m.draw.IntN(4000)
			_, err := f.WriteAt(data, int64(off))
			do(m.t, err)
			node.now = resize(node.now, max(len(node.now), off+len(data)))
			copy(node.now[off:], data)
		}
		do(m.t, f.Close())
	}
}

func resize(data []byte, size int) []byte {
	next := make([]byte, size)
	copy(next, data)
	return next
}

// files are the content of all files on the disk.
func files(t *testing.T, dir string) map[string][]byte {
	t.Helper()
	all := make(map[string][]byte)
	for _, sub := range []string{"", "d1", "d2"} {
		entries, err := os.ReadDir(filepath.Join(dir, sub))
		do(t, err)
		for _, e := range entries {
			if !e.IsDir() {
				data, err := os.ReadFile(filepath.Join(dir, sub, e.Name()))
				do(t, err)
				all[sub+"/"+e.Name()] = data
			}
		}
	}
	return all
}

func newModel(t *testing.T, d *disk.Disk, seed uint64) *model {
	t.Helper()
	m := &model{t: t, dir: d.Dir(), draw: rand.New(rand.NewPCG(seed, 1)), names: map[string]*inode{}, safe: map[string]*inode{}}
	for _, sub := range []string{"d1", "d2"} {
		do(t, os.Mkdir(filepath.Join(m.dir, sub), 0o700))
	}
	root, err := os.Open(m.dir)
	do(t, err)
	do(t, root.Sync())
	do(t, root.Close())
	return m
}

func TestPowerLossTakesWhatWasNotSynced(t *testing.T) {
	lost := 0
	for seed := range uint64(20) {
		d := open(t)
		m := newModel(t, d, seed)
		for round := range 3 {
			for range 60 {
				m.step()
			}
			if got := files(t, m.dir); len(got) != len(m.names) {
				t.Fatalf("seed %d: %d files, want %d", seed, len(got), len(m.names))
			}
			loss, err := d.PowerLoss(seed, false)
			do(t, err)
			lost += loss.Sectors
			got := files(t, m.dir)
			for name, node := range m.safe {
				if data, ok := got[name]; !ok || !bytes.Equal(data, node.safe) {
					t.Fatalf("seed %d round %d: %s is there: %v; %d bytes, want %d; first difference at %d",
						seed, round, name, ok, len(data), len(node.safe), difference(data, node.safe))
				}
				node.now = slices.Clone(node.safe)
			}
			if len(got) != len(m.safe) {
				t.Fatalf("seed %d: %d files, want %d", seed, len(got), len(m.safe))
			}
			m.names = maps.Clone(m.safe)
		}
	}
	if lost == 0 {
		t.Error("nothing was ever lost")
	}
}

func difference(a, b []byte) int {
	for i := range min(len(a), len(b)) {
		if a[i] != b[i] {
			return i
		}
	}
	return min(len(a), len(b))
}

// Torn, each sector is the old or the new one, and something of both kinds is there.
func TestTornPowerLossKeepsAnyPart(t *testing.T) {
	const sectors = 64
	older, newer := bytes.Repeat([]byte("o"), 512), bytes.Repeat([]byte("n"), 512)
	both, shorter, longer, kept, undone := 0, 0, 0, 0, 0
	for seed := range uint64(12) {
		d := open(t)
		write(t, d, "f", string(bytes.Repeat(older, sectors)), true)
		write(t, d, "g", "x", false)
		f, err := os.OpenFile(filepath.Join(d.Dir(), "f"), os.O_RDWR, 0)
		do(t, err)
		_, err = f.WriteAt(bytes.Repeat(newer, sectors+1), 0)
		do(t, err)
		do(t, f.Close())
		_, err = d.PowerLoss(seed, true)
		do(t, err)
		data := []byte(content(t, d, "f"))
		olds, news := 0, 0
		for s := range sectors {
			switch sector := data[s*512 : (s+1)*512]; {
			case bytes.Equal(sector, older):
				olds++
			case bytes.Equal(sector, newer):
				news++
			default:
				t.Fatalf("sector %d is neither: %.20q", s, sector)
			}
		}
		if olds > 10 && news > 10 {
			both++
		}
		switch len(data) {
		case sectors * 512:
			shorter++
		case (sectors + 1) * 512:
			longer++
		default:
			t.Fatalf("%d bytes", len(data))
		}
		if content(t, d, "g") == "(absent)" {
			undone++
		} else {
			kept++
		}
	}
	if both < 10 || shorter == 0 || longer == 0 || kept == 0 || undone == 0 {
		t.Errorf("of 12: torn %d, old size %d, new size %d, name kept %d, name undone %d", both, shorter, longer, kept, undone)
	}
}
