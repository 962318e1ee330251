package conntrack

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/xebec-mesh/xebec/dataplane/bpf"
	"github.com/xebec-mesh/xebec/dataplane/bpfmap"
)

// add puts both entries of a flow that was silent since seen.
func add(t *testing.T, table Table, proto uint8, pod, remote string, port uint16, seen time.Duration, flags uint16) {
	t.Helper()
	p, r := netip.MustParseAddrPort(pod), netip.MustParseAddrPort(remote)
	node := netip.MustParseAddr("192.0.2.1")
	out := Tuple{
		Remote: bpf.FromAddr(r.Addr()), Local: bpf.FromAddr(p.Addr()),
		RemotePort: bpf.FromPort(r.Port()), LocalPort: bpf.FromPort(p.Port()), Proto: proto,
	}
	back := out
	back.Local, back.LocalPort, back.Direction = bpf.FromAddr(node), bpf.FromPort(port), 1
	at := uint32(seen / time.Second)
	for k, v := range map[Tuple]Translation{
		out:  {Addr: bpf.FromAddr(node), Port: bpf.FromPort(port), Seen: at, Flags: flags},
		back: {Addr: bpf.FromAddr(p.Addr()), Port: bpf.FromPort(p.Port()), Seen: at, Flags: flags},
	} {
		if err := table.Put(k, v); err != nil {
			t.Fatal(err)
		}
	}
}

func TestExpireAndForget(t *testing.T) {
	table := bpfmap.NewMemory[Tuple, Translation](0)
	now := 10000 * time.Second
	add(t, table, unix.IPPROTO_TCP, "10.244.0.2:40000", "198.51.100.1:443", 10001, now-time.Hour, 0)
	add(t, table, unix.IPPROTO_TCP, "10.244.0.2:40001", "198.51.100.1:443", 10002, now-time.Minute, closing)
	add(t, table, unix.IPPROTO_UDP, "10.244.0.2:40002", "198.51.100.1:53", 10003, now-time.Hour, 0)
	add(t, table, unix.IPPROTO_UDP, "10.244.0.3:40002", "198.51.100.1:53", 10004, now-time.Second, 0)
	add(t, table, unix.IPPROTO_ICMP, "10.244.0.3:7", "198.51.100.1:0", 10005, now, 0)
	if n, err := Expire(table, now); n != 4 || err != nil {
		t.Errorf("%d entries expired (%v), want those of two flows", n, err)
	}
	want := `tcp 10.244.0.2:40000 as 192.0.2.1:10001 to 198.51.100.1:443 idle 1h0m0s
udp 10.244.0.3:40002 as 192.0.2.1:10004 to 198.51.100.1:53 idle 1s
icmp 10.244.0.3:7 as 192.0.2.1:10005 to 198.51.100.1:0 idle 0s
`
	check := func(want string) {
		t.Helper()
		flows, err := Flows(table, now)
		var b strings.Builder
		if err := Print(&b, flows); err != nil {
			t.Fatal(err)
		}
		for _, line := range strings.SplitAfter(want, "\n") {
			if !strings.Contains(b.String(), line) {
				t.Errorf("no line %q in (%v)\n%s", line, err, b.String())
			}
		}
		if strings.Count(b.String(), "\n") != strings.Count(want, "\n") {
			t.Errorf("got\n%s\nwant\n%s", b.String(), want)
		}
	}
	check(want)
	if n, err := Forget(table, netip.MustParseAddr("10.244.0.3")); n != 4 || err != nil {
		t.Errorf("%d entries forgotten (%v), want those of two flows", n, err)
	}
	check("tcp 10.244.0.2:40000 as 192.0.2.1:10001 to 198.51.100.1:443 idle 1h0m0s\n")
}
