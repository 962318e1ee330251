package cache

import (
	"reflect"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/xebec-mesh/xebec/orchestrator/resource"
)

// Shallow copies an object so that its own metadata can be set; everything
// deeper is shared with the original and must not be changed.
func Shallow(obj resource.Object) resource.Object {
	if u, ok := obj.(*unstructured.Unstructured); ok {
		top := copyMap(u.Object)
		if meta, ok := top["metadata"].(map[string]any); ok {
			top["metadata"] = copyMap(meta)
		}
		return &unstructured.Unstructured{Object: top}
	}
	old := reflect.ValueOf(obj).Elem()
	c := reflect.New(old.Type())
	c.Elem().Set(old)
	return c.Interface().(resource.Object)
}

func copyMap(m map[string]any) map[string]any {
	c := make(map[string]any, len(m)+1)
	for k, v := range m {
		c[k] = v
	}
	return c
}
