package apiserver

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"runtime"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/version"
)

// check is one thing that health depends on.
type check struct {
	name string
	ask  func(context.Context) error
}

func isHealth(path string) bool {
	root, _, _ := strings.Cut(strings.TrimPrefix(path, "/"), "/")
	return root == "healthz" || root == "livez" || root == "readyz"
}

// checksOf are the checks of /livez, /readyz or /healthz, in a fixed order.
func (s *Server) checksOf(root string) []check {
	list := []check{{"ping", func(context.Context) error { return nil }}, {"registry", s.registryReady}}
	for _, name := range slices.Sorted(maps.Keys(s.cfg.Checks)) {
		list = append(list, check{name, s.cfg.Checks[name]})
	}
	if root == "readyz" {
		list = append(list, check{"shutdown", s.notDraining})
	}
	return list
}

func (s *Server) registryReady(context.Context) error {
	select {
	case <-s.registry.Ready():
		return nil
	default:
		return errors.New("the watch cache is being filled")
	}
}

func (s *Server) notDraining(context.Context) error {
	if s.draining.Err() != nil {
		return errors.New("process is shutting down")
	}
	return nil
}

// serveHealth answers /<root> with all checks, /<root>/<check> with one.
// https://kubernetes.io/docs/reference/using-api/health-checks/
func (s *Server) serveHealth(w http.ResponseWriter, r *http.Request, path string) {
	root, one, _ := strings.Cut(strings.TrimPrefix(path, "/"), "/")
	excluded := r.URL.Query()["exclude"]
	var out strings.Builder
	failed, found := false, one == ""
	for _, c := range s.checksOf(root) {
		if one != "" && c.name != one {
			continue
		}
		found = true
		if slices.Contains(excluded, c.name) {
			fmt.Fprintf(&out, "[+]%s excluded: ok\n", c.name)
		} else if err := c.ask(r.Context()); err != nil {
			failed = true
			s.log.Debug("health check failed", "check", c.name, "err", err)
			fmt.Fprintf(&out, "[-]%s failed: reason withheld\n", c.name)
		} else {
			fmt.Fprintf(&out, "[+]%s ok\n", c.name)
		}
	}
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.Header().Set("Cache-Control", "no-cache, private")
	switch {
	case !found:
		w.WriteHeader(http.StatusNotFound)
		fmt.Fprintf(w, "404 page not found\n")
	case failed:
		w.WriteHeader(http.StatusInternalServerError)
		fmt.Fprintf(w, "%s%s check failed\n", out.String(), root)
	case r.URL.Query().Has("verbose"):
		fmt.Fprintf(w, "%s%s check passed\n", out.String(), root)
	default:
		fmt.Fprint(w, "ok")
	}
}

// defaultVersion says which Kubernetes' API this is.
func defaultVersion() version.Info {
	return version.Info{
		Major: "1", Minor: "36", GitVersion: "v1.36.0+xebec", GitTreeState: "clean",
		GoVersion: runtime.Version(), Compiler: runtime.Compiler, Platform: runtime.GOOS + "/" + runtime.GOARCH,
	}
}

func (s *Server) serveVersion(w http.ResponseWriter, r *http.Request) {
	s.writeJSON(w, r, s.cfg.Version)
}

// servePaths lists what there is, for people who open the root.
func (s *Server) servePaths(w http.ResponseWriter, r *http.Request) {
	paths := []string{"/api", "/api/v1", "/apis", "/healthz", "/livez", "/metrics", "/openapi/v2", "/openapi/v3", "/readyz", "/version"}
	for _, g := range s.disco.read(s).groups {
		paths = append(paths, "/apis/"+g.name)
		for _, v := range g.versions {
			paths = append(paths, "/apis/"+g.name+"/"+v.version)
		}
	}
	for _, e := range s.extra {
		paths = append(paths, e.prefix)
	}
	slices.Sort(paths)
	s.writeJSON(w, r, map[string][]string{"paths": slices.DeleteFunc(paths, func(p string) bool { return strings.Contains(p, "//") || p == "/apis/" })})
}

func (s *Server) serveOpenID(w http.ResponseWriter, r *http.Request, path string) {
	if s.cfg.Tokens == nil {
		s.fail(w, r, errNotFound(&request{}))
		return
	}
	raw, err := s.cfg.Tokens.JWKS()
	contentType := "application/jwk-set+json"
	if path == "/.well-known/openid-configuration" {
		raw, err = s.cfg.Tokens.Discovery(s.cfg.Tokens.Issuer() + "/openid/v1/jwks")
		contentType = typeJSON
	}
	if err != nil {
		s.fail(w, r, err)
		return
	}
	w.Header().Set("Cache-Control", "public, max-age=3600")
	w.Header().Set("Content-Type", contentType)
	_, _ = w.Write(raw)
}

func (s *Server) writeJSON(w http.ResponseWriter, r *http.Request, v any) {
	raw, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		s.fail(w, r, err)
		return
	}
	writeBody(w, format{Type: typeJSON}, http.StatusOK, raw)
}
