package openapi

import (
	"encoding/json"
	"fmt"
	"sync"

	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/managedfields"
	"k8s.io/kube-openapi/pkg/validation/spec"

	"github.com/xebec-mesh/xebec/orchestrator/resource"
)

// typeCache keeps the last type converter of each kind.
type typeCache struct {
	mu    sync.Mutex
	kinds map[schema.GroupVersionKind]typeEntry
}

type typeEntry struct {
	version   string
	converter managedfields.TypeConverter
}

// Types gives the schema of any kind in the form that server-side apply needs,
// from the same source as the documents. It is nil where there is no schema.
func (s *Server) Types(k *resource.Kind) (managedfields.TypeConverter, error) {
	version := s.version([]*resource.Kind{k})
	s.types.mu.Lock()
	defer s.types.mu.Unlock()
	if e, ok := s.types.kinds[k.GroupVersionKind]; ok && e.version == version {
		return e.converter, nil
	}
	models, err := s.modelsOf(k)
	if err != nil || models == nil {
		return nil, err
	}
	converter, err := managedfields.NewTypeConverter(models, false)
	if err != nil {
		return nil, fmt.Errorf("types of %s: %w", k.GroupVersionKind, err)
	}
	if s.types.kinds == nil {
		s.types.kinds = map[schema.GroupVersionKind]typeEntry{}
	}
	s.types.kinds[k.GroupVersionKind] = typeEntry{version, converter}
	return converter, nil
}

func (s *Server) modelsOf(k *resource.Kind) (map[string]*spec.Schema, error) {
	defs, err := libraryV3.read()
	if err != nil {
		return nil, err
	}
	raw := map[string]json.RawMessage{}
	if k.Custom {
		if _, ok := s.cfg.Custom(k.GroupVersionKind); !ok {
			return nil, nil
		}
		if err := s.addCustom(k, raw, refV3); err != nil {
			return nil, err
		}
		delete(raw, listName(k))
	}
	reach(defs, raw, refV3, modelName(k), modelMeta)
	out := make(map[string]*spec.Schema, len(raw))
	for name, text := range raw {
		schema := &spec.Schema{}
		if err := json.Unmarshal(text, schema); err != nil {
			return nil, fmt.Errorf("read schema %s: %w", name, err)
		}
		out[name] = schema
	}
	return out, nil
}
