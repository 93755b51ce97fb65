package instance_test

import (
	"encoding/hex"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// ownAddresses requires that every socket of every server and instance has its own
// address: links between processes are told apart, and cut, by addresses.
func (w *world) ownAddresses(t *testing.T) {
	t.Helper()
	check := func(name string, pid int, own netip.Addr) {
		remote := 0
		for _, s := range sockets(t, pid) {
			if s.local != own {
				t.Errorf("%s, whose address is %v, has a %s socket from %v to %v", name, own, s.proto, s.local, s.remote)
			}
			if s.proto == "tcp" && s.remote != own && !s.remote.IsUnspecified() {
				remote++
			}
		}
		if remote == 0 {
			t.Errorf("%s has no connection to anybody; nothing was checked", name)
		}
	}
	for _, s := range w.cluster.Servers {
		check(s.ID, s.PID(), s.IP)
	}
	for i, p := range w.instances {
		check(w.run.Instances[i], p.PID(), w.ip(byte(10+i)))
	}
}

type socket struct {
	proto         string
	local, remote netip.Addr
}

// sockets are those of IP that a process has.
func sockets(t *testing.T, pid int) (all []socket) {
	t.Helper()
	inodes := map[string]bool{}
	files, err := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", pid))
	must(t, err)
	for _, file := range files {
		if target, err := os.Readlink(file); err == nil && strings.HasPrefix(target, "socket:[") {
			inodes[strings.Trim(target[len("socket:"):], "[]")] = true
		}
	}
	for _, table := range []string{"tcp", "tcp6", "udp", "udp6"} {
		data, err := os.ReadFile(filepath.Join(fmt.Sprintf("/proc/%d/net", pid), table)) //nolint:gosec // of the kernel
		if os.IsNotExist(err) {
			continue
		}
		must(t, err)
		for line := range strings.Lines(string(data)) {
			fields := strings.Fields(line)
			if len(fields) > 9 && inodes[fields[9]] {
				all = append(all, socket{table[:3], address(t, fields[1]), address(t, fields[2])})
			}
		}
	}
	return all
}

// address reads one as the kernel writes it: words of 32 bits, each in the order of the
// machine, in hex.
func address(t *testing.T, text string) netip.Addr {
	t.Helper()
	digits, _, _ := strings.Cut(text, ":")
	raw, err := hex.DecodeString(digits)
	must(t, err)
	for word := range slices.Chunk(raw, 4) {
		slices.Reverse(word)
	}
	a, ok := netip.AddrFromSlice(raw)
	if !ok {
		t.Fatalf("%q is no address", text)
	}
	return a.Unmap()
}
