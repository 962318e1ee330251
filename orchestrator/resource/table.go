package resource

import (
	"slices"
	"sync"

	"k8s.io/apimachinery/pkg/runtime/schema"
)

// Kinds returns every built-in kind but CustomResourceDefinition, which package
// custom adds: its rules are half of what it is for. The values are shared and
// immutable; the slice may be appended to.
func Kinds() []*Kind { return slices.Clip(table().kinds) }

// Lookup finds a built-in kind by its resource, or returns nil.
func Lookup(gvr schema.GroupVersionResource) *Kind { return table().byResource[gvr] }

// LookupKind finds a built-in kind by its name, or returns nil.
func LookupKind(gvk schema.GroupVersionKind) *Kind { return table().byKind[gvk] }

type kindTable struct {
	kinds      []*Kind
	byResource map[schema.GroupVersionResource]*Kind
	byKind     map[schema.GroupVersionKind]*Kind
}

var table = sync.OnceValue(func() kindTable {
	event := eventKind()
	t := kindTable{
		kinds: []*Kind{
			configMapKind(),
			endpointsKind(),
			event,
			namespaceKind(),
			nodeKind(),
			podKind(),
			podTemplateKind(),
			secretKind(),
			serviceAccountKind(),
			serviceKind(),

			controllerRevisionKind(),
			deploymentKind(),
			replicaSetKind(),

			leaseKind(),
			endpointSliceKind(),
			eventViewKind(event),
			priorityClassKind(),

			roleKind(),
			roleBindingKind(),
			clusterRoleKind(),
			clusterRoleBindingKind(),
		},
		byResource: map[schema.GroupVersionResource]*Kind{},
		byKind:     map[schema.GroupVersionKind]*Kind{},
	}
	for _, k := range t.kinds {
		t.byResource[k.GroupVersionResource()] = k
		t.byKind[k.GroupVersionKind] = k
	}
	return t
})
