// Package admission decides whether a write may happen, and amends what is
// written, after it was authorized and before it is stored.
//
//	in:   one write: the object, its predecessor, who asks
//	out:  the object amended, or an error of k8s.io/apimachinery/pkg/api/errors
//
// There are two shapes of plugin. A Plugin speaks the webhook's own language and
// could as well run elsewhere; it costs one encoding of the object. A Mutator or
// Validator sees the Go value and costs nothing.
//
// The order is: Mutators, mutating Plugins, the Mutators again if a Plugin
// changed the object; then, on what will be stored, Validators and validating
// Plugins. Mutators must therefore be idempotent.
//
// The writer's part:
//
//	a := &admission.Attributes{...}
//	defer func() { a.Finish(err) }()   // err: of the whole write
//	err = chain.Mutate(ctx, a)         // a.Object may be another object afterwards; it is defaulted
//	...validate a.Object
//	err = chain.Validate(ctx, a)
//	...store
package admission

import (
	"context"

	admissionv1 "k8s.io/api/admission/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apiserver/pkg/authentication/user"

	"github.com/xebec-mesh/xebec/orchestrator/resource"
)

// Plugin is an admission plugin in the shape of a webhook. A response of nil
// means allowed and unchanged.
type Plugin interface {
	Name() string
	Handles(op admissionv1.Operation, gvr schema.GroupVersionResource, subresource string) bool
	Admit(ctx context.Context, r *admissionv1.AdmissionRequest) *admissionv1.AdmissionResponse
}

// Mutator amends a.Object, in place or by another. It must be idempotent.
type Mutator interface {
	Name() string
	Mutate(ctx context.Context, a *Attributes) error
}

// Validator accepts or refuses a write. It must not change anything.
type Validator interface {
	Name() string
	Validate(ctx context.Context, a *Attributes) error
}

// Reader reads what is stored, from the cache of the server that admits.
type Reader interface {
	// Get returns an object that nobody may change, or a NotFound error. The
	// cache may lag behind; with fresh it first catches up with the store.
	Get(ctx context.Context, gvr schema.GroupVersionResource, key types.NamespacedName, fresh bool) (resource.Object, error)
}

// Attributes describe one write. The plugins share it; it is used by one
// goroutine at a time.
type Attributes struct {
	Operation   admissionv1.Operation
	Kind        *resource.Kind
	Subresource string
	Namespace   string
	Name        string // "" while generateName has not been resolved

	// Object is what will be stored, or what was posted to a subresource that only
	// accepts a POST; nil for DELETE. OldObject is what is stored; nil for CREATE.
	Object    runtime.Object
	OldObject runtime.Object

	Options runtime.Object // *metav1.CreateOptions and so on; may be nil
	User    user.Info
	DryRun  bool
	Reader  Reader

	warnings []string
	finish   []func(err error)
	finished bool
}

// Is says whether the write is op (any of ops) on a kind's main resource.
func (a *Attributes) Is(gvk schema.GroupVersionKind, ops ...admissionv1.Operation) bool {
	if a.Subresource != "" || a.Kind.GroupVersionKind != gvk {
		return false
	}
	for _, op := range ops {
		if a.Operation == op {
			return true
		}
	}
	return false
}

// Warn tells the client something although the write is allowed.
func (a *Attributes) Warn(text string) { a.warnings = append(a.warnings, text) }

// Warnings are what plugins want the client to be told.
func (a *Attributes) Warnings() []string { return a.warnings }

// OnFinish calls f once, when the write has succeeded (nil) or failed.
func (a *Attributes) OnFinish(f func(err error)) { a.finish = append(a.finish, f) }

// Finish tells the plugins how the write ended. The writer must call it; a
// second call does nothing. A dry run ends without an error too.
func (a *Attributes) Finish(err error) {
	if a.finished {
		return
	}
	a.finished = true
	for _, f := range a.finish {
		f(err)
	}
}
