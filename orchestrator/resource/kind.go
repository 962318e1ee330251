// Package resource says what each built-in kind is: its names, its defaults, its
// rules, and how a table shows it.
//
//	in:   objects of upstream's versioned types, as a client sent them
//	out:  the same objects defaulted and prepared; field errors; table cells
//
// Everything here is pure: no clock, no store, no network. Adding a kind is one
// entry in the table of kinds (table.go) and a file with its strategy. Every
// function gets an object that it may change in place unless its name starts
// with Validate, Warnings, Fields or Row.
//
// The order in which a writer uses a strategy:
//
//	create: Default, PrepareCreate, admission, Default, ValidateCreate, Warnings
//	update: Default, PrepareUpdate, admission, Default, ValidateUpdate, Warnings
//
// Default must therefore be idempotent. After PrepareUpdate the new object may
// share memory with the old one, in the parts that it takes from there; those are
// defaulted already, so that Default does not write to them, and nobody else may. Any function of a Kind may be nil, which
// means that there is nothing to do; the methods in verbs.go hide that.
package resource

import (
	"time"

	autoscalingv1 "k8s.io/api/autoscaling/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"sigs.k8s.io/structured-merge-diff/v6/fieldpath"
)

// Object is an API object of any kind.
type Object interface {
	metav1.Object
	runtime.Object
}

// Kind is one served kind: a resource of the API together with its behaviour.
type Kind struct {
	schema.GroupVersionKind

	Resource   string // plural, lower case: "pods"
	Singular   string // "pod"
	ShortNames []string
	Categories []string // "all"
	Namespaced bool

	New     func() Object
	NewList func() runtime.Object

	// View is set where this kind is another face of a stored kind. Such a kind has
	// no storage of its own, and its strategy is View.Of's.
	View *View

	// ValidateName is the rule for names; with prefix, for a generateName. Nil: a
	// DNS subdomain. CheckCreate and CheckUpdate validate all of the metadata, so
	// that the functions below need not.
	ValidateName func(name string, prefix bool) []string

	// Default fills in what was left out.
	Default func(obj Object)

	// PrepareCreate clears what a client may not set and sets what the server does.
	PrepareCreate func(obj Object)

	// PrepareUpdate carries over from old what this verb does not change (status)
	// and counts the generation. It is given what the client sent, defaulted.
	PrepareUpdate func(obj, old Object)

	ValidateCreate func(obj Object) field.ErrorList
	ValidateUpdate func(obj, old Object) field.ErrorList

	// Warnings are for the client's eyes; old is nil on create.
	Warnings func(obj, old Object) []string

	// Resets are the fields that PrepareCreate and PrepareUpdate do not take from
	// clients; server-side apply must not count them as owned.
	Resets *fieldpath.Set

	// CreateOnUpdate lets an update make an object that does not exist.
	CreateOnUpdate bool
	// Conditional refuses updates without a resourceVersion.
	Conditional bool
	// TTL removes objects by themselves; 0 never does.
	TTL time.Duration

	// FieldNames are the selectable fields beside metadata.name and
	// metadata.namespace; Fields gives their values, those two included.
	FieldNames []string
	Fields     func(obj Object) fields.Set

	// GracePeriod is how long a deletion waits, in seconds, when asked was asked
	// for (nil: not said). Nil or 0 deletes at once.
	GracePeriod func(obj Object, asked *int64) int64
	// PrepareDelete marks an object whose deletion has begun but not ended.
	PrepareDelete func(obj Object)
	// Held says that something beside metadata.finalizers keeps a deleted object.
	Held func(obj Object) bool

	// Status is the status subresource, nil if there is none.
	Status *Subresource
	// Scale is the scale subresource, nil if there is none.
	Scale *ScaleAccess
	// Parts are further subresources that get, update and patch the whole object
	// ("finalize", "ephemeralcontainers").
	Parts map[string]*Subresource
	// Actions are subresources that only accept a POST ("binding").
	Actions map[string]*Action

	// Columns and Row make the table that kubectl get prints. Nil: NAME and AGE.
	Columns []metav1.TableColumnDefinition
	Row     func(obj Object, now time.Time) []any

	// Prune drops what the kind's schema does not know from what a client sent, and
	// returns the paths of what it dropped. Nil for built-in kinds: decoding does it.
	Prune func(obj Object) []string

	// Custom marks kinds that a CustomResourceDefinition brought; their objects
	// are *unstructured.Unstructured and are stored as JSON.
	Custom bool
}

// Subresource is the behaviour of a part of an object that is written by itself.
type Subresource struct {
	// PrepareUpdate leaves in obj only the changes that this subresource may make.
	PrepareUpdate  func(obj, old Object)
	ValidateUpdate func(obj, old Object) field.ErrorList
	Warnings       func(obj, old Object) []string
	Resets         *fieldpath.Set
}

// ScaleAccess reads and writes an object's scale subresource.
type ScaleAccess struct {
	// Get makes the scale. Its metadata is the object's name, namespace, uid,
	// resourceVersion and creationTimestamp.
	Get func(obj Object) (*autoscalingv1.Scale, error)
	// Set writes scale.spec.replicas into obj.
	Set func(obj Object, scale *autoscalingv1.Scale) error
	// ReplicasPath is where the replicas are in the object: ["spec", "replicas"].
	ReplicasPath []string
}

// Action is a subresource that changes an object by what is posted to it.
type Action struct {
	New func() runtime.Object // the body
	GVK schema.GroupVersionKind
	// Apply validates body and makes its change. Errors are of api/errors.
	Apply func(obj Object, body runtime.Object, now metav1.Time) error
}

// View is another face of a stored kind: another version or another group.
type View struct {
	Of *Kind
	// To makes the stored object, From the face. Neither changes its argument, and
	// the two may share memory, so that results must be treated as immutable.
	To   func(face Object) (Object, error)
	From func(stored Object) (Object, error)
	// FieldNames are the face's names of selectable fields and the stored kind's
	// for them, where they differ: selection is by the stored object.
	FieldNames map[string]string
	// Validate, if set, looks at the face of a new object, before the stored
	// kind's own checks.
	Validate func(face Object) field.ErrorList
}

// StoredField is the stored kind's name for a selectable field of k.
func (k *Kind) StoredField(name string) string {
	if k.View != nil {
		if stored, ok := k.View.FieldNames[name]; ok {
			return stored
		}
	}
	return name
}

// Stored is the kind under which objects of k are kept: k, or what it is a view of.
func (k *Kind) Stored() *Kind {
	if k.View != nil {
		return k.View.Of
	}
	return k
}

// GroupVersionResource names the resource.
func (k *Kind) GroupVersionResource() schema.GroupVersionResource {
	return k.GroupVersion().WithResource(k.Resource)
}

// GroupResource names the resource without its version.
func (k *Kind) GroupResource() schema.GroupResource {
	return schema.GroupResource{Group: k.Group, Resource: k.Resource}
}
