// Package bpf is the programs that run in the kernel, and their Go bindings.
//
//	in:   the C sources in this folder
//	out:  compiled objects, committed, so that only who changes C needs clang
//
// The programs read the kernel's stable context structures only, so one object
// serves every kernel and needs no relocation. `go generate` with clang 14 gives
// the same bytes on every machine.
//
// An address is 16 bytes in network order everywhere, IPv4 in its IPv4-mapped
// form: one map serves both families, and an application that dials
// ::ffff:10.96.0.1 finds the same entry as one that dials 10.96.0.1. Ports are
// in network order too.
package bpf

import "net/netip"

//go:generate go tool bpf2go -cc clang-14 -strip llvm-strip-14 -target bpfel -go-package bpf Service service.c -- -O2 -Wall -Werror -mcpu=v3 -I/usr/include/x86_64-linux-gnu
//go:generate go tool bpf2go -cc clang-14 -strip llvm-strip-14 -target bpfel -go-package bpf Intercept intercept.c -- -O2 -Wall -Werror -mcpu=v3 -I/usr/include/x86_64-linux-gnu
//go:generate go tool bpf2go -cc clang-14 -strip llvm-strip-14 -target bpfel -go-package bpf Lookup lookup.c -- -O2 -Wall -Werror -mcpu=v3 -I/usr/include/x86_64-linux-gnu
//go:generate go tool bpf2go -cc clang-14 -strip llvm-strip-14 -target bpfel -go-package bpf Sockets sockets.c -- -O2 -Wall -Werror -mcpu=v3 -I/usr/include/x86_64-linux-gnu
//go:generate go tool bpf2go -cc clang-14 -strip llvm-strip-14 -target bpfel -go-package bpf Masquerade masquerade.c -- -O2 -Wall -Werror -mcpu=v3 -I/usr/include/x86_64-linux-gnu

// Addr is an address as the maps have it.
type Addr [16]byte

// FromAddr converts to the maps' form.
func FromAddr(a netip.Addr) Addr { return a.As16() }

// Netip converts back; what was IPv4 is IPv4 again.
func (a Addr) Netip() netip.Addr { return netip.AddrFrom16(a).Unmap() }

// Range is the addresses that agree with Addr where Mask has ones.
type Range struct{ Addr, Mask Addr }

// FromPrefix converts to the maps' form.
func FromPrefix(p netip.Prefix) Range {
	r := Range{Addr: FromAddr(p.Masked().Addr())}
	ones := p.Bits()
	if p.Addr().Is4() {
		ones += 96
	}
	for b := range ones {
		r.Mask[b/8] |= 0x80 >> (b % 8)
	}
	return r
}

// Port is a port in network order.
type Port [2]byte

// FromPort converts to the maps' form.
func FromPort(p uint16) Port { return Port{byte(p >> 8), byte(p)} }

// Host converts back.
func (p Port) Host() uint16 { return uint16(p[0])<<8 | uint16(p[1]) }
