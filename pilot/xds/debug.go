package xds

import (
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/xebec-mesh/xebec/pilot/describe"
	"github.com/xebec-mesh/xebec/pilot/simulate"
)

// Describe prints what the proxy of a pod is to have, of one of describe.Kinds.
func (s *Server) Describe(pod *corev1.Pod, kind string) (string, error) {
	out, in, err := s.Snapshots(pod)
	if err != nil {
		return "", err
	}
	return describe.Snapshots(kind, out, in)
}

// Call says where a call of a pod lands.
func (s *Server) Call(pod *corev1.Pod, c simulate.Call) (string, error) {
	out, _, err := s.Snapshots(pod)
	if err != nil {
		return "", err
	}
	return simulate.Run(out, c)
}

// Refused is a resource that is out of force because a proxy refused it.
type Refused struct {
	Proxy, TypeURL, Resource, Detail string
}

// Status says which proxies are connected (namespace/name of their pods), at which
// revision the mesh is, and what was refused.
func (s *Server) Status() (proxies []string, revision uint64, refused []Refused, err error) {
	err = s.call(func(e *engine) {
		revision = e.mesh.Revision
		for p := range e.proxies {
			proxies = append(proxies, p.key)
		}
		for r, by := range e.refused {
			refused = append(refused, Refused{by, r.Type, r.Name, r.Rejected()})
		}
	})
	slices.Sort(proxies)
	slices.SortFunc(refused, func(a, b Refused) int { return strings.Compare(a.Resource, b.Resource) })
	return proxies, revision, refused, err
}
