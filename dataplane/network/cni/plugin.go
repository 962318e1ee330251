// Package cni speaks the Container Network Interface, version 1.1 and earlier,
// for dataplane/network.
//
//	in:   a command (ADD, DEL, CHECK, GC, STATUS, VERSION), its variables and a network configuration
//	out:  CNI results and errors
//
// The program cmd/xebec-cni and a call inside of xebec are two doors to the same
// Plugin. Specification: https://www.cni.dev/docs/spec/
package cni

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"

	"github.com/containernetworking/cni/pkg/types"
	types100 "github.com/containernetworking/cni/pkg/types/100"
	"github.com/containernetworking/cni/pkg/version"

	"github.com/xebec-mesh/xebec/dataplane/network"
)

// Type is the plugin's name in a network configuration.
const Type = "xebec-cni"

// Network is what a Plugin needs of a pod network.
type Network interface {
	Add(ctx context.Context, a network.Attachment) (*network.Interface, error)
	Del(ctx context.Context, a network.Attachment) error
	Check(ctx context.Context, a network.Attachment) error
	Retain(ctx context.Context, ids []string) error
	Ready() error
}

// Plugin answers CNI commands.
type Plugin struct {
	// Open returns the network that a configuration describes, and what to call
	// when the command is done. It is not called for VERSION.
	Open func(conf *Config) (n Network, done func(), err error)
}

// Config is the plugin's part of a network configuration. Pod ranges are where
// the host-local plugin has them, in ipam.ranges.
type Config struct {
	types.PluginConf
	State string `json:"state,omitempty"` // directory of leases; default as in network.Config
	Pins  string `json:"pins,omitempty"`
	MTU   int    `json:"mtu,omitempty"`
	IPAM  struct {
		Ranges [][]struct {
			Subnet string `json:"subnet"`
		} `json:"ranges"`
	} `json:"ipam"`
}

// PodCIDRs are the ranges of the configuration.
func (c *Config) PodCIDRs() ([]netip.Prefix, error) {
	var out []netip.Prefix
	for i, set := range c.IPAM.Ranges {
		for j, r := range set {
			p, err := netip.ParsePrefix(r.Subnet)
			if err != nil {
				return nil, fmt.Errorf("ipam.ranges[%d][%d].subnet: %q: want a range such as 10.244.0.0/24", i, j, r.Subnet)
			}
			out = append(out, p)
		}
	}
	return out, nil
}

var versions = version.PluginSupports("0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0")

// Call runs a command: environ has its CNI_ variables, stdin the configuration.
// An error is a *types.Error.
func (p *Plugin) Call(ctx context.Context, stdin []byte, environ []string) ([]byte, error) {
	out, err := p.call(ctx, stdin, environ)
	var coded *types.Error
	if err != nil && !errors.As(err, &coded) {
		err = types.NewError(types.ErrInternal, err.Error(), "")
	}
	return out, err
}

// needs are the variables that a command must have (specification, section 2).
var needs = map[string][]string{
	"ADD":    {"CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME"},
	"CHECK":  {"CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME"},
	"DEL":    {"CNI_CONTAINERID", "CNI_IFNAME"},
	"GC":     nil,
	"STATUS": nil,
}

func (p *Plugin) call(ctx context.Context, stdin []byte, environ []string) ([]byte, error) {
	env := map[string]string{}
	for _, kv := range environ {
		if k, v, ok := strings.Cut(kv, "="); ok {
			env[k] = v
		}
	}
	command := env["CNI_COMMAND"]
	if command == "VERSION" {
		return json.Marshal(versions)
	}
	required, known := needs[command]
	if !known {
		return nil, types.NewError(types.ErrInvalidEnvironmentVariables, fmt.Sprintf("unknown CNI_COMMAND: %q", command), "")
	}
	for _, name := range required {
		if env[name] == "" {
			return nil, types.NewError(types.ErrInvalidEnvironmentVariables, "required env variable "+name+" missing", "")
		}
	}
	conf, err := decode(stdin)
	if err != nil {
		return nil, err
	}
	n, done, err := p.Open(conf)
	if err != nil {
		return nil, err
	}
	defer done()
	a := network.Attachment{ID: env["CNI_CONTAINERID"], NetNS: env["CNI_NETNS"], IfName: env["CNI_IFNAME"]}
	return run(ctx, n, command, a, conf)
}

func decode(stdin []byte) (*Config, error) {
	conf := &Config{}
	if err := json.Unmarshal(stdin, conf); err != nil {
		return nil, types.NewError(types.ErrDecodingFailure, "decode network configuration", err.Error())
	}
	if conf.CNIVersion == "" {
		conf.CNIVersion = "0.3.0"
	}
	for _, v := range versions.SupportedVersions() {
		if v == conf.CNIVersion {
			return conf, nil
		}
	}
	return nil, types.NewError(types.ErrIncompatibleCNIVersion, fmt.Sprintf("cniVersion %q is not supported", conf.CNIVersion),
		"supported are "+strings.Join(versions.SupportedVersions(), ", "))
}

func run(ctx context.Context, n Network, command string, a network.Attachment, conf *Config) ([]byte, error) {
	switch command {
	case "ADD":
		i, err := n.Add(ctx, a)
		if err != nil {
			return nil, err
		}
		r, err := result(a, i).GetAsVersion(conf.CNIVersion)
		if err != nil {
			return nil, err
		}
		return json.Marshal(r)
	case "DEL":
		return nil, n.Del(ctx, a)
	case "CHECK":
		return nil, n.Check(ctx, a)
	case "GC":
		if conf.ValidAttachments == nil {
			return nil, types.NewError(types.ErrInvalidNetworkConfig, "GC needs cni.dev/valid-attachments", "")
		}
		var ids []string
		for _, valid := range conf.ValidAttachments {
			ids = append(ids, valid.ContainerID)
		}
		return nil, n.Retain(ctx, ids)
	default: // STATUS
		if err := n.Ready(); err != nil {
			return nil, types.NewError(50, "the plugin is not available", err.Error()) // specification, section 2: STATUS
		}
		return nil, nil
	}
}

func result(a network.Attachment, i *network.Interface) *types100.Result {
	pod := 1 // the second interface below
	r := &types100.Result{
		CNIVersion: types100.ImplementedSpecVersion,
		Interfaces: []*types100.Interface{{Name: i.HostName}, {Name: a.IfName, Mac: i.MAC, Mtu: i.MTU, Sandbox: a.NetNS}},
	}
	for n, p := range i.Addrs {
		gw := i.Gateways[n]
		everything := net.IPNet{IP: make(net.IP, gw.BitLen()/8), Mask: net.CIDRMask(0, gw.BitLen())}
		r.IPs = append(r.IPs, &types100.IPConfig{
			Interface: &pod, Gateway: gw.AsSlice(),
			Address: net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())},
		})
		r.Routes = append(r.Routes, &types.Route{Dst: everything, GW: gw.AsSlice()})
	}
	return r
}
