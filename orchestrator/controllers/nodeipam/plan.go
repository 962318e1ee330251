package nodeipam

import (
	"encoding/binary"
	"fmt"
	"math/bits"
	"net/netip"
	"slices"

	corev1 "k8s.io/api/core/v1"
)

// Range is a network of which every node gets a part.
type Range struct {
	Cluster netip.Prefix
	Bits    int // of a node's prefix, such as 24
}

func (r Range) check() error {
	switch {
	case !r.Cluster.IsValid() || r.Cluster != r.Cluster.Masked():
		return fmt.Errorf("pod network %s: the address must be the network's first", r.Cluster)
	case r.Bits <= r.Cluster.Bits() || r.Bits > r.Cluster.Addr().BitLen():
		return fmt.Errorf("pod network %s: a node's prefix of /%d does not fit into it", r.Cluster, r.Bits)
	}
	return nil
}

// size is how many nodes a range serves, capped at 2^32.
func (r Range) size() uint64 { return 1 << min(r.Bits-r.Cluster.Bits(), 32) }

// part returns the prefix of the i-th node.
func (r Range) part(i uint64) netip.Prefix {
	b := r.Cluster.Addr().As16()
	hi, lo := binary.BigEndian.Uint64(b[:8]), binary.BigEndian.Uint64(b[8:])
	shift := uint(r.Cluster.Addr().BitLen() - r.Bits)
	var addLo, addHi uint64
	if shift >= 64 {
		addHi = i << (shift - 64)
	} else {
		addLo, addHi = i<<shift, i>>(64-shift)
	}
	lo, carry := bits.Add64(lo, addLo, 0)
	hi, _ = bits.Add64(hi, addHi, carry)
	binary.BigEndian.PutUint64(b[:8], hi)
	binary.BigEndian.PutUint64(b[8:], lo)
	addr := netip.AddrFrom16(b)
	if r.Cluster.Addr().Is4() {
		addr = addr.Unmap()
	}
	return netip.PrefixFrom(addr, r.Bits)
}

// Plan says which networks a node gets. The zero Plan means converged.
type Plan struct {
	PodCIDRs []string
	Full     *Range // a range with nothing left
}

// compute gives a node without networks the first ones that no other node has.
func compute(node *corev1.Node, all []*corev1.Node, ranges []Range) Plan {
	if len(node.Spec.PodCIDRs) > 0 || node.DeletionTimestamp != nil {
		return Plan{}
	}
	var used []netip.Prefix
	for _, n := range all {
		for _, s := range n.Spec.PodCIDRs {
			if p, err := netip.ParsePrefix(s); err == nil {
				used = append(used, p)
			}
		}
	}
	var p Plan
	for _, r := range ranges {
		free, ok := first(r, used)
		if !ok {
			return Plan{Full: &r}
		}
		p.PodCIDRs = append(p.PodCIDRs, free.String())
	}
	return p
}

func first(r Range, used []netip.Prefix) (netip.Prefix, bool) {
	taken := map[netip.Prefix]bool{}
	var odd []netip.Prefix // of another size, as after the range was changed
	for _, p := range used {
		if taken[p.Masked()] = true; p.Bits() != r.Bits {
			odd = append(odd, p)
		}
	}
	for i := range r.size() {
		p := r.part(i)
		if !taken[p] && !slices.ContainsFunc(odd, p.Overlaps) {
			return p, true
		}
	}
	return netip.Prefix{}, false
}

// String prints one line an action.
func (p Plan) String() string {
	switch {
	case p.Full != nil:
		return fmt.Sprintf("no /%d left in %s\n", p.Full.Bits, p.Full.Cluster)
	case len(p.PodCIDRs) > 0:
		return fmt.Sprintf("give %v\n", p.PodCIDRs)
	}
	return ""
}
