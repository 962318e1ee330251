package network

import (
	"errors"
	"fmt"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/xebec-mesh/xebec/dataplane/conntrack"
)

// dyingGroup is the group of interfaces that wait for their removal.
//
// The kernel takes some 20 ms to remove an interface, most of them waiting, and
// holds the one lock of all network configuration meanwhile: pods that start
// would wait for each pod that ends. It removes a whole group in the same time.
// So Del only takes a pod's routes away and puts its interface into the group;
// Run removes the group, and Open what was left in it.
const dyingGroup = 0x7862

// retire takes an interface out of use and leaves its removal to Run. Without Run
// it is removed at once.
func (n *Network) retire(name string) error {
	if !n.running.Load() {
		return removeLink(n.host, name)
	}
	link, err := n.host.LinkByName(name)
	if isNotFound(err) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("find interface %s: %w", name, err)
	}
	routes, err := n.host.RouteListFiltered(netlink.FAMILY_ALL, &netlink.Route{LinkIndex: link.Attrs().Index, Protocol: protocol},
		netlink.RT_FILTER_OIF|netlink.RT_FILTER_PROTOCOL)
	if err != nil {
		return fmt.Errorf("list routes of interface %s: %w", name, err)
	}
	for _, r := range routes {
		if err := n.host.RouteDel(&r); err != nil && !errors.Is(err, unix.ESRCH) {
			return fmt.Errorf("remove route %s: %w", r.Dst, err)
		}
	}
	if err := n.host.LinkSetGroup(link, dyingGroup); err != nil && !errors.Is(err, unix.ENODEV) {
		return fmt.Errorf("retire interface %s: %w", name, err)
	}
	select {
	case n.dying <- struct{}{}:
	default: // Run has not begun with the last one, and will see this too
	}
	return nil
}

// reap removes the group.
func (n *Network) reap() error {
	return n.inNode(func() error {
		req := nl.NewNetlinkRequest(unix.RTM_DELLINK, unix.NLM_F_ACK)
		req.AddData(nl.NewIfInfomsg(unix.AF_UNSPEC))
		req.AddData(nl.NewRtAttr(unix.IFLA_GROUP, nl.Uint32Attr(dyingGroup)))
		_, err := req.Execute(unix.NETLINK_ROUTE, 0)
		if err != nil && !errors.Is(err, unix.ENODEV) { // an empty group
			return fmt.Errorf("remove retired interfaces: %w", err)
		}
		return nil
	})
}

// forgetFlows removes the translations of a pod's addresses: the next pod that
// has them must not get answers to it.
func (n *Network) forgetFlows(index int) error {
	if n.flows == nil {
		return nil
	}
	var err error
	for _, p := range n.cfg.PodCIDRs {
		_, forgetErr := conntrack.Forget(n.flows, nth(p, index))
		err = errors.Join(err, forgetErr)
	}
	return err
}
