package apiserver

import (
	"net/http/httptest"
	"net/url"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

func FuzzParseRequest(f *testing.F) {
	for _, seed := range []string{"/api/v1/pods", "/apis/apps/v1/namespaces/x/deployments/y/scale", "/api/v1/namespaces/x/status", "/api/v1/watch/", "//", "/api/v1/namespaces/a/pods/b/proxy/c/d"} {
		f.Add("GET", seed, "watch=1&fieldSelector=metadata.name=a")
	}
	f.Fuzz(func(t *testing.T, method, path, query string) {
		q, err := url.ParseQuery(query)
		if err != nil {
			return
		}
		r := parseRequest(method, path, q)
		if r.Path != path {
			t.Errorf("the path became %q", r.Path)
		}
		if r.Resource == "" && (r.Name != "" || r.Subresource != "") {
			t.Errorf("%q has a name but no resource: %+v", path, r)
		}
	})
}

func FuzzAccept(f *testing.F) {
	f.Add("application/json;as=Table;v=v1;g=meta.k8s.io,application/json;q=0.5")
	f.Add("application/vnd.kubernetes.protobuf, */*;q=")
	f.Fuzz(func(t *testing.T, header string) {
		r := httptest.NewRequest("GET", "/api", nil)
		r.Header.Set("Accept", header)
		if f, ok := negotiate(r, offers{protobuf: true, as: asOne}); ok && f.Type == "" {
			t.Errorf("%q was accepted as nothing", header)
		}
	})
}

func FuzzDecode(f *testing.F) {
	f.Add([]byte(`{"apiVersion":"apps/v1","kind":"Deployment","spec":{"replicas":1}}`), uint8(0))
	f.Add([]byte("kind: Deployment\nspec:\n  replicas: 1\n"), uint8(1))
	f.Add([]byte("k8s\x00\x0a\x02\x0a\x00"), uint8(2))
	types := []string{typeJSON, typeYAML, typeProtobuf}
	gvk := appsv1.SchemeGroupVersion.WithKind("Deployment")
	f.Fuzz(func(t *testing.T, data []byte, which uint8) {
		b := body{data: data, mediaType: types[int(which)%len(types)]}
		d := &appsv1.Deployment{}
		if _, err := b.decode(target{gvk: gvk, object: d}); err == nil && d.TypeMeta != (metav1.TypeMeta{}) {
			t.Error("TypeMeta was left in place")
		}
		u := &unstructured.Unstructured{}
		custom := schema.GroupVersionKind{Group: "example.com", Version: "v1", Kind: "Deployment"}
		if _, err := b.decode(target{gvk: custom, object: u}); err == nil && u.GroupVersionKind() != custom {
			t.Errorf("the kind is %s", u.GroupVersionKind())
		}
		b.summary()
	})
}
