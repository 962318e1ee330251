package reconcile

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/xebec-mesh/xebec/orchestrator/client"
)

// Self maps an event to its own object.
func Self(ev client.Event) []types.NamespacedName {
	return []types.NamespacedName{client.Key(ev.Object)}
}

// ControllerOf maps an event to the controller of the given kind that its object
// has, and had before: an object that is released concerns both.
func ControllerOf(kind string) func(client.Event) []types.NamespacedName {
	return func(ev client.Event) []types.NamespacedName {
		keys := ownerKey(nil, ev.Object, kind)
		if ev.Old != nil && !sameController(ev.Old, ev.Object) {
			keys = ownerKey(keys, ev.Old, kind)
		}
		return keys
	}
}

func ownerKey(keys []types.NamespacedName, o client.Object, kind string) []types.NamespacedName {
	ref := metav1.GetControllerOfNoCopy(o)
	if ref == nil || ref.Kind != kind {
		return keys
	}
	return append(keys, types.NamespacedName{Namespace: o.GetNamespace(), Name: ref.Name})
}

func sameController(a, b client.Object) bool {
	x, y := metav1.GetControllerOfNoCopy(a), metav1.GetControllerOfNoCopy(b)
	if x == nil || y == nil {
		return x == y
	}
	return x.UID == y.UID
}

// One maps every event to one fixed key, for reconcilers of a single thing.
func One(ev client.Event) []types.NamespacedName { return []types.NamespacedName{{}} }
