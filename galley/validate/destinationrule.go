package validate

import (
	"strings"

	networking "istio.io/api/networking/v1alpha3"

	"github.com/xebec-mesh/xebec/galley/message"
)

func (c *checker) destinationRule(s *networking.DestinationRule) {
	c.host(spec.dot("host"), s.GetHost(), true)
	c.trafficPolicy(spec.dot("trafficPolicy"), s.GetTrafficPolicy())
	c.exportTo(spec.dot("exportTo"), s.GetExportTo())
	c.labels(spec.dot("workloadSelector").dot("matchLabels"), s.GetWorkloadSelector().GetMatchLabels())
	seen := map[string]bool{}
	for i, sub := range s.GetSubsets() {
		p := spec.dot("subsets").at(i)
		switch {
		case sub.GetName() == "":
			c.missing(p.dot("name"), "want the name by which routes refer to the subset")
		case seen[sub.GetName()]:
			c.bad(p.dot("name"), sub.GetName(), "want each name once")
		default:
			c.dnsLabelLoose(p.dot("name"), sub.GetName())
		}
		seen[sub.GetName()] = true
		c.labels(p.dot("labels"), sub.GetLabels())
		c.trafficPolicy(p.dot("trafficPolicy"), sub.GetTrafficPolicy())
	}
}

func (c *checker) trafficPolicy(p path, t *networking.TrafficPolicy) {
	if t == nil {
		return
	}
	c.loadBalancer(p.dot("loadBalancer"), t.GetLoadBalancer())
	c.connectionPool(p.dot("connectionPool"), t.GetConnectionPool())
	c.outlierDetection(p.dot("outlierDetection"), t.GetOutlierDetection())
	c.clientTLS(p.dot("tls"), t.GetTls())
	seen := map[uint32]bool{}
	for i, pl := range t.GetPortLevelSettings() {
		at := p.dot("portLevelSettings").at(i)
		n := pl.GetPort().GetNumber()
		if pl.GetPort() == nil {
			c.missing(at.dot("port"), "want port.number")
		} else {
			c.port(at.dot("port").dot("number"), n)
		}
		if seen[n] {
			c.bad(at.dot("port").dot("number"), n, "want each port once")
		}
		seen[n] = true
		c.loadBalancer(at.dot("loadBalancer"), pl.GetLoadBalancer())
		c.connectionPool(at.dot("connectionPool"), pl.GetConnectionPool())
		c.outlierDetection(at.dot("outlierDetection"), pl.GetOutlierDetection())
		c.clientTLS(at.dot("tls"), pl.GetTls())
	}
	if tn := t.GetTunnel(); tn != nil {
		if !oneOf(strings.ToUpper(tn.GetProtocol()), "", "CONNECT", "POST") {
			c.bad(p.dot("tunnel").dot("protocol"), tn.GetProtocol(), "want CONNECT or POST")
		}
		c.host(p.dot("tunnel").dot("targetHost"), tn.GetTargetHost(), false)
		c.port(p.dot("tunnel").dot("targetPort"), tn.GetTargetPort())
		c.warn(message.Ignored, p.dot("tunnel"), "is not put into force by this version")
	}
	if t.GetProxyProtocol() != nil {
		c.warn(message.Ignored, p.dot("proxyProtocol"), "is not put into force by this version")
	}
	if t.GetRetryBudget() != nil {
		c.warn(message.Ignored, p.dot("retryBudget"), "is not put into force by this version")
	}
}

func (c *checker) loadBalancer(p path, l *networking.LoadBalancerSettings) {
	if l == nil {
		return
	}
	if h := l.GetConsistentHash(); h != nil {
		c.consistentHash(p.dot("consistentHash"), h)
	}
	c.duration(p.dot("warmupDurationSecs"), l.GetWarmupDurationSecs(), shortest) //nolint:staticcheck // the older spelling is still written
	if w := l.GetWarmup(); w != nil {
		at := p.dot("warmup")
		if w.GetDuration() == nil {
			c.missing(at.dot("duration"), "want a duration, such as 30s")
		}
		c.duration(at.dot("duration"), w.GetDuration(), shortest)
		if w.GetMinimumPercent() != nil {
			c.percent(at.dot("minimumPercent"), w.GetMinimumPercent().GetValue())
		}
		if a := w.GetAggression(); a != nil && a.GetValue() < 1 {
			c.bad(at.dot("aggression"), a.GetValue(), "want 1 or more")
		}
	}
	if l.GetLocalityLbSetting() != nil {
		c.locality(p.dot("localityLbSetting"), l.GetLocalityLbSetting())
	}
}

func (c *checker) consistentHash(p path, h *networking.LoadBalancerSettings_ConsistentHashLB) {
	switch k := h.GetHashKey().(type) {
	case nil:
		c.missing(p, "want one of httpHeaderName, httpCookie, useSourceIp or httpQueryParameterName")
	case *networking.LoadBalancerSettings_ConsistentHashLB_HttpHeaderName:
		c.headerName(p.dot("httpHeaderName"), k.HttpHeaderName)
	case *networking.LoadBalancerSettings_ConsistentHashLB_HttpCookie:
		if k.HttpCookie.GetName() == "" {
			c.missing(p.dot("httpCookie").dot("name"), "want the name of a cookie")
		}
		c.duration(p.dot("httpCookie").dot("ttl"), k.HttpCookie.GetTtl(), 0)
	case *networking.LoadBalancerSettings_ConsistentHashLB_HttpQueryParameterName:
		if k.HttpQueryParameterName == "" {
			c.missing(p.dot("httpQueryParameterName"), "want the name of a parameter")
		}
	}
	if n := h.GetRingHash().GetMinimumRingSize(); n > 8<<20 {
		c.bad(p.dot("ringHash").dot("minimumRingSize"), n, "want at most 8388608")
	}
	if n := h.GetMaglev().GetTableSize(); h.GetMaglev() != nil && n != 0 && (n > 5000011 || !prime(n)) {
		c.bad(p.dot("maglev").dot("tableSize"), n, "want a prime number up to 5000011, such as 65537")
	}
}

func prime(n uint64) bool {
	if n < 2 {
		return false
	}
	for d := uint64(2); d*d <= n; d++ {
		if n%d == 0 {
			return false
		}
	}
	return true
}

func (c *checker) locality(p path, l *networking.LocalityLoadBalancerSetting) {
	if len(l.GetDistribute()) > 0 && (len(l.GetFailover()) > 0 || len(l.GetFailoverPriority()) > 0) {
		c.bad(p.dot("distribute"), len(l.GetDistribute()), "want either distribute or failover")
	}
	for i, d := range l.GetDistribute() {
		sum := uint32(0)
		for _, w := range d.GetTo() {
			sum += w
		}
		if sum != 100 {
			c.bad(p.dot("distribute").at(i).dot("to"), sum, "want weights that sum to 100")
		}
	}
	for i, f := range l.GetFailover() {
		if f.GetFrom() == f.GetTo() {
			c.bad(p.dot("failover").at(i).dot("to"), f.GetTo(), "want another region than from")
		}
	}
	c.warn(message.Ignored, p, "is not put into force by this version: endpoints of all localities count alike")
}

func (c *checker) connectionPool(p path, s *networking.ConnectionPoolSettings) {
	if s == nil {
		return
	}
	if s.GetTcp() == nil && s.GetHttp() == nil {
		c.missing(p, "want tcp, http or both")
	}
	if t := s.GetTcp(); t != nil {
		at := p.dot("tcp")
		c.natural(at.dot("maxConnections"), t.GetMaxConnections())
		c.duration(at.dot("connectTimeout"), t.GetConnectTimeout(), shortest)
		c.duration(at.dot("maxConnectionDuration"), t.GetMaxConnectionDuration(), shortest)
		c.duration(at.dot("idleTimeout"), t.GetIdleTimeout(), 0)
		c.duration(at.dot("tcpKeepalive").dot("time"), t.GetTcpKeepalive().GetTime(), 1000*shortest)
		c.duration(at.dot("tcpKeepalive").dot("interval"), t.GetTcpKeepalive().GetInterval(), 1000*shortest)
	}
	if h := s.GetHttp(); h != nil {
		at := p.dot("http")
		c.natural(at.dot("http1MaxPendingRequests"), h.GetHttp1MaxPendingRequests())
		c.natural(at.dot("http2MaxRequests"), h.GetHttp2MaxRequests())
		c.natural(at.dot("maxRequestsPerConnection"), h.GetMaxRequestsPerConnection())
		c.natural(at.dot("maxRetries"), h.GetMaxRetries())
		c.natural(at.dot("maxConcurrentStreams"), h.GetMaxConcurrentStreams())
		c.duration(at.dot("idleTimeout"), h.GetIdleTimeout(), 0)
		if h.GetH2UpgradePolicy() == networking.ConnectionPoolSettings_HTTPSettings_UPGRADE && h.GetUseClientProtocol() {
			c.bad(at.dot("useClientProtocol"), true, "want it false where h2UpgradePolicy is UPGRADE")
		}
		if k := h.GetHttp2KeepAlive(); k != nil {
			c.duration(at.dot("http2KeepAlive").dot("interval"), k.GetInterval(), shortest)
			c.duration(at.dot("http2KeepAlive").dot("timeout"), k.GetTimeout(), shortest)
		}
	}
}

func (c *checker) natural(p path, n int32) {
	if n < 0 {
		c.bad(p, n, "want 0 (no limit) or more")
	}
}

func (c *checker) outlierDetection(p path, o *networking.OutlierDetection) {
	if o == nil {
		return
	}
	c.duration(p.dot("interval"), o.GetInterval(), shortest)
	c.duration(p.dot("baseEjectionTime"), o.GetBaseEjectionTime(), shortest)
	c.percent(p.dot("maxEjectionPercent"), float64(o.GetMaxEjectionPercent()))
	c.percent(p.dot("minHealthPercent"), float64(o.GetMinHealthPercent()))
	if n := o.GetConsecutiveErrors(); n != 0 { //nolint:staticcheck // the older spelling is still written
		c.warn(message.Deprecated, p.dot("consecutiveErrors"), "is an older spelling; write consecutiveGatewayErrors or consecutive5xxErrors")
		c.natural(p.dot("consecutiveErrors"), n)
	}
	if o.GetConsecutiveLocalOriginFailures() != nil && !o.GetSplitExternalLocalOriginErrors() {
		c.bad(p.dot("consecutiveLocalOriginFailures"), o.GetConsecutiveLocalOriginFailures().GetValue(), "want splitExternalLocalOriginErrors: true beside it")
	}
}

func (c *checker) clientTLS(p path, t *networking.ClientTLSSettings) {
	if t == nil {
		return
	}
	forbid := func(field, value string) {
		if value != "" {
			c.bad(p.dot(field), value, "want it absent with mode %s", t.GetMode())
		}
	}
	switch t.GetMode() {
	case networking.ClientTLSSettings_ISTIO_MUTUAL, networking.ClientTLSSettings_DISABLE:
		forbid("clientCertificate", t.GetClientCertificate())
		forbid("privateKey", t.GetPrivateKey())
		forbid("caCertificates", t.GetCaCertificates())
		forbid("credentialName", t.GetCredentialName())
	case networking.ClientTLSSettings_MUTUAL:
		if t.GetCredentialName() == "" && (t.GetClientCertificate() == "" || t.GetPrivateKey() == "") {
			c.missing(p, "want clientCertificate and privateKey, or credentialName, with mode MUTUAL")
		}
	}
	if t.GetCredentialName() != "" {
		for field, v := range map[string]string{"clientCertificate": t.GetClientCertificate(), "privateKey": t.GetPrivateKey(), "caCertificates": t.GetCaCertificates()} {
			if v != "" {
				c.bad(p.dot(field), v, "want either credentialName or files")
			}
		}
		c.warn(message.Ignored, p.dot("credentialName"), "is not put into force by this version: name files in the pod")
	}
	if strings.Contains(t.GetSni(), "*") {
		c.bad(p.dot("sni"), t.GetSni(), "want a server name without *")
	}
}
