package xds_test

import (
	"context"
	"fmt"
	"net"
	"path/filepath"
	"sync/atomic"
	"testing"

	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	networking "istio.io/api/networking/v1alpha3"
	networkingv1 "istio.io/client-go/pkg/apis/networking/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/xebec-mesh/xebec/orchestrator/client"
	"github.com/xebec-mesh/xebec/pilot/envoy"
	"github.com/xebec-mesh/xebec/pilot/model"
	"github.com/xebec-mesh/xebec/pilot/registry"
	"github.com/xebec-mesh/xebec/pilot/xds"
)

// bed is a control plane with services, and proxies that behave as Envoy does.
type bed struct {
	state  *registry.State
	server *xds.Server
	conn   *grpc.ClientConn
	bytes  atomic.Int64
	gen    int64
}

func newBed(b *testing.B, services int) *bed {
	b.Helper()
	t := &bed{state: registry.NewState(model.NewSettings())}
	var err error
	if t.server, err = xds.New(xds.Config{Settings: model.NewSettings(), Log: discard}); err != nil {
		b.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); _ = t.server.Run(ctx) }()
	b.Cleanup(func() { cancel(); <-done })
	var objs []client.Object
	for i := range services {
		name := fmt.Sprintf("svc-%d", i)
		objs = append(objs, service(name, 80, "http", fmt.Sprintf("10.96.%d.%d", i/250, i%250+1)))
		objs = append(objs, pod(name+"-a", map[string]string{"app": name}, fmt.Sprintf("10.1.%d.%d", i/250, i%250+1)))
		objs = append(objs, slice(name, "http", fmt.Sprintf("10.1.%d.%d", i/250, i%250+1), backend{name + "-a", 8080})...)
	}
	t.apply(objs...)
	return t
}

func (t *bed) apply(objs ...client.Object) {
	for _, o := range objs {
		t.state.Apply(client.Event{Type: client.Added, Object: o})
	}
	t.server.Update(t.state.Commit())
}

func (t *bed) route(i int) *networkingv1.VirtualService {
	t.gen++
	host := fmt.Sprintf("svc-%d", i)
	return &networkingv1.VirtualService{
		ObjectMeta: metav1.ObjectMeta{Name: host, Namespace: "default", Generation: t.gen},
		Spec: networking.VirtualService{Hosts: []string{host}, Http: []*networking.HTTPRoute{{
			Name:  fmt.Sprintf("v%d", t.gen),
			Route: []*networking.HTTPRouteDestination{{Destination: &networking.Destination{Host: host}}},
		}}},
	}
}

// serve opens one socket for all; every proxy is the same caller.
func (t *bed) serve(b *testing.B) {
	b.Helper()
	l, err := net.Listen("unix", filepath.Join(b.TempDir(), "s"))
	if err != nil {
		b.Fatal(err)
	}
	g := grpc.NewServer()
	discovery.RegisterAggregatedDiscoveryServiceServer(g, t.server.For(pod("caller", map[string]string{"app": "caller"}, "10.2.0.1")))
	go func() { _ = g.Serve(l) }()
	b.Cleanup(g.Stop)
	if t.conn, err = grpc.NewClient("unix:"+l.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials())); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { t.conn.Close() })
}

// connect runs one proxy: it asks for everything, acknowledges everything, and tells
// got of every response.
func (t *bed) connect(ctx context.Context, b *testing.B, got func(kind string, resources int)) {
	st, err := discovery.NewAggregatedDiscoveryServiceClient(t.conn).DeltaAggregatedResources(ctx, grpc.MaxCallRecvMsgSize(64<<20))
	if err != nil {
		b.Error(err)
		return
	}
	ask := func(url string, names ...string) {
		_ = st.Send(&discovery.DeltaDiscoveryRequest{TypeUrl: url, ResourceNamesSubscribe: names})
	}
	ask(envoy.ClusterType)
	asked := map[string]bool{}
	for {
		m, err := st.Recv()
		if err != nil {
			return
		}
		size := 0
		for _, r := range m.GetResources() {
			size += len(r.GetResource().GetValue())
		}
		t.bytes.Add(int64(size))
		_ = st.Send(&discovery.DeltaDiscoveryRequest{TypeUrl: m.GetTypeUrl(), ResponseNonce: m.GetNonce()})
		if !asked[m.GetTypeUrl()] {
			asked[m.GetTypeUrl()] = true
			switch m.GetTypeUrl() {
			case envoy.ClusterType:
				var names []string
				for _, r := range m.GetResources() {
					names = append(names, r.GetName())
				}
				ask(envoy.EndpointType, names...)
			case envoy.EndpointType:
				ask(envoy.ListenerType)
			case envoy.ListenerType:
				ask(envoy.RouteType, "80")
			case envoy.RouteType:
				ask(envoy.VirtualHostType)
			}
		}
		got(m.GetTypeUrl(), len(m.GetResources()))
	}
}

// fleet connects proxies and waits until each has its virtual hosts. It returns the
// channel on which every further response is announced.
func (t *bed) fleet(b *testing.B, proxies int) <-chan string {
	ctx, cancel := context.WithCancel(context.Background())
	b.Cleanup(cancel)
	ready := make(chan struct{}, proxies)
	later := make(chan string, proxies*4)
	for range proxies {
		first := true
		go t.connect(ctx, b, func(kind string, _ int) {
			if first {
				if kind == envoy.VirtualHostType {
					first = false
					ready <- struct{}{}
				}
				return
			}
			later <- kind
		})
	}
	for range proxies {
		<-ready
	}
	return later
}

// BenchmarkRouteChange is one changed route, from the model's event to the last of
// the proxies, over gRPC; clients included.
func BenchmarkRouteChange(b *testing.B) {
	for _, size := range []struct{ services, proxies int }{{200, 1}, {200, 200}, {1000, 200}} {
		b.Run(fmt.Sprintf("services=%d/proxies=%d", size.services, size.proxies), func(b *testing.B) {
			t := newBed(b, size.services)
			t.serve(b)
			later := t.fleet(b, size.proxies)
			t.bytes.Store(0)
			b.ResetTimer()
			i := 0
			for b.Loop() {
				t.apply(t.route(i % size.services))
				i++
				for range size.proxies {
					if kind := <-later; kind != envoy.VirtualHostType {
						b.Fatal(kind)
					}
				}
			}
			b.ReportMetric(float64(t.bytes.Load())/float64(b.N)/float64(size.proxies), "bytes/proxy")
		})
	}
}

// BenchmarkEndpointChange is one endpoint that comes or goes.
func BenchmarkEndpointChange(b *testing.B) {
	for _, size := range []struct{ services, proxies int }{{200, 200}, {1000, 200}} {
		b.Run(fmt.Sprintf("services=%d/proxies=%d", size.services, size.proxies), func(b *testing.B) {
			t := newBed(b, size.services)
			t.serve(b)
			later := t.fleet(b, size.proxies)
			t.bytes.Store(0)
			i := 0
			for b.Loop() {
				s := slice("svc-0", "http", "10.1.0.1", backend{"svc-0-a", 8080})[0].(*discoveryv1.EndpointSlice)
				s.Endpoints[0].Addresses[0] = fmt.Sprintf("10.1.9.%d", i%200+1)
				i++
				t.apply(s)
				for range size.proxies {
					if kind := <-later; kind != envoy.EndpointType {
						b.Fatal(kind)
					}
				}
			}
			b.ReportMetric(float64(t.bytes.Load())/float64(b.N)/float64(size.proxies), "bytes/proxy")
		})
	}
}

// BenchmarkConnect is 200 proxies that connect at once and get everything.
func BenchmarkConnect(b *testing.B) {
	for _, size := range []struct{ services, proxies int }{{200, 200}, {1000, 200}} {
		b.Run(fmt.Sprintf("services=%d/proxies=%d", size.services, size.proxies), func(b *testing.B) {
			t := newBed(b, size.services)
			t.serve(b)
			for b.Loop() {
				ctx, cancel := context.WithCancel(context.Background())
				ready := make(chan struct{}, size.proxies)
				for range size.proxies {
					go t.connect(ctx, b, func(kind string, _ int) {
						if kind == envoy.VirtualHostType {
							ready <- struct{}{}
						}
					})
				}
				for range size.proxies {
					<-ready
				}
				cancel()
			}
		})
	}
}

// BenchmarkGenerate is the whole view of one proxy from nothing.
func BenchmarkGenerate(b *testing.B) {
	for _, services := range []int{200, 1000} {
		b.Run(fmt.Sprintf("services=%d", services), func(b *testing.B) {
			for b.Loop() {
				b.StopTimer()
				t := newBed(b, services)
				b.StartTimer()
				if _, _, err := t.server.Snapshots(pod("caller", nil, "10.2.0.1")); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
