package network

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// loopbackLink stands for lo: only its index counts.
var loopbackLink = &netlink.Dummy{LinkAttrs: netlink.LinkAttrs{Index: loopback, Name: "lo"}}

// setGateway puts the gateway addresses on loopback, where a node's addresses
// need no driver, and sees to it that packets to pods that are gone do not leave
// the node.
func (n *Network) setGateway() error {
	if err := n.setAddresses(n.Gateways()); err != nil {
		return err
	}
	for _, p := range n.cfg.PodCIDRs {
		p := p.Masked()
		dst := single(p.Addr())
		dst.Mask = maskOf(p.Bits(), p.Addr().BitLen())
		route := &netlink.Route{Dst: dst, Type: unix.RTN_UNREACHABLE, Protocol: protocol, Priority: 4096}
		if err := n.host.RouteReplace(route); err != nil {
			return fmt.Errorf("add unreachable route for %s: %w", p, err)
		}
	}
	return nil
}

// setAddresses makes these, and none of an earlier configuration, the addresses
// of the node in the pod network.
func (n *Network) setAddresses(want []netip.Addr) error {
	file := filepath.Join(n.cfg.State, "gateways.json")
	var before []netip.Addr
	if data, err := os.ReadFile(file); err == nil {
		_ = json.Unmarshal(data, &before) // unreadable: there is nothing to go by
	}
	data, err := json.Marshal(append(slices.Clone(before), want...))
	if err != nil {
		return err
	}
	if err := os.WriteFile(file, data, 0o644); err != nil { // before they are there, so that none is forgotten
		return fmt.Errorf("remember gateway addresses: %w", err)
	}
	for _, a := range want {
		// No source address for anything that does not ask for it: then what the
		// node sends to pods comes from its own address, and a server on the
		// wildcard address answers from the address that the pod called. IPv4
		// passes over addresses of link scope, IPv6 over deprecated ones.
		addr := &netlink.Addr{IPNet: single(a), Flags: unix.IFA_F_NODAD}
		if a.Is4() {
			addr.Scope = int(netlink.SCOPE_LINK)
		} else {
			addr.ValidLft, addr.PreferedLft = math.MaxInt32, 0
		}
		if err := n.host.AddrReplace(loopbackLink, addr); err != nil {
			return fmt.Errorf("add address %s: %w", a, err)
		}
	}
	for _, a := range before {
		err := n.removeAddress(a, want)
		if err != nil {
			return err
		}
	}
	if data, err = json.Marshal(want); err != nil {
		return err
	}
	return os.WriteFile(file, data, 0o644)
}

func (n *Network) removeAddress(a netip.Addr, keep []netip.Addr) error {
	if slices.Contains(keep, a) {
		return nil
	}
	err := n.host.AddrDel(loopbackLink, &netlink.Addr{IPNet: single(a)})
	if err != nil && !errors.Is(err, unix.EADDRNOTAVAIL) {
		return fmt.Errorf("remove address %s: %w", a, err)
	}
	return nil
}

// removeRoutes removes the routes that do not go with an interface.
func (n *Network) removeRoutes() error {
	routes, err := n.host.RouteListFiltered(netlink.FAMILY_ALL, &netlink.Route{Protocol: protocol}, netlink.RT_FILTER_PROTOCOL)
	if err != nil {
		return fmt.Errorf("list routes: %w", err)
	}
	for _, r := range routes {
		if e := n.host.RouteDel(&r); e != nil && !errors.Is(e, unix.ESRCH) {
			err = errors.Join(err, fmt.Errorf("remove route %s: %w", r.Dst, e))
		}
	}
	return err
}

// inNode calls f on a thread in the node's network namespace.
func (n *Network) inNode(f func() error) error {
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // for good: the thread ends with the goroutine
		if err := netns.Set(n.node); err != nil {
			done <- fmt.Errorf("enter the node's network namespace: %w", err)
			return
		}
		done <- f()
	}()
	return <-done
}

// sysctls returns what must be set: forwarding, and router advertisements that
// are still heard on the uplinks, which forwarding would end
// (Documentation/networking/ip-sysctl.rst, accept_ra). On no other interface are
// they heard: a pod must not tell the node where to send packets.
func (n *Network) sysctls(uplinks []netlink.Link) map[string]string {
	want := map[string]string{"ipv4/ip_forward": "1"}
	for _, p := range n.cfg.PodCIDRs {
		if !p.Addr().Is6() {
			continue
		}
		for _, l := range uplinks {
			name := "ipv6/conf/" + l.Attrs().Name + "/accept_ra"
			if v, err := os.ReadFile(sysctlRoot + name); err == nil && strings.TrimSpace(string(v)) == "1" {
				want[name] = "2"
			}
		}
		want["ipv6/conf/all/forwarding"] = "1"
	}
	return want
}

const sysctlRoot = "/proc/sys/net/"

func (n *Network) savedSysctls() string { return filepath.Join(n.cfg.State, "sysctl.json") }

// setSysctls sets what must be, after it has remembered what was, for Reset.
func (n *Network) setSysctls() error {
	uplinks, err := n.findUplinks()
	if err != nil {
		return err
	}
	return n.inNode(func() error {
		before := n.readSaved()
		var change []string
		want := n.sysctls(uplinks)
		for name, value := range want {
			have, err := os.ReadFile(sysctlRoot + name)
			if err != nil {
				return fmt.Errorf("read sysctl net/%s: %w", name, err)
			}
			if strings.TrimSpace(string(have)) == value {
				continue
			}
			change = append(change, name)
			if _, ok := before[name]; !ok {
				before[name] = strings.TrimSpace(string(have))
			}
		}
		if len(change) == 0 {
			return nil
		}
		data, err := json.Marshal(before)
		if err == nil {
			err = os.WriteFile(n.savedSysctls(), data, 0o644)
		}
		for _, name := range change {
			err = errors.Join(err, os.WriteFile(sysctlRoot+name, []byte(want[name]), 0))
		}
		return err
	})
}

func (n *Network) readSaved() map[string]string {
	saved := map[string]string{}
	if data, err := os.ReadFile(n.savedSysctls()); err == nil {
		_ = json.Unmarshal(data, &saved) // unreadable: nothing can be restored
	}
	return saved
}

func (n *Network) restoreSysctls() error {
	return n.inNode(func() error {
		var err error
		for name, value := range n.readSaved() {
			e := os.WriteFile(sysctlRoot+name, []byte(value), 0)
			if e != nil && !errors.Is(e, fs.ErrNotExist) {
				err = errors.Join(err, fmt.Errorf("restore sysctl net/%s: %w", name, e))
			}
		}
		return err
	})
}
