package status

import (
	"slices"

	networkingv1 "istio.io/client-go/pkg/apis/networking/v1"
	corev1 "k8s.io/api/core/v1"

	"github.com/xebec-mesh/xebec/galley/config"
	"github.com/xebec-mesh/xebec/orchestrator/client"
)

// Indexes of the informers.
const (
	indexHost    = "galley/host"    // objects that are for a host
	indexMention = "galley/mention" // VirtualServices that send requests to a host
)

// World answers analysis' questions from informers. It is an analyze.World.
type World struct {
	domain   string
	services client.View[*corev1.Service]
	entries  client.View[*networkingv1.ServiceEntry]
	virtuals client.View[*networkingv1.VirtualService]
	rules    client.View[*networkingv1.DestinationRule]
}

// NewWorld follows the objects that configuration refers to.
func NewWorld(c client.Interface, clusterDomain string) *World {
	w := &World{
		domain:   clusterDomain,
		services: client.For(c, client.Services).Informer(client.ListOptions{}),
		entries:  client.For(c, client.ServiceEntries).Informer(client.ListOptions{}),
		virtuals: client.For(c, client.VirtualServices).Informer(client.ListOptions{}),
		rules:    client.For(c, client.DestinationRules).Informer(client.ListOptions{}),
	}
	w.services.AddIndex(indexHost, w.hosts)
	w.entries.AddIndex(indexHost, w.hosts)
	w.virtuals.AddIndex(indexHost, w.hosts)
	w.virtuals.AddIndex(indexMention, w.mentions)
	w.rules.AddIndex(indexHost, w.hosts)
	return w
}

// hosts lists the qualified hosts that an object is for.
func (w *World) hosts(o client.Object) []string {
	switch o := o.(type) {
	case *corev1.Service:
		return []string{o.Name + "." + o.Namespace + ".svc." + w.domain}
	case *networkingv1.ServiceEntry:
		return o.Spec.Hosts
	case *networkingv1.VirtualService:
		return config.FromVirtualService(o, w.domain).Hosts
	case *networkingv1.DestinationRule:
		return []string{config.FromDestinationRule(o, w.domain).Host}
	}
	return nil
}

// mentions lists the qualified hosts that a VirtualService sends requests to.
func (w *World) mentions(o client.Object) []string {
	v, ok := o.(*networkingv1.VirtualService)
	if !ok {
		return nil
	}
	var out []string
	add := func(host string) {
		if host = config.Host(host, v.Namespace, w.domain); !slices.Contains(out, host) {
			out = append(out, host)
		}
	}
	for _, h := range v.Spec.GetHttp() {
		for _, d := range h.GetRoute() {
			add(d.GetDestination().GetHost())
		}
		for _, m := range h.GetMirrors() {
			add(m.GetDestination().GetHost())
		}
		add(h.GetMirror().GetHost())
	}
	for _, t := range v.Spec.GetTcp() {
		for _, d := range t.GetRoute() {
			add(d.GetDestination().GetHost())
		}
	}
	for _, t := range v.Spec.GetTls() {
		for _, d := range t.GetRoute() {
			add(d.GetDestination().GetHost())
		}
	}
	return out
}

// Ports lists the ports of a service.
func (w *World) Ports(host string) ([]uint32, bool) {
	if full := config.Unalias(host, w.domain); full != "" && len(w.services.ByIndex(indexHost, full)) > 0 {
		host = full
	}
	var ports []uint32
	found := false
	for _, s := range w.services.ByIndex(indexHost, host) {
		found = true
		for _, p := range s.Spec.Ports {
			ports = append(ports, uint32(p.Port))
		}
	}
	for _, pattern := range config.Patterns(host) {
		for _, e := range w.entries.ByIndex(indexHost, pattern) {
			found = true
			for _, p := range e.Spec.GetPorts() {
				ports = append(ports, p.GetNumber())
			}
		}
	}
	return ports, found
}

// Subsets lists the names of all subsets that rules for the host declare.
func (w *World) Subsets(host string) []string {
	if full := config.Unalias(host, w.domain); full != "" && len(w.services.ByIndex(indexHost, full)) > 0 {
		host = full
	}
	var names []string
	for _, pattern := range config.Lookup(host, w.domain) {
		for _, d := range w.rules.ByIndex(indexHost, pattern) {
			for _, s := range d.Spec.GetSubsets() {
				names = append(names, s.GetName())
			}
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// Routers lists the VirtualServices for sidecars that name the host, oldest first.
func (w *World) Routers(host string) []config.Ref {
	var all []*config.VirtualService
	for _, o := range w.virtuals.ByIndex(indexHost, host) {
		if v := config.FromVirtualService(o, w.domain); slices.Contains(v.Gateways, config.MeshGateway) {
			all = append(all, v)
		}
	}
	slices.SortFunc(all, func(a, b *config.VirtualService) int { return a.Older(b.Meta) })
	var out []config.Ref
	for _, v := range all {
		out = append(out, v.Ref)
	}
	return out
}
