package cni

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containernetworking/cni/libcni"
	"github.com/containernetworking/cni/pkg/types"
	types100 "github.com/containernetworking/cni/pkg/types/100"

	"github.com/xebec-mesh/xebec/dataplane/kernel/kerneltest"
	"github.com/xebec-mesh/xebec/dataplane/network"
	"github.com/xebec-mesh/xebec/tests/script"
)

// memory is a pod network that only remembers.
type memory struct{ pods map[string]bool }

func (m *memory) Add(_ context.Context, a network.Attachment) (*network.Interface, error) {
	if a.NetNS == "/none" {
		return nil, errors.New("no such network namespace")
	}
	m.pods[a.ID] = true
	return &network.Interface{
		Addrs:    []netip.Prefix{netip.MustParsePrefix("10.244.0.2/32"), netip.MustParsePrefix("fd00::2/128")},
		Gateways: []netip.Addr{netip.MustParseAddr("10.244.0.1"), netip.MustParseAddr("fd00::1")},
		MAC:      "0a:00:00:00:00:01", HostName: "xb0", MTU: 1400,
	}, nil
}

func (m *memory) Del(_ context.Context, a network.Attachment) error {
	delete(m.pods, a.ID)
	return nil
}

func (m *memory) Check(_ context.Context, a network.Attachment) error {
	if !m.pods[a.ID] {
		return errors.New("not attached")
	}
	return nil
}

func (m *memory) Retain(_ context.Context, ids []string) error {
	keep := map[string]bool{}
	for _, id := range ids {
		keep[id] = m.pods[id]
	}
	m.pods = keep
	return nil
}

func (m *memory) Ready() error {
	if len(m.pods) > 2 {
		return errors.New("full")
	}
	return nil
}

// TestScripts: cni COMMAND CONTAINER NETNS CONFIG prints what the plugin does.
func TestScripts(t *testing.T) {
	script.Run(t, "testdata/*.txtar", func(t *testing.T) map[string]script.Command {
		m := &memory{pods: map[string]bool{}}
		p := Plugin{Open: func(*Config) (Network, func(), error) { return m, func() {}, nil }}
		return map[string]script.Command{
			"cni": func(s *script.State, args []string) (string, error) {
				conf, err := s.File(args[3])
				if err != nil {
					return "", err
				}
				env := []string{"CNI_COMMAND=" + args[0], "CNI_IFNAME=eth0"}
				for i, name := range []string{"CNI_CONTAINERID", "CNI_NETNS"} {
					if args[i+1] != "-" {
						env = append(env, name+"="+args[i+1])
					}
				}
				out, err := p.Call(context.Background(), conf, env)
				var coded *types.Error
				if errors.As(err, &coded) {
					return "", fmt.Errorf("code %d: %s: %s", coded.Code, coded.Msg, coded.Details)
				}
				return indent(out), err
			},
		}
	})
}

func indent(data []byte) string {
	var v any
	if json.Unmarshal(data, &v) != nil {
		return string(data)
	}
	out, _ := json.MarshalIndent(v, "", " ")
	return string(out) + "\n"
}

// TestProgram runs the program by libcni, as another runtime would.
func TestProgram(t *testing.T) {
	kerneltest.Root(t)
	if testing.Short() {
		t.Skip("builds a program")
	}
	node, pod := kerneltest.NewNetNS(t), kerneltest.NewNetNS(t)
	bin, state, pins := t.TempDir(), t.TempDir(), kerneltest.Pins(t)
	build := exec.Command("go", "build", "-o", filepath.Join(bin, "real"), "../../../cmd/xebec-cni")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
	wrapper := fmt.Sprintf("#!/bin/sh\nexec nsenter --net=%s %s/real\n", node.Path, bin)
	if err := os.WriteFile(filepath.Join(bin, Type), []byte(wrapper), 0o755); err != nil {
		t.Fatal(err)
	}
	conf := fmt.Sprintf(`{"cniVersion": "1.1.0", "name": "pods", "plugins": [{"type": %q, "state": %q, "pins": %q,
		"ipam": {"ranges": [[{"subnet": "10.244.0.0/24"}], [{"subnet": "fd00:10:244::/64"}]]}}]}`, Type, state, pins)
	list, err := libcni.ConfListFromBytes([]byte(conf))
	if err != nil {
		t.Fatal(err)
	}
	ctx := context.Background()
	c := libcni.NewCNIConfigWithCacheDir([]string{bin}, t.TempDir(), nil)
	rt := &libcni.RuntimeConf{ContainerID: "box", NetNS: pod.Path, IfName: "eth0"}
	if err := c.GetStatusNetworkList(ctx, list); err == nil || !strings.Contains(err.Error(), "has not opened the network") {
		t.Errorf("status before xebec: %v", err)
	}
	n, err := network.New(network.Config{
		State: state, Pins: pins, Node: node.Path, Log: slog.New(slog.DiscardHandler),
		PodCIDRs: []netip.Prefix{netip.MustParsePrefix("10.244.0.0/24"), netip.MustParsePrefix("fd00:10:244::/64")},
	})
	if err == nil {
		err = n.Open()
	}
	if err != nil {
		t.Fatal(err)
	}
	defer n.Close()
	if err := c.GetStatusNetworkList(ctx, list); err != nil {
		t.Errorf("status: %v", err)
	}
	res, err := c.AddNetworkList(ctx, list, rt)
	if err != nil {
		t.Fatal(err)
	}
	r, err := types100.NewResultFromResult(res)
	if err != nil || len(r.IPs) != 2 || r.IPs[0].Address.String() != "10.244.0.2/32" {
		t.Fatalf("result %+v, %v", r, err)
	}
	if err := c.CheckNetworkList(ctx, list, rt); err != nil {
		t.Errorf("check: %v", err)
	}
	if err := n.Check(ctx, network.Attachment{ID: "box", NetNS: pod.Path}); err != nil {
		t.Errorf("xebec does not know what its plugin attached: %v", err)
	}
	if err := c.GCNetworkList(ctx, list, &libcni.GCArgs{ValidAttachments: []types.GCAttachment{{ContainerID: "box", IfName: "eth0"}}}); err != nil {
		t.Errorf("collect garbage: %v", err)
	}
	if err := c.CheckNetworkList(ctx, list, rt); err != nil {
		t.Errorf("check after garbage collection: %v", err)
	}
	for range 2 {
		if err := c.DelNetworkList(ctx, list, rt); err != nil {
			t.Errorf("delete: %v", err)
		}
	}
	if err := n.Check(ctx, network.Attachment{ID: "box", NetNS: pod.Path}); err == nil {
		t.Error("still attached after DEL")
	}
}

// FuzzCall: whatever a runtime sends, the answer is a result or a coded error.
func FuzzCall(f *testing.F) {
	f.Add([]byte(`{"cniVersion": "1.1.0", "name": "pods", "type": "xebec-cni"}`), "ADD", "box", "/run/netns/a")
	f.Add([]byte(`{"cniVersion": "1.1.0", "cni.dev/valid-attachments": [{"containerID": "a", "ifname": "b"}]}`), "GC", "", "")
	f.Add([]byte(`{`), "DEL", "box", "")
	f.Fuzz(func(t *testing.T, stdin []byte, command, id, netns string) {
		m := &memory{pods: map[string]bool{}}
		p := Plugin{Open: func(c *Config) (Network, func(), error) {
			_, err := c.PodCIDRs()
			return m, func() {}, err
		}}
		_, err := p.Call(context.Background(), stdin, []string{"CNI_COMMAND=" + command, "CNI_CONTAINERID=" + id, "CNI_NETNS=" + netns, "CNI_IFNAME=eth0"})
		var coded *types.Error
		if err != nil && !errors.As(err, &coded) {
			t.Errorf("an error without a code: %v", err)
		}
	})
}
