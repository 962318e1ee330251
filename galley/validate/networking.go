package validate

import (
	"net/netip"
	"strings"

	networking "istio.io/api/networking/v1alpha3"
	telemetry "istio.io/api/telemetry/v1alpha1"

	"github.com/xebec-mesh/xebec/galley/message"
)

var protocols = []string{"HTTP", "HTTPS", "GRPC", "GRPC-WEB", "HTTP2", "HTTP_PROXY", "MONGO", "TCP", "TLS", "UDP"}

func (c *checker) protocol(p path, s string) {
	if !oneOf(strings.ToUpper(s), protocols...) {
		c.bad(p, s, "want one of %s", strings.Join(protocols, ", "))
	}
}

func (c *checker) gateway(s *networking.Gateway) {
	if len(s.GetServers()) == 0 {
		c.missing(spec.dot("servers"), "want at least one server")
	}
	c.labels(spec.dot("selector"), s.GetSelector())
	names := map[string]bool{}
	for i, srv := range s.GetServers() {
		p := spec.dot("servers").at(i)
		if srv.GetPort() == nil {
			c.missing(p.dot("port"), "want number, name and protocol")
		} else {
			c.port(p.dot("port").dot("number"), srv.GetPort().GetNumber())
			c.protocol(p.dot("port").dot("protocol"), srv.GetPort().GetProtocol())
			if n := srv.GetPort().GetName(); n == "" {
				c.missing(p.dot("port").dot("name"), "want a name")
			} else if names[n] {
				c.bad(p.dot("port").dot("name"), n, "want each name once")
			} else {
				names[n] = true
			}
		}
		if len(srv.GetHosts()) == 0 {
			c.missing(p.dot("hosts"), `want at least one host; "*" for all`)
		}
		for j, h := range srv.GetHosts() {
			ns, name, ok := strings.Cut(h, "/")
			if !ok {
				name = ns
			} else if ns != "." && ns != "*" {
				c.dnsLabel(p.dot("hosts").at(j), ns, `".", "*" or the name of a namespace before /`)
			}
			c.host(p.dot("hosts").at(j), name, true)
		}
		c.serverTLS(p.dot("tls"), srv)
	}
	c.warn(message.Ignored, spec, "is checked but not put into force by this version: there are no gateways yet")
}

func (c *checker) serverTLS(p path, srv *networking.Server) {
	t, proto := srv.GetTls(), strings.ToUpper(srv.GetPort().GetProtocol())
	if t == nil {
		if proto == "HTTPS" || proto == "TLS" {
			c.missing(p, "want tls with protocol %s", proto)
		}
		return
	}
	if (proto == "HTTP" || proto == "HTTP2" || proto == "GRPC" || proto == "TCP") && !t.GetHttpsRedirect() {
		c.bad(p.dot("mode"), t.GetMode(), "want no tls with protocol %s, except for httpsRedirect", proto)
	}
	if t.GetHttpsRedirect() && proto != "HTTP" && proto != "HTTP2" {
		c.bad(p.dot("httpsRedirect"), true, "want it only with protocol HTTP")
	}
	switch t.GetMode() {
	case networking.ServerTLSSettings_SIMPLE, networking.ServerTLSSettings_MUTUAL:
		if t.GetCredentialName() == "" && len(t.GetCredentialNames()) == 0 && len(t.GetTlsCertificates()) == 0 &&
			(t.GetServerCertificate() == "" || t.GetPrivateKey() == "") && !t.GetHttpsRedirect() {
			c.missing(p, "want credentialName, or serverCertificate and privateKey, with mode %s", t.GetMode())
		}
	}
	if t.GetMinProtocolVersion() > t.GetMaxProtocolVersion() && t.GetMaxProtocolVersion() != 0 {
		c.bad(p.dot("minProtocolVersion"), t.GetMinProtocolVersion(), "want at most maxProtocolVersion %s", t.GetMaxProtocolVersion())
	}
}

func (c *checker) serviceEntry(s *networking.ServiceEntry) {
	if len(s.GetHosts()) == 0 {
		c.missing(spec.dot("hosts"), "want at least one host")
	}
	for i, h := range s.GetHosts() {
		c.host(spec.dot("hosts").at(i), h, true)
		if h == "*" {
			c.bad(spec.dot("hosts").at(i), h, "want a name or *.suffix")
		}
		if strings.HasPrefix(h, "*") && s.GetResolution() == networking.ServiceEntry_DNS && len(s.GetEndpoints()) == 0 {
			c.bad(spec.dot("resolution"), s.GetResolution(), "want NONE or endpoints: a wildcard host cannot be resolved")
		}
	}
	for i, a := range s.GetAddresses() {
		if _, err := netip.ParseAddr(a); err != nil {
			if _, err := netip.ParsePrefix(a); err != nil {
				c.bad(spec.dot("addresses").at(i), a, "want an address or a range such as 10.1.0.0/16")
			}
		}
	}
	if len(s.GetPorts()) == 0 {
		c.missing(spec.dot("ports"), "want at least one port")
	}
	numbers, names := map[uint32]bool{}, map[string]bool{}
	for i, p := range s.GetPorts() {
		at := spec.dot("ports").at(i)
		c.port(at.dot("number"), p.GetNumber())
		c.protocol(at.dot("protocol"), p.GetProtocol())
		if numbers[p.GetNumber()] {
			c.bad(at.dot("number"), p.GetNumber(), "want each port once")
		}
		if p.GetName() == "" {
			c.missing(at.dot("name"), "want a name")
		} else if names[p.GetName()] {
			c.bad(at.dot("name"), p.GetName(), "want each name once")
		}
		numbers[p.GetNumber()], names[p.GetName()] = true, true
	}
	if s.GetWorkloadSelector() != nil && len(s.GetEndpoints()) > 0 {
		c.bad(spec.dot("endpoints"), len(s.GetEndpoints()), "want either endpoints or workloadSelector")
	}
	if s.GetResolution() == networking.ServiceEntry_STATIC && len(s.GetEndpoints()) == 0 && s.GetWorkloadSelector() == nil {
		c.missing(spec.dot("endpoints"), "want endpoints or workloadSelector with resolution STATIC")
	}
	for i, e := range s.GetEndpoints() {
		at := spec.dot("endpoints").at(i)
		_, err := netip.ParseAddr(e.GetAddress())
		if s.GetResolution() == networking.ServiceEntry_STATIC && err != nil && !strings.HasPrefix(e.GetAddress(), "unix://") {
			c.bad(at.dot("address"), e.GetAddress(), "want an IP address with resolution STATIC")
		}
		for name, port := range e.GetPorts() {
			c.port(at.dot("ports").key(name), port)
			if !names[name] {
				c.bad(at.dot("ports").key(name), name, "want the name of a port in spec.ports")
			}
		}
		c.labels(at.dot("labels"), e.GetLabels())
	}
	c.exportTo(spec.dot("exportTo"), s.GetExportTo())
}

func (c *checker) sidecar(s *networking.Sidecar) {
	c.labels(spec.dot("workloadSelector").dot("labels"), s.GetWorkloadSelector().GetLabels())
	if len(s.GetEgress()) == 0 && len(s.GetIngress()) == 0 && s.GetOutboundTrafficPolicy() == nil && s.GetInboundConnectionPool() == nil {
		c.missing(spec, "want egress, ingress, outboundTrafficPolicy or inboundConnectionPool")
	}
	for i, e := range s.GetEgress() {
		p := spec.dot("egress").at(i)
		if len(e.GetHosts()) == 0 {
			c.missing(p.dot("hosts"), "want at least one host, as namespace/name")
		}
		for j, h := range e.GetHosts() {
			ns, name, ok := strings.Cut(h, "/")
			if !ok {
				c.bad(p.dot("hosts").at(j), h, `want namespace/name; the namespace may be "*", "." or "~"`)
				continue
			}
			if ns != "." && ns != "*" && ns != "~" {
				c.dnsLabel(p.dot("hosts").at(j), ns, `".", "*", "~" or the name of a namespace before /`)
			}
			c.host(p.dot("hosts").at(j), name, true)
		}
		if e.GetPort() != nil {
			c.warn(message.Ignored, p.dot("port"), "is not put into force by this version: the hosts are visible on all their ports")
		}
	}
	for i, in := range s.GetIngress() {
		p := spec.dot("ingress").at(i)
		if in.GetPort() == nil {
			c.missing(p.dot("port"), "want number, name and protocol")
		} else {
			c.port(p.dot("port").dot("number"), in.GetPort().GetNumber())
			c.protocol(p.dot("port").dot("protocol"), in.GetPort().GetProtocol())
		}
		c.warn(message.Ignored, p, "is not put into force by this version: all ports of the workload are served")
	}
	if s.GetOutboundTrafficPolicy().GetEgressProxy() != nil {
		c.destination(spec.dot("outboundTrafficPolicy").dot("egressProxy"), s.GetOutboundTrafficPolicy().GetEgressProxy())
	}
	c.connectionPool(spec.dot("inboundConnectionPool"), s.GetInboundConnectionPool())
}

func (c *checker) telemetry(s *telemetry.Telemetry) {
	c.selector(s.GetSelector())
	c.target(s.GetSelector(), s.GetTargetRef(), s.GetTargetRefs())
	for i, t := range s.GetTracing() {
		p := spec.dot("tracing").at(i)
		if t.GetRandomSamplingPercentage() != nil {
			c.percent(p.dot("randomSamplingPercentage"), t.GetRandomSamplingPercentage().GetValue())
		}
		for name, tag := range t.GetCustomTags() {
			if tag.GetType() == nil {
				c.missing(p.dot("customTags").key(name), "want literal, environment, header or formatter")
			}
		}
	}
	for i, m := range s.GetMetrics() {
		c.duration(spec.dot("metrics").at(i).dot("reportingInterval"), m.GetReportingInterval(), shortest)
	}
	c.warn(message.Ignored, spec, "is checked but not put into force by this version: every request is logged and traced as the server's flags say")
}
