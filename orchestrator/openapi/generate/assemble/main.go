//go:build assemble

// Command assemble turns what openapi-gen wrote into two compressed files.
// ../main.go runs it; it builds only then.
package main

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/kube-openapi/pkg/builder3/util"
	"k8s.io/kube-openapi/pkg/common"
	"k8s.io/kube-openapi/pkg/validation/spec"

	"github.com/xebec-mesh/xebec/orchestrator/openapi/generate/assemble/definitions"
)

func main() {
	if err := run(os.Args[1], os.Args[2]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// models are schemas by model name.
type models map[string][]byte

func run(v2File, v3File string) error {
	kinds, err := kindsByModel()
	if err != nil {
		return err
	}
	v2, v3 := models{}, models{}
	for name, d := range definitionsWith("#/definitions/") {
		schema := d.Schema
		if old, ok := schema.Extensions[common.ExtensionV2Schema].(spec.Schema); ok {
			schema = old
		}
		if v2[name], err = encode(schema, kinds[name]); err != nil {
			return err
		}
	}
	for name, d := range definitionsWith("#/components/schemas/") {
		schema := d.Schema
		if schema.Extensions != nil {
			delete(schema.Extensions, common.ExtensionV2Schema)
		}
		if v3[name], err = encode(*util.WrapRefs(&schema), kinds[name]); err != nil {
			return err
		}
	}
	if err := write(v2File, v2); err != nil {
		return err
	}
	return write(v3File, v3)
}

func definitionsWith(prefix string) map[string]common.OpenAPIDefinition {
	return definitions.GetOpenAPIDefinitions(func(name string) spec.Ref {
		return spec.MustCreateRef(prefix + name)
	})
}

// kindsByModel are the group, version and kind of every model that is a kind of its own.
func kindsByModel() (map[string][]any, error) {
	s := runtime.NewScheme()
	if err := scheme.AddToScheme(s); err != nil {
		return nil, err
	}
	if err := apiextensionsv1.AddToScheme(s); err != nil {
		return nil, err
	}
	out := map[string][]any{}
	for gvk := range s.AllKnownTypes() {
		obj, err := s.New(gvk)
		if err != nil {
			return nil, err
		}
		named, ok := obj.(interface{ OpenAPIModelName() string })
		if !ok || strings.HasPrefix(named.OpenAPIModelName(), "io.k8s.apimachinery") && gvk.Kind != "Status" {
			continue
		}
		if gvk.Kind == "Status" && gvk.Group != "" || gvk.Version == runtime.APIVersionInternal {
			continue
		}
		out[named.OpenAPIModelName()] = append(out[named.OpenAPIModelName()], map[string]any{"group": gvk.Group, "version": gvk.Version, "kind": gvk.Kind})
	}
	for _, list := range out {
		slices.SortFunc(list, func(a, b any) int { return strings.Compare(fmt.Sprint(a), fmt.Sprint(b)) })
	}
	return out, nil
}

func encode(schema spec.Schema, kinds []any) ([]byte, error) {
	if len(kinds) > 0 {
		schema.AddExtension("x-kubernetes-group-version-kind", kinds)
	}
	return json.Marshal(schema)
}

// write is reproducible: names are sorted and the header has no time. A line is a
// name, a space and its schema.
func write(file string, m models) error {
	var out bytes.Buffer
	zip, err := gzip.NewWriterLevel(&out, gzip.BestCompression)
	if err != nil {
		return err
	}
	for _, name := range slices.Sorted(maps.Keys(m)) {
		if _, err := fmt.Fprintf(zip, "%s %s\n", name, m[name]); err != nil {
			return err
		}
	}
	if err := zip.Close(); err != nil {
		return err
	}
	return os.WriteFile(file, out.Bytes(), 0o644)
}
