package clusterip_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net/netip"
	"strings"
	"sync"
	"testing"

	admissionv1 "k8s.io/api/admission/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/xebec-mesh/xebec/orchestrator/admission"
	"github.com/xebec-mesh/xebec/orchestrator/admission/clusterip"
	"github.com/xebec-mesh/xebec/orchestrator/client"
	"github.com/xebec-mesh/xebec/orchestrator/resource"
)

// store stands for the API: it keeps services and tells the allocator of them.
type store struct {
	client.Informer
	t     *testing.T
	alloc *clusterip.Allocator

	mu       sync.Mutex
	services map[types.NamespacedName]*corev1.Service
	handle   func(client.Event)
	uid      int
}

func (s *store) Subscribe(handle func(client.Event)) func() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.handle = handle
	for _, svc := range s.services {
		handle(client.Event{Type: client.Added, Object: svc})
	}
	handle(client.Event{Type: client.Synced})
	return func() {}
}

func newStore(t *testing.T, ranges ...string) *store {
	s := &store{t: t, services: map[types.NamespacedName]*corev1.Service{}}
	s.start(ranges...)
	return s
}

// start begins with a new allocator, as a restart does.
func (s *store) start(ranges ...string) {
	if len(ranges) == 0 {
		ranges = []string{"10.96.0.0/16", "fd00:10:96::/112"}
	}
	cfg := clusterip.Config{Start: 1, Log: slog.New(slog.NewTextHandler(io.Discard, nil))}
	for _, r := range ranges {
		cfg.Ranges = append(cfg.Ranges, netip.MustParsePrefix(r))
	}
	a, err := clusterip.New(cfg)
	if err != nil {
		s.t.Fatal(err)
	}
	s.alloc = a
	ctx, cancel := context.WithCancel(s.t.Context())
	done := make(chan error)
	go func() { done <- a.Run(ctx, client.View[*corev1.Service]{Informer: s}) }()
	s.t.Cleanup(func() {
		cancel()
		<-done
	})
}

var kind = resource.LookupKind(corev1.SchemeGroupVersion.WithKind("Service"))

// put creates or updates a service as the registry does.
func (s *store) put(svc *corev1.Service) (*corev1.Service, error) { return s.write(svc, false) }

func (s *store) write(svc *corev1.Service, dryRun bool) (_ *corev1.Service, err error) {
	svc = svc.DeepCopy()
	svc.Namespace = "default"
	s.mu.Lock()
	old := s.services[client.Key(svc)]
	s.mu.Unlock()
	kind.SetDefaults(svc)
	a := &admission.Attributes{Operation: admissionv1.Create, Kind: kind, Namespace: "default", Name: svc.Name, DryRun: dryRun, Object: svc}
	if old != nil {
		a.Operation, a.OldObject = admissionv1.Update, old
		kind.Part("").BeforeUpdate(svc, old)
		svc.UID = old.UID
	} else {
		kind.BeforeCreate(svc)
		s.mu.Lock()
		s.uid++
		svc.UID = types.UID(fmt.Sprint(s.uid))
		s.mu.Unlock()
	}
	defer func() { a.Finish(err) }()
	if err := s.alloc.Mutate(s.t.Context(), a); err != nil {
		return nil, err
	}
	svc.ResourceVersion = "1"
	var problems error
	if old != nil {
		problems = kind.Part("").CheckUpdate(svc, old).ToAggregate()
	} else {
		problems = kind.CheckCreate(svc).ToAggregate()
	}
	if problems != nil || dryRun {
		return svc, problems
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if now := s.services[client.Key(svc)]; now != old {
		return nil, errors.New("conflict")
	}
	s.services[client.Key(svc)] = svc
	if old != nil {
		s.handle(client.Event{Type: client.Modified, Old: old, Object: svc})
	} else {
		s.handle(client.Event{Type: client.Added, Object: svc})
	}
	return svc, nil
}

func (s *store) delete(name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	key := types.NamespacedName{Namespace: "default", Name: name}
	if svc, ok := s.services[key]; ok {
		delete(s.services, key)
		s.handle(client.Event{Type: client.Deleted, Object: svc})
	}
}

func service(name string, change ...func(*corev1.ServiceSpec)) *corev1.Service {
	svc := &corev1.Service{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: corev1.ServiceSpec{
		Selector: map[string]string{"app": name}, Ports: []corev1.ServicePort{{Port: 80}}}}
	for _, c := range change {
		c(&svc.Spec)
	}
	return svc
}

func ip(addresses ...string) func(*corev1.ServiceSpec) {
	return func(s *corev1.ServiceSpec) { s.ClusterIP, s.ClusterIPs = addresses[0], addresses }
}

func stack(p corev1.IPFamilyPolicy, families ...corev1.IPFamily) func(*corev1.ServiceSpec) {
	return func(s *corev1.ServiceSpec) { s.IPFamilyPolicy, s.IPFamilies = &p, families }
}

func typ(t corev1.ServiceType) func(*corev1.ServiceSpec) {
	return func(s *corev1.ServiceSpec) {
		s.Type = t
		if t == corev1.ServiceTypeExternalName {
			s.ExternalName = "example.com"
		}
	}
}

func unselected(s *corev1.ServiceSpec) { s.Selector = nil }

const (
	single  = corev1.IPFamilyPolicySingleStack
	prefer  = corev1.IPFamilyPolicyPreferDualStack
	require = corev1.IPFamilyPolicyRequireDualStack
	v4, v6  = corev1.IPv4Protocol, corev1.IPv6Protocol
)

func TestFamilies(t *testing.T) {
	for _, c := range []struct {
		name   string
		ranges []string
		svc    *corev1.Service
		want   string // policy, families, number of addresses; or an error
	}{
		{"default", nil, service("a"), "SingleStack [IPv4] 1"},
		{"default of an IPv6 cluster", []string{"fd00::/112"}, service("a"), "SingleStack [IPv6] 1"},
		{"family", nil, service("a", func(s *corev1.ServiceSpec) { s.IPFamilies = []corev1.IPFamily{v6} }), "SingleStack [IPv6] 1"},
		{"prefer", nil, service("a", stack(prefer)), "PreferDualStack [IPv4 IPv6] 2"},
		{"prefer on one family", []string{"10.0.0.0/24"}, service("a", stack(prefer)), "PreferDualStack [IPv4] 1"},
		{"require", nil, service("a", stack(require, v6)), "RequireDualStack [IPv6 IPv4] 2"},
		{"require on one family", []string{"10.0.0.0/24"}, service("a", stack(require)), "not configured for dual-stack"},
		{"other family", []string{"10.0.0.0/24"}, service("a", stack(single, v6)), "spec.ipFamilies[0]: Invalid value: \"IPv6\": not configured on this cluster"},
		{"two families, one stack", nil, service("a", stack(single, v4, v6)), "must be RequireDualStack or PreferDualStack"},
		{"by address", nil, service("a", ip("fd00:10:96::99")), "SingleStack [IPv6] 1"},
		{"address of another family", nil, service("a", ip("fd00:10:96::99"), stack(single, v4)), "expected an IPv4 value"},
		{"headless", nil, service("a", ip("None")), "SingleStack [IPv4] 1"},
		{"headless without selector", nil, service("a", ip("None"), unselected), "RequireDualStack [IPv4 IPv6] 1"},
		{"external", nil, service("a", typ(corev1.ServiceTypeExternalName)), "none"},
		{"not in range", nil, service("a", ip("10.1.0.1")), "failed to allocate IP 10.1.0.1: the provided IP is not in the valid range. The ranges of valid IPs are 10.96.0.0/16 and fd00:10:96::/112"},
	} {
		t.Run(c.name, func(t *testing.T) {
			svc, err := newStore(t, c.ranges...).put(c.svc)
			got := "none"
			if err != nil {
				got = err.Error()
			} else if svc.Spec.IPFamilyPolicy != nil {
				got = fmt.Sprint(*svc.Spec.IPFamilyPolicy, " ", svc.Spec.IPFamilies, " ", len(svc.Spec.ClusterIPs))
			}
			if got != c.want && !(err != nil && strings.Contains(got, c.want)) {
				t.Errorf("got %s, want %s", got, c.want)
			}
		})
	}
}

// must puts a service that has to be accepted.
func (s *store) must(svc *corev1.Service) *corev1.Service {
	s.t.Helper()
	out, err := s.put(svc)
	if err != nil {
		s.t.Fatal(err)
	}
	return out
}

func TestAddressesAreUniqueAndComeBack(t *testing.T) {
	s := newStore(t)
	s.must(service("a", ip("10.96.0.10")))
	if _, err := s.put(service("b", ip("10.96.0.10"))); err == nil || !strings.Contains(err.Error(), "provided IP is already allocated") {
		t.Errorf("two services got one address: %v", err)
	}
	s.start() // everything is known again after a restart
	if _, err := s.put(service("b", ip("10.96.0.10"))); err == nil {
		t.Error("the address was forgotten by a restart")
	}
	s.delete("a")
	s.must(service("b", ip("10.96.0.10")))
}

func TestFailedWritesGiveBack(t *testing.T) {
	s := newStore(t, "10.0.0.0/30") // two addresses
	bad := service("bad", func(s *corev1.ServiceSpec) { s.Ports[0].Port = -1 })
	for range 5 {
		if _, err := s.put(bad); err == nil {
			t.Fatal("accepted")
		}
		if _, err := s.write(service("dry"), true); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"a", "b"} {
		s.must(service(name))
	}
	if _, err := s.put(service("c")); err == nil || !strings.Contains(err.Error(), "range 10.0.0.0/30 is full") {
		t.Errorf("full range: %v", err)
	}
	s.delete("a")
	s.must(service("c"))
}

func TestUpdates(t *testing.T) {
	s := newStore(t)
	a := s.must(service("a"))
	kept := s.must(service("a", func(s *corev1.ServiceSpec) { s.Ports[0].Port = 81 }))
	if kept.Spec.ClusterIP != a.Spec.ClusterIP {
		t.Errorf("the address changed from %s to %s", a.Spec.ClusterIP, kept.Spec.ClusterIP)
	}
	dual := s.must(service("a", stack(prefer)))
	if len(dual.Spec.ClusterIPs) != 2 || dual.Spec.ClusterIPs[0] != a.Spec.ClusterIP {
		t.Errorf("dual stack: %v", dual.Spec.ClusterIPs)
	}
	mono := s.must(service("a", stack(single)))
	if len(mono.Spec.ClusterIPs) != 1 || len(mono.Spec.IPFamilies) != 1 {
		t.Errorf("single stack: %v %v", mono.Spec.ClusterIPs, mono.Spec.IPFamilies)
	}
	// The second address is free for others now.
	s.must(service("b", ip(dual.Spec.ClusterIPs[1])))
	named := s.must(service("a", typ(corev1.ServiceTypeExternalName)))
	if named.Spec.ClusterIP != "" {
		t.Errorf("external name has address %s", named.Spec.ClusterIP)
	}
	s.must(service("c", ip(a.Spec.ClusterIP)))
	back := s.must(service("a"))
	if back.Spec.ClusterIP == "" || back.Spec.ClusterIP == a.Spec.ClusterIP {
		t.Errorf("back from external name: %q", back.Spec.ClusterIP)
	}
}

func TestNodePorts(t *testing.T) {
	s := newStore(t)
	dns := service("dns", typ(corev1.ServiceTypeNodePort), func(s *corev1.ServiceSpec) {
		s.Ports = []corev1.ServicePort{{Name: "u", Port: 53, Protocol: corev1.ProtocolUDP}, {Name: "t", Port: 53, Protocol: corev1.ProtocolTCP}}
	})
	a := s.must(dns)
	if p := a.Spec.Ports; p[0].NodePort < 30000 || p[0].NodePort != p[1].NodePort {
		t.Errorf("node ports %d and %d", p[0].NodePort, p[1].NodePort)
	}
	fixed := service("b", typ(corev1.ServiceTypeLoadBalancer), func(sp *corev1.ServiceSpec) { sp.Ports[0].NodePort = a.Spec.Ports[1].NodePort })
	if _, err := s.put(fixed); err == nil || !strings.Contains(err.Error(), "provided port is already allocated") {
		t.Errorf("two services got one node port: %v", err)
	}
	low := service("b", typ(corev1.ServiceTypeNodePort), func(sp *corev1.ServiceSpec) { sp.Ports[0].NodePort = 80 })
	if _, err := s.put(low); err == nil || !strings.Contains(err.Error(), "The range of valid ports is 30000-32767") {
		t.Errorf("node port out of range: %v", err)
	}
	inside := s.must(service("dns", typ(corev1.ServiceTypeClusterIP), func(s *corev1.ServiceSpec) { s.Ports = dns.Spec.Ports }))
	if inside.Spec.Ports[0].NodePort != 0 {
		t.Error("a ClusterIP service has a node port")
	}
	s.must(fixed)

	local := service("c", typ(corev1.ServiceTypeLoadBalancer), func(s *corev1.ServiceSpec) { s.ExternalTrafficPolicy = corev1.ServiceExternalTrafficPolicyLocal })
	c := s.must(local)
	if c.Spec.HealthCheckNodePort == 0 || c.Spec.HealthCheckNodePort == c.Spec.Ports[0].NodePort {
		t.Errorf("health check port %d", c.Spec.HealthCheckNodePort)
	}
	if again := s.must(local); again.Spec.HealthCheckNodePort != c.Spec.HealthCheckNodePort || again.Spec.Ports[0].NodePort != c.Spec.Ports[0].NodePort {
		t.Error("an update changed the node ports")
	}
}

// Whatever happens at once, no two stored services share an address, and none is lost.
func TestConcurrentWrites(t *testing.T) {
	s := newStore(t, "10.0.0.0/26", "fd00::/122")
	var wg sync.WaitGroup
	for w := range 8 {
		wg.Go(func() {
			r := rand.New(rand.NewPCG(uint64(w), 1))
			for range 300 {
				name := fmt.Sprintf("s%d", r.IntN(24))
				switch r.IntN(4) {
				case 0:
					s.delete(name)
				case 1:
					_, _ = s.put(service(name, stack(prefer)))
				case 2:
					_, _ = s.put(service(name, ip(fmt.Sprintf("10.0.0.%d", 1+r.IntN(20)))))
				default:
					_, _ = s.put(service(name, typ(corev1.ServiceTypeNodePort)))
				}
			}
		})
	}
	wg.Wait()
	seen := map[string]string{}
	for key, svc := range s.services {
		for _, a := range svc.Spec.ClusterIPs {
			if other, dup := seen[a]; dup {
				t.Errorf("%s and %s share %s", other, key.Name, a)
			}
			seen[a] = key.Name
		}
	}
	for key := range s.services {
		s.delete(key.Name)
	}
	for i := range 62 { // every address is free again
		s.must(service(fmt.Sprintf("all%d", i)))
	}
}

func BenchmarkAllocate(b *testing.B) {
	for _, services := range []int{1000, 30000} {
		b.Run(fmt.Sprintf("services=%d", services), func(b *testing.B) {
			a, err := clusterip.New(clusterip.Config{Start: 1, Log: slog.New(slog.NewTextHandler(io.Discard, nil)),
				Ranges: []netip.Prefix{netip.MustParsePrefix("10.96.0.0/16")}})
			if err != nil {
				b.Fatal(err)
			}
			s := &store{}
			go func() { _ = a.Run(b.Context(), client.View[*corev1.Service]{Informer: s}) }()
			write := func(i int, err error) {
				svc := service(fmt.Sprint(i))
				at := &admission.Attributes{Operation: admissionv1.Create, Kind: kind, Namespace: "default", Object: svc}
				if err := a.Mutate(b.Context(), at); err != nil {
					b.Fatal(err)
				}
				at.Finish(err)
			}
			for i := range services {
				write(i, error(nil))
			}
			b.ReportAllocs()
			for b.Loop() {
				write(-1, errors.New("undone"))
			}
		})
	}
}
