// Package analyze says what is odd about an object in the light of the others.
//
//	in:   one object, and exactly the facts about the others that World declares
//	out:  message.List; never a reason to refuse the object
//
// The order in which objects are applied is free: what is missing now may come later.
// So what is found here is shown on the object (package status) and as a warning to
// who applies it (package admit), and goes away by itself.
package analyze

import (
	"fmt"
	"slices"
	"strings"

	networking "istio.io/api/networking/v1alpha3"

	"github.com/xebec-mesh/xebec/galley/config"
	"github.com/xebec-mesh/xebec/galley/message"
)

// World is what analysis may ask about other objects.
type World interface {
	// Ports lists the ports of a service by its qualified host; ok is false if there
	// is no such service.
	Ports(host string) (ports []uint32, ok bool)
	// Subsets lists the names of all subsets that rules for the host declare.
	Subsets(host string) []string
	// Routers lists the VirtualServices for sidecars that name the host, the one in
	// force first.
	Routers(host string) []config.Ref
}

// VirtualService checks that what routes refer to exists, and that the object is the
// one in force for its hosts.
func VirtualService(v *config.VirtualService, domain string, w World) message.List {
	a := &analysis{w: w, namespace: v.Namespace, domain: domain}
	for i, h := range v.Spec.GetHttp() {
		for j, d := range h.GetRoute() {
			a.destination(fmt.Sprintf("spec.http[%d].route[%d].destination", i, j), d.GetDestination())
		}
		if h.GetMirror() != nil {
			a.destination(fmt.Sprintf("spec.http[%d].mirror", i), h.GetMirror())
		}
		for j, m := range h.GetMirrors() {
			a.destination(fmt.Sprintf("spec.http[%d].mirrors[%d].destination", i, j), m.GetDestination())
		}
	}
	for i, t := range v.Spec.GetTcp() {
		for j, d := range t.GetRoute() {
			a.destination(fmt.Sprintf("spec.tcp[%d].route[%d].destination", i, j), d.GetDestination())
		}
	}
	for i, t := range v.Spec.GetTls() {
		for j, d := range t.GetRoute() {
			a.destination(fmt.Sprintf("spec.tls[%d].route[%d].destination", i, j), d.GetDestination())
		}
	}
	if slices.Contains(v.Gateways, config.MeshGateway) {
		a.conflicts(v)
	}
	return a.found
}

// DestinationRule checks that its host exists.
func DestinationRule(d *config.DestinationRule, w World) message.List {
	a := &analysis{w: w}
	if !strings.HasPrefix(d.Host, "*") {
		if _, ok := w.Ports(d.Host); !ok {
			a.add(message.ReferencedResourceNotFound, "spec.host", "%q: there is no such service; the rule takes effect when there is", d.Host)
		}
	}
	return a.found
}

type analysis struct {
	w         World
	namespace string
	domain    string
	found     message.List
}

func (a *analysis) add(k message.Kind, path, text string, args ...any) {
	a.found = append(a.found, message.Note(k, path, text, args...))
}

func (a *analysis) destination(path string, d *networking.Destination) {
	host := config.Host(d.GetHost(), a.namespace, a.domain)
	ports, ok := a.w.Ports(host)
	if !ok {
		a.add(message.ReferencedResourceNotFound, path+".host", "%q: there is no service %s; requests that go there are answered with 503", d.GetHost(), host)
		return
	}
	if n := d.GetPort().GetNumber(); n != 0 && !slices.Contains(ports, n) {
		a.add(message.ReferencedResourceNotFound, path+".port.number", "%d: service %s has the ports %v", n, host, ports)
	}
	if d.GetSubset() == "" {
		return
	}
	if names := a.w.Subsets(host); !slices.Contains(names, d.GetSubset()) {
		have := "there is none"
		if len(names) > 0 {
			have = "there are " + strings.Join(names, ", ")
		}
		a.add(message.ReferencedResourceNotFound, path+".subset",
			"%q: no DestinationRule for %s declares it (%s); requests that go there are answered with 503", d.GetSubset(), host, have)
	}
}

// conflicts tells of hosts for which another VirtualService is in force.
func (a *analysis) conflicts(v *config.VirtualService) {
	for i, h := range v.Hosts {
		all := a.w.Routers(h)
		if len(all) < 2 || all[0].Namespace == v.Namespace && all[0].Name == v.Name {
			continue
		}
		a.add(message.ConflictingMeshGatewayHosts, fmt.Sprintf("spec.hosts[%d]", i),
			"%q: VirtualService %s/%s is older and in force for this host; merge the two", v.Spec.GetHosts()[i], all[0].Namespace, all[0].Name)
	}
}
