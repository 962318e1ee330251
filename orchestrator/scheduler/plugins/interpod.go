package plugins

import (
	"github.com/xebec-mesh/xebec/orchestrator/scheduler/snapshot"
)

// pair is one topology domain: a label and its value.
type pair struct{ key, value string }

// interPodAffinity holds required affinity and anti-affinity between pods, in
// both directions.
var interPodAffinity = Filter{Name: "InterPodAffinity", Global: true, Prepare: func(p *snapshot.Pod, s *snapshot.Snapshot) Check {
	forbidden := forbiddenBy(p, s)
	if len(forbidden) == 0 && len(p.Affinity) == 0 && len(p.AntiAffinity) == 0 {
		return nil
	}
	near := domains(p, s, p.Affinity, true)
	far := domains(p, s, p.AntiAffinity, false)
	// The first of a group that wants to be together has nobody to join.
	alone := len(near) == 0 && matchesAll(p, p.Affinity, s)
	return func(n *snapshot.Node) string {
		for i := range p.Affinity {
			value, ok := n.Labels[p.Affinity[i].TopologyKey]
			if !ok || (!alone && near[pair{p.Affinity[i].TopologyKey, value}] == 0) {
				return "node(s) didn't match pod affinity rules"
			}
		}
		for i := range p.AntiAffinity {
			if value, ok := n.Labels[p.AntiAffinity[i].TopologyKey]; ok && far[pair{p.AntiAffinity[i].TopologyKey, value}] > 0 {
				return "node(s) didn't match pod anti-affinity rules"
			}
		}
		for f := range forbidden {
			if value, ok := n.Labels[f.key]; ok && value == f.value {
				return "node(s) didn't satisfy existing pods anti-affinity rules"
			}
		}
		return ""
	}
}}

// forbiddenBy are the domains where somebody does not want p.
func forbiddenBy(p *snapshot.Pod, s *snapshot.Snapshot) map[pair]bool {
	var out map[pair]bool
	for _, other := range s.AntiAffinity() {
		for i := range other.AntiAffinity {
			t := &other.AntiAffinity[i]
			node := s.Node(other.Spec.NodeName)
			if node == nil || !t.Matches(p.Pod, s.NamespaceLabels) {
				continue
			}
			if value, ok := node.Labels[t.TopologyKey]; ok {
				if out == nil {
					out = map[pair]bool{}
				}
				out[pair{t.TopologyKey, value}] = true
			}
		}
	}
	return out
}

// domains counts, in the domains of terms, the pods that match: all of the terms
// together, or each of them.
func domains(p *snapshot.Pod, s *snapshot.Snapshot, terms []snapshot.Term, together bool) map[pair]int {
	out := map[pair]int{}
	each(s, terms, func(other *snapshot.Pod) {
		node := s.Node(other.Spec.NodeName)
		if node == nil || other.Key == p.Key || (together && !matchesAll(other, terms, s)) {
			return
		}
		for i := range terms {
			value, ok := node.Labels[terms[i].TopologyKey]
			if ok && (together || terms[i].Matches(other.Pod, s.NamespaceLabels)) {
				out[pair{terms[i].TopologyKey, value}]++
			}
		}
	})
	return out
}

// each visits the pods that terms may mean: those of the namespaces that they
// name, or all of them where they select namespaces.
func each(s *snapshot.Snapshot, terms []snapshot.Term, visit func(*snapshot.Pod)) {
	namespaces := map[string]bool{}
	for i := range terms {
		if terms[i].NamespaceSelector != nil {
			for _, p := range s.All() {
				visit(p)
			}
			return
		}
		for n := range terms[i].Namespaces {
			namespaces[n] = true
		}
	}
	for n := range namespaces {
		for _, p := range s.InNamespace(n) {
			visit(p)
		}
	}
}

func matchesAll(p *snapshot.Pod, terms []snapshot.Term, s *snapshot.Snapshot) bool {
	for i := range terms {
		if !terms[i].Matches(p.Pod, s.NamespaceLabels) {
			return false
		}
	}
	return len(terms) > 0
}

// interPodAffinityScore follows preferred terms, the pod's own and those of the
// pods that are there; a required affinity of theirs counts as a weak wish.
var interPodAffinityScore = Score{Name: "InterPodAffinity", Weight: 2, Prepare: func(p *snapshot.Pod, s *snapshot.Snapshot) *Rating {
	wishes := map[pair]int64{}
	add := func(at *snapshot.Pod, t *snapshot.Term, meant *snapshot.Pod, weight int64) {
		node := s.Node(at.Spec.NodeName)
		if node == nil || !t.Matches(meant.Pod, s.NamespaceLabels) {
			return
		}
		if value, ok := node.Labels[t.TopologyKey]; ok {
			wishes[pair{t.TopologyKey, value}] += weight
		}
	}
	for _, other := range s.Preferring() {
		theirs(other, func(t *snapshot.Term, weight int64) { add(other, t, p, weight) })
	}
	own := func(terms []snapshot.WeightedTerm, sign int64) {
		for i := range terms {
			each(s, []snapshot.Term{terms[i].Term}, func(other *snapshot.Pod) {
				add(other, &terms[i].Term, other, sign*terms[i].Weight)
			})
		}
	}
	own(p.PreferredAffinity, 1)
	own(p.PreferredAntiAffinity, -1)
	if len(wishes) == 0 {
		return nil
	}
	return &Rating{
		Rate: func(n *snapshot.Node) int64 {
			var sum int64
			for w, weight := range wishes {
				if value, ok := n.Labels[w.key]; ok && value == w.value {
					sum += weight
				}
			}
			return sum
		},
		Normalize: spreadOut,
	}
}}

func theirs(p *snapshot.Pod, visit func(*snapshot.Term, int64)) {
	for i := range p.Affinity {
		visit(&p.Affinity[i], 1)
	}
	for i := range p.PreferredAffinity {
		visit(&p.PreferredAffinity[i].Term, p.PreferredAffinity[i].Weight)
	}
	for i := range p.PreferredAntiAffinity {
		visit(&p.PreferredAntiAffinity[i].Term, -p.PreferredAntiAffinity[i].Weight)
	}
}

// spreadOut brings values, which may be negative, into 0..100.
func spreadOut(values []int64) {
	if len(values) == 0 {
		return
	}
	least, most := values[0], values[0]
	for _, v := range values {
		least, most = min(least, v), max(most, v)
	}
	for i, v := range values {
		values[i] = 0
		if most > least {
			values[i] = MaxScore * (v - least) / (most - least)
		}
	}
}
