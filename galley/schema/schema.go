// Package schema holds the mesh's CustomResourceDefinitions: those of Istio and the
// standard channel of Gateway API.
//
//	in:   the YAML that the modules istio.io/api and sigs.k8s.io/gateway-api ship
//	out:  CRDs, decoded from one embedded file
//
// The file is made by `go generate` from the versions that go.mod names. Every version
// of a kind keeps its whole schema; explanations are kept, shortened, for the version
// that is stored, because they are most of the size and the same everywhere.
package schema

import (
	"bytes"
	"compress/gzip"
	_ "embed"
	"encoding/json"
	"fmt"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
)

//go:generate go run ./gen

//go:embed crds_gen.json.gz
var crds []byte

// CRDs returns the definitions, in the order of their names. They are the caller's own.
func CRDs() ([]*apiextensionsv1.CustomResourceDefinition, error) {
	z, err := gzip.NewReader(bytes.NewReader(crds))
	if err != nil {
		return nil, fmt.Errorf("read embedded definitions: %w", err)
	}
	var out []*apiextensionsv1.CustomResourceDefinition
	if err := json.NewDecoder(z).Decode(&out); err != nil {
		return nil, fmt.Errorf("decode embedded definitions: %w", err)
	}
	return out, nil
}
