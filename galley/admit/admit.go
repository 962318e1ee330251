// Package admit refuses mesh configuration that cannot mean anything, before it is stored.
//
//	in:   admission requests, in the webhook's own shape
//	out:  responses: allowed, with warnings; or denied, with every finding at once
//
// It keeps no state and needs no cluster: it could serve another one unchanged. What is
// refused depends on the object alone; what refers to other objects is a warning.
package admit

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"

	networkingv1 "istio.io/client-go/pkg/apis/networking/v1"
	securityv1 "istio.io/client-go/pkg/apis/security/v1"
	telemetryv1 "istio.io/client-go/pkg/apis/telemetry/v1"
	admissionv1 "k8s.io/api/admission/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/xebec-mesh/xebec/galley/analyze"
	"github.com/xebec-mesh/xebec/galley/config"
	"github.com/xebec-mesh/xebec/galley/message"
	"github.com/xebec-mesh/xebec/galley/validate"
)

// Config is what a Plugin needs.
type Config struct {
	World         analyze.World // for warnings about what does not exist; nil: none
	ClusterDomain string        // default cluster.local
}

// Plugin is the admission plugin.
type Plugin struct{ cfg Config }

// New returns the plugin.
func New(cfg Config) (*Plugin, error) {
	if cfg.ClusterDomain == "" {
		cfg.ClusterDomain = "cluster.local"
	}
	return &Plugin{cfg}, nil
}

// Name is the plugin's name in messages.
func (p *Plugin) Name() string { return "validation.istio.io" }

// kinds are what is checked, by group and resource; all versions have one content.
var kinds = map[schema.GroupResource]func() runtime.Object{
	{Group: "networking.istio.io", Resource: "virtualservices"}:      func() runtime.Object { return &networkingv1.VirtualService{} },
	{Group: "networking.istio.io", Resource: "destinationrules"}:     func() runtime.Object { return &networkingv1.DestinationRule{} },
	{Group: "networking.istio.io", Resource: "gateways"}:             func() runtime.Object { return &networkingv1.Gateway{} },
	{Group: "networking.istio.io", Resource: "serviceentries"}:       func() runtime.Object { return &networkingv1.ServiceEntry{} },
	{Group: "networking.istio.io", Resource: "sidecars"}:             func() runtime.Object { return &networkingv1.Sidecar{} },
	{Group: "security.istio.io", Resource: "peerauthentications"}:    func() runtime.Object { return &securityv1.PeerAuthentication{} },
	{Group: "security.istio.io", Resource: "authorizationpolicies"}:  func() runtime.Object { return &securityv1.AuthorizationPolicy{} },
	{Group: "security.istio.io", Resource: "requestauthentications"}: func() runtime.Object { return &securityv1.RequestAuthentication{} },
	{Group: "telemetry.istio.io", Resource: "telemetries"}:           func() runtime.Object { return &telemetryv1.Telemetry{} },
}

// Handles says which requests the plugin wants to see.
func (p *Plugin) Handles(op admissionv1.Operation, gvr schema.GroupVersionResource, subresource string) bool {
	return (op == admissionv1.Create || op == admissionv1.Update) && subresource == "" && kinds[gvr.GroupResource()] != nil
}

// Admit checks one object.
func (p *Plugin) Admit(_ context.Context, r *admissionv1.AdmissionRequest) *admissionv1.AdmissionResponse {
	out := &admissionv1.AdmissionResponse{UID: r.UID, Allowed: true}
	gvr := schema.GroupVersionResource{Group: r.Resource.Group, Version: r.Resource.Version, Resource: r.Resource.Resource}
	if !p.Handles(r.Operation, gvr, r.SubResource) {
		return out
	}
	obj := kinds[gvr.GroupResource()]()
	if err := json.Unmarshal(r.Object.Raw, obj); err != nil {
		return deny(out, r, message.List{message.Note(message.SchemaValidationError, "", "decode %s: %v", r.Kind.Kind, err)})
	}
	if o, ok := obj.(metav1.Object); ok && o.GetDeletionTimestamp() != nil {
		return out // it may only be on its way out
	}
	found := validate.Object(obj)
	if errs := found.Errors(); len(errs) > 0 {
		return deny(out, r, errs)
	}
	for _, m := range append(found.Warnings(), p.analyze(obj)...) {
		out.Warnings = append(out.Warnings, fmt.Sprintf("%s [%s]", m, m.Code))
	}
	return out
}

func (p *Plugin) analyze(obj runtime.Object) message.List {
	if p.cfg.World == nil {
		return nil
	}
	switch o := obj.(type) {
	case *networkingv1.VirtualService:
		return analyze.VirtualService(config.FromVirtualService(o, p.cfg.ClusterDomain), p.cfg.ClusterDomain, p.cfg.World)
	case *networkingv1.DestinationRule:
		return analyze.DestinationRule(config.FromDestinationRule(o, p.cfg.ClusterDomain), p.cfg.World)
	}
	return nil
}

func deny(out *admissionv1.AdmissionResponse, r *admissionv1.AdmissionRequest, found message.List) *admissionv1.AdmissionResponse {
	out.Allowed = false
	status := &metav1.Status{
		Status: metav1.StatusFailure, Code: http.StatusUnprocessableEntity, Reason: metav1.StatusReasonInvalid,
		Message: fmt.Sprintf("%s %q is invalid: %s", r.Kind.Kind, r.Name, found),
		Details: &metav1.StatusDetails{Name: r.Name, Group: r.Kind.Group, Kind: r.Kind.Kind},
	}
	for _, m := range found {
		status.Details.Causes = append(status.Details.Causes, metav1.StatusCause{
			Type: metav1.CauseTypeFieldValueInvalid, Field: m.Path, Message: m.Text,
		})
	}
	out.Result = status
	return out
}
