package xds_test

import (
	"fmt"
	"strings"
	"testing"

	"golang.org/x/tools/txtar"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"sigs.k8s.io/yaml"

	"github.com/xebec-mesh/xebec/orchestrator/client"
)

// everything that policies can say about a destination, in one rule for each service
const everything = `
{apiVersion: networking.istio.io/v1, kind: DestinationRule, metadata: {name: ring}, spec: {host: reviews, trafficPolicy: {
  loadBalancer: {consistentHash: {httpCookie: {name: user, path: /, ttl: 10s}, ringHash: {minimumRingSize: 4096}}},
  connectionPool: {tcp: {maxConnections: 5, connectTimeout: 30ms, maxConnectionDuration: 1h, idleTimeout: 5m, tcpKeepalive: {probes: 3, time: 60s, interval: 10s}},
    http: {http1MaxPendingRequests: 7, http2MaxRequests: 9, maxRequestsPerConnection: 11, maxRetries: 2, idleTimeout: 30s, h2UpgradePolicy: UPGRADE, maxConcurrentStreams: 100, http2KeepAlive: {interval: 10s, timeout: 2s}}},
  outlierDetection: {consecutive5xxErrors: 3, consecutiveGatewayErrors: 2, splitExternalLocalOriginErrors: true, consecutiveLocalOriginFailures: 4, interval: 1s, baseEjectionTime: 10m, maxEjectionPercent: 50, minHealthPercent: 30}},
  subsets: [{name: v1, labels: {version: v1}, trafficPolicy: {loadBalancer: {consistentHash: {httpHeaderName: x, maglev: {tableSize: 65537}}}}},
            {name: v2, labels: {version: v2}, trafficPolicy: {loadBalancer: {simple: ROUND_ROBIN, warmup: {duration: 30s, minimumPercent: 10, aggression: 1.5}}, portLevelSettings: [{port: {number: 80}, tls: {mode: SIMPLE, sni: x.example.com, subjectAltNames: [x.example.com]}}]}}]}}
---
{apiVersion: networking.istio.io/v1, kind: DestinationRule, metadata: {name: rest}, spec: {host: "*.default.svc.cluster.local", trafficPolicy: {
  loadBalancer: {simple: RANDOM}, tls: {mode: ISTIO_MUTUAL, sni: other, subjectAltNames: ["spiffe://cluster.local/ns/default/sa/x"]}, connectionPool: {http: {useClientProtocol: true}}}}}
---
{apiVersion: networking.istio.io/v1, kind: DestinationRule, metadata: {name: out}, spec: {host: api.example.com, trafficPolicy: {loadBalancer: {simple: PASSTHROUGH}, tls: {mode: SIMPLE, insecureSkipVerify: true}}}}
---
{apiVersion: networking.istio.io/v1, kind: VirtualService, metadata: {name: db}, spec: {hosts: [db], tcp: [{match: [{port: 5432}], route: [{destination: {host: db}, weight: 30}, {destination: {host: reviews, subset: v1}, weight: 70}]}]}}
---
{apiVersion: networking.istio.io/v1, kind: VirtualService, metadata: {name: wild}, spec: {hosts: ["*.example.org"], http: [{match: [{scheme: {exact: http}, authority: {prefix: a}, uri: {regex: "/.*"}, headers: {a: {prefix: b}, c: {}}, queryParams: {q: {regex: "x+"}, r: {}}}], headers: {response: {add: {x: "1"}}}, route: [{destination: {host: reviews}}]}]}}
---
{apiVersion: networking.istio.io/v1, kind: ServiceEntry, metadata: {name: static}, spec: {hosts: [static.example.com], addresses: [192.0.2.7], resolution: STATIC, ports: [{number: 443, name: tls, protocol: TLS}], endpoints: [{address: 192.0.2.8, weight: 3, locality: a/b/c}]}}
---
{apiVersion: security.istio.io/v1, kind: PeerAuthentication, metadata: {name: web}, spec: {selector: {matchLabels: {app: web}}, mtls: {mode: STRICT}, portLevelMtls: {3000: {mode: DISABLE}}}}
---
{apiVersion: networking.istio.io/v1, kind: Sidecar, metadata: {name: narrow, namespace: elsewhere}, spec: {outboundTrafficPolicy: {mode: REGISTRY_ONLY}, egress: [{hosts: ["*/*"]}]}}
`

// TestRealEnvoyAccepts gives the real Envoy every construct that the scripts and the
// rules above use: it refuses none, for a caller that may call anything and for one
// that may not.
func TestRealEnvoyAccepts(t *testing.T) {
	envoyBinary(t)
	m := newMesh(t)
	decoder := serializer.NewCodecFactory(client.Scheme()).UniversalDeserializer()
	apply := func(text string) {
		t.Helper()
		for _, doc := range strings.Split("\n"+text, "\n---\n") {
			raw, err := yaml.YAMLToJSON([]byte(doc))
			if err != nil {
				t.Fatalf("%v in %s", err, doc)
			}
			o, _, err := decoder.Decode(raw, nil, nil)
			if err != nil {
				t.Fatalf("%v in %s", err, doc)
			}
			obj := o.(client.Object)
			if obj.GetNamespace() == "" {
				obj.SetNamespace("default")
			}
			m.apply(obj)
		}
	}
	for script, files := range map[string][]string{
		"protocols": {"services.yaml"}, "delegate": {"base.yaml", "subsets.yaml"}, "actions": {"routes.yaml"},
	} {
		a, err := txtar.ParseFile("testdata/" + script + ".txtar")
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range a.Files {
			for _, want := range files {
				if f.Name == want {
					apply(string(f.Data))
				}
			}
		}
	}
	web := pod("web", map[string]string{"app": "web"}, "10.244.0.9")
	m.apply(web)
	narrow := pod("narrow", nil, "10.244.0.10")
	narrow.Namespace = "elsewhere"
	m.apply(narrow)
	apply(everything)
	if r := m.rejections(); len(r) > 0 {
		t.Fatalf("invalid: %+v", r)
	}
	for _, p := range []string{"web", "narrow"} {
		t.Run(p, func(t *testing.T) {
			who := web
			if p == "narrow" {
				who = narrow
			}
			e := startEnvoy(t, m, who)
			eventually(t, func() error { // all types have been answered
				for _, kind := range []string{"cluster_manager.cds", "listener_manager.lds"} {
					if !strings.Contains(e.adminGet("/stats?filter="+kind+".update_success"), "update_success: 1") {
						return fmt.Errorf("%s: %s", kind, e.adminGet("/stats?filter="+kind))
					}
				}
				if code, _, err := e.get("reviews", "/teapot"); err != nil || p == "web" && code != 418 {
					return fmt.Errorf("%d %v", code, err)
				}
				return nil
			})
			for _, line := range strings.Split(e.adminGet("/stats?filter=update_rejected"), "\n") {
				if line != "" && !strings.HasSuffix(line, ": 0") {
					t.Error(line)
				}
			}
			t.Log(strings.Count(e.adminGet("/config_dump?resource=dynamic_active_clusters"), "ClustersConfigDump.DynamicCluster"), "clusters")
			if r := m.rejections(); len(r) > 0 {
				t.Errorf("refused: %+v", r)
			}
		})
	}
}
