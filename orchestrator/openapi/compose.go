package openapi

import (
	"encoding/json"
	"fmt"
	"strings"

	openapi_v2 "github.com/google/gnostic-models/openapiv2"
	"google.golang.org/protobuf/proto"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/kube-openapi/pkg/validation/spec"

	"github.com/xebec-mesh/xebec/orchestrator/resource"
)

type object = map[string]any

// composeV3 is the document of one group version.
func (s *Server) composeV3(kinds []*resource.Kind) ([]byte, error) {
	defs, err := libraryV3.read()
	if err != nil {
		return nil, err
	}
	schemas := map[string]json.RawMessage{}
	paths := object{}
	for _, k := range kinds {
		ops := operations(k)
		for _, o := range ops {
			at(paths, o.path)[o.method] = o.v3()
		}
		if k.Custom {
			if err := s.addCustom(k, defs, schemas, refV3); err != nil {
				return nil, err
			}
		}
		reach(defs, schemas, refV3, models(ops)...)
	}
	return json.Marshal(object{
		"openapi":    "3.0.0",
		"info":       object{"title": "Kubernetes", "version": s.cfg.Version},
		"paths":      paths,
		"components": object{"schemas": schemas, "securitySchemes": object{"BearerToken": bearerToken}},
		"security":   []object{{"BearerToken": []string{}}},
	})
}

// composeV2 is the document of everything.
func (s *Server) composeV2(kinds []*resource.Kind) ([]byte, error) {
	defs, err := libraryV2.read()
	if err != nil {
		return nil, err
	}
	schemas := map[string]json.RawMessage{}
	paths := object{}
	for _, k := range kinds {
		ops := operations(k)
		for _, o := range ops {
			at(paths, o.path)[o.method] = o.v2()
		}
		if k.Custom {
			if err := s.addCustom(k, defs, schemas, refV2); err != nil {
				return nil, err
			}
		}
		reach(defs, schemas, refV2, models(ops)...)
	}
	return json.Marshal(object{
		"swagger":             "2.0",
		"info":                object{"title": "Kubernetes", "version": s.cfg.Version},
		"paths":               paths,
		"definitions":         schemas,
		"securityDefinitions": object{"BearerToken": bearerToken},
		"security":            []object{{"BearerToken": []string{}}},
	})
}

var bearerToken = object{"type": "apiKey", "description": "Bearer Token authentication", "name": "authorization", "in": "header"}

func at(paths object, path string) object {
	item, ok := paths[path].(object)
	if !ok {
		item = object{}
		paths[path] = item
	}
	return item
}

// addCustom adds a custom kind's schema and that of its list.
func (s *Server) addCustom(k *resource.Kind, defs definitions, into map[string]json.RawMessage, prefix string) error {
	v2, v3 := anyObject(), anyObject()
	if c, ok := s.cfg.Custom(k.GroupVersionKind); ok {
		var err error
		if v2, v3, err = c.Build(); err != nil {
			return fmt.Errorf("schema of %s: %w", k.GroupVersionKind, err)
		}
	}
	root := v3
	if prefix == refV2 {
		root = v2
	}
	top := *root
	top.Properties = map[string]spec.Schema{}
	for name, p := range root.Properties {
		top.Properties[name] = p
	}
	top.Properties["apiVersion"], top.Properties["kind"] = apiVersionSchema, kindSchema
	top.Properties["metadata"] = ref(prefix, modelMeta, "Standard object's metadata. More info: https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#metadata")
	if err := put(into, modelName(k), top, k.GroupVersionKind); err != nil {
		return err
	}
	item := *spec.RefSchema(prefix + modelName(k))
	list := spec.Schema{SchemaProps: spec.SchemaProps{
		Description: k.Kind + "List is a list of " + k.Kind, Type: []string{"object"}, Required: []string{"items"},
		Properties: map[string]spec.Schema{
			"apiVersion": apiVersionSchema, "kind": kindSchema,
			"metadata": ref(prefix, modelListMeta, "Standard list metadata. More info: https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#types-kinds"),
			"items":    {SchemaProps: spec.SchemaProps{Description: "List of " + k.Resource + ".", Type: []string{"array"}, Items: &spec.SchemaOrArray{Schema: &item}}},
		},
	}}
	listKind := k.GroupVersionKind
	listKind.Kind += "List"
	if err := put(into, listName(k), list, listKind); err != nil {
		return err
	}
	reach(defs, into, prefix, modelMeta, modelListMeta)
	return nil
}

func put(into map[string]json.RawMessage, name string, s spec.Schema, gvk schema.GroupVersionKind) error {
	extensions := spec.Extensions{}
	for key, v := range s.Extensions {
		extensions[key] = v
	}
	s.Extensions = extensions
	s.AddExtension("x-kubernetes-group-version-kind", []any{object{"group": gvk.Group, "version": gvk.Version, "kind": gvk.Kind}})
	raw, err := json.Marshal(s)
	if err != nil {
		return fmt.Errorf("encode schema %s: %w", name, err)
	}
	into[name] = raw
	return nil
}

var (
	apiVersionSchema = text("APIVersion defines the versioned schema of this representation of an object. Servers should convert recognized schemas to the latest internal value, and may reject unrecognized values. More info: https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#resources")
	kindSchema       = text("Kind is a string value representing the REST resource this object represents. Servers may infer this from the endpoint the client submits requests to. Cannot be updated. In CamelCase. More info: https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#types-kinds")
)

func text(about string) spec.Schema {
	return spec.Schema{SchemaProps: spec.SchemaProps{Type: []string{"string"}, Description: about}}
}

// ref refers to a model; v3 allows nothing beside a reference, so it wraps it.
func ref(prefix, model, about string) spec.Schema {
	r := *spec.RefSchema(prefix + model)
	if prefix == refV2 {
		r.Description = about
		return r
	}
	return spec.Schema{SchemaProps: spec.SchemaProps{Description: about, AllOf: []spec.Schema{r}}}
}

// anyObject describes a custom kind without a schema.
func anyObject() *spec.Schema {
	return &spec.Schema{
		SchemaProps:      spec.SchemaProps{Type: []string{"object"}},
		VendorExtensible: spec.VendorExtensible{Extensions: spec.Extensions{"x-kubernetes-preserve-unknown-fields": true}},
	}
}

var (
	produces      = []string{typeJSON, "application/yaml", "application/vnd.kubernetes.protobuf"}
	producesWatch = append(produces[:3:3], "application/json;stream=watch", "application/vnd.kubernetes.protobuf;stream=watch")
)

func (o *operation) produces() []string {
	if o.watchable {
		return producesWatch
	}
	return produces
}

func (o *operation) base() object {
	gv := o.gvk.Group
	if gv == "" {
		gv = "core"
	}
	gv, _, _ = strings.Cut(gv, ".")
	return object{
		"operationId": o.id, "description": o.about, "tags": []string{gv + "_" + o.gvk.Version},
		"x-kubernetes-action":             o.action,
		"x-kubernetes-group-version-kind": object{"group": o.gvk.Group, "version": o.gvk.Version, "kind": o.gvk.Kind},
	}
}

func (o *operation) v3() object {
	out := o.base()
	var params []object
	for _, p := range o.params {
		param := object{"name": p.name, "in": p.in, "description": p.about, "schema": object{"type": p.typ, "uniqueItems": true}}
		if p.required {
			param["required"] = true
		}
		params = append(params, param)
	}
	out["parameters"] = params
	if o.body != "" {
		types := o.bodyTypes
		if len(types) == 0 {
			types = []string{"*/*"}
		}
		content := object{}
		for _, t := range types {
			content[t] = object{"schema": object{"$ref": refV3 + o.body}}
		}
		out["requestBody"] = object{"content": content, "required": o.body != modelOptions}
	}
	content := object{}
	for _, t := range o.produces() {
		content[t] = object{"schema": object{"$ref": refV3 + o.result}}
	}
	out["responses"] = o.responses(object{"description": "OK", "content": content})
	return out
}

func (o *operation) v2() object {
	out := o.base()
	var params []object
	for _, p := range o.params {
		param := object{"name": p.name, "in": p.in, "description": p.about, "type": p.typ, "uniqueItems": true}
		if p.required {
			param["required"] = true
		}
		params = append(params, param)
	}
	if o.body != "" {
		params = append(params, object{"name": "body", "in": "body", "required": o.body != modelOptions, "schema": object{"$ref": refV2 + o.body}})
	}
	out["parameters"] = params
	out["consumes"], out["produces"], out["schemes"] = []string{"*/*"}, o.produces(), []string{"https"}
	if len(o.bodyTypes) > 0 {
		out["consumes"] = o.bodyTypes
	}
	out["responses"] = o.responses(object{"description": "OK", "schema": object{"$ref": refV2 + o.result}})
	return out
}

func (o *operation) responses(ok object) object {
	out := object{"200": ok, "401": object{"description": "Unauthorized"}}
	if o.created {
		out["201"] = ok
	}
	return out
}

// toProtobuf is the v2 document as older clients want it.
func toProtobuf(raw []byte) ([]byte, error) {
	doc, err := openapi_v2.ParseDocument(raw)
	if err != nil {
		return nil, fmt.Errorf("convert to protobuf: %w", err)
	}
	return proto.Marshal(doc)
}
