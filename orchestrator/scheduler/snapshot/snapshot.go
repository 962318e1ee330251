package snapshot

import (
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
)

// Snapshot is the nodes and the pods on them.
type Snapshot struct {
	// Nodes are in no order; a position is stable until a node is removed.
	Nodes  []*Node
	byName map[string]*Node

	pods map[string]*Pod // by key; every pod that has a node, or is assumed to
	// constraining are the pods that a newcomer must not displease (required
	// anti-affinity) or may please (preferred terms and required affinity).
	antiAffinity map[string]*Pod
	preferring   map[string]*Pod
	byNamespace  map[string]map[string]*Pod
	orphans      map[string]map[string]*Pod   // by the name of a node that is not known yet
	siblings     map[types.UID]map[string]int // pods by controller and node

	namespaces map[string]labels.Set
	images     map[string]int // on how many nodes an image is
}

// New returns an empty snapshot.
func New() *Snapshot {
	return &Snapshot{
		byName:       map[string]*Node{},
		pods:         map[string]*Pod{},
		antiAffinity: map[string]*Pod{},
		preferring:   map[string]*Pod{},
		byNamespace:  map[string]map[string]*Pod{},
		orphans:      map[string]map[string]*Pod{},
		siblings:     map[types.UID]map[string]int{},
		namespaces:   map[string]labels.Set{},
		images:       map[string]int{},
	}
}

// Node returns a node by name, or nil.
func (s *Snapshot) Node(name string) *Node { return s.byName[name] }

// Pod returns a pod that has a node, or nil.
func (s *Snapshot) Pod(key string) *Pod { return s.pods[key] }

// InNamespace are the pods of a namespace that have a node.
func (s *Snapshot) InNamespace(namespace string) map[string]*Pod { return s.byNamespace[namespace] }

// All are all pods that have a node.
func (s *Snapshot) All() map[string]*Pod { return s.pods }

// AntiAffinity are the pods with required anti-affinity terms.
func (s *Snapshot) AntiAffinity() map[string]*Pod { return s.antiAffinity }

// Preferring are the pods whose terms say whom they would like beside them.
func (s *Snapshot) Preferring() map[string]*Pod { return s.preferring }

// Siblings counts, by node, the pods that p's controller has there.
func (s *Snapshot) Siblings(p *Pod) map[string]int {
	if owner := metav1.GetControllerOfNoCopy(p); owner != nil {
		return s.siblings[owner.UID]
	}
	return nil
}

func (s *Snapshot) countSibling(p *Pod, by int) {
	owner := metav1.GetControllerOfNoCopy(p)
	if owner == nil {
		return
	}
	nodes := s.siblings[owner.UID]
	if nodes == nil {
		nodes = map[string]int{}
		s.siblings[owner.UID] = nodes
	}
	if nodes[p.Spec.NodeName] += by; nodes[p.Spec.NodeName] == 0 {
		delete(nodes, p.Spec.NodeName)
	}
	if len(nodes) == 0 {
		delete(s.siblings, owner.UID)
	}
}

// ImageNodes is on how many nodes an image is present.
func (s *Snapshot) ImageNodes(name string) int { return s.images[name] }

// NamespaceLabels are the labels of a namespace.
func (s *Snapshot) NamespaceLabels(name string) labels.Set { return s.namespaces[name] }

// SetNamespace records a namespace's labels; nil forgets it.
func (s *Snapshot) SetNamespace(name string, l labels.Set) {
	if l == nil {
		delete(s.namespaces, name)
		return
	}
	s.namespaces[name] = l
}

// SetNode adds or replaces a node.
func (s *Snapshot) SetNode(n *corev1.Node) *Node {
	node := s.byName[n.Name]
	if node != nil {
		s.countImages(node, -1)
		node.set(n)
		s.countImages(node, 1)
		return node
	}
	node = newNode(n)
	node.index = len(s.Nodes)
	s.Nodes = append(s.Nodes, node)
	s.byName[n.Name] = node
	s.countImages(node, 1)
	for key, p := range s.orphans[n.Name] {
		node.Pods[key] = p
		node.count(p, 1)
	}
	delete(s.orphans, n.Name)
	return node
}

// RemoveNode forgets a node; its pods wait for one of its name.
func (s *Snapshot) RemoveNode(name string) {
	node := s.byName[name]
	if node == nil {
		return
	}
	s.countImages(node, -1)
	last := s.Nodes[len(s.Nodes)-1]
	s.Nodes[node.index], last.index = last, node.index
	s.Nodes = s.Nodes[:len(s.Nodes)-1]
	delete(s.byName, name)
	if len(node.Pods) > 0 {
		s.orphans[name] = node.Pods
	}
}

func (s *Snapshot) countImages(n *Node, by int) {
	for name := range n.Images {
		if s.images[name] += by; s.images[name] == 0 {
			delete(s.images, name)
		}
	}
}

// SetPod puts a pod onto the node that its spec names, and takes it away from
// where it was believed to be.
func (s *Snapshot) SetPod(p *Pod) {
	s.RemovePod(p.Key)
	s.pods[p.Key] = p
	put(s.byNamespace, p.Namespace, p)
	s.countSibling(p, 1)
	if len(p.AntiAffinity) > 0 {
		s.antiAffinity[p.Key] = p
	}
	if len(p.PreferredAffinity)+len(p.PreferredAntiAffinity)+len(p.Affinity) > 0 {
		s.preferring[p.Key] = p
	}
	if node := s.byName[p.Spec.NodeName]; node != nil {
		node.Pods[p.Key] = p
		node.count(p, 1)
		return
	}
	put(s.orphans, p.Spec.NodeName, p)
}

// RemovePod takes a pod away; it returns what was known of it, or nil.
func (s *Snapshot) RemovePod(key string) *Pod {
	p := s.pods[key]
	if p == nil {
		return nil
	}
	delete(s.pods, key)
	delete(s.antiAffinity, key)
	delete(s.preferring, key)
	drop(s.byNamespace, p.Namespace, key)
	s.countSibling(p, -1)
	if node := s.byName[p.Spec.NodeName]; node != nil {
		delete(node.Pods, key)
		node.count(p, -1)
	} else {
		drop(s.orphans, p.Spec.NodeName, key)
	}
	return p
}

func put(m map[string]map[string]*Pod, at string, p *Pod) {
	if m[at] == nil {
		m[at] = map[string]*Pod{}
	}
	m[at][p.Key] = p
}

func drop(m map[string]map[string]*Pod, at, key string) {
	delete(m[at], key)
	if len(m[at]) == 0 {
		delete(m, at)
	}
}
