package accesslog

import (
	"bytes"
	"fmt"
	"net/netip"
	"testing"
	"time"

	commonpb "go.opentelemetry.io/proto/otlp/common/v1"
	logspb "go.opentelemetry.io/proto/otlp/logs/v1"
	"google.golang.org/protobuf/proto"

	"github.com/xebec-mesh/xebec/mixer/enrich"
	"github.com/xebec-mesh/xebec/mixer/metrics"
)

type peers struct{}

func (peers) ByIP(ip netip.Addr) *enrich.Workload {
	if ip.String() == "10.0.0.9" {
		return &enrich.Workload{Namespace: "shop", Name: "cart", App: "cart", Version: "v2"}
	}
	return nil
}
func (peers) ByPrincipal(p string) *enrich.Workload {
	if p == "spiffe://cluster.local/ns/shop/sa/only" {
		return &enrich.Workload{Namespace: "shop", Name: "only", App: "only"}
	}
	return nil
}
func (peers) HasService(namespace, name string) bool { return namespace == "shop" && name == "cart" }

type sink struct {
	labels []metrics.Labels
	seen   []metrics.Observation
}

func (s *sink) Observe(l metrics.Labels, o metrics.Observation) {
	s.labels, s.seen = append(s.labels, l), append(s.seen, o)
}

// consume has a new reader read a request; it returns how many requests it counted.
func consume(t testing.TB, data []byte, self *enrich.Workload) *sink {
	t.Helper()
	var s sink
	r, err := New(Config{Peers: peers{}, Sink: &s})
	if err != nil {
		t.Fatal(err)
	}
	if err := r.Consume(data, self); err != nil {
		t.Fatal(err)
	}
	return &s
}

func logs(pairs ...string) []byte {
	rec := &logspb.LogRecord{}
	for i := 0; i < len(pairs); i += 2 {
		rec.Attributes = append(rec.Attributes, &commonpb.KeyValue{Key: pairs[i], Value: &commonpb.AnyValue{Value: &commonpb.AnyValue_StringValue{StringValue: pairs[i+1]}}})
	}
	data, err := proto.Marshal(&logspb.LogsData{ResourceLogs: []*logspb.ResourceLogs{{ScopeLogs: []*logspb.ScopeLogs{{LogRecords: []*logspb.LogRecord{rec}}}}}})
	if err != nil {
		panic(err)
	}
	return data
}

var self = &enrich.Workload{Namespace: "shop", Name: "web", App: "web", Version: "v1", ServiceAccount: "web", Meshed: true}

func TestLabels(t *testing.T) {
	for name, tc := range map[string]struct {
		in    []string
		check func(metrics.Labels) bool
	}{
		"callee by address": {[]string{"reporter", "source", "upstream_host", "10.0.0.9:80", "upstream_cluster", "outbound|80||cart.shop.svc.cluster.local", "peer_uri", "spiffe://x"},
			func(l metrics.Labels) bool {
				return l.DestinationApp == "cart" && l.DestinationVersion == "v2" && l.ServiceName == "cart" && l.ServiceNamespace == "shop" && l.Security == "mutual_tls" && l.SourceApp == "web"
			}},
		"never arrived": {[]string{"reporter", "source", "upstream_host", "-", "upstream_cluster", "outbound|80|v3|cart.shop.svc.cluster.local", "response_code", "0", "response_flags", "UF"},
			func(l metrics.Labels) bool {
				return l.DestinationApp == "cart" && l.DestinationVersion == "v3" && l.DestinationNamespace == "shop" && l.Flags == "UF" && l.Code == "0" && l.Security == "none"
			}},
		"another host": {[]string{"reporter", "source", "upstream_host", "93.184.216.34:443", "upstream_cluster", "outbound|443||api.example.com"},
			func(l metrics.Labels) bool {
				return l.DestinationApp == "api.example.com" && l.Service == "api.example.com"
			}},
		"passed through":   {[]string{"reporter", "source", "upstream_host", "93.184.216.34:443", "upstream_cluster", "PassthroughCluster", "authority", "Example.com:8080"}, func(l metrics.Labels) bool { return l.Service == "example.com" && l.DestinationApp == "example.com" }},
		"passed through 6": {[]string{"reporter", "source", "protocol", "tcp", "upstream_cluster", "PassthroughCluster", "requested_host", "[2001:db8::1]:443"}, func(l metrics.Labels) bool { return l.Service == "2001:db8::1" }},
		"caller by principal": {[]string{"reporter", "destination", "downstream_remote_address", "10.9.9.9:1", "peer_uri", "spiffe://cluster.local/ns/shop/sa/only"},
			func(l metrics.Labels) bool { return l.SourceApp == "only" && l.DestinationApp == "web" }},
		"service by server name": {[]string{"reporter", "destination", "requested_host", "outbound_.80_._.cart.shop.svc.cluster.local", "authority", "x"},
			func(l metrics.Labels) bool { return l.Service == "cart.shop.svc.cluster.local" }},
		"service by authority": {[]string{"reporter", "destination", "authority", "CART.shop:80"}, func(l metrics.Labels) bool { return l.ServiceName == "cart" }},
		"invented authority":   {[]string{"reporter", "destination", "authority", "x17.example"}, func(l metrics.Labels) bool { return l.Service == "web" }},
		"grpc":                 {[]string{"reporter", "destination", "grpc_status", "14", "response_code", "200"}, func(l metrics.Labels) bool { return l.Protocol == "grpc" && l.Failed() }},
		"not grpc":             {[]string{"reporter", "destination", "grpc_status", "-", "response_code", "200"}, func(l metrics.Labels) bool { return l.Protocol == "http" && !l.Failed() }},
		"tcp":                  {[]string{"reporter", "destination", "protocol", "tcp"}, func(l metrics.Labels) bool { return l.Protocol == "tcp" && l.Code == "" }},
	} {
		t.Run(name, func(t *testing.T) {
			if s := consume(t, logs(tc.in...), self); len(s.labels) != 1 || !tc.check(s.labels[0]) {
				t.Fatalf("%+v", s.labels)
			}
		})
	}
}

func TestOtherLogsAreNoRequests(t *testing.T) {
	if s := consume(t, logs("message", "hello"), self); len(s.seen) != 0 {
		t.Fatal(s.seen)
	}
	if s := consume(t, logs("reporter", "source", "upstream_cluster", "outbound|4317||otel.xebec-system.svc.cluster.local"), self); len(s.seen) != 0 {
		t.Fatal("telemetry reports itself")
	}
	if s := consume(t, logs("reporter", "source", "duration_ms", "12"), nil); len(s.seen) != 1 || s.seen[0].Duration != 12*time.Millisecond {
		t.Fatal(s.seen)
	}
}

// TestRemembers: a pod that takes over an address is noticed after a while.
func TestRemembers(t *testing.T) {
	now := time.Unix(1000, 0)
	who := &moving{app: "old"}
	var s sink
	r, err := New(Config{Peers: who, Sink: &s, Now: func() time.Time { return now }})
	if err != nil {
		t.Fatal(err)
	}
	record := logs("reporter", "source", "upstream_host", "10.0.0.9:80")
	for _, step := range []struct {
		app  string
		pass time.Duration
		want string
	}{{"old", 0, "old"}, {"new", time.Second, "old"}, {"new", 5 * time.Second, "new"}} {
		who.app = step.app
		now = now.Add(step.pass)
		if err := r.Consume(record, self); err != nil {
			t.Fatal(err)
		}
		if got := s.labels[len(s.labels)-1].DestinationApp; got != step.want {
			t.Fatalf("%s, want %s", got, step.want)
		}
	}
}

type moving struct {
	peers
	app string
}

func (m *moving) ByIP(netip.Addr) *enrich.Workload { return &enrich.Workload{App: m.app} }

func TestHostsAreBounded(t *testing.T) {
	var s sink
	r, err := New(Config{Peers: peers{}, Sink: &s})
	if err != nil {
		t.Fatal(err)
	}
	for i := range 1000 {
		if err := r.Consume(logs("reporter", "source", "upstream_cluster", "PassthroughCluster", "authority", fmt.Sprint("h", i)), self); err != nil {
			t.Fatal(err)
		}
	}
	names := map[string]bool{}
	for _, l := range s.labels {
		names[l.DestinationApp] = true
	}
	if len(names) != maxHosts+1 || !names["other hosts"] {
		t.Fatal(len(names))
	}
}

func FuzzConsume(f *testing.F) {
	f.Add(logs("reporter", "source", "upstream_cluster", "outbound|80||a.b.svc.cluster.local", "duration_ms", "1e400", "authority", "[::1]:80"))
	f.Fuzz(func(t *testing.T, data []byte) {
		var s sink
		r, err := New(Config{Peers: peers{}, Sink: &s})
		if err != nil {
			t.Fatal(err)
		}
		if r.Consume(data, self) == nil {
			var in logspb.LogsData
			_ = proto.Unmarshal(data, &in)
		}
		for i, o := range s.seen {
			_ = s.labels[i].Text()
			if o.Duration < 0 {
				t.Fatal("negative duration")
			}
		}
	})
}

func BenchmarkConsume(b *testing.B) {
	data := logs("reporter", "source", "method", "GET", "path", "/photos/17", "authority", "pictures:8080", "protocol", "HTTP/1.1", "response_code", "200",
		"response_flags", "-", "duration_ms", "12", "bytes_received", "0", "bytes_sent", "1234", "upstream_cluster", "outbound|80||cart.shop.svc.cluster.local",
		"upstream_host", "10.0.0.9:80", "downstream_remote_address", "10.0.0.8:3333", "peer_uri", "spiffe://cluster.local/ns/shop/sa/cart", "trace_id", "0af7651916cd43dd8448eb211c80319c")
	for _, n := range []int{1, 100} {
		b.Run(fmt.Sprintf("records=%d", n), func(b *testing.B) {
			r, err := New(Config{Peers: peers{}, Sink: metrics.New(metrics.Config{})})
			if err != nil {
				b.Fatal(err)
			}
			request := bytes.Repeat(data, n)
			for b.Loop() {
				if err := r.Consume(request, self); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(n)*float64(b.N)/b.Elapsed().Seconds(), "records/s")
		})
	}
}
