// Package validate says what is wrong with mesh configuration that its schema lets
// through: meanings, not shapes.
//
//	in:   one object of istio.io/client-go
//	out:  message.List: for each finding the field's path, the value, what is accepted
//
// It looks at nothing but the object, so the same object always gets the same answer,
// in whatever order things are applied. What refers to other objects is package analyze.
package validate

import (
	networkingv1 "istio.io/client-go/pkg/apis/networking/v1"
	securityv1 "istio.io/client-go/pkg/apis/security/v1"
	telemetryv1 "istio.io/client-go/pkg/apis/telemetry/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/xebec-mesh/xebec/galley/message"
)

// Object checks any object of the mesh; other kinds have no findings.
func Object(o runtime.Object) message.List {
	c := &checker{}
	switch o := o.(type) {
	case *networkingv1.VirtualService:
		c.virtualService(&o.Spec)
	case *networkingv1.DestinationRule:
		c.destinationRule(&o.Spec)
	case *networkingv1.Gateway:
		c.gateway(&o.Spec)
	case *networkingv1.ServiceEntry:
		c.serviceEntry(&o.Spec)
	case *networkingv1.Sidecar:
		c.sidecar(&o.Spec)
	case *securityv1.PeerAuthentication:
		c.peerAuthentication(&o.Spec)
	case *securityv1.AuthorizationPolicy:
		c.authorizationPolicy(&o.Spec)
	case *securityv1.RequestAuthentication:
		c.requestAuthentication(&o.Spec)
	case *telemetryv1.Telemetry:
		c.telemetry(&o.Spec)
	}
	return c.found
}
