package inject

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"maps"
	"net/http"
	"slices"

	admissionv1 "k8s.io/api/admission/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/xebec-mesh/xebec/orchestrator/client"
	"github.com/xebec-mesh/xebec/pilot/model"
)

// Config is what a Plugin needs.
type Config struct {
	Client    client.Interface            // for namespaces' labels
	Image     string                      // of the sidecar; default xebec.local/envoy:1.40.0
	Revision  string                      // of this control plane; default "default"
	Resources corev1.ResourceRequirements // of the sidecar; default 20m and 48Mi, at most 1Gi of memory
	Log       *slog.Logger
}

// Plugin is the admission plugin.
type Plugin struct {
	cfg        Config
	namespaces client.View[*corev1.Namespace]
}

// New checks the configuration. The plugin reads namespaces from the client's informer.
func New(cfg Config) (*Plugin, error) {
	if cfg.Client == nil || cfg.Log == nil {
		return nil, errors.New("inject: Client and Log are needed")
	}
	if cfg.Image == "" {
		cfg.Image = "xebec.local/envoy:1.40.0"
	}
	if cfg.Revision == "" {
		cfg.Revision = "default"
	}
	if cfg.Resources.Requests == nil && cfg.Resources.Limits == nil {
		cfg.Resources = corev1.ResourceRequirements{
			Requests: corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("20m"), corev1.ResourceMemory: resource.MustParse("48Mi")},
			Limits:   corev1.ResourceList{corev1.ResourceMemory: resource.MustParse("1Gi")},
		}
	}
	return &Plugin{cfg: cfg, namespaces: client.For(cfg.Client, client.Namespaces).Informer(client.ListOptions{})}, nil
}

// Name is the plugin's name in messages.
func (p *Plugin) Name() string { return "sidecar-injector.istio.io" }

// Handles says which requests the plugin wants to see: new pods.
func (p *Plugin) Handles(op admissionv1.Operation, gvr schema.GroupVersionResource, subresource string) bool {
	return op == admissionv1.Create && gvr == client.Pods.GroupVersionResource && subresource == ""
}

// Admit adds the sidecar. A request that it does not handle is allowed as it is.
func (p *Plugin) Admit(ctx context.Context, r *admissionv1.AdmissionRequest) *admissionv1.AdmissionResponse {
	out := &admissionv1.AdmissionResponse{UID: r.UID, Allowed: true}
	gvr := schema.GroupVersionResource{Group: r.Resource.Group, Version: r.Resource.Version, Resource: r.Resource.Resource}
	if !p.Handles(r.Operation, gvr, r.SubResource) {
		return out
	}
	var pod corev1.Pod
	if err := json.Unmarshal(r.Object.Raw, &pod); err != nil {
		return refuse(out, http.StatusBadRequest, metav1.StatusReasonBadRequest, "decode pod: "+err.Error())
	}
	if model.IsMeshed(&pod) {
		return out
	}
	yes, why := decide(&pod, r.Namespace, p.labels(ctx, r.Namespace), p.cfg.Revision)
	p.cfg.Log.Debug("sidecar", "pod", r.Namespace+"/"+pod.Name+pod.GenerateName, "inject", yes, "why", why)
	if !yes {
		return out
	}
	add, err := plan(&pod, r.Namespace, Options{p.cfg.Image, p.cfg.Revision, p.cfg.Resources})
	if err != nil {
		return refuse(out, http.StatusUnprocessableEntity, metav1.StatusReasonInvalid, err.Error())
	}
	patch, err := json.Marshal(patchFor(&pod, add))
	if err != nil {
		return refuse(out, http.StatusInternalServerError, metav1.StatusReasonInternalError, "encode patch: "+err.Error())
	}
	kind := admissionv1.PatchTypeJSONPatch
	out.Patch, out.PatchType = patch, &kind
	return out
}

func refuse(out *admissionv1.AdmissionResponse, code int32, reason metav1.StatusReason, message string) *admissionv1.AdmissionResponse {
	out.Allowed = false
	out.Result = &metav1.Status{Status: metav1.StatusFailure, Code: code, Reason: reason, Message: message}
	return out
}

// labels of a namespace: from the informer or, for one just made, from the server.
func (p *Plugin) labels(ctx context.Context, name string) map[string]string {
	if ns, ok := p.namespaces.Get("", name); ok {
		return ns.Labels
	}
	ns, err := client.For(p.cfg.Client, client.Namespaces).Get(ctx, "", name)
	if err != nil {
		return nil
	}
	return ns.Labels
}

type operation struct {
	Op    string `json:"op"`
	Path  string `json:"path"`
	Value any    `json:"value"`
}

// patchFor writes an addition as operations, so that fields which this version does
// not know stay as they are.
func patchFor(pod *corev1.Pod, a *addition) []operation {
	var ops []operation
	ops = append(ops, mapPatch("/metadata/annotations", pod.Annotations, a.annotations)...)
	ops = append(ops, mapPatch("/metadata/labels", pod.Labels, a.labels)...)
	if len(pod.Spec.InitContainers) == 0 {
		ops = append(ops, operation{"add", "/spec/initContainers", []corev1.Container{a.container}})
	} else {
		ops = append(ops, operation{"add", "/spec/initContainers/0", a.container})
	}
	for _, v := range pod.Spec.Volumes {
		if v.Name == a.volume.Name {
			return ops
		}
	}
	if len(pod.Spec.Volumes) == 0 {
		return append(ops, operation{"add", "/spec/volumes", []corev1.Volume{a.volume}})
	}
	return append(ops, operation{"add", "/spec/volumes/-", a.volume})
}

func mapPatch(path string, have, add map[string]string) []operation {
	if len(have) == 0 {
		return []operation{{"add", path, add}}
	}
	var ops []operation
	for _, k := range slices.Sorted(maps.Keys(add)) {
		if have[k] == "" {
			ops = append(ops, operation{"add", path + "/" + escape(k), add[k]})
		}
	}
	return ops
}
