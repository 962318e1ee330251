// Command gen writes the definitions that package schema embeds.
package main

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"fmt"
	"log"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"sigs.k8s.io/yaml"
)

func main() {
	log.SetFlags(0)
	if err := run("crds_gen.json.gz"); err != nil {
		log.Fatal(err)
	}
}

func run(out string) error {
	istio, err := moduleDir("istio.io/api")
	if err != nil {
		return err
	}
	gateway, err := moduleDir("sigs.k8s.io/gateway-api")
	if err != nil {
		return err
	}
	files, err := filepath.Glob(filepath.Join(gateway, "config/crd/standard/*.yaml"))
	if err != nil {
		return err
	}
	files = append(files, filepath.Join(istio, "kubernetes/customresourcedefinitions.gen.yaml"))
	var all []*apiextensionsv1.CustomResourceDefinition
	for _, f := range files {
		crds, err := read(f)
		if err != nil {
			return err
		}
		all = append(all, crds...)
	}
	slices.SortFunc(all, func(a, b *apiextensionsv1.CustomResourceDefinition) int { return strings.Compare(a.Name, b.Name) })
	return write(out, all)
}

func moduleDir(module string) (string, error) {
	dir, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", module).Output()
	if err != nil {
		return "", fmt.Errorf("find module %s: %w", module, err)
	}
	return strings.TrimSpace(string(dir)), nil
}

func read(file string) ([]*apiextensionsv1.CustomResourceDefinition, error) {
	data, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	var out []*apiextensionsv1.CustomResourceDefinition
	for _, doc := range strings.Split("\n"+string(data), "\n---") {
		crd := &apiextensionsv1.CustomResourceDefinition{}
		if err := yaml.Unmarshal([]byte(doc), crd); err != nil {
			return nil, fmt.Errorf("decode %s: %w", file, err)
		}
		if crd.Kind == "CustomResourceDefinition" {
			shorten(crd)
			out = append(out, crd)
		}
	}
	return out, nil
}

func shorten(crd *apiextensionsv1.CustomResourceDefinition) {
	delete(crd.Annotations, "helm.sh/resource-policy")
	for i := range crd.Spec.Versions {
		v := &crd.Spec.Versions[i]
		if v.Schema != nil && v.Schema.OpenAPIV3Schema != nil {
			walk(v.Schema.OpenAPIV3Schema, v.Storage)
		}
	}
}

// longest is the length that an explanation is cut to, in bytes.
const longest = 240

func walk(s *apiextensionsv1.JSONSchemaProps, explain bool) {
	s.Description = brief(s.Description, explain)
	for k, p := range s.Properties {
		walk(&p, explain)
		s.Properties[k] = p
	}
	if s.Items != nil && s.Items.Schema != nil {
		walk(s.Items.Schema, explain)
	}
	if s.AdditionalProperties != nil && s.AdditionalProperties.Schema != nil {
		walk(s.AdditionalProperties.Schema, explain)
	}
	for _, list := range [][]apiextensionsv1.JSONSchemaProps{s.AllOf, s.AnyOf, s.OneOf} {
		for i := range list {
			walk(&list[i], explain)
		}
	}
	if s.Not != nil {
		walk(s.Not, explain)
	}
}

// brief keeps the first paragraph or, of a long one, its first sentences.
func brief(s string, explain bool) string {
	if !explain {
		return ""
	}
	s, _, _ = strings.Cut(s, "\n\n")
	s = strings.Join(strings.Fields(s), " ")
	if len(s) <= longest {
		return s
	}
	if i := strings.LastIndex(s[:longest], ". "); i > 0 {
		return s[:i+1]
	}
	if i := strings.LastIndexByte(s[:longest], ' '); i > 0 {
		return s[:i] + " …"
	}
	return ""
}

func write(out string, all []*apiextensionsv1.CustomResourceDefinition) error {
	data, err := json.Marshal(all)
	if err != nil {
		return err
	}
	var buf bytes.Buffer
	z, err := gzip.NewWriterLevel(&buf, gzip.BestCompression)
	if err != nil {
		return err
	}
	if _, err := z.Write(data); err != nil {
		return err
	}
	if err := z.Close(); err != nil {
		return err
	}
	fmt.Printf("%s: %d definitions, %d bytes, %d compressed\n", out, len(all), len(data), buf.Len())
	return os.WriteFile(out, buf.Bytes(), 0o644)
}
