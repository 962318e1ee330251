package xds_test

import (
	"context"
	"maps"
	"net"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/xebec-mesh/xebec/orchestrator/client"
	"github.com/xebec-mesh/xebec/pilot/envoy"
)

// stream is a client under a test's hand.
type stream struct {
	t  *testing.T
	st discovery.AggregatedDiscoveryService_DeltaAggregatedResourcesClient
	in chan *discovery.DeltaDiscoveryResponse
}

func dial(t *testing.T, m *mesh) *stream {
	t.Helper()
	l, err := net.Listen("unix", filepath.Join(t.TempDir(), "s"))
	if err != nil {
		t.Fatal(err)
	}
	g := grpc.NewServer()
	discovery.RegisterAggregatedDiscoveryServiceServer(g, m.server.For(pod("caller", nil, "10.244.0.9")))
	go func() { _ = g.Serve(l) }()
	t.Cleanup(g.Stop)
	conn, err := grpc.NewClient("unix:"+l.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	ctx, cancel := context.WithCancel(context.Background())
	t.Cleanup(cancel)
	s := &stream{t: t, in: make(chan *discovery.DeltaDiscoveryResponse, 100)}
	if s.st, err = discovery.NewAggregatedDiscoveryServiceClient(conn).DeltaAggregatedResources(ctx); err != nil {
		t.Fatal(err)
	}
	go func() {
		defer close(s.in)
		for {
			m, err := s.st.Recv()
			if err != nil {
				return
			}
			s.in <- m
		}
	}()
	return s
}

func (s *stream) ask(url string, known map[string]string, names ...string) {
	s.t.Helper()
	if err := s.st.Send(&discovery.DeltaDiscoveryRequest{TypeUrl: url, ResourceNamesSubscribe: names, InitialResourceVersions: known}); err != nil {
		s.t.Fatal(err)
	}
}

func (s *stream) ack(m *discovery.DeltaDiscoveryResponse) {
	s.t.Helper()
	if err := s.st.Send(&discovery.DeltaDiscoveryRequest{TypeUrl: m.GetTypeUrl(), ResponseNonce: m.GetNonce()}); err != nil {
		s.t.Fatal(err)
	}
}

// next returns the next response as "type +name -name".
func (s *stream) next() (string, *discovery.DeltaDiscoveryResponse) {
	s.t.Helper()
	select {
	case m := <-s.in:
		words := []string{m.GetTypeUrl()[strings.LastIndexByte(m.GetTypeUrl(), '.')+1:]}
		for _, r := range m.GetResources() {
			words = append(words, "+"+r.GetName())
		}
		for _, n := range slices.Sorted(slices.Values(m.GetRemovedResources())) {
			words = append(words, "-"+n)
		}
		return strings.Join(words, " "), m
	case <-time.After(10 * time.Second):
		s.t.Fatal("nothing came")
		return "", nil
	}
}

func (s *stream) want(text string) *discovery.DeltaDiscoveryResponse {
	s.t.Helper()
	got, m := s.next()
	if got != text {
		s.t.Fatalf("got  %s\nwant %s", got, text)
	}
	return m
}

func versions(m *discovery.DeltaDiscoveryResponse) map[string]string {
	out := map[string]string{}
	for _, r := range m.GetResources() {
		out[r.GetName()] = r.GetVersion()
	}
	return out
}

// TestReconnect: a proxy that comes back is sent what it lacks, and is told what is gone.
func TestReconnect(t *testing.T) {
	m := newMesh(t)
	m.apply(service("a", 80, "http", "10.96.0.1"), service("b", 80, "http", "10.96.0.2"))
	first := dial(t, m)
	first.ask(envoy.ClusterType, nil)
	_, all := first.next()
	known := versions(all)

	again := dial(t, m)
	stale := maps.Clone(known)
	stale["outbound|80||a.default.svc.cluster.local"] = "old"
	stale["outbound|80||gone.default.svc.cluster.local"] = "x"
	again.ask(envoy.ClusterType, stale)
	again.ask(envoy.EndpointType, nil, "outbound|80||a.default.svc.cluster.local", "outbound|80||b.default.svc.cluster.local")
	again.ack(again.want("Cluster +outbound|80||a.default.svc.cluster.local"))
	again.ack(again.want("ClusterLoadAssignment +outbound|80||a.default.svc.cluster.local +outbound|80||b.default.svc.cluster.local"))
	again.want("Cluster -outbound|80||gone.default.svc.cluster.local")
}

// TestOrder: what is referred to is in force before what refers to it, and what is
// no longer referred to goes last.
func TestOrder(t *testing.T) {
	m := newMesh(t)
	m.apply(service("a", 80, "http", "10.96.0.1"))
	s := dial(t, m)
	const a, b = "outbound|80||a.default.svc.cluster.local", "outbound|80||b.default.svc.cluster.local"
	s.ask(envoy.ClusterType, nil)
	_, r := s.next()
	s.ack(r)
	s.ask(envoy.EndpointType, nil, a)
	s.ack(s.want("ClusterLoadAssignment +" + a))
	s.ask(envoy.RouteType, nil, "80")
	s.ack(s.want("RouteConfiguration +80"))
	s.ask(envoy.VirtualHostType, nil)
	s.ack(s.want("VirtualHost +80/a.default.svc.cluster.local:80"))

	m.apply(service("b", 80, "http", "10.96.0.2"))
	r = s.want("Cluster +" + b)
	s.ack(r) // the route waits for the endpoints, even now
	s.ask(envoy.EndpointType, nil, b)
	r = s.want("ClusterLoadAssignment +" + b)
	s.ack(r)
	s.ack(s.want("VirtualHost +80/b.default.svc.cluster.local:80"))

	m.state.Apply(client.Event{Type: client.Deleted, Object: service("b", 80, "http", "10.96.0.2")})
	m.server.Update(m.state.Commit())
	r = s.want("VirtualHost -80/b.default.svc.cluster.local:80")
	s.ack(r)
	s.ack(s.want("Cluster -" + b))

	// a cluster that changes is sent its endpoints again, or it would never be warm
	m.apply(subsets("v1"))
	d := subsets("v1")
	d.Name, d.Spec.Host = "a", "a"
	m.apply(d)
	s.ack(s.want("Cluster +outbound|80|v1|a.default.svc.cluster.local"))
	s.ask(envoy.EndpointType, nil, "outbound|80|v1|a.default.svc.cluster.local")
	s.ack(s.want("ClusterLoadAssignment +outbound|80|v1|a.default.svc.cluster.local"))
	changed := service("a", 80, "grpc", "10.96.0.1")
	m.apply(changed)
	s.ack(s.want("Cluster +outbound|80|v1|a.default.svc.cluster.local +" + a))
	s.ack(s.want("ClusterLoadAssignment +outbound|80|v1|a.default.svc.cluster.local +" + a))
}
