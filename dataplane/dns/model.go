package dns

import "net/netip"

// Service is what DNS needs to know of one Service.
type Service struct {
	Namespace string `json:"ns"`
	Name      string `json:"name"`

	Addrs        []netip.Addr `json:"addrs,omitempty"`        // cluster IPs; none for headless
	ExternalName string       `json:"externalName,omitempty"` // CNAME target
	Ports        []Port       `json:"ports,omitempty"`
	Endpoints    []Endpoint   `json:"endpoints,omitempty"` // headless only: ready ones, or all with publishNotReadyAddresses
}

// Port is one port of a Service; only named ones have SRV records.
type Port struct {
	Name     string `json:"name"`
	Protocol string `json:"proto"` // TCP or UDP
	Port     uint16 `json:"port"`
}

// Endpoint is one backend of a headless Service.
type Endpoint struct {
	Addr     netip.Addr `json:"addr"`
	Hostname string     `json:"hostname,omitempty"` // default: the address with dashes
	Ports    []Port     `json:"ports,omitempty"`    // target ports, for SRV
}

// Key names a Service.
type Key struct {
	Namespace string `json:"ns"`
	Name      string `json:"name"`
}

// Update is a change of what DNS serves.
type Update struct {
	Generation uint64    `json:"generation"`
	Full       bool      `json:"full,omitempty"` // Services is everything: what it lacks is forgotten
	Services   []Service `json:"services,omitempty"`
	Removed    []Key     `json:"removed,omitempty"`
	Namespaces []string  `json:"namespaces,omitempty"` // Full only: namespaces that exist; default those of Services
}
