package openapi_test

import (
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	openapi_v2 "github.com/google/gnostic-models/openapiv2"
	"google.golang.org/protobuf/proto"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/kube-openapi/pkg/spec3"
	"k8s.io/kube-openapi/pkg/validation/spec"

	"github.com/xebec-mesh/xebec/orchestrator/openapi"
	"github.com/xebec-mesh/xebec/orchestrator/resource"
)

var cronTab = &resource.Kind{
	GroupVersionKind: schema.GroupVersionKind{Group: "stable.example.com", Version: "v1", Kind: "CronTab"},
	Resource:         "crontabs", Singular: "crontab", Namespaced: true, Custom: true,
	New:     func() resource.Object { return &unstructured.Unstructured{} },
	NewList: func() runtime.Object { return &unstructured.UnstructuredList{} },
	Status:  &resource.Subresource{},
}

func server(t testing.TB, custom func(schema.GroupVersionKind) (openapi.Schema, bool)) *openapi.Server {
	t.Helper()
	s, err := openapi.New(openapi.Config{
		Kinds:  func() []*resource.Kind { return append([]*resource.Kind{cronTab}, resource.Kinds()...) },
		Custom: custom, Log: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func get(t testing.TB, s http.Handler, path string, headers ...string) *httptest.ResponseRecorder {
	t.Helper()
	r := httptest.NewRequest(http.MethodGet, path, nil)
	for i := 0; i < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	w := httptest.NewRecorder()
	s.ServeHTTP(w, r)
	return w
}

func cronTabSchema(version string) func(schema.GroupVersionKind) (openapi.Schema, bool) {
	return func(gvk schema.GroupVersionKind) (openapi.Schema, bool) {
		build := func(bool) (*spec.Schema, error) {
			s := &spec.Schema{SchemaProps: spec.SchemaProps{Type: []string{"object"}, Properties: map[string]spec.Schema{
				"spec": {SchemaProps: spec.SchemaProps{Type: []string{"string"}, Description: "when to run"}},
			}}}
			return s, nil
		}
		return openapi.Schema{Version: version, Build: build}, gvk == cronTab.GroupVersionKind
	}
}

// Every document of v3 parses, every reference in it resolves, and what kubectl
// reads before it patches is there.
func TestV3Complete(t *testing.T) {
	s := server(t, cronTabSchema("1"))
	var index struct {
		Paths map[string]struct {
			URL string `json:"serverRelativeURL"`
		}
	}
	if err := json.Unmarshal(get(t, s, "/openapi/v3").Body.Bytes(), &index); err != nil {
		t.Fatal(err)
	}
	if len(index.Paths) < 2 {
		t.Fatalf("index lists %d documents", len(index.Paths))
	}
	for name, entry := range index.Paths {
		w := get(t, s, entry.URL)
		if w.Code != http.StatusOK {
			t.Fatalf("%s: %d %s", entry.URL, w.Code, w.Body)
		}
		var doc spec3.OpenAPI
		if err := json.Unmarshal(w.Body.Bytes(), &doc); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		for _, ref := range refs(w.Body.String(), "#/components/schemas/") {
			if doc.Components.Schemas[ref] == nil {
				t.Errorf("%s: %s is referred to and not there", name, ref)
			}
		}
		for path, item := range doc.Paths.Paths {
			if item.Patch == nil {
				continue
			}
			names := map[string]bool{}
			for _, p := range item.Patch.Parameters {
				names[p.Name] = true
			}
			if !names["dryRun"] || !names["fieldValidation"] {
				t.Errorf("%s: patch of %s lacks dryRun or fieldValidation", name, path)
			}
		}
	}
}

func refs(text, prefix string) []string {
	var out []string
	for _, part := range strings.Split(text, `"$ref":"`+prefix)[1:] {
		name, _, _ := strings.Cut(part, `"`)
		out = append(out, name)
	}
	return out
}

func TestV2BothForms(t *testing.T) {
	s := server(t, cronTabSchema("1"))
	var doc spec.Swagger
	w := get(t, s, "/openapi/v2")
	if err := json.Unmarshal(w.Body.Bytes(), &doc); err != nil {
		t.Fatal(err)
	}
	for _, ref := range refs(w.Body.String(), "#/definitions/") {
		if _, ok := doc.Definitions[ref]; !ok {
			t.Errorf("%s is referred to and not there", ref)
		}
	}
	if _, ok := doc.Definitions["com.example.stable.v1.CronTab"]; !ok {
		t.Error("the custom kind is not there")
	}
	w = get(t, s, "/openapi/v2", "Accept", "application/com.github.proto-openapi.spec.v2@v1.0+protobuf")
	var pb openapi_v2.Document
	if err := proto.Unmarshal(w.Body.Bytes(), &pb); err != nil {
		t.Fatal(err)
	}
	if n := len(pb.Definitions.AdditionalProperties); n != len(doc.Definitions) {
		t.Errorf("protobuf has %d definitions, JSON %d", n, len(doc.Definitions))
	}
}

// A client that has a document is told so; when a schema changes it is not.
func TestCaching(t *testing.T) {
	version := "1"
	s := server(t, func(gvk schema.GroupVersionKind) (openapi.Schema, bool) { return cronTabSchema(version)(gvk) })
	w := get(t, s, "/openapi/v2")
	if again := get(t, s, "/openapi/v2", "If-None-Match", w.Header().Get("ETag")); again.Code != http.StatusNotModified {
		t.Errorf("with the ETag: %d, want 304", again.Code)
	}
	url := func() string {
		body := get(t, s, "/openapi/v3").Body.String()
		i := strings.Index(body, "/openapi/v3/apis/stable.example.com")
		return body[i : i+strings.IndexByte(body[i:], '"')]
	}
	before := url()
	version = "2"
	if after := url(); after == before {
		t.Error("the hash does not follow the schema")
	}
	if w := get(t, s, before); w.Code != http.StatusMovedPermanently {
		t.Errorf("an old hash: %d, want 301", w.Code)
	}
	if w := get(t, s, "/openapi/v3/apis/none/v1"); w.Code != http.StatusNotFound {
		t.Errorf("an unknown group: %d, want 404", w.Code)
	}
}

func BenchmarkCompose(b *testing.B) {
	for _, path := range []string{"/openapi/v3/api/v1", "/openapi/v2"} {
		b.Run(strings.Trim(strings.ReplaceAll(path, "/", "_"), "_"), func(b *testing.B) {
			n := 0
			s := server(b, func(gvk schema.GroupVersionKind) (openapi.Schema, bool) {
				return cronTabSchema(fmt.Sprint(n))(gvk)
			})
			b.ReportAllocs()
			for b.Loop() {
				n++
				io.Copy(io.Discard, get(b, s, path, "Accept-Encoding", "gzip").Body)
			}
		})
	}
}
