package openapi

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	openapi_v2 "github.com/google/gnostic-models/openapiv2"
	"google.golang.org/protobuf/proto"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/kube-openapi/pkg/validation/spec"

	"github.com/xebec-mesh/xebec/orchestrator/resource"
)

type object = map[string]any

// composeV3 writes the document of one group version.
func (s *Server) composeV3(w io.Writer, kinds []*resource.Kind) error {
	c := composer{s: s, w: w, library: libraryV3, prefix: refV3, write: (*operation).v3}
	c.raw(`{"openapi":"3.0.0","info":{"title":"Kubernetes","version":"` + s.cfg.Version + `"},"paths":{`)
	c.paths(kinds)
	c.raw(`},"components":{"schemas":{`)
	c.schemas(kinds)
	c.raw(`},"securitySchemes":{"BearerToken":` + bearerToken + `}},"security":[{"BearerToken":[]}]}`)
	return c.err
}

// composeV2 writes the document of everything.
func (s *Server) composeV2(w io.Writer, kinds []*resource.Kind) error {
	c := composer{s: s, w: w, library: libraryV2, prefix: refV2, write: (*operation).v2}
	c.raw(`{"swagger":"2.0","info":{"title":"Kubernetes","version":"` + s.cfg.Version + `"},"paths":{`)
	c.paths(kinds)
	c.raw(`},"definitions":{`)
	c.schemas(kinds)
	c.raw(`},"securityDefinitions":{"BearerToken":` + bearerToken + `},"security":[{"BearerToken":[]}]}`)
	return c.err
}

// composeProtobuf writes the v2 document as older clients want it.
func (s *Server) composeProtobuf(w io.Writer, kinds []*resource.Kind) error {
	var raw bytes.Buffer
	if err := s.composeV2(&raw, kinds); err != nil {
		return err
	}
	doc, err := openapi_v2.ParseDocument(raw.Bytes())
	if err != nil {
		return fmt.Errorf("convert to protobuf: %w", err)
	}
	out, err := proto.Marshal(doc)
	if err != nil {
		return fmt.Errorf("convert to protobuf: %w", err)
	}
	_, err = w.Write(out)
	return err
}

const bearerToken = `{"type":"apiKey","description":"Bearer Token authentication","name":"authorization","in":"header"}`

// composer writes a document kind by kind. Its first error ends it.
type composer struct {
	s       *Server
	w       io.Writer
	library *library
	prefix  string // of references
	write   func(*operation) object
	err     error
}

func (c *composer) raw(text string) {
	if c.err == nil {
		_, c.err = io.WriteString(c.w, text)
	}
}

// member writes one member of an object; those after the first begin with a comma.
func (c *composer) member(first *bool, name string, value any) {
	if c.err != nil {
		return
	}
	raw, err := json.Marshal(value)
	if err != nil {
		c.err = err
		return
	}
	key, err := json.Marshal(name)
	if err != nil {
		c.err = err
		return
	}
	if !*first {
		c.raw(",")
	}
	*first = false
	c.raw(string(key) + ":")
	c.raw(string(raw))
}

func (c *composer) paths(kinds []*resource.Kind) {
	first := true
	for _, k := range kinds {
		items := map[string]object{}
		for _, o := range operations(k) {
			if items[o.path] == nil {
				items[o.path] = object{}
			}
			items[o.path][o.method] = c.write(&o)
		}
		for _, path := range slices.Sorted(maps.Keys(items)) {
			c.member(&first, path, items[path])
		}
	}
}

// schemas writes the schemas of custom kinds as they are built, and then all of
// Kubernetes' own that anything refers to.
func (c *composer) schemas(kinds []*resource.Kind) {
	defs, err := c.library.read()
	if err != nil {
		c.err = err
		return
	}
	first := true
	own := map[string]json.RawMessage{}
	for _, k := range kinds {
		reach(defs, own, c.prefix, models(operations(k))...)
		if !k.Custom || c.err != nil {
			continue
		}
		built := map[string]json.RawMessage{}
		if c.err = c.s.addCustom(k, built, c.prefix); c.err != nil {
			return
		}
		for _, name := range slices.Sorted(maps.Keys(built)) {
			c.member(&first, name, built[name])
		}
	}
	reach(defs, own, c.prefix, modelMeta, modelListMeta)
	for _, name := range slices.Sorted(maps.Keys(own)) {
		c.member(&first, name, own[name])
	}
}

// addCustom adds a custom kind's schema and that of its list.
func (s *Server) addCustom(k *resource.Kind, into map[string]json.RawMessage, prefix string) error {
	root := anyObject()
	if c, ok := s.cfg.Custom(k.GroupVersionKind); ok {
		var err error
		if root, err = c.Build(prefix == refV2); err != nil {
			return fmt.Errorf("schema of %s: %w", k.GroupVersionKind, err)
		}
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
	return put(into, listName(k), list, listKind)
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
