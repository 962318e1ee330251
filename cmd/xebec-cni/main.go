// Xebec-cni is the CNI plugin for runtimes that are not part of xebec: put it into
// their folder of plugins, and a configuration with "type": "xebec-cni" and the
// node's pod ranges in ipam.ranges beside it. A running xebec keeps the network
// itself; this program only attaches and detaches pods.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/containernetworking/cni/pkg/types"

	"github.com/xebec-mesh/xebec/dataplane/network"
	"github.com/xebec-mesh/xebec/dataplane/network/cni"
)

func main() {
	if err := run(); err != nil {
		var coded *types.Error
		if !errors.As(err, &coded) {
			coded = types.NewError(types.ErrInternal, err.Error(), "")
		}
		_ = coded.Print() // to stdout, as the specification has it
		os.Exit(1)
	}
}

func run() error {
	stdin, err := io.ReadAll(os.Stdin)
	if err != nil {
		return types.NewError(types.ErrIOFailure, "read network configuration", err.Error())
	}
	plugin := cni.Plugin{Open: open}
	out, err := plugin.Call(context.Background(), stdin, os.Environ())
	if err != nil {
		return err
	}
	if _, err := os.Stdout.Write(out); err != nil {
		return fmt.Errorf("write result: %w", err)
	}
	return nil
}

func open(conf *cni.Config) (cni.Network, func(), error) {
	ranges, err := conf.PodCIDRs()
	if err != nil || len(ranges) == 0 {
		return nil, nil, types.NewError(types.ErrInvalidNetworkConfig, "the configuration names no pod range", fmt.Sprint(err))
	}
	n, err := network.New(network.Config{State: conf.State, Pins: conf.Pins, MTU: conf.MTU, PodCIDRs: ranges})
	if err != nil {
		return nil, nil, types.NewError(types.ErrInvalidNetworkConfig, err.Error(), "")
	}
	if err := n.Join(); err != nil {
		return nil, nil, err
	}
	return n, func() { _ = n.Close() }, nil
}
