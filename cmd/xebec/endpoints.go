package main

import (
	"context"
	"net/netip"
	"sync"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/xebec-mesh/xebec/dataplane/dns"
	"github.com/xebec-mesh/xebec/orchestrator/bootstrap"
	"github.com/xebec-mesh/xebec/orchestrator/client"
)

// resolver passes on what DNS is to serve. The agent follows Services before the
// node's addresses, on which DNS listens, are known; updates wait until then.
type resolver struct {
	mu      sync.Mutex
	process *dns.Process
	waiting []dns.Update
}

// Send takes an update; it never blocks.
func (r *resolver) Send(u dns.Update) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.process == nil {
		r.waiting = append(r.waiting, u)
		return
	}
	r.process.Send(u)
}

func (r *resolver) set(p *dns.Process) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.process = p
	for _, u := range r.waiting {
		p.Send(u)
	}
	r.waiting = nil
}

// publishEndpoints says where this node serves DNS and takes telemetry: behind
// Services that have no selector, since no pod serves them.
func (c *cluster) publishEndpoints(ctx context.Context, gateways []netip.Addr) error {
	var slices []*discoveryv1.EndpointSlice
	for _, a := range gateways {
		slices = append(slices, c.slice(metav1.NamespaceSystem, "kube-dns", a,
			port("dns", corev1.ProtocolUDP, 53), port("dns-tcp", corev1.ProtocolTCP, 53)))
	}
	slices = append(slices, c.slice(bootstrap.SystemNamespace, "otel", gateways[0],
		port("otlp-grpc", corev1.ProtocolTCP, portGRPC), port("otlp-http", corev1.ProtocolTCP, portHTTP)))
	typed := client.For(c.control.client, client.EndpointSlices)
	for _, want := range slices {
		have, err := typed.Get(ctx, want.Namespace, want.Name)
		if apierrors.IsNotFound(err) {
			if _, err = typed.Create(ctx, want); err != nil {
				return err
			}
			continue
		}
		if err != nil {
			return err
		}
		if equality.Semantic.DeepEqual(have.Endpoints, want.Endpoints) && equality.Semantic.DeepEqual(have.Ports, want.Ports) {
			continue
		}
		next := have.DeepCopy()
		next.Endpoints, next.Ports, next.Labels = want.Endpoints, want.Ports, want.Labels
		if _, err := typed.Update(ctx, next); err != nil {
			return err
		}
	}
	return nil
}

func (c *cluster) slice(namespace, service string, addr netip.Addr, ports ...discoveryv1.EndpointPort) *discoveryv1.EndpointSlice {
	family, suffix := discoveryv1.AddressTypeIPv4, "-ipv4"
	if addr.Is6() {
		family, suffix = discoveryv1.AddressTypeIPv6, "-ipv6"
	}
	yes := true
	return &discoveryv1.EndpointSlice{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: namespace, Name: service + "-" + c.s.Node + suffix,
			Labels: map[string]string{
				discoveryv1.LabelServiceName: service,
				discoveryv1.LabelManagedBy:   "xebec",
			},
		},
		AddressType: family,
		Endpoints: []discoveryv1.Endpoint{{
			Addresses: []string{addr.String()}, NodeName: &c.s.Node,
			Conditions: discoveryv1.EndpointConditions{Ready: &yes, Serving: &yes},
		}},
		Ports: ports,
	}
}

func port(name string, protocol corev1.Protocol, number int32) discoveryv1.EndpointPort {
	return discoveryv1.EndpointPort{Name: &name, Protocol: &protocol, Port: &number}
}
