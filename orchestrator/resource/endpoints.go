package resource

import (
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

func endpointsKind() *Kind {
	return &Kind{
		GroupVersionKind: corev1.SchemeGroupVersion.WithKind("Endpoints"),
		Resource:         "endpoints",
		Singular:         "endpoints",
		ShortNames:       []string{"ep"},
		Namespaced:       true,
		New:              func() Object { return &corev1.Endpoints{} },
		NewList:          func() runtime.Object { return &corev1.EndpointsList{} },
		CreateOnUpdate:   true,
		Default: func(o Object) {
			e := o.(*corev1.Endpoints)
			for i := range e.Subsets {
				for j := range e.Subsets[i].Ports {
					defaultString((*string)(&e.Subsets[i].Ports[j].Protocol), string(corev1.ProtocolTCP))
				}
			}
		},
		ValidateCreate: func(o Object) field.ErrorList { return validateEndpoints(o.(*corev1.Endpoints)) },
		ValidateUpdate: func(o, old Object) field.ErrorList {
			e := o.(*corev1.Endpoints)
			if equality.Semantic.DeepEqual(e.Subsets, old.(*corev1.Endpoints).Subsets) {
				return nil
			}
			return validateEndpoints(e)
		},
		Warnings: func(Object, Object) []string {
			return []string{"v1 Endpoints is deprecated in v1.33+; use discovery.k8s.io/v1 EndpointSlice"}
		},
		Columns: columns(nameColumn, col("Endpoints", "string", corev1.Endpoints{}.SwaggerDoc()["subsets"]), ageColumn),
		Row: func(o Object, now time.Time) []any {
			e := o.(*corev1.Endpoints)
			return []any{e.Name, endpointsCell(e), age(e.CreationTimestamp, now)}
		},
	}
}

func validateEndpoints(e *corev1.Endpoints) field.ErrorList {
	var errs field.ErrorList
	for i := range e.Subsets {
		s, p := &e.Subsets[i], field.NewPath("subsets").Index(i)
		if len(s.Addresses)+len(s.NotReadyAddresses) == 0 {
			errs = append(errs, field.Required(p, "must specify `addresses` or `notReadyAddresses`"))
		}
		errs = append(errs, validateAddresses(s.Addresses, p.Child("addresses"))...)
		errs = append(errs, validateAddresses(s.NotReadyAddresses, p.Child("notReadyAddresses"))...)
		for j := range s.Ports {
			port, p := &s.Ports[j], p.Child("ports").Index(j)
			if port.Name != "" {
				errs = append(errs, dnsLabel(p.Child("name"), port.Name)...)
			} else if len(s.Ports) > 1 {
				errs = append(errs, field.Required(p.Child("name"), ""))
			}
			errs = append(errs, invalid(p.Child("port"), port.Port, validation.IsValidPortNum(int(port.Port)))...)
			errs = append(errs, oneOf(p.Child("protocol"), port.Protocol, protocols...)...)
			errs = append(errs, validateAppProtocol(port.AppProtocol, p.Child("appProtocol"))...)
		}
	}
	return errs
}

var protocols = []corev1.Protocol{corev1.ProtocolSCTP, corev1.ProtocolTCP, corev1.ProtocolUDP}

func validateAppProtocol(name *string, p *field.Path) field.ErrorList {
	if name == nil {
		return nil
	}
	return invalid(p, *name, validation.IsQualifiedName(*name))
}

func validateAddresses(addresses []corev1.EndpointAddress, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	for i, a := range addresses {
		p := path.Index(i)
		if bad := validation.IsValidIPForLegacyField(p.Child("ip"), a.IP, false, nil); len(bad) > 0 {
			errs = append(errs, bad...)
			continue
		}
		errs = append(errs, validateEndpointIP(a.IP, p.Child("ip"))...)
		if a.Hostname != "" {
			errs = append(errs, dnsLabel(p.Child("hostname"), a.Hostname)...)
		}
		if a.NodeName != nil {
			errs = append(errs, dnsSubdomain(p.Child("nodeName"), *a.NodeName)...)
		}
	}
	return errs
}

// validateEndpointIP refuses addresses that would reach the node itself, or many hosts.
func validateEndpointIP(text string, p *field.Path) field.ErrorList {
	ip := net.ParseIP(text)
	var why string
	switch {
	case ip.IsUnspecified():
		why = fmt.Sprintf("may not be unspecified (%v)", text)
	case ip.IsLoopback():
		why = "may not be in the loopback range (127.0.0.0/8, ::1/128)"
	case ip.IsLinkLocalUnicast():
		why = "may not be in the link-local range (169.254.0.0/16, fe80::/10)"
	case ip.IsLinkLocalMulticast():
		why = "may not be in the link-local multicast range (224.0.0.0/24, ff02::/10)"
	default:
		return nil
	}
	return field.ErrorList{field.Invalid(p, text, why)}
}

const shownEndpoints = 3

func endpointsCell(e *corev1.Endpoints) string {
	var shown []string
	total := 0
	for _, s := range e.Subsets {
		ports := s.Ports
		if len(ports) == 0 {
			total += len(s.Addresses)
			for _, a := range s.Addresses {
				shown = append(shown, a.IP)
			}
			continue
		}
		for _, port := range ports {
			total += len(s.Addresses)
			for _, a := range s.Addresses[:min(len(s.Addresses), shownEndpoints)] {
				shown = append(shown, net.JoinHostPort(a.IP, strconv.Itoa(int(port.Port))))
			}
		}
	}
	if total == 0 {
		return "<none>"
	}
	text := strings.Join(shown[:min(len(shown), shownEndpoints)], ",")
	if total > shownEndpoints {
		return fmt.Sprintf("%s + %d more...", text, total-shownEndpoints)
	}
	return text
}

// listSome joins up to three of values.
func listSome(values []string) string {
	if len(values) == 0 {
		return "<unset>"
	}
	text := strings.Join(slices.Clone(values[:min(len(values), shownEndpoints)]), ",")
	if len(values) > shownEndpoints {
		return fmt.Sprintf("%s + %d more...", text, len(values)-shownEndpoints)
	}
	return text
}
