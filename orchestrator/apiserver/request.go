package apiserver

import (
	"net/http"
	"net/url"
	"strings"

	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// request describes what an HTTP request asks for, before anything is looked up.
// https://kubernetes.io/docs/reference/using-api/api-concepts/
type request struct {
	Verb string // as the authorizer knows it: get, list, watch, create, update, patch, delete, deletecollection; else the method in lower case
	Path string

	// Of a request for a resource (Resource is not empty).
	Group, Version, Namespace   string
	Resource, Subresource, Name string
	Rest                        string // what follows the subresource, as in pods/x/proxy/a/b
	FieldSelector               string
}

func (r *request) gvr() schema.GroupVersionResource {
	return schema.GroupVersionResource{Group: r.Group, Version: r.Version, Resource: r.Resource}
}

func (r *request) groupResource() schema.GroupResource {
	return schema.GroupResource{Group: r.Group, Resource: r.Resource}
}

// parseRequest reads method, path and query. It never fails: what is no resource
// request is a request for a path.
func parseRequest(method, path string, query url.Values) request {
	r := request{Path: path, Verb: strings.ToLower(method)}
	parts, ok := r.apiParts(path)
	if !ok {
		return r
	}
	watched := false
	if parts[0] == "watch" { // deprecated, and still asked for
		parts, watched = parts[1:], true
	}
	if len(parts) == 0 {
		return r
	}
	parts = r.takeNamespace(parts)
	r.Resource = parts[0]
	if len(parts) > 1 {
		r.Name = parts[1]
	}
	if len(parts) > 2 {
		r.Subresource = parts[2]
	}
	if len(parts) > 3 {
		r.Rest = strings.Join(parts[3:], "/")
	}
	r.Verb = resourceVerb(method, r.Name != "", watched || isTrue(query, "watch"))
	if r.Name == "" && (r.Verb == "list" || r.Verb == "watch" || r.Verb == "deletecollection") {
		r.takeSelector(query)
	} else if watched {
		r.FieldSelector = "metadata.name=" + r.Name
	}
	return r
}

// apiParts splits what follows /api/<version> or /apis/<group>/<version>.
func (r *request) apiParts(path string) ([]string, bool) {
	parts := strings.Split(strings.Trim(path, "/"), "/")
	switch {
	case parts[0] == "api" && len(parts) > 2:
		r.Version = parts[1]
		return parts[2:], true
	case parts[0] == "apis" && len(parts) > 3:
		r.Group, r.Version = parts[1], parts[2]
		return parts[3:], true
	}
	return nil, false
}

// takeNamespace takes namespaces/<name>/ off the parts of a namespaced resource.
// Namespaces themselves are a resource that lies in itself.
func (r *request) takeNamespace(parts []string) []string {
	if parts[0] != "namespaces" || len(parts) < 2 {
		return parts
	}
	r.Namespace = parts[1]
	if len(parts) > 2 && parts[2] != "status" && parts[2] != "finalize" {
		return parts[2:]
	}
	return parts
}

// takeSelector keeps the field selector; one that demands a name asks, for the
// authorizer, for that object only.
func (r *request) takeSelector(query url.Values) {
	r.FieldSelector = query.Get("fieldSelector")
	if !strings.Contains(r.FieldSelector, "metadata.name") {
		return
	}
	if s, err := fields.ParseSelector(r.FieldSelector); err == nil {
		if name, ok := s.RequiresExactMatch("metadata.name"); ok {
			r.Name = name
		}
	}
}

func resourceVerb(method string, named, watch bool) string {
	switch method {
	case http.MethodGet, http.MethodHead:
		switch {
		case watch:
			return "watch"
		case named:
			return "get"
		}
		return "list"
	case http.MethodPost:
		return "create"
	case http.MethodPut:
		return "update"
	case http.MethodPatch:
		return "patch"
	case http.MethodDelete:
		if named {
			return "delete"
		}
		return "deletecollection"
	}
	return strings.ToLower(method)
}

// isTrue reads a boolean parameter as Kubernetes does: present and neither false nor 0.
func isTrue(query url.Values, key string) bool {
	values, ok := query[key]
	if !ok || len(values) == 0 {
		return false
	}
	return values[0] != "false" && values[0] != "0"
}

// longRunning says that a request may last, and so holds no seat and has no deadline.
func (r *request) longRunning(query url.Values) bool {
	switch r.Subresource {
	case "log", "exec", "attach", "portforward", "proxy":
		return r.Subresource != "log" || isTrue(query, "follow")
	}
	return r.Resource != "" && r.Verb == "watch"
}
