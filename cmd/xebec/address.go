package main

import (
	"errors"
	"fmt"
	"net/netip"

	"github.com/vishvananda/netlink"
)

// findAddress sets the address at which this node is reached: the one given, or
// that of the interface with the default route, or else any that is not loopback.
func (s *settings) findAddress() error {
	if s.Address != "" {
		a, err := netip.ParseAddr(s.Address)
		if err != nil {
			return fmt.Errorf("--address: %q: want an IP address", s.Address)
		}
		s.apiAddress = a
		return nil
	}
	routes, err := netlink.RouteListFiltered(netlink.FAMILY_V4, &netlink.Route{Dst: nil}, netlink.RT_FILTER_DST)
	if err == nil {
		for _, r := range routes {
			if a, ok := addressOf(r.LinkIndex); ok {
				s.apiAddress = a
				return nil
			}
		}
	}
	links, err := netlink.LinkList()
	if err != nil {
		return fmt.Errorf("list network interfaces: %w", err)
	}
	for _, l := range links {
		if a, ok := addressOf(l.Attrs().Index); ok && !a.IsLoopback() {
			s.apiAddress = a
			return nil
		}
	}
	return errors.New("this node has no address but loopback: name one with --address")
}

// addressOf returns the first global IPv4 address of an interface.
func addressOf(index int) (netip.Addr, bool) {
	link, err := netlink.LinkByIndex(index)
	if err != nil {
		return netip.Addr{}, false
	}
	addrs, err := netlink.AddrList(link, netlink.FAMILY_V4)
	if err != nil {
		return netip.Addr{}, false
	}
	for _, a := range addrs {
		if ip, ok := netip.AddrFromSlice(a.IP.To4()); ok && a.Scope == int(netlink.SCOPE_UNIVERSE) {
			return ip, true
		}
	}
	return netip.Addr{}, false
}
