package clusterip

import (
	"encoding/binary"
	"fmt"
	"math/bits"
	"net/netip"
)

// space is a range of addresses to give out. The first and, in IPv4, the last
// address of the prefix are never given, and the lowest ones only to those who
// ask for them, or when nothing else is left.
type space struct {
	prefix netip.Prefix
	size   uint64 // addresses that may be given; the offsets are 1..size
	low    uint64 // the highest offset of the lower band
	next   uint64 // where the search goes on, so that an address rests before it is used again
}

const (
	maxSize = 1 << 20 // addresses used of a larger prefix
	minLow  = 16
	maxLow  = 256
)

func newSpace(p netip.Prefix, start uint64) (*space, error) {
	p = p.Masked()
	hostBits := p.Addr().BitLen() - p.Bits()
	if !p.IsValid() || hostBits < 2 {
		return nil, fmt.Errorf("service range %s: too small, at least 4 addresses are needed", p)
	}
	size := uint64(maxSize)
	if hostBits < bits.Len(maxSize) {
		size = 1 << hostBits
	}
	size--
	if p.Addr().Is4() && hostBits < bits.Len(maxSize) {
		size-- // broadcast
	}
	s := &space{prefix: p, size: size, low: min(max(minLow, size/16), maxLow)}
	if s.low >= size {
		s.low = 0
	}
	s.next = start % (size - s.low)
	return s, nil
}

// at gives the address at an offset from the prefix's own.
func (s *space) at(offset uint64) netip.Addr {
	if s.prefix.Addr().Is4() {
		b := s.prefix.Addr().As4()
		binary.BigEndian.PutUint32(b[:], binary.BigEndian.Uint32(b[:])+uint32(offset))
		return netip.AddrFrom4(b)
	}
	b := s.prefix.Addr().As16()
	binary.BigEndian.PutUint64(b[8:], binary.BigEndian.Uint64(b[8:])+offset)
	return netip.AddrFrom16(b)
}

// find gives an address that is free: of the upper band, going round, else the
// highest of the lower band.
func (s *space) find(free func(netip.Addr) bool) (netip.Addr, bool) {
	upper := s.size - s.low
	for range upper {
		a := s.at(s.low + 1 + s.next)
		s.next = (s.next + 1) % upper
		if free(a) {
			return a, true
		}
	}
	for o := s.low; o > 0; o-- {
		if a := s.at(o); free(a) {
			return a, true
		}
	}
	return netip.Addr{}, false
}
