package apiserver

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"

	apidiscoveryv2 "k8s.io/api/apidiscovery/v2"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/version"

	"github.com/xebec-mesh/xebec/orchestrator/resource"
)

// discovery is what there is to discover, rebuilt when the kinds change.
type discovery struct {
	mu    sync.Mutex
	kinds []*resource.Kind
	tree  *apiTree
}

// apiTree is every group and version with its resources. It is immutable.
type apiTree struct {
	groups []apiGroup
	mu     sync.Mutex
	bodies map[string]body // answers by their name; mediaType is the ETag
}

type apiGroup struct {
	name     string
	versions []apiVersion
}

type apiVersion struct {
	version   string
	resources []apidiscoveryv2.APIResourceDiscovery
}

func (d *discovery) read(s *Server) *apiTree {
	kinds := s.registry.Kinds()
	slices.SortFunc(kinds, func(a, b *resource.Kind) int {
		return cmp.Or(strings.Compare(a.Group, b.Group), strings.Compare(a.Version, b.Version), strings.Compare(a.Resource, b.Resource))
	})
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.tree == nil || !slices.Equal(kinds, d.kinds) {
		d.kinds, d.tree = slices.Clone(kinds), newTree(kinds)
	}
	return d.tree
}

// newTree sorts kinds into groups: core first, then apps, then by name; within a
// group the most stable version first.
func newTree(kinds []*resource.Kind) *apiTree {
	byVersion := map[schema.GroupVersion][]apidiscoveryv2.APIResourceDiscovery{}
	for _, k := range kinds {
		byVersion[k.GroupVersion()] = append(byVersion[k.GroupVersion()], describe(k))
	}
	for _, r := range reviews {
		byVersion[r.GroupVersion()] = append(byVersion[r.GroupVersion()], describeReview(r))
	}
	groups := map[string][]apiVersion{}
	for gv, resources := range byVersion {
		slices.SortFunc(resources, func(a, b apidiscoveryv2.APIResourceDiscovery) int { return strings.Compare(a.Resource, b.Resource) })
		groups[gv.Group] = append(groups[gv.Group], apiVersion{gv.Version, resources})
	}
	t := &apiTree{bodies: map[string]body{}}
	for name, versions := range groups {
		slices.SortFunc(versions, func(a, b apiVersion) int { return version.CompareKubeAwareVersionStrings(b.version, a.version) })
		t.groups = append(t.groups, apiGroup{name, versions})
	}
	slices.SortFunc(t.groups, func(a, b apiGroup) int { return strings.Compare(groupOrder(a.name), groupOrder(b.name)) })
	return t
}

// groupOrder sorts the groups that short names should find first to the front.
func groupOrder(name string) string {
	switch {
	case name == "":
		return "0"
	case name == "apps":
		return "1"
	case !strings.Contains(name, ".") || strings.HasSuffix(name, ".k8s.io"):
		return "2" + name
	}
	return "3" + name
}

var (
	verbsAll    = metav1.Verbs{"create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"}
	verbsPart   = metav1.Verbs{"get", "patch", "update"}
	verbsCreate = metav1.Verbs{"create"}
)

func describe(k *resource.Kind) apidiscoveryv2.APIResourceDiscovery {
	d := apidiscoveryv2.APIResourceDiscovery{
		Resource: k.Resource, ResponseKind: responseKind(k.GroupVersionKind), Scope: scope(k.Namespaced),
		SingularResource: k.Singular, Verbs: verbsAll, ShortNames: k.ShortNames, Categories: k.Categories,
	}
	sub := func(name string, gvk schema.GroupVersionKind, verbs metav1.Verbs) {
		d.Subresources = append(d.Subresources, apidiscoveryv2.APISubresourceDiscovery{Subresource: name, ResponseKind: responseKind(gvk), Verbs: verbs})
	}
	if k.Status != nil {
		sub("status", k.GroupVersionKind, verbsPart)
	}
	if k.Scale != nil {
		sub("scale", schema.GroupVersionKind{Group: "autoscaling", Version: "v1", Kind: "Scale"}, verbsPart)
	}
	for name := range k.Parts {
		verbs := verbsPart
		if name == "finalize" {
			verbs = metav1.Verbs{"update"}
		}
		sub(name, k.GroupVersionKind, verbs)
	}
	for _, name := range actionNames(k) {
		action, _ := actionOf(k, name)
		sub(name, action.GVK, verbsCreate)
	}
	for _, c := range connectKinds[k.Group+"/"+k.Resource] {
		sub(c.name, c.gvk, c.verbs)
	}
	slices.SortFunc(d.Subresources, func(a, b apidiscoveryv2.APISubresourceDiscovery) int {
		return strings.Compare(a.Subresource, b.Subresource)
	})
	return d
}

func actionNames(k *resource.Kind) []string {
	names := slices.Collect(maps.Keys(k.Actions))
	if _, ok := actionOf(k, "eviction"); ok && k.Actions["eviction"] == nil {
		names = append(names, "eviction")
	}
	return names
}

func describeReview(r *review) apidiscoveryv2.APIResourceDiscovery {
	return apidiscoveryv2.APIResourceDiscovery{
		Resource: r.resource, ResponseKind: responseKind(r.GroupVersionKind), Scope: scope(r.namespaced),
		SingularResource: r.singular, Verbs: verbsCreate,
	}
}

func responseKind(gvk schema.GroupVersionKind) *metav1.GroupVersionKind {
	out := metav1.GroupVersionKind(gvk)
	return &out
}

func scope(namespaced bool) apidiscoveryv2.ResourceScope {
	if namespaced {
		return apidiscoveryv2.ScopeNamespace
	}
	return apidiscoveryv2.ScopeCluster
}

// serveDiscovery answers /api, /apis and what lies below them without a resource.
func (s *Server) serveDiscovery(w http.ResponseWriter, r *http.Request, path string) {
	t := s.disco.read(s)
	parts := strings.Split(strings.TrimPrefix(path, "/"), "/")
	if len(parts) == 1 {
		if v, ok := aggregated(r); ok {
			s.writeDiscovery(w, r, t, "aggregated "+v+path, "application/json;g=apidiscovery.k8s.io;v="+v+";as=APIGroupDiscoveryList", func() any {
				return t.aggregate(v, parts[0] == "api")
			})
			return
		}
	}
	answer, ok := t.legacy(parts)
	if !ok {
		s.fail(w, r, errNotFound(&request{}))
		return
	}
	s.writeDiscovery(w, r, t, path, typeJSON, answer)
}

// aggregated says whether the client prefers one document with everything, and in
// which version of apidiscovery.k8s.io.
func aggregated(r *http.Request) (string, bool) {
	for _, c := range parseAccept(strings.Join(r.Header.Values("Accept"), ",")) {
		if c.mediaType != typeJSON && c.mediaType != "*/*" {
			continue
		}
		if c.params["g"] == apidiscoveryv2.GroupName && c.params["as"] == "APIGroupDiscoveryList" {
			if v := c.params["v"]; v == "v2" || v == "v2beta1" {
				return v, true
			}
			continue
		}
		return "", false
	}
	return "", false
}

// writeDiscovery answers from the tree's encodings, with an ETag for the
// aggregated form, so that clients that have it are told so in a few bytes.
func (s *Server) writeDiscovery(w http.ResponseWriter, r *http.Request, t *apiTree, name, contentType string, build func() any) {
	t.mu.Lock()
	b, ok := t.bodies[name]
	if !ok {
		raw, err := json.Marshal(build())
		if err != nil {
			t.mu.Unlock()
			s.fail(w, r, err)
			return
		}
		sum := sha256.Sum256(raw)
		b = body{data: raw, mediaType: `"` + strings.ToUpper(hex.EncodeToString(sum[:])) + `"`}
		t.bodies[name] = b
	}
	t.mu.Unlock()
	h := w.Header()
	h.Set("Vary", "Accept")
	h.Set("ETag", b.mediaType)
	if contentType != typeJSON && r.Header.Get("If-None-Match") == b.mediaType {
		w.WriteHeader(http.StatusNotModified)
		return
	}
	raw, f := b.data, format{Type: typeJSON, Pretty: pretty(r)}
	if f.Pretty {
		raw, _ = reformat(f, raw) // it was marshalled a moment ago
	}
	h.Set("Content-Type", contentType)
	h.Set("Cache-Control", noCache[0])
	_, _ = w.Write(raw)
}

// aggregate is the whole tree below /api or /apis in one document. The two
// versions of the document differ in name only.
func (t *apiTree) aggregate(v string, core bool) *apidiscoveryv2.APIGroupDiscoveryList {
	list := &apidiscoveryv2.APIGroupDiscoveryList{
		TypeMeta: metav1.TypeMeta{Kind: "APIGroupDiscoveryList", APIVersion: apidiscoveryv2.GroupName + "/" + v},
		Items:    []apidiscoveryv2.APIGroupDiscovery{},
	}
	for _, g := range t.groups {
		if (g.name == "") != core {
			continue
		}
		item := apidiscoveryv2.APIGroupDiscovery{ObjectMeta: metav1.ObjectMeta{Name: g.name}}
		for _, version := range g.versions {
			item.Versions = append(item.Versions, apidiscoveryv2.APIVersionDiscovery{
				Version: version.version, Resources: version.resources, Freshness: apidiscoveryv2.DiscoveryFreshnessCurrent,
			})
		}
		list.Items = append(list.Items, item)
	}
	return list
}

// legacy is the document for /api, /apis, /apis/<group>, and the two that list resources.
func (t *apiTree) legacy(parts []string) (func() any, bool) {
	switch {
	case parts[0] == "api" && len(parts) == 1:
		return func() any { return coreVersions() }, true
	case parts[0] == "apis" && len(parts) == 1:
		return func() any { return t.groupList() }, true
	case parts[0] == "api" && len(parts) == 2:
		return t.resources("", parts[1])
	case parts[0] == "apis" && len(parts) == 2:
		if g := t.group(parts[1]); g != nil && parts[1] != "" {
			return func() any { return g.describe(true) }, true
		}
	case parts[0] == "apis" && len(parts) == 3:
		return t.resources(parts[1], parts[2])
	}
	return nil, false
}

func coreVersions() *metav1.APIVersions {
	return &metav1.APIVersions{
		TypeMeta: metav1.TypeMeta{Kind: "APIVersions"}, Versions: []string{"v1"},
		ServerAddressByClientCIDRs: []metav1.ServerAddressByClientCIDR{},
	}
}

func (t *apiTree) groupList() *metav1.APIGroupList {
	list := &metav1.APIGroupList{TypeMeta: metav1.TypeMeta{Kind: "APIGroupList", APIVersion: "v1"}, Groups: []metav1.APIGroup{}}
	for i := range t.groups {
		if t.groups[i].name != "" {
			list.Groups = append(list.Groups, t.groups[i].describe(false))
		}
	}
	return list
}

func (t *apiTree) group(name string) *apiGroup {
	for i := range t.groups {
		if t.groups[i].name == name {
			return &t.groups[i]
		}
	}
	return nil
}

func (g *apiGroup) describe(alone bool) metav1.APIGroup {
	out := metav1.APIGroup{Name: g.name}
	if alone {
		out.TypeMeta = metav1.TypeMeta{Kind: "APIGroup", APIVersion: "v1"}
	}
	for _, v := range g.versions {
		out.Versions = append(out.Versions, metav1.GroupVersionForDiscovery{GroupVersion: g.name + "/" + v.version, Version: v.version})
	}
	out.PreferredVersion = out.Versions[0]
	return out
}

func (t *apiTree) resources(group, version string) (func() any, bool) {
	g := t.group(group)
	if g == nil {
		return nil, false
	}
	for _, v := range g.versions {
		if v.version == version {
			return func() any { return flatten(schema.GroupVersion{Group: group, Version: version}, v.resources) }, true
		}
	}
	return nil, false
}

// flatten is the older form of a version's resources: subresources beside them.
func flatten(gv schema.GroupVersion, resources []apidiscoveryv2.APIResourceDiscovery) *metav1.APIResourceList {
	list := &metav1.APIResourceList{TypeMeta: metav1.TypeMeta{Kind: "APIResourceList", APIVersion: "v1"}, GroupVersion: gv.String(), APIResources: []metav1.APIResource{}}
	for _, r := range resources {
		namespaced := r.Scope == apidiscoveryv2.ScopeNamespace
		list.APIResources = append(list.APIResources, metav1.APIResource{
			Name: r.Resource, SingularName: r.SingularResource, Namespaced: namespaced, Kind: r.ResponseKind.Kind,
			Verbs: r.Verbs, ShortNames: r.ShortNames, Categories: r.Categories,
		})
		for _, sub := range r.Subresources {
			entry := metav1.APIResource{Name: r.Resource + "/" + sub.Subresource, Namespaced: namespaced, Kind: sub.ResponseKind.Kind, Verbs: sub.Verbs}
			if k := sub.ResponseKind; k.Group != gv.Group || k.Version != gv.Version {
				entry.Group, entry.Version = k.Group, k.Version
			}
			list.APIResources = append(list.APIResources, entry)
		}
	}
	return list
}
