// Package clusterip gives services their addresses and node ports.
//
//	in:   creates and updates of Services, as an admission plugin; the stored Services
//	out:  spec.clusterIPs, ipFamilies, ipFamilyPolicy, nodePort; Invalid where one cannot be had
//
// Invariant: no two services hold the same address, or the same node port of one
// protocol. Whatever is written, by anybody, first reserves it here; the stored
// services are the only record, so that there is nothing that could disagree
// with them after a restart. Nothing is given out before they have all been seen.
//
// This holds for one server. With several, each must ask a common authority.
package clusterip

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/netip"
	"sync"

	admissionv1 "k8s.io/api/admission/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/xebec-mesh/xebec/orchestrator/admission"
	"github.com/xebec-mesh/xebec/orchestrator/client"
	"github.com/xebec-mesh/xebec/orchestrator/resource"
)

// Config says what may be given out.
type Config struct {
	// Ranges are the service networks, one for each IP family; the first is the
	// primary family's. Required.
	Ranges []netip.Prefix
	// MinNodePort and MaxNodePort bound the node ports. Default 30000 to 32767.
	MinNodePort, MaxNodePort int32
	// Start is where the search for free addresses begins. Default: anywhere, so
	// that a restart does not give the same ones again at once.
	Start uint64
	Log   *slog.Logger // required
}

// Allocator is the plugin. It may be used by many goroutines.
type Allocator struct {
	cfg      Config
	families families
	ready    chan struct{} // closed when all stored services are known

	mu       sync.Mutex
	spaces   map[corev1.IPFamily]*space
	ips      ledger[netip.Addr]
	ports    ledger[nodePort]
	nextPort int32
}

type nodePort struct {
	port     int32
	protocol corev1.Protocol
}

var serviceKind = corev1.SchemeGroupVersion.WithKind("Service")

// New checks cfg.
func New(cfg Config) (*Allocator, error) {
	if cfg.Log == nil {
		return nil, errors.New("make service address allocator: no log given")
	}
	if len(cfg.Ranges) == 0 || len(cfg.Ranges) > 2 {
		return nil, fmt.Errorf("make service address allocator: %d ranges given, one or two are needed", len(cfg.Ranges))
	}
	if cfg.MinNodePort == 0 {
		cfg.MinNodePort, cfg.MaxNodePort = 30000, 32767
	}
	if cfg.Start == 0 {
		cfg.Start = rand.Uint64()
	}
	a := &Allocator{
		cfg: cfg, ready: make(chan struct{}), spaces: map[corev1.IPFamily]*space{},
		ips: newLedger[netip.Addr](), ports: newLedger[nodePort](),
		nextPort: int32(cfg.Start % uint64(cfg.MaxNodePort-cfg.MinNodePort+1)),
	}
	for _, r := range cfg.Ranges {
		s, err := newSpace(r, cfg.Start)
		if err != nil {
			return nil, err
		}
		family := resource.FamilyOf(r.Addr().String())
		if a.spaces[family] != nil {
			return nil, fmt.Errorf("make service address allocator: two ranges of family %s", family)
		}
		a.spaces[family] = s
		a.families = append(a.families, family)
	}
	return a, nil
}

// Run follows the stored services until ctx ends. They are given here and not in
// Config because whoever reads them is built upon the admission chain.
func (a *Allocator) Run(ctx context.Context, services client.View[*corev1.Service]) error {
	var once sync.Once
	cancel := services.Subscribe(func(e client.Event) {
		switch e.Type {
		case client.Synced:
			once.Do(func() { close(a.ready) })
		case client.Added:
			a.seen(nil, e.Object)
		case client.Modified:
			a.seen(e.Old, e.Object)
		case client.Deleted:
			a.seen(e.Object, nil)
		}
	})
	defer cancel()
	<-ctx.Done()
	return nil
}

// seen takes over what the store says.
func (a *Allocator) seen(old, now client.Object) {
	a.mu.Lock()
	defer a.mu.Unlock()
	kept := map[any]bool{}
	if svc, ok := now.(*corev1.Service); ok {
		key := client.Key(svc)
		for _, ip := range addresses(&svc.Spec) {
			kept[ip] = true
			if other, clash := a.ips.observe(ip, key, svc.UID); clash {
				a.cfg.Log.Error("two services have the same address; delete one", "address", ip, "service", key, "other", other)
			}
		}
		for _, p := range nodePorts(&svc.Spec) {
			kept[p] = true
			if other, clash := a.ports.observe(p, key, svc.UID); clash {
				a.cfg.Log.Error("two services have the same node port; change one", "port", p.port, "service", key, "other", other)
			}
		}
	}
	if svc, ok := old.(*corev1.Service); ok {
		key := client.Key(svc)
		for _, ip := range addresses(&svc.Spec) {
			if !kept[ip] {
				a.ips.release(ip, key, svc.UID)
			}
		}
		for _, p := range nodePorts(&svc.Spec) {
			if !kept[p] {
				a.ports.release(p, key, svc.UID)
			}
		}
	}
}

// Name is the plugin's name in errors.
func (a *Allocator) Name() string { return "ServiceAddresses" }

// Mutate gives a service what it lacks.
func (a *Allocator) Mutate(ctx context.Context, at *admission.Attributes) error {
	if !at.Is(serviceKind, admissionv1.Create, admissionv1.Update) {
		return nil
	}
	svc, ok := at.Object.(*corev1.Service)
	if !ok {
		return nil
	}
	select {
	case <-a.ready:
	case <-ctx.Done():
		return apierrors.NewServiceUnavailable("service addresses cannot be given out yet: the stored services are still being read; try again")
	}
	var old *corev1.ServiceSpec
	if o, ok := at.OldObject.(*corev1.Service); ok {
		old = &o.Spec
	}
	errs := a.families.complete(&svc.Spec, old)
	if len(errs) == 0 {
		errs = a.reserve(at, svc)
	}
	if len(errs) > 0 {
		return apierrors.NewInvalid(serviceKind.GroupKind(), svc.Name, errs)
	}
	return nil
}

// reserve takes the addresses and ports that the service names, finds those
// that it does not, and holds them until the write has ended.
func (a *Allocator) reserve(at *admission.Attributes, svc *corev1.Service) field.ErrorList {
	a.mu.Lock()
	defer a.mu.Unlock()
	r := reservation{a: a, at: at, key: types.NamespacedName{Namespace: at.Namespace, Name: svc.Name}}
	at.OnFinish(func(err error) { r.settle(svc.UID, err == nil && !at.DryRun) })
	if errs := r.addresses(&svc.Spec); len(errs) > 0 {
		return errs
	}
	return r.nodePorts(&svc.Spec)
}

// addresses are those that a stored service holds.
func addresses(s *corev1.ServiceSpec) []netip.Addr {
	if s.Type == corev1.ServiceTypeExternalName {
		return nil
	}
	var out []netip.Addr
	for _, text := range s.ClusterIPs {
		if ip, err := netip.ParseAddr(text); err == nil {
			out = append(out, ip)
		}
	}
	return out
}

func nodePorts(s *corev1.ServiceSpec) []nodePort {
	var out []nodePort
	for _, p := range s.Ports {
		if p.NodePort != 0 {
			out = append(out, nodePort{p.NodePort, p.Protocol})
		}
	}
	if s.HealthCheckNodePort != 0 {
		out = append(out, nodePort{s.HealthCheckNodePort, corev1.ProtocolTCP})
	}
	return out
}
