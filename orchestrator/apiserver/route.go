package apiserver

import (
	"net/http"
	"strings"

	"k8s.io/apiserver/pkg/authentication/user"
)

// route finds who answers an authorized request.
func (s *Server) route(w http.ResponseWriter, r *http.Request, req request, u user.Info) {
	if req.Resource != "" {
		s.routeResource(&call{s: s, w: w, r: r, req: req, query: r.URL.Query(), user: u})
		return
	}
	for _, e := range s.extra {
		if strings.HasPrefix(req.Path, e.prefix) {
			e.handler.ServeHTTP(w, r)
			return
		}
	}
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		s.fail(w, r, errMethod(&req, req.Verb))
		return
	}
	s.routePath(w, r, &req)
}

func (s *Server) routePath(w http.ResponseWriter, r *http.Request, req *request) {
	path := strings.TrimSuffix(req.Path, "/")
	switch {
	case path == "/version":
		s.serveVersion(w, r)
	case path == "/metrics":
		s.serveMetrics(w, r)
	case isHealth(path):
		s.serveHealth(w, r, path)
	case strings.HasPrefix(path, "/openapi/v") && s.cfg.OpenAPI != nil:
		s.cfg.OpenAPI.ServeHTTP(w, r)
	case path == "/.well-known/openid-configuration" || path == "/openid/v1/jwks":
		s.serveOpenID(w, r, path)
	case path == "/api" || path == "/apis" || strings.HasPrefix(path, "/api/") || strings.HasPrefix(path, "/apis/"):
		s.serveDiscovery(w, r, path)
	case path == "":
		s.servePaths(w, r)
	default:
		s.fail(w, r, errNotFound(req))
	}
}

// routeResource finds the handler of a verb on a resource or its subresource.
func (s *Server) routeResource(c *call) {
	if review := reviewOf(c.req.gvr()); review != nil {
		c.review(review)
		return
	}
	if c.kind = s.registry.Kind(c.req.gvr()); c.kind == nil {
		c.fail(errNotFound(&c.req))
		return
	}
	if sub := c.req.Subresource; sub != "" {
		s.routeSubresource(c, sub)
		return
	}
	switch c.req.Verb {
	case "get":
		c.get()
	case "list":
		c.list()
	case "watch":
		c.watch()
	case "create":
		if c.req.Name != "" || c.kind.Namespaced && c.req.Namespace == "" {
			c.fail(errMethod(&c.req, c.req.Verb))
			return
		}
		c.create()
	case "update":
		c.named((*call).update)
	case "patch":
		c.named((*call).patch)
	case "delete":
		c.delete()
	case "deletecollection":
		c.deleteCollection()
	default:
		c.fail(errMethod(&c.req, c.req.Verb))
	}
}

// named runs a handler that needs one object.
func (c *call) named(handle func(*call)) {
	if c.req.Name == "" {
		c.fail(errMethod(&c.req, c.req.Verb))
		return
	}
	handle(c)
}

func (s *Server) routeSubresource(c *call, sub string) {
	if connect := connectOf(c.kind.Group, c.kind.Resource, sub); connect != nil {
		connect(c)
		return
	}
	if _, ok := actionOf(c.kind, sub); ok {
		if c.req.Verb != "create" {
			c.fail(errMethod(&c.req, c.req.Verb))
			return
		}
		c.create()
		return
	}
	if sub != "scale" && c.kind.Part(sub) == nil || sub == "scale" && c.kind.Scale == nil {
		c.fail(errNotFound(&c.req))
		return
	}
	switch c.req.Verb {
	case "get":
		c.get()
	case "update":
		c.update()
	case "patch":
		c.patch()
	default:
		c.fail(errMethod(&c.req, c.req.Verb))
	}
}
