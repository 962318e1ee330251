package view

import (
	"strconv"
	"strings"

	networking "istio.io/api/networking/v1alpha3"

	"github.com/xebec-mesh/xebec/galley/config"
	"github.com/xebec-mesh/xebec/pilot/model"
	"github.com/xebec-mesh/xebec/pilot/policy"
)

// OutboundOf says which outbound view a workload shares.
func OutboundOf(m *model.Mesh, w *model.Workload) Outbound {
	return Outbound{
		Caller:  policy.Caller{Namespace: w.Namespace, Labels: w.Labels.Project(m.CallerLabels().Keys)},
		Sidecar: SidecarOf(&model.Reader{Mesh: m}, w),
	}
}

// SidecarOf finds the Sidecar that restricts a workload: one that selects it, else
// its namespace's, else the mesh's.
func SidecarOf(r *model.Reader, w *model.Workload) *config.Sidecar {
	var general *config.Sidecar
	for _, s := range r.Sidecars(w.Namespace).All() {
		labels := s.Spec.GetWorkloadSelector().GetLabels()
		switch {
		case len(labels) == 0 && general == nil:
			general = s
		case len(labels) > 0 && w.Labels.Contain(labels):
			return s
		}
	}
	if general != nil {
		return general
	}
	for _, root := range r.Mesh.Settings.RootNamespaces.All() {
		for _, s := range r.Sidecars(root).All() {
			if len(s.Spec.GetWorkloadSelector().GetLabels()) == 0 {
				return s
			}
		}
	}
	return nil
}

// restricted says whether only what is declared may be called.
func (o Outbound) restricted() bool {
	return o.Sidecar != nil &&
		o.Sidecar.Spec.GetOutboundTrafficPolicy() != nil &&
		o.Sidecar.Spec.GetOutboundTrafficPolicy().GetMode() == networking.OutboundTrafficPolicy_REGISTRY_ONLY
}

// sees says whether a Sidecar lets its workload see a service. Hosts are written
// namespace/host, with * and . (own) for the namespace.
func (o Outbound) sees(s *model.Service) bool {
	if o.Sidecar == nil || len(o.Sidecar.Spec.GetEgress()) == 0 {
		return true
	}
	for _, e := range o.Sidecar.Spec.GetEgress() {
		for _, h := range e.GetHosts() {
			ns, host, ok := strings.Cut(h, "/")
			if !ok {
				continue
			}
			if ns == "." {
				ns = o.Caller.Namespace
			}
			if (ns == "*" || ns == s.Namespace) && config.Matches(host, s.Host) {
				return true
			}
		}
	}
	return false
}

func tableName(port uint32) string { return strconv.FormatUint(uint64(port), 10) }
