package view_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	networking "istio.io/api/networking/v1alpha3"
	security "istio.io/api/security/v1beta1"
	networkingv1 "istio.io/client-go/pkg/apis/networking/v1"
	securityv1 "istio.io/client-go/pkg/apis/security/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/xebec-mesh/xebec/orchestrator/client"
	"github.com/xebec-mesh/xebec/pilot/envoy"
	"github.com/xebec-mesh/xebec/pilot/model"
	"github.com/xebec-mesh/xebec/pilot/policy"
	"github.com/xebec-mesh/xebec/pilot/registry"
	"github.com/xebec-mesh/xebec/pilot/view"
)

// world makes random events over few names, so that they meet.
type world struct {
	r       *rand.Rand
	objects map[string]client.Object
	gen     int64
}

func (w *world) name(prefix string, n int) string { return fmt.Sprintf("%s%d", prefix, w.r.IntN(n)) }

func (w *world) meta(name string) metav1.ObjectMeta {
	w.gen++
	ns := "default"
	if w.r.IntN(4) == 0 {
		ns = "other"
	}
	return metav1.ObjectMeta{Name: name, Namespace: ns, Generation: w.gen, CreationTimestamp: metav1.Unix(int64(w.r.IntN(3)), 0)}
}

func (w *world) object() client.Object {
	switch w.r.IntN(8) {
	case 0:
		return w.service()
	case 1, 2:
		return w.slice()
	case 3:
		p := &corev1.Pod{ObjectMeta: w.meta(w.name("pod", 4))}
		p.Labels = map[string]string{"app": w.name("svc", 3), "version": w.name("v", 2)}
		p.Spec.ServiceAccountName = w.name("sa", 2)
		if w.r.IntN(2) == 0 {
			p.Annotations = map[string]string{model.StatusAnnotation: "{}"}
			p.Spec.InitContainers = []corev1.Container{{Name: model.SidecarContainer}}
		}
		return p
	case 4, 5:
		v := &networkingv1.VirtualService{ObjectMeta: w.meta(w.name("vs", 3))}
		hosts := []string{"svc0", "svc1", "svc2", "svc0.default", "svc1.other.svc", "*.default.svc.cluster.local", "outside.example.com"}
		v.Spec.Hosts = []string{hosts[w.r.IntN(len(hosts))]}
		h := &networking.HTTPRoute{}
		for range 1 + w.r.IntN(2) {
			h.Route = append(h.Route, &networking.HTTPRouteDestination{Weight: int32(w.r.IntN(100)),
				Destination: &networking.Destination{Host: w.name("svc", 3), Subset: []string{"", "v0", "v1"}[w.r.IntN(3)]}})
		}
		if w.r.IntN(3) == 0 {
			h.Match = []*networking.HTTPMatchRequest{{SourceLabels: map[string]string{"app": w.name("svc", 3)}}}
		}
		v.Spec.Http = []*networking.HTTPRoute{h}
		return v
	case 6:
		d := &networkingv1.DestinationRule{ObjectMeta: w.meta(w.name("dr", 3))}
		d.Spec.Host = []string{"svc0", "svc1", "*.cluster.local", "svc2.default"}[w.r.IntN(4)]
		for i := range w.r.IntN(3) {
			d.Spec.Subsets = append(d.Spec.Subsets, &networking.Subset{Name: fmt.Sprintf("v%d", i), Labels: map[string]string{"version": fmt.Sprintf("v%d", i)}})
		}
		return d
	}
	p := &securityv1.PeerAuthentication{ObjectMeta: w.meta(w.name("pa", 2))}
	if w.r.IntN(3) == 0 {
		p.Namespace = "istio-system"
	}
	p.Spec.Mtls = &security.PeerAuthentication_MutualTLS{Mode: security.PeerAuthentication_MutualTLS_Mode(w.r.IntN(4))}
	return p
}

func (w *world) service() client.Object {
	s := &corev1.Service{ObjectMeta: w.meta(w.name("svc", 3))}
	s.Spec.Selector = map[string]string{"app": s.Name}
	s.Spec.ClusterIP = "10.96.0." + fmt.Sprint(w.r.IntN(200)+1)
	if w.r.IntN(5) == 0 {
		s.Spec.ClusterIP = corev1.ClusterIPNone
	}
	for _, name := range []string{"http", "tcp", "", "grpc"}[:1+w.r.IntN(4)] {
		s.Spec.Ports = append(s.Spec.Ports, corev1.ServicePort{Name: name, Port: int32(80 + len(s.Spec.Ports)), TargetPort: intstr.FromInt32(8080)})
	}
	return s
}

func (w *world) slice() client.Object {
	svc, port := w.name("svc", 3), int32(8080)
	s := &discoveryv1.EndpointSlice{ObjectMeta: w.meta(svc + w.name("-", 2)), AddressType: discoveryv1.AddressTypeIPv4}
	s.Labels = map[string]string{discoveryv1.LabelServiceName: svc}
	for _, name := range []string{"http", "tcp", "", "grpc"} {
		s.Ports = append(s.Ports, discoveryv1.EndpointPort{Name: &name, Port: &port})
	}
	for range w.r.IntN(3) {
		ready := w.r.IntN(4) > 0
		s.Endpoints = append(s.Endpoints, discoveryv1.Endpoint{
			Addresses:  []string{fmt.Sprintf("10.244.0.%d", w.r.IntN(20)+1)},
			Conditions: discoveryv1.EndpointConditions{Ready: &ready, Serving: &ready},
			TargetRef:  &corev1.ObjectReference{Kind: "Pod", Name: w.name("pod", 4)},
		})
	}
	return s
}

func key(o client.Object) string { return fmt.Sprintf("%T/%s/%s", o, o.GetNamespace(), o.GetName()) }

// step applies one random event to a state.
func (w *world) step(s *registry.State) {
	o := w.object()
	k := key(o)
	if _, there := w.objects[k]; there && w.r.IntN(3) == 0 {
		s.Apply(client.Event{Type: client.Deleted, Object: w.objects[k]})
		delete(w.objects, k)
		return
	}
	s.Apply(client.Event{Type: client.Modified, Object: o})
	w.objects[k] = o
}

// fromNothing is the mesh that the objects give in some other order.
func (w *world) fromNothing() *model.Mesh {
	s := registry.NewState(model.NewSettings())
	var keys []string
	for k := range w.objects {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	w.r.Shuffle(len(keys), func(i, j int) { keys[i], keys[j] = keys[j], keys[i] })
	for _, k := range keys {
		s.Apply(client.Event{Type: client.Added, Object: w.objects[k]})
	}
	m, _ := s.Commit()
	return m
}

func contents(s *view.Snapshot) map[string]string {
	out := map[string]string{}
	for _, set := range s.Sets {
		for name, r := range set.All() {
			out[r.Type+" "+name] = r.Version
		}
	}
	return out
}

// TestIncrementalIsFromNothing: whatever happens, in whatever order, a view that
// followed has exactly what a view has that is made now.
func TestIncrementalIsFromNothing(t *testing.T) {
	for seed := range uint64(30) {
		w := &world{r: rand.New(rand.NewPCG(seed, 1)), objects: map[string]client.Object{}}
		state, cache := registry.NewState(model.NewSettings()), envoy.NewCache()
		callers := []policy.Caller{
			{Namespace: "default", Labels: model.LabelsOf(map[string]string{"app": "svc0"})}, {Namespace: "other"},
		}
		var views []*view.View
		for _, c := range callers {
			views = append(views, view.NewOutbound(view.Outbound{Caller: c}))
		}
		fallback := &model.Workload{Namespace: "default", Name: "pod0"}
		in := view.Inbound{Key: "default/pod0", Fallback: fallback}
		views = append(views, view.NewInbound(in))
		for n := range 120 {
			for range 1 + w.r.IntN(3) {
				w.step(state)
			}
			m, touched := state.Commit()
			for _, v := range views {
				v.Update(m, touched, cache)
			}
			if n%10 != 0 {
				continue
			}
			fresh := w.fromNothing()
			for i, v := range views {
				other := view.NewInbound(in)
				if i < len(callers) {
					other = view.NewOutbound(view.Outbound{Caller: callers[i]})
				}
				other.Update(fresh, nil, envoy.NewCache())
				compare(t, fmt.Sprintf("seed %d step %d view %d", seed, n, i), contents(v.Snapshot()), contents(other.Snapshot()))
			}
			if t.Failed() {
				return
			}
		}
	}
}

func compare(t *testing.T, where string, got, want map[string]string) {
	t.Helper()
	for k, v := range want {
		if got[k] == "" {
			t.Errorf("%s: lacks %s", where, k)
		} else if got[k] != v {
			t.Errorf("%s: %s is out of date", where, k)
		}
	}
	for k := range got {
		if want[k] == "" {
			t.Errorf("%s: still has %s", where, k)
		}
	}
}
