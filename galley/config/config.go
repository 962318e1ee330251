// Package config is mesh configuration in the form in which it takes effect.
//
//	in:   API objects of istio.io/client-go, already admitted
//	out:  one immutable value for each, with hosts fully qualified and defaults filled
//
// A value is made once per version of an object and never changed. The upstream
// type stays reachable as Spec: it must not be modified.
package config

import (
	"strings"

	networking "istio.io/api/networking/v1alpha3"
	security "istio.io/api/security/v1beta1"
	networkingv1 "istio.io/client-go/pkg/apis/networking/v1"
	securityv1 "istio.io/client-go/pkg/apis/security/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Ref names the object that something comes from.
type Ref struct {
	Kind       string
	Namespace  string
	Name       string
	Generation int64 // of the version meant
}

func (r Ref) String() string { return r.Kind + "/" + r.Namespace + "/" + r.Name }

// Meta is what every configuration object has.
type Meta struct {
	Ref
	Created int64 // seconds since 1970: the older of two wins
}

// Older orders two objects by who wins where only one can.
func (m Meta) Older(o Meta) int {
	switch {
	case m.Created != o.Created:
		if m.Created < o.Created {
			return -1
		}
		return 1
	case m.Namespace != o.Namespace:
		return strings.Compare(m.Namespace, o.Namespace)
	}
	return strings.Compare(m.Name, o.Name)
}

func metaOf(kind string, o metav1.Object) Meta {
	return Meta{
		Ref:     Ref{kind, o.GetNamespace(), o.GetName(), o.GetGeneration()},
		Created: o.GetCreationTimestamp().Unix(),
	}
}

// MeshGateway is the name by which routes mean the sidecars.
const MeshGateway = "mesh"

// VirtualService with its hosts qualified.
type VirtualService struct {
	Meta
	Hosts    []string
	Gateways []string // at least one; "mesh" or namespace/name
	Exports  Exports
	Spec     *networking.VirtualService
}

// DestinationRule with its host qualified.
type DestinationRule struct {
	Meta
	Host    string
	Exports Exports
	Spec    *networking.DestinationRule
}

// PeerAuthentication as written.
type PeerAuthentication struct {
	Meta
	Spec *security.PeerAuthentication
}

// Sidecar as written.
type Sidecar struct {
	Meta
	Spec *networking.Sidecar
}

// Exports says in which namespaces an object is seen.
type Exports struct {
	all        bool
	namespaces []string
}

// To says whether the object is seen in a namespace.
func (e Exports) To(namespace string) bool {
	if e.all {
		return true
	}
	for _, n := range e.namespaces {
		if n == namespace {
			return true
		}
	}
	return false
}

func exports(own string, to []string) Exports {
	e := Exports{all: len(to) == 0}
	for _, t := range to {
		switch t {
		case "*":
			e.all = true
		case ".":
			e.namespaces = append(e.namespaces, own)
		case "~":
		default:
			e.namespaces = append(e.namespaces, t)
		}
	}
	return e
}

// Host qualifies a host as Istio does: a name without dots is a service in the
// object's own namespace; everything else is taken as it is.
func Host(host, namespace, clusterDomain string) string {
	if host == "" || host == "*" || strings.ContainsAny(host, ".:") {
		return host
	}
	return host + "." + namespace + ".svc." + clusterDomain
}

// Aliases are the shorter ways to write the host of a Kubernetes service that say
// its namespace: name.ns.svc and name.ns. Istio takes them for other hosts; people
// mean the service.
func Aliases(host, clusterDomain string) []string {
	base, ok := strings.CutSuffix(host, ".svc."+clusterDomain)
	if !ok || strings.Count(base, ".") != 1 || strings.Contains(base, "*") {
		return nil
	}
	return []string{base + ".svc", base}
}

// Unalias is the host of the service that an alias would mean, or "".
func Unalias(alias, clusterDomain string) string {
	base := strings.TrimSuffix(alias, ".svc")
	if strings.Count(base, ".") != 1 || strings.Contains(base, "*") {
		return ""
	}
	return base + ".svc." + clusterDomain
}

// Lookup lists every way to write a host in configuration, the most specific first:
// Patterns, with the Aliases behind the host itself.
func Lookup(host, clusterDomain string) []string {
	p := Patterns(host)
	a := Aliases(host, clusterDomain)
	if len(a) == 0 {
		return p
	}
	out := make([]string, 0, len(p)+len(a))
	return append(append(append(out, p[0]), a...), p[1:]...)
}

// FromVirtualService returns the effective form of o.
func FromVirtualService(o *networkingv1.VirtualService, clusterDomain string) *VirtualService {
	v := &VirtualService{
		Meta:    metaOf("VirtualService", o),
		Exports: exports(o.Namespace, o.Spec.ExportTo),
		Spec:    &o.Spec,
	}
	for _, h := range o.Spec.Hosts {
		v.Hosts = append(v.Hosts, Host(h, o.Namespace, clusterDomain))
	}
	v.Gateways = Gateways(o.Spec.Gateways, o.Namespace)
	return v
}

// Keys are the names under which it is found: its hosts or, for one that others
// delegate to and that has none, DelegateKey.
func (v *VirtualService) Keys() []string {
	if len(v.Hosts) == 0 {
		return []string{DelegateKey(v.Namespace, v.Name)}
	}
	return v.Hosts
}

// DelegateKey stands in the place of a host for a VirtualService without any.
func DelegateKey(namespace, name string) string { return "delegate:" + namespace + "/" + name }

// IsDelegateKey says whether a key is one of those.
func IsDelegateKey(key string) bool { return strings.HasPrefix(key, "delegate:") }

// Gateways qualifies names of gateways; none means the sidecars.
func Gateways(names []string, namespace string) []string {
	if len(names) == 0 {
		return []string{MeshGateway}
	}
	var out []string
	for _, g := range names {
		if g != MeshGateway && !strings.Contains(g, "/") {
			g = namespace + "/" + g
		}
		out = append(out, g)
	}
	return out
}

// FromDestinationRule returns the effective form of o.
func FromDestinationRule(o *networkingv1.DestinationRule, clusterDomain string) *DestinationRule {
	return &DestinationRule{
		Meta:    metaOf("DestinationRule", o),
		Host:    Host(o.Spec.Host, o.Namespace, clusterDomain),
		Exports: exports(o.Namespace, o.Spec.ExportTo),
		Spec:    &o.Spec,
	}
}

// FromPeerAuthentication returns the effective form of o.
func FromPeerAuthentication(o *securityv1.PeerAuthentication) *PeerAuthentication {
	return &PeerAuthentication{Meta: metaOf("PeerAuthentication", o), Spec: &o.Spec}
}

// FromSidecar returns the effective form of o.
func FromSidecar(o *networkingv1.Sidecar) *Sidecar {
	return &Sidecar{Meta: metaOf("Sidecar", o), Spec: &o.Spec}
}

// Matches says whether a host as written in configuration (exact, or with a leading
// "*") covers host.
func Matches(pattern, host string) bool {
	if suffix, ok := strings.CutPrefix(pattern, "*"); ok {
		return strings.HasSuffix(host, suffix)
	}
	return pattern == host
}

// Patterns lists every pattern that covers host, the most specific first: the host
// itself, then "*.b.c" for "a.b.c", and so on to "*".
func Patterns(host string) []string {
	out := []string{host}
	rest := strings.TrimPrefix(host, "*.")
	if rest != host { // a wildcard is also covered by shorter ones
		rest = "x." + rest
		_, rest, _ = strings.Cut(rest, ".")
	}
	for {
		_, after, ok := strings.Cut(rest, ".")
		if !ok {
			break
		}
		out = append(out, "*."+after)
		rest = after
	}
	if host != "*" {
		out = append(out, "*")
	}
	return out
}
