package garbagecollector

import (
	"cmp"
	"maps"
	"slices"
	"sync"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/xebec-mesh/xebec/orchestrator/client"
)

// graph knows the dependents of each owner. It holds only objects that have owners,
// and follows every event; whether an owner exists is read from its informer.
type graph struct {
	mu         sync.Mutex
	owners     map[types.UID][]metav1.OwnerReference // of each object that has some
	dependents map[types.UID]map[types.UID]Dependent
}

func newGraph() *graph {
	return &graph{owners: map[types.UID][]metav1.OwnerReference{}, dependents: map[types.UID]map[types.UID]Dependent{}}
}

// set notes an object's owners, and forgets those that it had before.
func (g *graph) set(item Item, o client.Object) {
	refs := o.GetOwnerReferences()
	g.mu.Lock()
	defer g.mu.Unlock()
	g.drop(o.GetUID())
	if len(refs) == 0 {
		return
	}
	for _, ref := range refs {
		if g.dependents[ref.UID] == nil {
			g.dependents[ref.UID] = map[types.UID]Dependent{}
		}
		g.dependents[ref.UID][o.GetUID()] = Dependent{item, ref.BlockOwnerDeletion != nil && *ref.BlockOwnerDeletion}
	}
	g.owners[o.GetUID()] = refs
}

// remove forgets an object. It returns the owners that it was last seen with: one
// whose last finalizer goes together with its references is gone without them.
func (g *graph) remove(uid types.UID) []metav1.OwnerReference {
	g.mu.Lock()
	defer g.mu.Unlock()
	refs := g.owners[uid]
	g.drop(uid)
	return refs
}

func (g *graph) drop(uid types.UID) {
	for _, ref := range g.owners[uid] {
		if delete(g.dependents[ref.UID], uid); len(g.dependents[ref.UID]) == 0 {
			delete(g.dependents, ref.UID)
		}
	}
	delete(g.owners, uid)
}

// of returns the dependents of an object, sorted by name.
func (g *graph) of(uid types.UID) []Dependent {
	g.mu.Lock()
	defer g.mu.Unlock()
	return slices.SortedFunc(maps.Values(g.dependents[uid]), func(a, b Dependent) int { return cmp.Compare(a.String(), b.String()) })
}
