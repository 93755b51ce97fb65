package fabric

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"time"

	"golang.org/x/sys/unix"
)

// arrives tells whether a packet of a lane's protocol gets through in its direction.
// It sends bare packets and listens where the kernel hands them to a node, behind
// every rule: a connection would need the way back too. They belong to no connection
// and their checksum is wrong, so that nobody answers.
func arrives(ctx context.Context, l lane) bool {
	in, err := rawSocket(l, l.to.As4())
	if err != nil {
		return false
	}
	defer func() { _ = unix.Close(in) }()
	out, err := rawSocket(l, l.from.As4())
	if err != nil {
		return false
	}
	defer func() { _ = unix.Close(out) }()
	const tries, patience = 10, 30 * time.Millisecond
	packet := probePacket()
	for range tries {
		if ctx.Err() != nil {
			return false
		}
		if err := unix.Sendto(out, packet, 0, &unix.SockaddrInet4{Addr: l.to.As4()}); err != nil {
			return false
		}
		if heard(in, packet, patience) {
			return true
		}
	}
	return false
}

func rawSocket(l lane, ip [4]byte) (int, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, int(number(l.proto)))
	if err != nil {
		return -1, err //nolint:wrapcheck // says enough
	}
	if err := unix.Bind(fd, &unix.SockaddrInet4{Addr: ip}); err != nil {
		_ = unix.Close(fd)
		return -1, err //nolint:wrapcheck // says enough
	}
	return fd, nil
}

// probePacket is 28 bytes that UDP and TCP both take for a header to no port: for
// UDP the length, for TCP the size of its header, is in its place.
func probePacket() []byte {
	packet := make([]byte, 28)
	binary.BigEndian.PutUint16(packet[4:], 28) // UDP: length; TCP: part of a sequence number
	packet[6], packet[7] = 0xde, 0xad          // UDP: checksum, wrong
	packet[12] = 5 << 4                        // TCP: header of 5 words, no flags
	binary.BigEndian.PutUint64(packet[20:], rand.Uint64())
	return packet
}

// heard waits for the packet among all that the socket hears.
func heard(socket int, packet []byte, patience time.Duration) bool {
	end := time.Now().Add(patience)
	buffer := make([]byte, 2048)
	for left := patience; left > 0; left = time.Until(end) {
		ready, err := unix.Poll([]unix.PollFd{{Fd: int32(socket), Events: unix.POLLIN}}, int(left.Milliseconds())+1)
		if ready == 0 || (err != nil && !errors.Is(err, unix.EINTR)) {
			return false
		}
		for {
			n, _, err := unix.Recvfrom(socket, buffer, 0)
			if err != nil {
				break
			}
			if bytes.HasSuffix(buffer[:n], packet[20:]) {
				return true
			}
		}
	}
	return false
}
