package service

import (
	"cmp"
	"net/netip"

	"github.com/xebec-mesh/xebec/dataplane/bpf"
	"github.com/xebec-mesh/xebec/dataplane/bpfmap"
)

// The types below are the maps' keys and values, as service.c declares them.

// vip is a frontend: where applications connect to.
type vip struct {
	Addr  bpf.Addr
	Port  bpf.Port
	Proto Protocol
	_     uint8
}

func (v vip) addrPort() netip.AddrPort { return netip.AddrPortFrom(v.Addr.Netip(), v.Port.Host()) }

type svc struct {
	ID       uint32
	Count    uint32
	Affinity uint32 // seconds
	_        uint32
}

type slot struct {
	Svc   uint32
	Index uint32
}

type backend struct {
	Addr bpf.Addr
	Port bpf.Port
	_    uint16
}

func makeBackend(a netip.AddrPort) backend {
	return backend{Addr: bpf.FromAddr(a.Addr()), Port: bpf.FromPort(a.Port())}
}

func (b backend) addrPort() netip.AddrPort {
	return netip.AddrPortFrom(b.Addr.Netip(), b.Port.Host())
}

func compareBackends(a, b backend) int {
	if c := cmp.Compare(string(a.Addr[:]), string(b.Addr[:])); c != 0 {
		return c
	}
	return cmp.Compare(a.Port.Host(), b.Port.Host())
}

type member struct {
	Svc     uint32
	Backend backend
}

type ranges struct {
	Count uint32
	Range [4]bpf.Range
}

// tables are the maps that user space writes.
type tables struct {
	services bpfmap.Map[vip, svc]
	backends bpfmap.Map[slot, backend]
	members  bpfmap.Map[member, uint32]
}

// makeRanges converts prefixes to the programs' form; more than four are an error of New.
func makeRanges(prefixes []netip.Prefix) ranges {
	r := ranges{Count: uint32(len(prefixes))}
	for i, p := range prefixes {
		r.Range[i] = bpf.FromPrefix(p)
	}
	return r
}
