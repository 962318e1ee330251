package xds_test

import (
	"encoding/json"
	"testing"

	networkingv1 "istio.io/client-go/pkg/apis/networking/v1"

	"github.com/xebec-mesh/xebec/orchestrator/client"
	"github.com/xebec-mesh/xebec/pilot/envoy"
	"github.com/xebec-mesh/xebec/pilot/model"
	"github.com/xebec-mesh/xebec/pilot/policy"
	"github.com/xebec-mesh/xebec/pilot/registry"
	"github.com/xebec-mesh/xebec/pilot/view"
)

// FuzzConfiguration: whatever gets past admission, or before it, is generated from
// without a panic, and every resource is either well-formed or known not to be.
func FuzzConfiguration(f *testing.F) {
	for _, seed := range []string{
		`{"hosts":["svc"],"http":[{"match":[{"uri":{"regex":"(?=x)"},"headers":{"":{}}}],"route":[{"destination":{"host":"svc","subset":"x"},"weight":-1},{}]}]}`,
		`{"hosts":["*","svc"],"http":[{"redirect":{"uri":"/","redirectCode":99}},{"directResponse":{"status":1}},{"fault":{"abort":{"http2Error":"x"},"delay":{"exponentialDelay":"1s"}},"mirrors":[{}],"route":[{}]}],"tcp":[{"route":[{}]}],"tls":[{"match":[{"sniHosts":["svc"]}],"route":[{"weight":1},{"weight":2}]}]}`,
		`{"host":"svc","trafficPolicy":{"loadBalancer":{"consistentHash":{"maglev":{"tableSize":4}}},"tls":{"mode":"MUTUAL"},"connectionPool":{"tcp":{"connectTimeout":"0s"}}},"subsets":[{"name":"x"},{"name":"x","labels":{"a":"b"}}]}`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		s := registry.NewState(model.NewSettings())
		s.Apply(client.Event{Type: client.Added, Object: service("svc", 80, "http", "10.96.0.1")})
		s.Apply(client.Event{Type: client.Added, Object: service("raw", 90, "tcp", "10.96.0.2")})
		spec := append(append([]byte(`{"metadata":{"name":"x","namespace":"default"},"spec":`), data...), '}')
		v, d := &networkingv1.VirtualService{}, &networkingv1.DestinationRule{}
		if json.Unmarshal(spec, v) == nil {
			s.Apply(client.Event{Type: client.Added, Object: v})
		}
		if json.Unmarshal(spec, d) == nil {
			s.Apply(client.Event{Type: client.Added, Object: d})
		}
		m, touched := s.Commit()
		out := view.NewOutbound(view.Outbound{Caller: policy.Caller{Namespace: "default"}})
		out.Update(m, touched, envoy.NewCache())
	})
}
