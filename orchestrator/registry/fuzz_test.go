package registry_test

import (
	"errors"
	"testing"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"

	"github.com/xebec-mesh/xebec/orchestrator/registry"
)

// FuzzPatch sends any bytes as any kind of patch: it must end in an object that
// can be read, or in an error for people, and never in an internal error.
func FuzzPatch(f *testing.F) {
	kinds := []types.PatchType{types.JSONPatchType, types.MergePatchType, types.StrategicMergePatchType, types.ApplyPatchType}
	for _, seed := range []string{
		`[{"op":"add","path":"/metadata/labels","value":{"a":"b"}}]`,
		`[{"op":"copy","from":"/spec","path":"/spec/containers/-"}]`,
		`{"spec":{"containers":[{"name":"c","image":"j","ports":[{"containerPort":80}]}]}}`,
		`{"spec":{"containers":[{"$patch":"delete","name":"c"}],"$setElementOrder/containers":[{"name":"c"}]}}`,
		`{"metadata":{"finalizers":null,"ownerReferences":[{}]}}`,
		"apiVersion: v1\nkind: Pod\nmetadata: {name: p}\nspec: {containers: [{name: c, image: k}]}",
	} {
		for i := range kinds {
			f.Add(uint8(i), []byte(seed))
		}
	}
	w := newWorld(f)
	w.create(on("", "pods", ""), pod("p"))
	f.Fuzz(func(t *testing.T, kind uint8, data []byte) {
		req := on("", "pods", "p")
		req.DryRun = true
		o, _, err := w.Patch(t.Context(), req, registry.Patch{Type: kinds[int(kind)%len(kinds)], Data: data, Force: true})
		if err == nil {
			_ = o.JSON()
			_ = o.Protobuf()
			return
		}
		var status apierrors.APIStatus
		if !errors.As(err, &status) || status.Status().Code >= 500 || status.Status().Message == "" {
			t.Errorf("patch %q: %v", data, err)
		}
	})
}
