package network

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/containernetworking/cni/libcni"
	"github.com/containernetworking/cni/pkg/invoke"
	"github.com/containernetworking/cni/pkg/types"
	types100 "github.com/containernetworking/cni/pkg/types/100"
)

// Plugin is a CNI plugin inside this process. It is called as the specification has
// it: the network configuration, the CNI_* variables; the result in JSON.
type Plugin func(ctx context.Context, stdin []byte, environ []string) ([]byte, error)

// Config says which network pods are connected to.
type Config struct {
	ConfDir  string   // of other people's CNI configuration; default /etc/cni/net.d
	BinDirs  []string // of their plugins; default /opt/cni/bin, /usr/lib/cni
	CacheDir string   // where results are kept for DEL; needed
	Plugin   Plugin   // our own plugin, used when ConfDir has no configuration
	Name     string   // its type in the configuration; default "xebec-cni"
	Log      *slog.Logger
}

// Network connects pods.
type Network struct {
	cfg Config
	cni *libcni.CNIConfig
}

// NewNetwork checks the configuration.
func NewNetwork(cfg Config) (*Network, error) {
	if cfg.CacheDir == "" {
		return nil, errors.New("configure pod network: CacheDir is needed")
	}
	if cfg.ConfDir == "" {
		cfg.ConfDir = "/etc/cni/net.d"
	}
	if len(cfg.BinDirs) == 0 {
		cfg.BinDirs = []string{"/opt/cni/bin", "/usr/lib/cni"}
	}
	if cfg.Name == "" {
		cfg.Name = "xebec-cni"
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	exec := &executor{name: cfg.Name, plugin: cfg.Plugin}
	return &Network{cfg: cfg, cni: libcni.NewCNIConfigWithCacheDir(cfg.BinDirs, cfg.CacheDir, exec)}, nil
}

// Pod identifies who is connected.
type Pod struct {
	UID, Name, Namespace string
	NetNS                string
	PodCIDRs             []string // the node's, for our own plugin
	Ports                []PortMapping
}

// PortMapping is a hostPort.
type PortMapping struct {
	HostPort      int32  `json:"hostPort"`
	ContainerPort int32  `json:"containerPort"`
	Protocol      string `json:"protocol"`
	HostIP        string `json:"hostIP,omitempty"`
}

// Own says whether our own plugin is used rather than one from the configuration folder.
func (n *Network) Own() bool {
	files, err := libcni.ConfFiles(n.cfg.ConfDir, []string{".conf", ".conflist", ".json"})
	return err != nil || len(files) == 0
}

// Ready says why pods cannot be connected, or nil.
func (n *Network) Ready(podCIDRs []string) error {
	_, err := n.list(podCIDRs)
	return err
}

// Add connects a pod and returns its addresses, the first the primary.
func (n *Network) Add(ctx context.Context, p Pod) ([]netip.Addr, error) {
	list, err := n.list(p.PodCIDRs)
	if err != nil {
		return nil, fmt.Errorf("connect pod %s/%s: %w", p.Namespace, p.Name, err)
	}
	res, err := n.cni.AddNetworkList(ctx, list, runtimeConf(p))
	if err != nil {
		// The plugin may have done half of it.
		_ = n.cni.DelNetworkList(context.WithoutCancel(ctx), list, runtimeConf(p))
		return nil, fmt.Errorf("connect pod %s/%s to network %s: %w", p.Namespace, p.Name, list.Name, err)
	}
	r, err := types100.NewResultFromResult(res)
	if err != nil {
		return nil, fmt.Errorf("connect pod %s/%s: read result: %w", p.Namespace, p.Name, err)
	}
	var addrs []netip.Addr
	for _, ip := range r.IPs {
		if a, ok := netip.AddrFromSlice(ip.Address.IP); ok {
			addrs = append(addrs, a.Unmap())
		}
	}
	if len(addrs) == 0 {
		return nil, fmt.Errorf("connect pod %s/%s: network %s gave it no address", p.Namespace, p.Name, list.Name)
	}
	return addrs, nil
}

// Del disconnects a pod. It may be called again.
func (n *Network) Del(ctx context.Context, p Pod) error {
	list, err := n.list(p.PodCIDRs)
	if err != nil {
		return fmt.Errorf("disconnect pod %s/%s: %w", p.Namespace, p.Name, err)
	}
	if err := n.cni.DelNetworkList(ctx, list, runtimeConf(p)); err != nil {
		return fmt.Errorf("disconnect pod %s/%s from network %s: %w", p.Namespace, p.Name, list.Name, err)
	}
	return nil
}

func runtimeConf(p Pod) *libcni.RuntimeConf {
	rt := &libcni.RuntimeConf{
		ContainerID: p.UID, NetNS: p.NetNS, IfName: "eth0",
		Args: [][2]string{
			{"IgnoreUnknown", "1"}, {"K8S_POD_NAMESPACE", p.Namespace}, {"K8S_POD_NAME", p.Name},
			{"K8S_POD_INFRA_CONTAINER_ID", p.UID}, {"K8S_POD_UID", p.UID},
		},
		CapabilityArgs: map[string]any{},
	}
	if len(p.Ports) > 0 {
		rt.CapabilityArgs["portMappings"] = p.Ports
	}
	return rt
}

// list is the first configuration of the folder, by name, else our own.
func (n *Network) list(podCIDRs []string) (*libcni.NetworkConfigList, error) {
	files, err := libcni.ConfFiles(n.cfg.ConfDir, []string{".conf", ".conflist", ".json"})
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("read CNI configuration in %s: %w", n.cfg.ConfDir, err)
	}
	if len(files) > 0 {
		return fromFile(slices.Min(files))
	}
	if n.cfg.Plugin == nil {
		return nil, fmt.Errorf("no CNI configuration in %s", n.cfg.ConfDir)
	}
	if len(podCIDRs) == 0 {
		return nil, errors.New("the node has no pod address range yet (spec.podCIDRs)")
	}
	return n.own(podCIDRs)
}

func fromFile(file string) (*libcni.NetworkConfigList, error) {
	if filepath.Ext(file) == ".conflist" {
		return libcni.ConfListFromFile(file)
	}
	conf, err := libcni.ConfFromFile(file)
	if err != nil {
		return nil, fmt.Errorf("read CNI configuration %s: %w", file, err)
	}
	return libcni.ConfListFromConf(conf)
}

func (n *Network) own(podCIDRs []string) (*libcni.NetworkConfigList, error) {
	var ranges [][]map[string]string
	for _, c := range podCIDRs {
		ranges = append(ranges, []map[string]string{{"subnet": c}})
	}
	conf, err := json.Marshal(map[string]any{
		"cniVersion": "1.0.0", "name": "xebec",
		"plugins": []map[string]any{{"type": n.cfg.Name, "ipam": map[string]any{"type": n.cfg.Name, "ranges": ranges}}},
	})
	if err != nil {
		return nil, err
	}
	return libcni.ConfListFromBytes(conf)
}

// executor runs our own plugin in this process and all others as programs.
type executor struct {
	invoke.DefaultExec
	name   string
	plugin Plugin
}

const inProcess = "in-process:"

// FindInPath finds a plugin's program.
func (e *executor) FindInPath(plugin string, paths []string) (string, error) {
	if e.plugin != nil && plugin == e.name {
		return inProcess + plugin, nil
	}
	return invoke.FindInPath(plugin, paths)
}

// ExecPlugin runs a plugin.
func (e *executor) ExecPlugin(ctx context.Context, path string, stdin []byte, environ []string) ([]byte, error) {
	if strings.HasPrefix(path, inProcess) {
		out, err := e.plugin(ctx, stdin, environ)
		var coded *types.Error
		if err != nil && !errors.As(err, &coded) {
			err = fmt.Errorf("plugin %s: %w", strings.TrimPrefix(path, inProcess), err)
		}
		return out, err
	}
	if e.RawExec == nil {
		return (&invoke.RawExec{Stderr: os.Stderr}).ExecPlugin(ctx, path, stdin, environ)
	}
	return e.DefaultExec.ExecPlugin(ctx, path, stdin, environ)
}
