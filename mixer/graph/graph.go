// Package graph draws who calls whom.
//
//	in:   request metrics of a recent window, the workloads that exist
//	out:  nodes, one for each version of each application, and edges with rate, errors, latency and security
//
// Build is pure. Where both ends report a call, the caller's report counts: it
// knows what the caller waited for, and of calls that never arrived. The callee's
// counts where the caller is outside the mesh.
package graph

import (
	"cmp"
	"slices"
	"strings"
	"time"

	"github.com/xebec-mesh/xebec/mixer/enrich"
	"github.com/xebec-mesh/xebec/mixer/metrics"
)

// Graph is the calls of one window.
type Graph struct {
	From  time.Time `json:"from"`
	To    time.Time `json:"to"`
	Nodes []Node    `json:"nodes"`
	Edges []Edge    `json:"edges"`
}

// Kinds of node.
const (
	Workload = "workload" // pods of this cluster
	Service  = "service"  // something that was called by name and is no pod: another host, or nothing behind it
	Outside  = "outside"  // a caller that is not a pod
)

// Node is one version of an application.
type Node struct {
	ID        string  `json:"id"` // namespace/app@version
	Kind      string  `json:"kind"`
	Namespace string  `json:"namespace"`
	App       string  `json:"app"`
	Version   string  `json:"version,omitempty"`
	Workload  string  `json:"workload,omitempty"`
	Pods      int     `json:"pods"`
	Meshed    bool    `json:"meshed"`
	In        Traffic `json:"in"` // what it is asked
}

// Edge is the calls from one node to another.
type Edge struct {
	Source  string            `json:"source"`
	Target  string            `json:"target"`
	Traffic Traffic           `json:"traffic"`
	Share   float64           `json:"share"` // of the source's calls to the target's application, 0 to 1
	MTLS    float64           `json:"mtls"`  // share of calls under mutual TLS, 0 to 1
	Codes   map[string]uint64 `json:"codes,omitempty"`
	Flags   map[string]uint64 `json:"flags,omitempty"` // Envoy's reasons for what went wrong
	TCP     bool              `json:"tcp,omitempty"`
}

// Traffic is golden signals.
type Traffic struct {
	Requests uint64  `json:"requests"`
	Rate     float64 `json:"rate"` // per second
	Failed   uint64  `json:"failed"`
	Errors   float64 `json:"errors"` // share that failed, 0 to 1
	P50      float64 `json:"p50"`    // ms
	P99      float64 `json:"p99"`    // ms
}

type place struct{ namespace, app, version string }

func (p place) id() string { return p.namespace + "/" + p.app + "@" + p.version }

type pair struct{ source, target place }

// sums adds up windows.
type sums struct {
	count, failed, mtls, tcp uint64
	hist                     metrics.Histogram
	codes, flags             map[string]uint64
}

func (s *sums) add(w *metrics.Window) {
	s.count += w.Count
	s.hist.Merge(w.Durations)
	if w.Failed() {
		s.failed += w.Count
	}
	if w.Security == "mutual_tls" {
		s.mtls += w.Count
	}
	if w.Protocol == "tcp" {
		s.tcp += w.Count
	}
	if s.codes == nil {
		s.codes, s.flags = map[string]uint64{}, map[string]uint64{}
	}
	if w.Code != "" {
		s.codes[w.Code] += w.Count
	}
	if w.Flags != "" && w.Flags != "-" {
		s.flags[w.Flags] += w.Count
	}
}

func (s *sums) traffic(window time.Duration) Traffic {
	t := Traffic{
		Requests: s.count, Failed: s.failed,
		P50: ms(s.hist.Quantile(0.5)), P99: ms(s.hist.Quantile(0.99)),
	}
	if s.count > 0 {
		t.Errors = float64(s.failed) / float64(s.count)
	}
	if window > 0 {
		t.Rate = float64(s.count) / window.Seconds()
	}
	return t
}

func ms(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

// Build makes the graph of what happened from a time to another.
func Build(windows []metrics.Window, workloads []*enrich.Workload, from, to time.Time) Graph {
	nodes := map[place]*Node{}
	for _, w := range workloads {
		if !w.Meshed {
			continue
		}
		n := node(nodes, place{w.Namespace, w.App, w.Version})
		n.Kind, n.Workload, n.Meshed = Workload, w.Name, true
		n.Pods++
	}
	unmeshed(nodes, windows, workloads)
	edges, inbound := collect(windows)
	g := Graph{From: from, To: to, Nodes: []Node{}, Edges: []Edge{}}
	toApp := map[pair]uint64{} // by application, without version
	for p, s := range edges {
		toApp[pair{p.source, place{p.target.namespace, p.target.app, ""}}] += s.count
	}
	for p, s := range edges {
		node(nodes, p.source)
		node(nodes, p.target)
		all := toApp[pair{p.source, place{p.target.namespace, p.target.app, ""}}]
		g.Edges = append(g.Edges, Edge{
			Source: p.source.id(), Target: p.target.id(), Traffic: s.traffic(to.Sub(from)),
			Share: float64(s.count) / float64(all), MTLS: float64(s.mtls) / float64(s.count),
			Codes: s.codes, Flags: s.flags, TCP: s.tcp == s.count,
		})
	}
	for p, n := range nodes {
		if s := inbound[p]; s != nil {
			n.In = s.traffic(to.Sub(from))
		}
		g.Nodes = append(g.Nodes, *n)
	}
	slices.SortFunc(g.Nodes, func(a, b Node) int { return strings.Compare(a.ID, b.ID) })
	slices.SortFunc(g.Edges, func(a, b Edge) int {
		return cmp.Or(strings.Compare(a.Source, b.Source), strings.Compare(a.Target, b.Target))
	})
	return g
}

// unmeshed adds the pods without a sidecar that took part in a call.
func unmeshed(nodes map[place]*Node, windows []metrics.Window, workloads []*enrich.Workload) {
	seen := map[place]bool{}
	for i := range windows {
		seen[sourceOf(&windows[i])], seen[targetOf(&windows[i])] = true, true
	}
	for _, w := range workloads {
		if p := (place{w.Namespace, w.App, w.Version}); !w.Meshed && seen[p] {
			n := node(nodes, p)
			n.Kind, n.Workload = Workload, w.Name
			n.Pods++
		}
	}
}

func node(nodes map[place]*Node, p place) *Node {
	n := nodes[p]
	if n == nil {
		n = &Node{ID: p.id(), Kind: Service, Namespace: p.namespace, App: p.app, Version: p.version}
		if p == outside {
			n.Kind = Outside
		}
		nodes[p] = n
	}
	return n
}

// outside is every caller that is not a pod.
var outside = place{"", "outside", ""}

// collect adds windows up by edge and by target, each call once.
func collect(windows []metrics.Window) (edges map[pair]*sums, inbound map[place]*sums) {
	reported := map[pair]bool{} // by a caller; by application
	app := func(p place) place { p.version = ""; return p }
	for i := range windows {
		if w := &windows[i]; w.Reporter == "source" {
			reported[pair{app(sourceOf(w)), app(targetOf(w))}] = true
		}
	}
	edges, inbound = map[pair]*sums{}, map[place]*sums{}
	for i := range windows {
		w := &windows[i]
		p := pair{sourceOf(w), targetOf(w)}
		if w.Reporter != "source" && reported[pair{app(p.source), app(p.target)}] {
			continue
		}
		if edges[p] == nil {
			edges[p] = &sums{}
		}
		if inbound[p.target] == nil {
			inbound[p.target] = &sums{}
		}
		edges[p].add(w)
		inbound[p.target].add(w)
	}
	return edges, inbound
}

func sourceOf(w *metrics.Window) place {
	if w.SourceApp != "" {
		return place{w.SourceNamespace, w.SourceApp, w.SourceVersion}
	}
	if account, ok := enrich.AccountOf(w.SourcePrincipal); ok {
		namespace, name, _ := strings.Cut(account, "/")
		return place{namespace, name, ""}
	}
	return outside
}

func targetOf(w *metrics.Window) place {
	if w.DestinationApp != "" {
		return place{w.DestinationNamespace, w.DestinationApp, w.DestinationVersion}
	}
	if w.ServiceName != "" {
		return place{w.ServiceNamespace, w.ServiceName, ""}
	}
	return place{"", "unknown", ""}
}
