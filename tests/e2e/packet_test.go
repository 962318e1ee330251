package e2e

import (
	"encoding/binary"
	"fmt"
	"net"
	"runtime"
	"time"

	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// packetSocket opens an AF_PACKET socket (packet(7)) on eth0 in the network
// namespace of a process. Reads time out after 200 ms.
func packetSocket(pid int) (int, error) {
	type result struct {
		fd  int
		err error
	}
	opened := make(chan result, 1)
	go func() {
		// The thread is not unlocked: it ends with the goroutine.
		runtime.LockOSThread()
		fd, err := packetSocketHere(pid)
		opened <- result{fd, err}
	}()
	r := <-opened
	return r.fd, r.err
}

func packetSocketHere(pid int) (int, error) {
	ns, err := netns.GetFromPid(pid)
	if err != nil {
		return 0, fmt.Errorf("network namespace of process %d: %w", pid, err)
	}
	defer ns.Close()
	if err := netns.Set(ns); err != nil {
		return 0, err
	}
	link, err := net.InterfaceByName("eth0")
	if err != nil {
		return 0, err
	}
	protocol := binary.BigEndian.Uint16(binary.NativeEndian.AppendUint16(nil, unix.ETH_P_ALL))
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, int(protocol))
	if err != nil {
		return 0, err
	}
	timeout := unix.NsecToTimeval((200 * time.Millisecond).Nanoseconds())
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &timeout); err != nil {
		return 0, err
	}
	return fd, unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: protocol, Ifindex: link.Index})
}

// tcpPayload returns what a TCP segment in an Ethernet frame carries, or nil.
func tcpPayload(frame []byte) []byte {
	if len(frame) < 14 {
		return nil
	}
	packet := frame[14:]
	var segment []byte
	switch binary.BigEndian.Uint16(frame[12:]) {
	case unix.ETH_P_IP:
		if len(packet) < 20 || packet[9] != unix.IPPROTO_TCP {
			return nil
		}
		header, total := int(packet[0]&15)*4, int(binary.BigEndian.Uint16(packet[2:]))
		if total == 0 || total > len(packet) { // 0: a segment that the card would cut
			total = len(packet)
		}
		if header > total {
			return nil
		}
		segment = packet[header:total]
	case unix.ETH_P_IPV6:
		if len(packet) < 40 || packet[6] != unix.IPPROTO_TCP {
			return nil
		}
		segment = packet[40:]
	}
	if len(segment) < 20 {
		return nil
	}
	if offset := int(segment[12]>>4) * 4; offset <= len(segment) {
		return segment[offset:]
	}
	return nil
}
