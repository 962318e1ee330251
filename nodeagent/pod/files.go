package pod

import (
	"bufio"
	"fmt"
	"os"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
)

// hostname is the pod's own, at most as long as Linux takes.
func hostname(pod *corev1.Pod, host Host) (name, fqdn string) {
	if pod.Spec.HostnameOverride != nil && *pod.Spec.HostnameOverride != "" {
		return *pod.Spec.HostnameOverride, ""
	}
	if pod.Spec.HostNetwork {
		n, err := os.Hostname()
		if err != nil {
			n = host.Name
		}
		return n, ""
	}
	name = pod.Spec.Hostname
	if name == "" {
		name = pod.Name
	}
	if len(name) > 63 {
		name = strings.TrimRight(name[:63], "-.")
	}
	if pod.Spec.Subdomain != "" {
		fqdn = fmt.Sprintf("%s.%s.%s.svc.%s", name, pod.Spec.Subdomain, pod.Namespace, host.Domain)
		if isTrue(pod.Spec.SetHostnameAsFQDN) {
			name = fqdn
		}
	}
	return name, fqdn
}

func isTrue(b *bool) bool { return b != nil && *b }

// hostsFile is what a pod sees as /etc/hosts.
func hostsFile(pod *corev1.Pod, ips []string, name, fqdn string) string {
	var b strings.Builder
	b.WriteString("# Kubernetes-managed hosts file.\n")
	b.WriteString("127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n")
	b.WriteString("fe00::\tip6-localnet\nfe00::\tip6-mcastprefix\nfe00::1\tip6-allnodes\nfe00::2\tip6-allrouters\n")
	for _, ip := range ips {
		if fqdn != "" {
			fmt.Fprintf(&b, "%s\t%s\t%s\n", ip, fqdn, strings.TrimSuffix(name, strings.TrimPrefix(fqdn, name)))
		} else {
			fmt.Fprintf(&b, "%s\t%s\n", ip, name)
		}
	}
	if len(pod.Spec.HostAliases) > 0 {
		b.WriteString("\n# Entries added by HostAliases.\n")
		for _, a := range pod.Spec.HostAliases {
			fmt.Fprintf(&b, "%s\t%s\n", a.IP, strings.Join(a.Hostnames, "\t"))
		}
	}
	return b.String()
}

// resolver is the content of a resolv.conf.
type resolver struct{ servers, search, options []string }

func (r resolver) String() string {
	var b strings.Builder
	if len(r.search) > 0 {
		fmt.Fprintf(&b, "search %s\n", strings.Join(r.search, " "))
	}
	for _, s := range r.servers {
		fmt.Fprintf(&b, "nameserver %s\n", s)
	}
	if len(r.options) > 0 {
		fmt.Fprintf(&b, "options %s\n", strings.Join(r.options, " "))
	}
	return b.String()
}

func parseResolver(text string) resolver {
	var r resolver
	s := bufio.NewScanner(strings.NewReader(text))
	for s.Scan() {
		f := strings.Fields(s.Text())
		if len(f) < 2 || strings.HasPrefix(f[0], "#") || strings.HasPrefix(f[0], ";") {
			continue
		}
		switch f[0] {
		case "nameserver":
			r.servers = append(r.servers, f[1])
		case "search", "domain":
			r.search = f[1:]
		case "options":
			r.options = append(r.options, f[1:]...)
		}
	}
	return r
}

// resolvConf is what a pod sees as /etc/resolv.conf, by its DNS policy. node is
// the node's own file.
func resolvConf(pod *corev1.Pod, host Host, node string) string {
	own := parseResolver(node)
	r := own
	policy := pod.Spec.DNSPolicy
	switch {
	case policy == corev1.DNSNone:
		r = resolver{}
	case policy == corev1.DNSDefault, policy == corev1.DNSClusterFirst && pod.Spec.HostNetwork, len(host.DNS) == 0:
	default:
		r = resolver{
			servers: host.DNS,
			search: append([]string{
				pod.Namespace + ".svc." + host.Domain, "svc." + host.Domain, host.Domain,
			}, own.search...),
			options: []string{"ndots:5"},
		}
	}
	if c := pod.Spec.DNSConfig; c != nil {
		r.servers = unique(append(slices.Clone(r.servers), c.Nameservers...))
		r.search = unique(append(slices.Clone(r.search), c.Searches...))
		for _, o := range c.Options {
			r.options = slices.DeleteFunc(slices.Clone(r.options), func(s string) bool {
				name, _, _ := strings.Cut(s, ":")
				return name == o.Name
			})
			if o.Value != nil {
				r.options = append(r.options, o.Name+":"+*o.Value)
			} else {
				r.options = append(r.options, o.Name)
			}
		}
	}
	if len(r.servers) > 3 {
		r.servers = r.servers[:3] // what resolvers take
	}
	return r.String()
}

func unique(s []string) []string {
	seen := map[string]bool{}
	return slices.DeleteFunc(s, func(v string) bool {
		was := seen[v]
		seen[v] = true
		return was
	})
}
