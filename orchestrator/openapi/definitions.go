package openapi

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/xebec-mesh/xebec/orchestrator/resource"
)

// definitions are the schemas of Kubernetes' own types by model name, each as it
// stands in a document.
type definitions map[string]json.RawMessage

// library holds the definitions of one version of OpenAPI while they are in use:
// they are read in a few milliseconds and let go when nobody asks for a while.
type library struct {
	gzip []byte

	mu     sync.Mutex
	loaded definitions
	idle   *time.Timer
}

const keepDefinitions = 30 * time.Second

var (
	libraryV2 = &library{gzip: definitionsV2}
	libraryV3 = &library{gzip: definitionsV3}
)

func (l *library) read() (definitions, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.loaded == nil {
		d, err := parseDefinitions(l.gzip)
		if err != nil {
			return nil, fmt.Errorf("read definitions: %w", err)
		}
		l.loaded = d
	}
	if l.idle == nil {
		l.idle = time.AfterFunc(keepDefinitions, l.drop)
	} else {
		l.idle.Reset(keepDefinitions)
	}
	return l.loaded, nil
}

func (l *library) drop() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.loaded = nil
}

func parseDefinitions(compressed []byte) (definitions, error) {
	zip, err := gzip.NewReader(bytes.NewReader(compressed))
	if err != nil {
		return nil, err
	}
	raw, err := io.ReadAll(zip)
	if err != nil {
		return nil, err
	}
	d := definitions{}
	for line := range bytes.Lines(raw) {
		name, schema, ok := bytes.Cut(bytes.TrimSuffix(line, []byte("\n")), []byte(" "))
		if !ok {
			return nil, fmt.Errorf("line %.40q has no schema", line)
		}
		d[string(name)] = schema
	}
	return d, nil
}

const (
	refV2 = "#/definitions/"
	refV3 = "#/components/schemas/"

	modelMeta     = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta"
	modelListMeta = "io.k8s.apimachinery.pkg.apis.meta.v1.ListMeta"
	modelStatus   = "io.k8s.apimachinery.pkg.apis.meta.v1.Status"
	modelPatch    = "io.k8s.apimachinery.pkg.apis.meta.v1.Patch"
	modelOptions  = "io.k8s.apimachinery.pkg.apis.meta.v1.DeleteOptions"
	modelScale    = "io.k8s.api.autoscaling.v1.Scale"
)

// reach adds the models of names, and all that those refer to, from source to into.
func reach(source, into map[string]json.RawMessage, prefix string, names ...string) {
	for _, name := range names {
		if _, ok := into[name]; ok {
			continue
		}
		raw, ok := source[name]
		if !ok {
			continue
		}
		into[name] = raw
		reach(source, into, prefix, refsIn(raw, prefix)...)
	}
}

// refsIn finds the models that a schema refers to.
func refsIn(raw []byte, prefix string) []string {
	var names []string
	mark := []byte(`"$ref":"` + prefix)
	for {
		i := bytes.Index(raw, mark)
		if i < 0 {
			return names
		}
		raw = raw[i+len(mark):]
		if end := bytes.IndexByte(raw, '"'); end > 0 {
			names = append(names, string(raw[:end]))
		}
	}
}

type modelNamer interface{ OpenAPIModelName() string }

// modelName is what a kind is called in documents: its type's name, or for custom
// kinds the group turned around.
func modelName(k *resource.Kind) string {
	if n, ok := k.New().(modelNamer); ok && !k.Custom {
		return n.OpenAPIModelName()
	}
	return customName(k.GroupVersionKind)
}

func listName(k *resource.Kind) string {
	if n, ok := k.NewList().(modelNamer); ok && !k.Custom {
		return n.OpenAPIModelName()
	}
	return modelName(k) + "List"
}

func actionName(gvk schema.GroupVersionKind, body any) string {
	if n, ok := body.(modelNamer); ok {
		return n.OpenAPIModelName()
	}
	return customName(gvk)
}

func customName(gvk schema.GroupVersionKind) string {
	parts := strings.Split(gvk.Group, ".")
	slices.Reverse(parts)
	return strings.Join(append(parts, gvk.Version, gvk.Kind), ".")
}
