package garbagecollector

import (
	"fmt"
	"slices"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/xebec-mesh/xebec/orchestrator/client"
)

// Owner is an owner reference with what became of the object that it names.
type Owner struct {
	metav1.OwnerReference
	State OwnerState
}

// OwnerState is what became of an owner.
type OwnerState int

const (
	Solid   OwnerState = iota // it exists
	Gone                      // it does not, or another object has its name
	Waiting                   // it is being deleted in the foreground, and waits for its dependents
)

// Item identifies an object for the collector.
type Item struct {
	Resource client.Resource
	Key      types.NamespacedName
}

func (i Item) String() string {
	return i.Resource.GroupResource().String() + " " + strings.TrimPrefix(i.Key.String(), "/")
}

// Dependent is an object that has another as owner.
type Dependent struct {
	Item
	Blocks bool // blockOwnerDeletion: a foreground deletion of the owner waits for it
}

// Snapshot is all that a plan depends on.
type Snapshot struct {
	Item       Item
	Object     metav1.Object
	Owners     []Owner
	Dependents []Dependent
}

// Plan says what to do about one object. The zero Plan means nothing.
type Plan struct {
	Item       Item
	Delete     metav1.DeletionPropagation // "": do not
	DropOwners []types.UID                // references to remove from the object
	Orphan     []Item                     // dependents that lose their reference to the object
	Visit      []Item                     // dependents to look at next
	Unfinalize string                     // finalizer to remove from the object, after all else
}

// compute makes the plan.
//
//	being deleted, finalizer orphan ──▶ every dependent loses its reference, then the finalizer goes
//	being deleted, finalizer foregroundDeletion ──▶ dependents are visited; when none blocks, the finalizer goes
//	no owner left ──▶ deleted, in the way that its own finalizers ask for
//	some owner left ──▶ loses its references to the others
//	owners only wait ──▶ deleted, in the foreground if it has dependents itself
func compute(s Snapshot) Plan {
	p := Plan{Item: s.Item}
	if s.Object.GetDeletionTimestamp() != nil {
		return p.finish(s)
	}
	solid, waiting := 0, 0
	for _, o := range s.Owners {
		switch o.State {
		case Solid:
			solid++
		case Waiting:
			waiting++
		}
		if o.State != Solid {
			p.DropOwners = append(p.DropOwners, o.UID)
		}
	}
	switch {
	case len(p.DropOwners) == 0:
		return Plan{}
	case solid > 0:
		return p
	}
	p.DropOwners = nil
	switch {
	case waiting > 0 && len(s.Dependents) > 0:
		p.Delete = metav1.DeletePropagationForeground
	case waiting > 0:
		p.Delete = metav1.DeletePropagationBackground
	case slices.Contains(s.Object.GetFinalizers(), metav1.FinalizerOrphanDependents):
		p.Delete = metav1.DeletePropagationOrphan
	case slices.Contains(s.Object.GetFinalizers(), metav1.FinalizerDeleteDependents):
		p.Delete = metav1.DeletePropagationForeground
	default:
		p.Delete = metav1.DeletePropagationBackground
	}
	return p
}

// finish is for an object that is being deleted.
func (p Plan) finish(s Snapshot) Plan {
	finalizers := s.Object.GetFinalizers()
	switch {
	case slices.Contains(finalizers, metav1.FinalizerOrphanDependents):
		for _, d := range s.Dependents {
			p.Orphan = append(p.Orphan, d.Item)
		}
		p.Unfinalize = metav1.FinalizerOrphanDependents
	case slices.Contains(finalizers, metav1.FinalizerDeleteDependents):
		blocked := false
		for _, d := range s.Dependents {
			blocked = blocked || d.Blocks
			p.Visit = append(p.Visit, d.Item)
		}
		if !blocked {
			p.Unfinalize = metav1.FinalizerDeleteDependents
		}
	default:
		return Plan{}
	}
	return p
}

// String prints one line an action.
func (p Plan) String() string {
	var b strings.Builder
	if p.Delete != "" {
		fmt.Fprintf(&b, "delete %s (%s)\n", p.Item, p.Delete)
	}
	for _, uid := range p.DropOwners {
		fmt.Fprintf(&b, "drop owner %s of %s\n", uid, p.Item)
	}
	for _, i := range p.Orphan {
		fmt.Fprintf(&b, "orphan %s\n", i)
	}
	for _, i := range p.Visit {
		fmt.Fprintf(&b, "visit %s\n", i)
	}
	if p.Unfinalize != "" {
		fmt.Fprintf(&b, "remove finalizer %s of %s\n", p.Unfinalize, p.Item)
	}
	return b.String()
}
