package intercept

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"path/filepath"
	"strings"

	"github.com/xebec-mesh/xebec/dataplane/bpf"
)

// The types below are the maps' keys and values, as intercept.c declares them.

type podValue struct {
	Outbound, Inbound bpf.Port
	Flags             uint32
}

const onlyIncluded = 1

type direction uint16

const (
	outbound direction = iota
	inbound
)

type portKey struct {
	NetNS     uint64
	Port      bpf.Port
	Direction direction
	_         uint32
}

type prefixKey struct {
	Bits  uint32
	NetNS [8]byte // as the kernel has it in memory
	Addr  bpf.Addr
}

const (
	excluded uint8 = iota + 1
	included
)

// rules are the table entries of one pod.
type rules struct {
	pod      podValue
	ports    map[portKey]uint8
	prefixes map[prefixKey]uint8
}

// makeRules says what the tables should hold for a pod whose network namespace has
// this cookie.
func makeRules(p Pod, cookie uint64) rules {
	r := rules{
		pod:      podValue{Outbound: bpf.FromPort(p.OutboundPort), Inbound: bpf.FromPort(p.InboundPort)},
		ports:    map[portKey]uint8{},
		prefixes: map[prefixKey]uint8{},
	}
	for _, port := range p.ExcludeOutboundPorts {
		r.ports[portKey{NetNS: cookie, Port: bpf.FromPort(port), Direction: outbound}] = 1
	}
	for _, port := range p.ExcludeInboundPorts {
		r.ports[portKey{NetNS: cookie, Port: bpf.FromPort(port), Direction: inbound}] = 1
	}
	for _, prefix := range p.IncludeOutbound {
		r.prefixes[makePrefix(prefix, cookie)] = included
	}
	for _, prefix := range p.ExcludeOutbound { // wins over the same one included
		r.prefixes[makePrefix(prefix, cookie)] = excluded
	}
	if len(p.IncludeOutbound) > 0 {
		r.pod.Flags |= onlyIncluded
	}
	return r
}

func makePrefix(p netip.Prefix, cookie uint64) prefixKey {
	p = p.Masked()
	bits := p.Bits()
	if p.Addr().Is4() {
		bits += 96
	}
	return prefixKey{Bits: 64 + uint32(bits), NetNS: inMemory(cookie), Addr: bpf.FromAddr(p.Addr())}
}

func inMemory(cookie uint64) (b [8]byte) {
	binary.NativeEndian.PutUint64(b[:], cookie)
	return b
}

// check fills in what the pod leaves open, or says what is wrong with it.
func (p *Pod) check() error {
	if p.UID == "" || strings.ContainsAny(p.UID, "./") {
		return fmt.Errorf("uid %q: want letters, digits and dashes", p.UID)
	}
	if p.NetNS == "" {
		return fmt.Errorf("pod %s has no network namespace", p.UID)
	}
	if p.OutboundPort == 0 {
		p.OutboundPort = 15001
	}
	if p.InboundPort == 0 {
		p.InboundPort = 15006
	}
	return nil
}

// A pod's links are pinned at links/<uid>/<cookie of the network namespace>/<name>:
// the names are "lookup" and, for each container, <cgroup id>_<hook>. So the pins
// alone tell the next process everything.

func podDir(pins, uid string) string { return filepath.Join(pins, "links", uid) }

func netnsDir(pins, uid string, cookie uint64) string {
	return filepath.Join(podDir(pins, uid), fmt.Sprintf("%x", cookie))
}

const lookupPin = "lookup"

func hookPin(cgroupID uint64, hook string) string { return fmt.Sprintf("%x_%s", cgroupID, hook) }

// hookOf is the hook in a pin's name, "" for others.
func hookOf(pin string) string {
	_, hook, _ := strings.Cut(pin, "_")
	return hook
}
