// Package openapi describes the API to its clients: /openapi/v2 and /openapi/v3.
//
//	in:   the kinds that are served; the schemas of Kubernetes' own types
//	      (definitions_v2_gen.gz and _v3_, made by ./generate); the schemas of custom kinds
//	out:  OpenAPI documents, compressed, with hash and ETag
//
// Nothing happens at start. A document is composed when it is first asked for,
// from the schemas that its kinds reach, and kept compressed; the hash of each is
// known without composing it, so that clients with a cache cost nothing.
package openapi

//go:generate go run ./generate

import (
	"bytes"
	"cmp"
	"compress/gzip"
	"crypto/sha256"
	_ "embed"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"sync"

	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/kube-openapi/pkg/validation/spec"

	"github.com/xebec-mesh/xebec/orchestrator/resource"
)

//go:embed definitions_v2_gen.gz
var definitionsV2 []byte

//go:embed definitions_v3_gen.gz
var definitionsV3 []byte

// Config says what is described.
type Config struct {
	Kinds func() []*resource.Kind // what is served now, in a slice of the caller's own; required
	// Custom gives the schema of a custom kind; ok is false where there is none.
	Custom  func(schema.GroupVersionKind) (s Schema, ok bool)
	Version string // of the API, as documents state it; default v1.36.0
	Log     *slog.Logger
}

// Schema is a custom kind's.
type Schema struct {
	Version string // changes when the schema does
	// Build makes the schema as v2 or v3 has it, without the top level's metadata.
	Build func(v2 bool) (*spec.Schema, error)
}

// Server serves the documents.
type Server struct {
	cfg  Config
	mu   sync.Mutex
	docs map[string]*document // by name: "v2", "v2.pb", "v3/apis/apps/v1"

	types typeCache
}

// document is one composed answer.
type document struct {
	version string // of what it was composed from
	gzip    []byte
	etag    string
}

// New checks cfg.
func New(cfg Config) (*Server, error) {
	if cfg.Kinds == nil || cfg.Log == nil {
		return nil, errors.New("create openapi server: Kinds and Log are needed")
	}
	if cfg.Custom == nil {
		cfg.Custom = func(schema.GroupVersionKind) (Schema, bool) { return Schema{}, false }
	}
	if cfg.Version == "" {
		cfg.Version = "v1.36.0"
	}
	return &Server{cfg: cfg, docs: map[string]*document{}}, nil
}

const (
	typeJSON = "application/json"
	typePB   = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf"
)

// ServeHTTP answers /openapi/v2, /openapi/v3 and /openapi/v3/<group version>.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	path := strings.Trim(strings.TrimPrefix(r.URL.Path, "/openapi"), "/")
	switch {
	case path == "v2":
		s.serveV2(w, r)
	case path == "v3":
		s.serveIndex(w)
	case strings.HasPrefix(path, "v3/"):
		s.serveV3(w, r, strings.TrimPrefix(path, "v3/"))
	default:
		http.NotFound(w, r)
	}
}

func (s *Server) serveV2(w http.ResponseWriter, r *http.Request) {
	accept := r.Header.Get("Accept")
	name, contentType := "v2", typeJSON
	if strings.Contains(accept, "proto-openapi.spec.v2") && strings.Contains(accept, "+protobuf") {
		name, contentType = "v2.pb", typePB
	}
	kinds := s.cfg.Kinds()
	slices.SortFunc(kinds, order)
	d, err := s.document(name, s.version(kinds), func(w io.Writer) error {
		if name == "v2" {
			return s.composeV2(w, kinds)
		}
		return s.composeProtobuf(w, kinds)
	})
	s.answer(w, r, d, contentType, err)
}

// serveIndex lists the documents of v3 with their hashes.
func (s *Server) serveIndex(w http.ResponseWriter) {
	type entry struct {
		URL string `json:"serverRelativeURL"`
	}
	paths := map[string]entry{}
	for gv, kinds := range byVersion(s.cfg.Kinds()) {
		name := versionPath(gv)
		paths[name] = entry{"/openapi/v3/" + name + "?hash=" + s.version(kinds)}
	}
	w.Header().Set("Content-Type", typeJSON)
	_ = json.NewEncoder(w).Encode(map[string]any{"paths": paths})
}

func (s *Server) serveV3(w http.ResponseWriter, r *http.Request, name string) {
	if accept := r.Header.Get("Accept"); strings.Contains(accept, "protobuf") && !strings.Contains(accept, "json") && !strings.Contains(accept, "*/*") {
		http.Error(w, "406 not acceptable: this document comes as "+typeJSON, http.StatusNotAcceptable)
		return
	}
	gv, ok := parseVersionPath(name)
	kinds := byVersion(s.cfg.Kinds())[gv]
	if !ok || len(kinds) == 0 {
		http.NotFound(w, r)
		return
	}
	version := s.version(kinds)
	if hash := r.URL.Query().Get("hash"); hash != "" {
		if hash != version {
			http.Redirect(w, r, "/openapi/v3/"+name+"?hash="+version, http.StatusMovedPermanently)
			return
		}
		w.Header().Set("Cache-Control", "public, immutable")
		w.Header().Set("Expires", "Fri, 31 Dec 9999 23:59:59 GMT") // the address changes with the content
	}
	d, err := s.document("v3/"+name, version, func(w io.Writer) error { return s.composeV3(w, kinds) })
	s.answer(w, r, d, typeJSON, err)
}

// document returns a document that was composed from that version, composing it
// if need be. It is compressed as it is written, so that no more than a part of it
// is ever in memory. Callers for the same one wait for each other.
func (s *Server) document(name, version string, compose func(io.Writer) error) (*document, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if d := s.docs[name]; d != nil && d.version == version {
		return d, nil
	}
	var out bytes.Buffer
	zip, sum := gzip.NewWriter(&out), sha256.New()
	err := compose(io.MultiWriter(zip, sum))
	if err == nil {
		err = zip.Close()
	}
	if err != nil {
		return nil, fmt.Errorf("compose openapi document %s: %w", name, err)
	}
	d := &document{version: version, etag: `"` + strings.ToUpper(hex.EncodeToString(sum.Sum(nil))) + `"`, gzip: bytes.Clone(out.Bytes())}
	s.docs[name] = d
	return d, nil
}

func (s *Server) answer(w http.ResponseWriter, r *http.Request, d *document, contentType string, err error) {
	if err != nil {
		s.cfg.Log.Error("openapi document cannot be composed", "err", err)
		http.Error(w, "500 internal error: "+err.Error(), http.StatusInternalServerError)
		return
	}
	h := w.Header()
	h.Set("ETag", d.etag)
	h.Set("Vary", "Accept-Encoding, Accept")
	h.Set("Content-Type", contentType)
	if strings.Contains(r.Header.Get("If-None-Match"), d.etag) {
		w.WriteHeader(http.StatusNotModified)
		return
	}
	if strings.Contains(r.Header.Get("Accept-Encoding"), "gzip") {
		h.Set("Content-Encoding", "gzip")
		_, _ = w.Write(d.gzip)
		return
	}
	zip, err := gzip.NewReader(bytes.NewReader(d.gzip))
	if err != nil {
		return // what compress wrote can be read
	}
	_, _ = io.Copy(w, zip) // the client is gone if this fails
}

// version is a hash over all that a document of these kinds is made from.
func (s *Server) version(kinds []*resource.Kind) string {
	h := sha256.New()
	h.Write([]byte(definitionsVersion()))
	for _, k := range kinds {
		fmt.Fprintf(h, "%s %s %t %t %t", k.GroupVersionKind, k.Resource, k.Namespaced, k.Status != nil, k.Scale != nil)
		if c, ok := s.cfg.Custom(k.GroupVersionKind); ok {
			h.Write([]byte(c.Version))
		}
	}
	return strings.ToUpper(hex.EncodeToString(h.Sum(nil)))
}

var definitionsVersion = sync.OnceValue(func() string {
	h := sha256.New()
	h.Write(definitionsV2)
	h.Write(definitionsV3)
	return hex.EncodeToString(h.Sum(nil))
})

func byVersion(kinds []*resource.Kind) map[schema.GroupVersion][]*resource.Kind {
	out := map[schema.GroupVersion][]*resource.Kind{}
	for _, k := range kinds {
		out[k.GroupVersion()] = append(out[k.GroupVersion()], k)
	}
	for _, list := range out {
		slices.SortFunc(list, order)
	}
	return out
}

func order(a, b *resource.Kind) int {
	return cmp.Or(strings.Compare(a.Group, b.Group), strings.Compare(a.Version, b.Version), strings.Compare(a.Resource, b.Resource))
}

// versionPath is "api/v1" or "apis/<group>/<version>".
func versionPath(gv schema.GroupVersion) string {
	if gv.Group == "" {
		return "api/" + gv.Version
	}
	return "apis/" + gv.Group + "/" + gv.Version
}

func parseVersionPath(s string) (schema.GroupVersion, bool) {
	parts := strings.Split(s, "/")
	switch {
	case len(parts) == 2 && parts[0] == "api":
		return schema.GroupVersion{Version: parts[1]}, true
	case len(parts) == 3 && parts[0] == "apis":
		return schema.GroupVersion{Group: parts[1], Version: parts[2]}, true
	}
	return schema.GroupVersion{}, false
}
