package apiserver

import (
	"net/url"
	"slices"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/internalversion"
	listvalidation "k8s.io/apimachinery/pkg/apis/meta/internalversion/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// The options of each verb, read from the query and checked in upstream's words.

func listOptions(query url.Values, watch bool) (metav1.ListOptions, error) {
	var o metav1.ListOptions
	if len(query) > 0 {
		if err := metav1.Convert_url_Values_To_v1_ListOptions(&query, &o, nil); err != nil {
			return o, apierrors.NewBadRequest(err.Error())
		}
	}
	o.Watch = watch
	internal := internalversion.ListOptions{
		Watch: watch, ResourceVersion: o.ResourceVersion, ResourceVersionMatch: o.ResourceVersionMatch,
		Continue: o.Continue, Limit: o.Limit, SendInitialEvents: o.SendInitialEvents, AllowWatchBookmarks: o.AllowWatchBookmarks,
	}
	if errs := listvalidation.ValidateListOptions(&internal, true); len(errs) > 0 {
		return o, invalidOptions("ListOptions", errs)
	}
	if _, err := labels.Parse(o.LabelSelector); err != nil {
		return o, apierrors.NewBadRequest(err.Error())
	}
	if _, err := fields.ParseSelector(o.FieldSelector); err != nil {
		return o, apierrors.NewBadRequest(err.Error())
	}
	return o, nil
}

// selectName narrows a list to the one object that the deprecated watch path names.
func selectName(o *metav1.ListOptions, name string) error {
	if name == "" {
		return nil
	}
	s, err := fields.ParseSelector(o.FieldSelector)
	if err != nil {
		return apierrors.NewBadRequest(err.Error())
	}
	if want, ok := s.RequiresExactMatch("metadata.name"); ok && want != name {
		return apierrors.NewBadRequest("fieldSelector metadata.name doesn't match requested name")
	} else if !ok {
		o.FieldSelector = fields.AndSelectors(s, fields.OneTermEqualSelector("metadata.name", name)).String()
	}
	return nil
}

func getOptions(query url.Values) (metav1.GetOptions, error) {
	var o metav1.GetOptions
	if len(query) == 0 {
		return o, nil
	}
	if err := metav1.Convert_url_Values_To_v1_GetOptions(&query, &o, nil); err != nil {
		return o, apierrors.NewBadRequest(err.Error())
	}
	return o, nil
}

func createOptions(query url.Values) (metav1.CreateOptions, error) {
	var o metav1.CreateOptions
	if len(query) == 0 {
		return o, nil
	}
	if err := metav1.Convert_url_Values_To_v1_CreateOptions(&query, &o, nil); err != nil {
		return o, apierrors.NewBadRequest(err.Error())
	}
	return o, invalidOptions("CreateOptions", validation.ValidateCreateOptions(&o))
}

func updateOptions(query url.Values) (metav1.UpdateOptions, error) {
	var o metav1.UpdateOptions
	if len(query) == 0 {
		return o, nil
	}
	if err := metav1.Convert_url_Values_To_v1_UpdateOptions(&query, &o, nil); err != nil {
		return o, apierrors.NewBadRequest(err.Error())
	}
	return o, invalidOptions("UpdateOptions", validation.ValidateUpdateOptions(&o))
}

func patchOptions(query url.Values, pt types.PatchType) (metav1.PatchOptions, error) {
	var o metav1.PatchOptions
	if err := metav1.Convert_url_Values_To_v1_PatchOptions(&query, &o, nil); err != nil {
		return o, apierrors.NewBadRequest(err.Error())
	}
	return o, invalidOptions("PatchOptions", validation.ValidatePatchOptions(&o, pt))
}

// deleteOptions are in the body if there is one, else in the query.
func deleteOptions(query url.Values, b body) (metav1.DeleteOptions, error) {
	var o metav1.DeleteOptions
	if len(b.data) > 0 {
		t := target{gvk: deleteOptionsKind, object: &o, others: deleteOptionsKinds(b)}
		if _, err := b.decode(t); err != nil {
			return o, err
		}
	} else if len(query) > 0 {
		if err := metav1.Convert_url_Values_To_v1_DeleteOptions(&query, &o, nil); err != nil {
			return o, apierrors.NewBadRequest(err.Error())
		}
	}
	if len(o.DryRun) == 0 {
		o.DryRun = query["dryRun"]
	}
	return o, invalidOptions("DeleteOptions", validation.ValidateDeleteOptions(&o))
}

var deleteOptionsKind = schema.GroupVersionKind{Version: "v1", Kind: "DeleteOptions"}

// deleteOptionsKinds accepts DeleteOptions of any group: clients send those of
// the group whose object they delete.
func deleteOptionsKinds(b body) []schema.GroupVersionKind {
	if b.mediaType != typeJSON {
		return []schema.GroupVersionKind{metav1.SchemeGroupVersion.WithKind("DeleteOptions")}
	}
	if gvk := kindOfJSON(b.data); gvk.Kind == "DeleteOptions" {
		return []schema.GroupVersionKind{gvk}
	}
	return nil
}

func dryRun(values []string) bool { return slices.Contains(values, metav1.DryRunAll) }

func invalidOptions(kind string, errs field.ErrorList) error {
	if len(errs) == 0 {
		return nil
	}
	return apierrors.NewInvalid(schema.GroupKind{Group: metav1.GroupName, Kind: kind}, "", errs)
}
