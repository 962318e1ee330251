package resource

import "sigs.k8s.io/structured-merge-diff/v6/fieldpath"

// The fields that a write does not take from clients.
var (
	statusReset   = pathSet([]string{"status"})
	onlySpecReset = pathSet([]string{"spec"})
	// specReset is for a pod's status: old agents send owners back broken.
	specReset = pathSet([]string{"spec"}, []string{"metadata", "deletionTimestamp"}, []string{"metadata", "ownerReferences"})
	// specAndLabelsReset is for statuses that leave the labels alone.
	specAndLabelsReset = pathSet([]string{"spec"}, []string{"metadata", "labels"})
)

func pathSet(paths ...[]string) *fieldpath.Set {
	s := fieldpath.NewSet()
	for _, p := range paths {
		var path fieldpath.Path
		for _, name := range p {
			path = append(path, fieldpath.PathElement{FieldName: &name})
		}
		s.Insert(path)
	}
	return s
}
