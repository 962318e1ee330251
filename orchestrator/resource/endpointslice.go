package resource

import (
	"strconv"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1validation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

const (
	maxSliceEndpoints = 1000
	maxSlicePorts     = 20000
	maxSliceAddresses = 100
)

func endpointSliceKind() *Kind {
	return &Kind{
		GroupVersionKind: discoveryv1.SchemeGroupVersion.WithKind("EndpointSlice"),
		Resource:         "endpointslices",
		Singular:         "endpointslice",
		Namespaced:       true,
		New:              func() Object { return &discoveryv1.EndpointSlice{} },
		NewList:          func() runtime.Object { return &discoveryv1.EndpointSliceList{} },
		Default: func(o Object) {
			s := o.(*discoveryv1.EndpointSlice)
			for i := range s.Ports {
				setDefault(&s.Ports[i].Name, "")
				setDefault(&s.Ports[i].Protocol, corev1.ProtocolTCP)
			}
		},
		PrepareCreate: func(o Object) { o.SetGeneration(1) },
		PrepareUpdate: func(o, old Object) {
			s, was := o.(*discoveryv1.EndpointSlice), old.(*discoveryv1.EndpointSlice)
			changed := !equality.Semantic.DeepEqual(s.Labels, was.Labels) || s.AddressType != was.AddressType ||
				!equality.Semantic.DeepEqual(s.Endpoints, was.Endpoints) || !equality.Semantic.DeepEqual(s.Ports, was.Ports)
			countSpec(s, changed)
		},
		ValidateCreate: func(o Object) field.ErrorList { return validateSlice(o.(*discoveryv1.EndpointSlice)) },
		ValidateUpdate: func(o, old Object) field.ErrorList {
			s := o.(*discoveryv1.EndpointSlice)
			return append(validateSlice(s), immutable(field.NewPath("addressType"), s.AddressType, old.(*discoveryv1.EndpointSlice).AddressType)...)
		},
		Columns: columns(nameColumn,
			col("AddressType", "string", discoveryv1.EndpointSlice{}.SwaggerDoc()["addressType"]),
			col("Ports", "string", discoveryv1.EndpointSlice{}.SwaggerDoc()["ports"]),
			col("Endpoints", "string", discoveryv1.EndpointSlice{}.SwaggerDoc()["endpoints"]),
			ageColumn),
		Row: sliceRow,
	}
}

func validateSlice(s *discoveryv1.EndpointSlice) field.ErrorList {
	errs := oneOf(field.NewPath("addressType"), s.AddressType, discoveryv1.AddressTypeFQDN, discoveryv1.AddressTypeIPv4, discoveryv1.AddressTypeIPv6)
	path := field.NewPath("endpoints")
	if len(s.Endpoints) > maxSliceEndpoints {
		return append(errs, field.TooMany(path, len(s.Endpoints), maxSliceEndpoints))
	}
	for i := range s.Endpoints {
		errs = append(errs, validateSliceEndpoint(&s.Endpoints[i], s.AddressType, path.Index(i))...)
	}
	return append(errs, validateSlicePorts(s.Ports, field.NewPath("ports"))...)
}

func validateSliceEndpoint(e *discoveryv1.Endpoint, typ discoveryv1.AddressType, p *field.Path) field.ErrorList {
	var errs field.ErrorList
	path := p.Child("addresses")
	if len(e.Addresses) == 0 {
		errs = append(errs, field.Required(path, "must contain at least 1 address"))
	} else if len(e.Addresses) > maxSliceAddresses {
		errs = append(errs, field.TooMany(path, len(e.Addresses), maxSliceAddresses))
	}
	for i, a := range e.Addresses {
		switch typ {
		case discoveryv1.AddressTypeIPv4, discoveryv1.AddressTypeIPv6:
			errs = append(errs, validateSliceIP(a, typ, path.Index(i))...)
		case discoveryv1.AddressTypeFQDN:
			errs = append(errs, validation.IsFullyQualifiedDomainName(path.Index(i), a)...)
		}
	}
	if e.NodeName != nil {
		errs = append(errs, dnsSubdomain(p.Child("nodeName"), *e.NodeName)...)
	}
	if e.Hostname != nil {
		errs = append(errs, dnsLabel(p.Child("hostname"), *e.Hostname)...)
	}
	errs = append(errs, metav1validation.ValidateLabels(e.DeprecatedTopology, p.Child("deprecatedTopology"))...)
	if e.Hints != nil {
		for i, z := range e.Hints.ForZones {
			errs = append(errs, invalid(p.Child("hints", "forZones").Index(i).Child("name"), z.Name, validation.IsValidLabelValue(z.Name))...)
		}
	}
	return errs
}

func validateSliceIP(a string, typ discoveryv1.AddressType, p *field.Path) field.ErrorList {
	if errs := validation.IsValidIPForLegacyField(p, a, false, nil); len(errs) > 0 {
		return errs
	}
	if is6 := strings.Contains(a, ":"); is6 != (typ == discoveryv1.AddressTypeIPv6) {
		return field.ErrorList{field.Invalid(p, a, "must be an "+string(typ)+" address")}
	}
	return validateEndpointIP(a, p)
}

func validateSlicePorts(ports []discoveryv1.EndpointPort, path *field.Path) field.ErrorList {
	if len(ports) > maxSlicePorts {
		return field.ErrorList{field.TooMany(path, len(ports), maxSlicePorts)}
	}
	var errs field.ErrorList
	names := make(map[string]bool, len(ports))
	for i := range ports {
		port, p := &ports[i], path.Index(i)
		name := deref(port.Name)
		if name != "" {
			errs = append(errs, dnsLabel(p.Child("name"), name)...)
		}
		if names[name] {
			errs = append(errs, field.Duplicate(p.Child("name"), name))
		}
		names[name] = true
		errs = append(errs, oneOf(p.Child("protocol"), deref(port.Protocol), protocols...)...)
		errs = append(errs, validateAppProtocol(port.AppProtocol, p.Child("appProtocol"))...)
		if port.Port != nil {
			errs = append(errs, invalid(p.Child("port"), *port.Port, validation.IsValidPortNum(int(*port.Port)))...)
		}
	}
	return errs
}

func sliceRow(o Object, now time.Time) []any {
	s := o.(*discoveryv1.EndpointSlice)
	ports := make([]string, len(s.Ports))
	for i, p := range s.Ports {
		switch {
		case p.Port != nil:
			ports[i] = strconv.Itoa(int(*p.Port))
		default:
			ports[i] = "*"
		}
	}
	var addresses []string
	for _, e := range s.Endpoints {
		addresses = append(addresses, e.Addresses...)
	}
	return []any{s.Name, string(s.AddressType), listSome(ports), listSome(addresses), age(s.CreationTimestamp, now)}
}
