package openapi

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	autoscalingv1 "k8s.io/api/autoscaling/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/xebec-mesh/xebec/orchestrator/resource"
)

// operation is one method on one path, before it is written as v2 or v3.
type operation struct {
	path, method string
	id           string // operationId
	action       string // x-kubernetes-action
	gvk          schema.GroupVersionKind
	about        string
	params       []parameter
	body         string   // model; "" has none
	bodyTypes    []string // content types; empty is any
	result       string   // model
	created      bool     // may answer 201
	watchable    bool     // answers may stream
}

type parameter struct {
	name, in, typ, about string
	required             bool
}

func query(typ, about string, names ...string) []parameter {
	var out []parameter
	for _, n := range names {
		out = append(out, parameter{name: n, in: "query", typ: typ, about: about})
	}
	return out
}

var (
	paramNamespace = parameter{"namespace", "path", "string", "object name and auth scope, such as for teams and projects", true}
	paramName      = parameter{"name", "path", "string", "name of the object", true}
	paramsPretty   = query("string", "If 'true', then the output is pretty printed.", "pretty")
	paramsWrite    = slices.Concat(
		query("string", "When present, indicates that modifications should not be persisted. Valid values are: All.", "dryRun"),
		query("string", "fieldManager is a name associated with the actor or entity that is making these changes.", "fieldManager"),
		query("string", "fieldValidation instructs the server on how to handle unknown or duplicate fields: Ignore, Warn or Strict.", "fieldValidation"),
	)
	paramsForce  = query("boolean", "Force is going to \"force\" Apply requests. It means user will re-acquire conflicting fields owned by other people.", "force")
	paramsDelete = slices.Concat(
		query("string", "When present, indicates that modifications should not be persisted. Valid values are: All.", "dryRun"),
		query("integer", "The duration in seconds before the object should be deleted.", "gracePeriodSeconds"),
		query("boolean", "Deprecated: please use the PropagationPolicy.", "orphanDependents"),
		query("string", "Whether and how garbage collection will be performed.", "propagationPolicy"),
	)
	paramsList = slices.Concat(
		query("boolean", "allowWatchBookmarks requests watch events with type \"BOOKMARK\".", "allowWatchBookmarks"),
		query("string", "The continue option should be set when retrieving more results from the server.", "continue"),
		query("string", "A selector to restrict the list of returned objects by their fields.", "fieldSelector"),
		query("string", "A selector to restrict the list of returned objects by their labels.", "labelSelector"),
		query("integer", "limit is a maximum number of responses to return for a list call.", "limit"),
		query("string", "resourceVersion sets a constraint on what resource versions a request may be served from.", "resourceVersion"),
		query("string", "resourceVersionMatch determines how resourceVersion is applied to list calls.", "resourceVersionMatch"),
		query("boolean", "sendInitialEvents begins a watch with the objects that there are.", "sendInitialEvents"),
		query("integer", "Timeout for the list/watch call.", "timeoutSeconds"),
		query("boolean", "Watch for changes to the described resources and return them as a stream.", "watch"),
	)
)

const (
	patchJSON      = "application/json-patch+json"
	patchMerge     = "application/merge-patch+json"
	patchStrategic = "application/strategic-merge-patch+json"
	patchApply     = "application/apply-patch+yaml"
)

// operations are all that can be done with a kind.
func operations(k *resource.Kind) []operation {
	root := "/" + versionPath(k.GroupVersion())
	collection := root + "/" + k.Resource
	var place []parameter
	scope := ""
	if k.Namespaced {
		collection = root + "/namespaces/{namespace}/" + k.Resource
		place, scope = []parameter{paramNamespace}, "Namespaced"
	}
	b := builder{k: k, scope: scope, place: place, model: modelName(k), list: listName(k)}
	b.collection(collection)
	b.item(collection + "/{name}")
	if k.Namespaced {
		b.scope, b.place = "", nil
		b.add(operation{
			path: root + "/" + k.Resource, method: "get", action: "list", id: b.id("list", "ForAllNamespaces"),
			about: "list or watch objects of kind " + k.Kind, params: paramsList, result: b.list, watchable: true,
		})
	}
	return b.out
}

type builder struct {
	k           *resource.Kind
	scope       string
	place       []parameter
	model, list string
	out         []operation
}

func (b *builder) id(verb, suffix string) string {
	group := b.k.Group
	if group == "" {
		group = "core"
	}
	group, _, _ = strings.Cut(group, ".")
	return verb + title(group) + title(b.k.Version) + b.scope + b.k.Kind + suffix
}

func title(s string) string {
	if s == "" {
		return s
	}
	return strings.ToUpper(s[:1]) + s[1:]
}

func (b *builder) add(o operation) {
	o.gvk = orKind(o.gvk, b.k.GroupVersionKind)
	o.params = slices.Concat(o.params, b.place, paramsPretty)
	b.out = append(b.out, o)
}

func orKind(gvk, otherwise schema.GroupVersionKind) schema.GroupVersionKind {
	if gvk.Empty() {
		return otherwise
	}
	return gvk
}

func (b *builder) collection(path string) {
	kind := b.k.Kind
	b.add(operation{path: path, method: "get", action: "list", id: b.id("list", ""), about: "list or watch objects of kind " + kind, params: paramsList, result: b.list, watchable: true})
	b.add(operation{path: path, method: "post", action: "post", id: b.id("create", ""), about: "create a " + kind, params: paramsWrite, body: b.model, result: b.model, created: true})
	b.add(operation{path: path, method: "delete", action: "deletecollection", id: b.id("deleteCollection", ""), about: "delete collection of " + kind, params: slices.Concat(paramsDelete, paramsList), body: modelOptions, result: modelStatus})
}

func (b *builder) item(path string) {
	b.place = append(slices.Clone(b.place), paramName)
	kind := b.k.Kind
	b.readWrite(path, "", schema.GroupVersionKind{}, b.model)
	b.add(operation{path: path, method: "delete", action: "delete", id: b.id("delete", ""), about: "delete a " + kind, params: paramsDelete, body: modelOptions, result: modelStatus})
	if b.k.Status != nil {
		b.readWrite(path+"/status", "Status", schema.GroupVersionKind{}, b.model)
	}
	if b.k.Scale != nil {
		b.readWrite(path+"/scale", "Scale", autoscalingv1.SchemeGroupVersion.WithKind("Scale"), modelScale)
	}
	for _, name := range slices.Sorted(maps.Keys(b.k.Parts)) {
		b.readWrite(path+"/"+name, title(name), schema.GroupVersionKind{}, b.model)
	}
	for _, name := range slices.Sorted(maps.Keys(b.k.Actions)) {
		action := b.k.Actions[name]
		model := actionName(action.GVK, action.New())
		b.add(operation{path: path + "/" + name, method: "post", action: "post", id: b.id("create", title(name)), gvk: action.GVK, about: fmt.Sprintf("create %s of a %s", name, kind), params: paramsWrite, body: model, result: model, created: true})
	}
}

// readWrite are get, put and patch.
func (b *builder) readWrite(path, suffix string, gvk schema.GroupVersionKind, model string) {
	what := strings.TrimSpace(strings.ToLower(suffix) + " of the specified " + b.k.Kind)
	if suffix == "" {
		what = "the specified " + b.k.Kind
	}
	types := []string{patchJSON, patchMerge, patchApply}
	if !b.k.Custom {
		types = []string{patchJSON, patchMerge, patchStrategic, patchApply}
	}
	b.add(operation{path: path, method: "get", action: "get", id: b.id("read", suffix), gvk: gvk, about: "read " + what, result: model})
	b.add(operation{path: path, method: "put", action: "put", id: b.id("replace", suffix), gvk: gvk, about: "replace " + what, params: paramsWrite, body: model, result: model, created: true})
	b.add(operation{path: path, method: "patch", action: "patch", id: b.id("patch", suffix), gvk: gvk, about: "partially update " + what, params: slices.Concat(paramsWrite, paramsForce), body: modelPatch, bodyTypes: types, result: model, created: true})
}

// models are all that a kind's operations name.
func models(ops []operation) []string {
	seen := map[string]bool{}
	for _, o := range ops {
		seen[o.body], seen[o.result] = true, true
	}
	delete(seen, "")
	return slices.Sorted(maps.Keys(seen))
}
