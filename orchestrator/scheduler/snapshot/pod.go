package snapshot

import (
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/component-helpers/resource"
)

// What a pod counts as in scores when it does not ask for CPU or memory.
const (
	smallMilliCPU = 100
	smallMemory   = 200 << 20
)

// Pod is a pod with what the plugins need of it, computed once.
type Pod struct {
	*corev1.Pod
	Key      string // namespace/name
	Requests Resources
	NonZero  Resources // CPU and memory only
	Ports    []HostPort

	Affinity, AntiAffinity                   []Term // required
	PreferredAffinity, PreferredAntiAffinity []WeightedTerm
}

// Term is a pod (anti-)affinity term with its selectors parsed.
type Term struct {
	Namespaces        map[string]bool
	NamespaceSelector labels.Selector // nil: none
	Selector          labels.Selector
	TopologyKey       string
}

// WeightedTerm is a preferred Term.
type WeightedTerm struct {
	Term
	Weight int64
}

// Matches says whether pod is meant; namespaceLabels are those of its namespace.
func (t *Term) Matches(pod *corev1.Pod, namespaceLabels func(string) labels.Set) bool {
	if !t.Namespaces[pod.Namespace] && (t.NamespaceSelector == nil || !t.NamespaceSelector.Matches(namespaceLabels(pod.Namespace))) {
		return false
	}
	return t.Selector.Matches(labels.Set(pod.Labels))
}

// Key names a pod.
func Key(p *corev1.Pod) string { return p.Namespace + "/" + p.Name }

// NewPod computes what the plugins need. A selector that does not parse matches
// nothing; validation has refused it before.
func NewPod(p *corev1.Pod) *Pod {
	out := &Pod{Pod: p, Key: Key(p)}
	out.Requests = ResourcesOf(resource.PodRequests(p, resource.PodResourcesOptions{}))
	out.NonZero = Resources{MilliCPU: out.Requests.MilliCPU, Memory: out.Requests.Memory}
	if out.NonZero.MilliCPU == 0 {
		out.NonZero.MilliCPU = smallMilliCPU * int64(len(p.Spec.Containers))
	}
	if out.NonZero.Memory == 0 {
		out.NonZero.Memory = smallMemory * int64(len(p.Spec.Containers))
	}
	out.ports()
	out.affinity()
	return out
}

func (p *Pod) ports() {
	add := func(containers []corev1.Container) {
		for i := range containers {
			for _, port := range containers[i].Ports {
				if port.HostPort == 0 {
					continue
				}
				h := HostPort{Protocol: port.Protocol, IP: port.HostIP, Port: port.HostPort}
				if h.Protocol == "" {
					h.Protocol = corev1.ProtocolTCP
				}
				if h.IP == "" || h.IP == "::" {
					h.IP = everyIP
				}
				p.Ports = append(p.Ports, h)
			}
		}
	}
	add(p.Spec.Containers)
	for i, c := range p.Spec.InitContainers {
		if c.RestartPolicy != nil && *c.RestartPolicy == corev1.ContainerRestartPolicyAlways {
			add(p.Spec.InitContainers[i : i+1])
		}
	}
}

func (p *Pod) affinity() {
	a := p.Spec.Affinity
	if a == nil {
		return
	}
	if a.PodAffinity != nil {
		p.Affinity = p.terms(a.PodAffinity.RequiredDuringSchedulingIgnoredDuringExecution)
		p.PreferredAffinity = p.weighted(a.PodAffinity.PreferredDuringSchedulingIgnoredDuringExecution)
	}
	if a.PodAntiAffinity != nil {
		p.AntiAffinity = p.terms(a.PodAntiAffinity.RequiredDuringSchedulingIgnoredDuringExecution)
		p.PreferredAntiAffinity = p.weighted(a.PodAntiAffinity.PreferredDuringSchedulingIgnoredDuringExecution)
	}
}

func (p *Pod) terms(in []corev1.PodAffinityTerm) []Term {
	var out []Term
	for i := range in {
		out = append(out, p.term(&in[i]))
	}
	return out
}

func (p *Pod) weighted(in []corev1.WeightedPodAffinityTerm) []WeightedTerm {
	var out []WeightedTerm
	for i := range in {
		out = append(out, WeightedTerm{p.term(&in[i].PodAffinityTerm), int64(in[i].Weight)})
	}
	return out
}

func (p *Pod) term(in *corev1.PodAffinityTerm) Term {
	t := Term{TopologyKey: in.TopologyKey, Namespaces: map[string]bool{}, Selector: p.selector(in)}
	for _, n := range in.Namespaces {
		t.Namespaces[n] = true
	}
	if in.NamespaceSelector != nil {
		t.NamespaceSelector = selectorOf(in.NamespaceSelector)
	}
	if len(in.Namespaces) == 0 && in.NamespaceSelector == nil {
		t.Namespaces[p.Namespace] = true
	}
	return t
}

// selector adds matchLabelKeys and mismatchLabelKeys, the values of which are the pod's own.
func (p *Pod) selector(in *corev1.PodAffinityTerm) labels.Selector {
	return WithLabelKeys(selectorOf(in.LabelSelector), p.Labels, in.MatchLabelKeys, in.MismatchLabelKeys)
}

// WithLabelKeys narrows a selector to equal, or unequal, values of some labels.
func WithLabelKeys(s labels.Selector, own map[string]string, match, mismatch []string) labels.Selector {
	for _, key := range match {
		if value, ok := own[key]; ok {
			if r, err := labels.NewRequirement(key, "in", []string{value}); err == nil {
				s = s.Add(*r)
			}
		}
	}
	for _, key := range mismatch {
		if value, ok := own[key]; ok {
			if r, err := labels.NewRequirement(key, "notin", []string{value}); err == nil {
				s = s.Add(*r)
			}
		}
	}
	return s
}

func selectorOf(in *metav1.LabelSelector) labels.Selector {
	s, err := metav1.LabelSelectorAsSelector(in)
	if err != nil {
		return labels.Nothing()
	}
	return s
}
