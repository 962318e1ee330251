package network

import (
	"encoding/binary"
	"math/rand/v2"
	"net/netip"
	"testing"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/xebec-mesh/xebec/dataplane/kernel/kerneltest"
)

// packet is a readable packet, with the bytes that the programs see.
type packet struct {
	src, dst     string
	proto        uint8 // TCP, UDP or ICMP of the addresses' family
	sport, dport uint16
	flags        byte // of TCP
	payload      string
	quoted       *packet // an ICMP error about it
	noSum        bool    // UDP without checksum
}

const fin, syn = 1, 2

func (p packet) is4() bool { return netip.MustParseAddr(p.src).Is4() }

// bytes is the packet with an Ethernet header and right checksums.
func (p packet) bytes() []byte {
	proto := uint16(unix.ETH_P_IP)
	if !p.is4() {
		proto = unix.ETH_P_IPV6
	}
	return append(binary.BigEndian.AppendUint16(make([]byte, 12), proto), p.ip()...)
}

func (p packet) ip() []byte {
	l4 := p.transport()
	src, dst := netip.MustParseAddr(p.src), netip.MustParseAddr(p.dst)
	if p.is4() {
		h := []byte{0x45, 0, 0, 0, 0, 7, 0x40, 0, 64, p.proto, 0, 0}
		binary.BigEndian.PutUint16(h[2:], uint16(20+len(l4)))
		h = append(append(h, src.AsSlice()...), dst.AsSlice()...)
		binary.BigEndian.PutUint16(h[10:], checksum(h))
		return append(h, l4...)
	}
	h := []byte{0x60, 0, 0, 0, 0, 0, p.proto, 64}
	binary.BigEndian.PutUint16(h[4:], uint16(len(l4)))
	return append(append(append(h, src.AsSlice()...), dst.AsSlice()...), l4...)
}

func (p packet) transport() []byte {
	var b []byte
	at := 0
	switch {
	case p.proto == unix.IPPROTO_TCP:
		b = binary.BigEndian.AppendUint16(binary.BigEndian.AppendUint16(nil, p.sport), p.dport)
		b = append(b, 0, 0, 0, 1, 0, 0, 0, 0, 5<<4, p.flags, 1, 0, 0, 0, 0, 0)
		at = 16
	case p.proto == unix.IPPROTO_UDP:
		b = binary.BigEndian.AppendUint16(binary.BigEndian.AppendUint16(nil, p.sport), p.dport)
		b = append(b, 0, byte(8+len(p.payload)), 0, 0)
		at = 6
	case p.quoted != nil:
		b = append([]byte{3, 4, 0, 0, 0, 0, 5, 0}, p.quoted.ip()...) // fragmentation needed
		if !p.is4() {
			b[0], b[1] = 2, 0 // packet too big
		}
		at = 2
	default: // an echo: sport is the identifier of a request, dport of a reply
		kind, id := byte(8), p.sport
		if p.sport == 0 {
			kind, id = 0, p.dport
		}
		if !p.is4() {
			kind = map[byte]byte{8: 128, 0: 129}[kind]
		}
		b = binary.BigEndian.AppendUint16([]byte{kind, 0, 0, 0}, id)
		b = append(b, 0, 1)
		at = 2
	}
	b = append(b, p.payload...)
	if p.noSum {
		return b
	}
	sum := checksum(append(p.pseudo(len(b)), even(b)...))
	if p.proto == unix.IPPROTO_ICMP {
		sum = checksum(even(b))
	}
	binary.BigEndian.PutUint16(b[at:], sum)
	return b
}

func even(b []byte) []byte {
	if len(b)%2 == 1 {
		return append(append([]byte{}, b...), 0)
	}
	return b
}

func (p packet) pseudo(length int) []byte {
	src, dst := netip.MustParseAddr(p.src), netip.MustParseAddr(p.dst)
	b := append(src.AsSlice(), dst.AsSlice()...)
	return append(b, 0, 0, byte(length>>8), byte(length), 0, 0, 0, p.proto)
}

// bench runs the programs on packets, with an uplink of 192.0.2.1 and 2001:db8::1.
type bench struct {
	t       testing.TB
	n       *Network
	ns      *kerneltest.NetNS
	ifindex uint32
}

func newBench(t testing.TB) *bench {
	w := newWorld(t)
	l, err := w.node.Net.LinkByName("up0")
	if err != nil {
		t.Fatal(err)
	}
	b := &bench{t: t, n: w.n, ns: w.node, ifindex: uint32(l.Attrs().Index)}
	u := uplink{Header: 14}
	u.Addr4, u.Addr6 = netip.MustParseAddr("192.0.2.1").As16(), netip.MustParseAddr("2001:db8::1").As16()
	if err := w.n.bpf.Uplinks.Put(b.ifindex, u); err != nil {
		t.Fatal(err)
	}
	return b
}

// skb is the beginning of struct __sk_buff, with the fields that a test may set.
type skb struct {
	_       [10]uint32
	IfIndex uint32
	_       [37]uint32
}

func (b *bench) run(prog *ebpf.Program, in []byte) (verdict int32, out []byte) {
	b.t.Helper()
	var err error
	b.ns.Do(b.t, func() {
		opts := &ebpf.RunOptions{Data: in, DataOut: make([]byte, len(in)+256), Context: skb{IfIndex: b.ifindex}}
		var ret uint32
		ret, err = prog.Run(opts)
		verdict, out = int32(ret), opts.DataOut
	})
	if err != nil {
		b.t.Fatal(err)
	}
	return verdict, out
}

func (b *bench) egress(in []byte) (int32, []byte)  { return b.run(b.n.bpf.MasqueradeEgress, in) }
func (b *bench) ingress(in []byte) (int32, []byte) { return b.run(b.n.bpf.MasqueradeIngress, in) }

const (
	goOn = -1 // TC_ACT_UNSPEC
	drop = 2  // TC_ACT_SHOT
)

// readPort finds the source port or identifier in a translated packet.
func readPort(p packet, out []byte) uint16 {
	at := 14 + 20
	if !p.is4() {
		at = 14 + 40
	}
	if p.proto == unix.IPPROTO_ICMP || p.proto == unix.IPPROTO_ICMPV6 {
		at += 4
	}
	return binary.BigEndian.Uint16(out[at:])
}

// outgoing are packets of a pod, and the node's address that they get.
var outgoing = []struct {
	name string
	node string
	p    packet
}{
	{"tcp4", "192.0.2.1", packet{src: "10.244.0.7", dst: "198.51.100.9", proto: unix.IPPROTO_TCP, sport: 40000, dport: 443, flags: syn}},
	{"tcp6", "2001:db8::1", packet{src: "fd00:10:244::7", dst: "2001:db8:9::9", proto: unix.IPPROTO_TCP, sport: 40000, dport: 443, flags: syn}},
	{"udp4", "192.0.2.1", packet{src: "10.244.0.7", dst: "198.51.100.9", proto: unix.IPPROTO_UDP, sport: 40000, dport: 53, payload: "question"}},
	{"udp6", "2001:db8::1", packet{src: "fd00:10:244::7", dst: "2001:db8:9::9", proto: unix.IPPROTO_UDP, sport: 40000, dport: 53, payload: "odd"}},
	{"udp4 without checksum", "192.0.2.1", packet{src: "10.244.0.8", dst: "198.51.100.9", proto: unix.IPPROTO_UDP, sport: 40000, dport: 53, noSum: true}},
	{"ping4", "192.0.2.1", packet{src: "10.244.0.7", dst: "198.51.100.9", proto: unix.IPPROTO_ICMP, sport: 77, payload: "hello"}},
	{"ping6", "2001:db8::1", packet{src: "fd00:10:244::7", dst: "2001:db8:9::9", proto: unix.IPPROTO_ICMPV6, sport: 77, payload: "hello"}},
}

// TestTranslation: out with the node's address, back with the pod's, every byte
// and checksum as if it had been made so; errors about it find the pod.
func TestTranslation(t *testing.T) {
	b := newBench(t)
	for _, c := range outgoing {
		t.Run(c.name, func(t *testing.T) {
			verdict, out := b.egress(c.p.bytes())
			if verdict != goOn {
				t.Fatalf("egress says %d", verdict)
			}
			sent := c.p
			sent.src, sent.sport = c.node, readPort(c.p, out)
			if string(out) != string(sent.bytes()) {
				t.Fatalf("sent\n%x, want\n%x", out, sent.bytes())
			}
			if sent.sport < 10000 || sent.sport > 32767 {
				t.Errorf("port %d is not from our range", sent.sport)
			}
			if _, again := b.egress(c.p.bytes()); string(again) != string(out) {
				t.Error("the next packet of the flow is translated differently")
			}

			answer := sent
			answer.src, answer.dst, answer.sport, answer.dport, answer.flags = sent.dst, sent.src, sent.dport, sent.sport, 0
			want := answer
			want.dst, want.dport = c.p.src, c.p.sport
			if verdict, in := b.ingress(answer.bytes()); verdict != goOn || string(in) != string(want.bytes()) {
				t.Errorf("answer (%d)\n%x, want\n%x", verdict, in, want.bytes())
			}

			b.error(t, c.p, sent)
		})
	}
}

// error: a router on the way complains about what the pod sent.
func (b *bench) error(t *testing.T, inside, sent packet) {
	t.Helper()
	e := packet{src: "203.0.113.5", dst: sent.src, proto: unix.IPPROTO_ICMP, quoted: &sent}
	if !sent.is4() {
		e.src, e.proto = "2001:db8:5::5", unix.IPPROTO_ICMPV6
	}
	// What the error quotes has the checksum of what was sent, not of what the pod
	// had made: quote the pod's packet, and put that checksum in.
	verdict, got := b.ingress(e.bytes())
	want := e
	quoted := inside
	want.dst, want.quoted = inside.src, &quoted
	wantBytes := want.bytes()
	at := map[uint8]int{unix.IPPROTO_TCP: 16, unix.IPPROTO_UDP: 6, unix.IPPROTO_ICMP: 2, unix.IPPROTO_ICMPV6: 2}[sent.proto]
	header := 20
	if !sent.is4() {
		header = 40
	}
	at += 14 + header + 8 + header
	copy(wantBytes[at:at+2], got[at:at+2])
	sum := 14 + header + 2
	copy(wantBytes[sum:sum+2], got[sum:sum+2])
	if verdict != goOn || string(got) != string(wantBytes) {
		t.Errorf("error (%d)\n%x, want\n%x", verdict, got, wantBytes)
	}
	if !validICMP(want, got[14+header:]) {
		t.Errorf("the error's checksum is wrong: %x", got)
	}
}

func validICMP(p packet, b []byte) bool {
	if p.proto == unix.IPPROTO_ICMP {
		return checksum(even(b)) == 0
	}
	return checksum(append(p.pseudo(len(b)), even(b)...)) == 0
}

// TestLeftAlone: what is no pod's, stays in the cluster, or is not understood.
func TestLeftAlone(t *testing.T) {
	b := newBench(t)
	for name, p := range map[string]packet{
		"the node's own":      {src: "192.0.2.1", dst: "198.51.100.9", proto: unix.IPPROTO_TCP, sport: 1, dport: 2},
		"to another pod":      {src: "10.244.0.7", dst: "10.244.0.9", proto: unix.IPPROTO_TCP, sport: 1, dport: 2},
		"to another pod by 6": {src: "fd00:10:244::7", dst: "fd00:10:244::9", proto: unix.IPPROTO_UDP, sport: 1, dport: 2},
	} {
		if verdict, out := b.egress(p.bytes()); verdict != goOn || string(out) != string(p.bytes()) {
			t.Errorf("%s: %d, changed: %v", name, verdict, string(out) != string(p.bytes()))
		}
	}
	stranger := packet{src: "198.51.100.9", dst: "192.0.2.1", proto: unix.IPPROTO_TCP, sport: 443, dport: 12345}
	if verdict, in := b.ingress(stranger.bytes()); verdict != goOn || string(in) != string(stranger.bytes()) {
		t.Errorf("an answer that nobody asked for: %d", verdict)
	}
	arp := append(make([]byte, 12), 8, 6, 0, 1, 8, 0, 6, 4, 0, 1)
	arp = append(arp, make([]byte, 20)...)
	if verdict, out := b.egress(arp); verdict != goOn || string(out) != string(arp) {
		t.Errorf("ARP: %d", verdict)
	}
}

// TestManyPorts: every flow to one place has a port of its own.
func TestManyPorts(t *testing.T) {
	b := newBench(t)
	seen := map[uint16]bool{}
	for i := range 5000 {
		p := outgoing[0].p
		p.sport = uint16(20000 + i)
		verdict, out := b.egress(p.bytes())
		port := readPort(p, out)
		if verdict != goOn || seen[port] {
			t.Fatalf("flow %d: verdict %d, port %d taken: %v", i, verdict, port, seen[port])
		}
		seen[port] = true
	}
}

// TestDamagedPackets: no packet makes the programs drop or change what is not a
// pod's, whatever is in it.
func TestDamagedPackets(t *testing.T) {
	b := newBench(t)
	rnd := rand.New(rand.NewPCG(3, 4))
	for i := range 3000 {
		data := outgoing[i%len(outgoing)].p.bytes()
		// The kernel tests no packet without its IP header.
		if least := 14 + 40; len(data) > least {
			data = data[:least+rnd.IntN(len(data)-least)]
		}
		for range rnd.IntN(4) {
			data[14+rnd.IntN(len(data)-14)] = byte(rnd.Uint32())
		}
		verdict, _ := b.egress(data)
		verdict2, _ := b.ingress(data)
		if verdict != goOn && verdict != drop || verdict2 != goOn {
			t.Fatalf("%x: %d, %d", data, verdict, verdict2)
		}
	}
}
