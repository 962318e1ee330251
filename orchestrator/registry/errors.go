package registry

import (
	"context"
	"errors"
	"fmt"
	"net/http"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/xebec-mesh/xebec/orchestrator/store"
)

// maxObject is the largest object in bytes as stored, which is also etcd's
// default limit: an object that fits here fits in any etcd.
const maxObject = 3 << 19

// errModified is the text that clients know to retry on.
var errModified = errors.New("the object has been modified; please apply your changes to the latest version and try again")

func (v *verb) gr() schema.GroupResource { return v.req.Kind.GroupResource() }

func (v *verb) notFound() error { return apierrors.NewNotFound(v.gr(), v.req.Name) }

func (v *verb) conflict(name string) error { return apierrors.NewConflict(v.gr(), name, errModified) }

func (v *verb) invalid(name string, errs field.ErrorList) error {
	return apierrors.NewInvalid(v.req.Kind.GroupVersionKind.GroupKind(), name, errs)
}

// status is an error that Kubernetes has no constructor for.
func status(code int32, reason metav1.StatusReason, format string, args ...any) error {
	return &apierrors.StatusError{ErrStatus: metav1.Status{
		Status: metav1.StatusFailure, Code: code, Reason: reason, Message: fmt.Sprintf(format, args...),
	}}
}

func errUnavailable(err error) error {
	if errors.Is(err, context.Canceled) {
		return err
	}
	return apierrors.NewTimeoutError(fmt.Sprintf("the server could not finish in time: %v", err), 1)
}

// storeError says in the API's terms what the store or the cache said.
func (v *verb) storeError(err error) error {
	var is apierrors.APIStatus
	switch {
	case err == nil, errors.As(err, &is):
		return err
	case errors.Is(err, store.ErrNoSpace):
		return status(http.StatusInsufficientStorage, "InsufficientStorage",
			"%s %q cannot be stored: the database is full; delete objects, or give it more space or a larger quota", v.gr(), v.req.Name)
	case errors.Is(err, store.ErrTooLarge):
		return v.tooLarge(v.req.Name, 0)
	case errors.Is(err, store.ErrUnavailable):
		return apierrors.NewTimeoutError(fmt.Sprintf("%s %q: the database does not answer: %v", v.gr(), v.req.Name, err), 1)
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled):
		return errUnavailable(err)
	}
	return apierrors.NewInternalError(err)
}

func (v *verb) tooLarge(name string, size int) error {
	what := fmt.Sprintf("%s %q", v.gr(), name)
	if size > 0 {
		what += fmt.Sprintf(" is %d bytes as stored, which", size)
	}
	return apierrors.NewRequestEntityTooLargeError(fmt.Sprintf("%s is more than the limit of %d bytes (1.5 MiB)", what, maxObject))
}

// checkPreconditions refuses a write that was meant for another object or version.
func (v *verb) checkPreconditions(p *metav1.Preconditions, o metav1.Object) error {
	if p == nil {
		return nil
	}
	if p.UID != nil && *p.UID != o.GetUID() {
		return v.uidConflict(*p.UID, o.GetUID())
	}
	if p.ResourceVersion != nil && *p.ResourceVersion != o.GetResourceVersion() {
		//lint:ignore ST1005 clients know this text
		return apierrors.NewConflict(v.gr(), o.GetName(), fmt.Errorf(
			"Precondition failed: ResourceVersion in precondition: %v, ResourceVersion in object meta: %v", *p.ResourceVersion, o.GetResourceVersion()))
	}
	return nil
}

func (v *verb) uidConflict(want, is types.UID) error {
	//lint:ignore ST1005 clients know this text
	return apierrors.NewConflict(v.gr(), v.req.Name, fmt.Errorf(
		"Precondition failed: UID in precondition: %v, UID in object meta: %v", want, is))
}
