package network

import (
	"context"
	"encoding/json"
	"net"
	"strings"

	"github.com/containernetworking/cni/pkg/types"
	types100 "github.com/containernetworking/cni/pkg/types/100"

	"github.com/xebec-mesh/xebec/dataplane/network"
)

// Attacher is the dataplane's pod network.
type Attacher interface {
	Add(ctx context.Context, a network.Attachment) (*network.Interface, error)
	Del(ctx context.Context, a network.Attachment) error
	Check(ctx context.Context, a network.Attachment) error
}

// Own makes the dataplane's pod network a CNI plugin.
func Own(n Attacher) Plugin {
	return func(ctx context.Context, stdin []byte, environ []string) ([]byte, error) {
		var conf struct{ CNIVersion string }
		if err := json.Unmarshal(stdin, &conf); err != nil {
			return nil, types.NewError(types.ErrDecodingFailure, "decode network configuration", err.Error())
		}
		env := map[string]string{}
		for _, kv := range environ {
			k, v, _ := strings.Cut(kv, "=")
			env[k] = v
		}
		a := network.Attachment{ID: env["CNI_CONTAINERID"], NetNS: env["CNI_NETNS"], IfName: env["CNI_IFNAME"]}
		switch env["CNI_COMMAND"] {
		case "ADD":
			i, err := n.Add(ctx, a)
			if err != nil {
				return nil, err
			}
			return json.Marshal(result(conf.CNIVersion, a, i))
		case "DEL":
			return nil, n.Del(ctx, a)
		case "CHECK":
			return nil, n.Check(ctx, a)
		}
		return nil, nil
	}
}

func result(version string, a network.Attachment, i *network.Interface) *types100.Result {
	at := 1
	r := &types100.Result{
		CNIVersion: version,
		Interfaces: []*types100.Interface{{Name: i.HostName}, {Name: a.IfName, Mac: i.MAC, Mtu: i.MTU, Sandbox: a.NetNS}},
	}
	for n, p := range i.Addrs {
		ip := &types100.IPConfig{
			Interface: &at, Address: net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())},
		}
		if n < len(i.Gateways) {
			ip.Gateway = i.Gateways[n].AsSlice()
		}
		r.IPs = append(r.IPs, ip)
	}
	return r
}
