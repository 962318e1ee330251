package cache

import (
	"errors"
	"fmt"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// ErrStopped ends a watch whose resource is no longer served, or that was stopped.
var ErrStopped = errors.New("watch stopped")

// The texts are those of Kubernetes: clients match them.

func errPageGone(t token) error {
	err := apierrors.NewResourceExpired("The provided continue parameter is too old " +
		"to display a consistent list result. You can start a new list without " +
		"the continue parameter, or use the continue token in this response to " +
		"retrieve the remainder of the results. Continuing with the provided " +
		"token results in an inconsistent list - objects that were created, " +
		"modified, or deleted between the time the first chunk was returned " +
		"and now may show up in the list.")
	err.ErrStatus.Continue = token{RV: anyRV, Start: t.Start}.String()
	return err
}

func errListGone() error {
	return apierrors.NewResourceExpired("The resourceVersion for the provided list is too old.")
}

func errWatchGone(rv, oldest uint64) error {
	return apierrors.NewResourceExpired(fmt.Sprintf("too old resource version: %d (%d)", rv, oldest))
}

func errSlow() error {
	return apierrors.NewResourceExpired("the watcher did not keep up with the changes: list again and watch from there")
}

func errTooNew(rv, now uint64) error {
	err := apierrors.NewTimeoutError(fmt.Sprintf("Too large resource version: %d, current: %d", rv, now), 1)
	err.ErrStatus.Details.Causes = []metav1.StatusCause{{
		Type:    metav1.CauseTypeResourceVersionTooLarge,
		Message: "Too large resource version",
	}}
	return err
}
