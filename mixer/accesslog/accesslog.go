// Package accesslog makes request metrics of Envoy's access logs.
//
//	in:   an OTLP logs request from a sidecar, and whose sidecar it is
//	out:  one observation for each request that Envoy reports
//
// Envoy has no metadata exchange between sidecars, and needs none here: the
// reporter is known by its socket, the other side by the address of the
// connection, or by the SPIFFE ID that it proved.
package accesslog

import (
	"net/netip"
	"strconv"
	"strings"
	"time"

	commonpb "go.opentelemetry.io/proto/otlp/common/v1"
	logspb "go.opentelemetry.io/proto/otlp/logs/v1"

	"github.com/xebec-mesh/xebec/mixer/enrich"
	"github.com/xebec-mesh/xebec/mixer/metrics"
)

// Peers finds workloads; *enrich.Directory does.
type Peers interface {
	ByIP(netip.Addr) *enrich.Workload
	ByPrincipal(string) *enrich.Workload
	HasService(namespace, name string) bool
}

// Sink takes observations; *metrics.Store does.
type Sink interface {
	Observe(metrics.Labels, metrics.Observation)
}

// Reader turns access logs into observations.
type Reader struct {
	Peers       Peers
	Sink        Sink
	TrustDomain string
}

// Consume counts the access log records of a request, and returns how many there
// were. Other logs are none of its business.
func (r *Reader) Consume(data *logspb.LogsData, self *enrich.Workload) (n int) {
	for _, rl := range data.GetResourceLogs() {
		for _, sl := range rl.GetScopeLogs() {
			for _, rec := range sl.GetLogRecords() {
				e, ok := parse(rec)
				if !ok {
					continue
				}
				r.Sink.Observe(r.labels(e, self), e.observation)
				n++
			}
		}
	}
	return n
}

// Entry is one access log record.
type entry struct {
	reporter, authority, code, flags, protocol, grpc string
	cluster, upstream, downstream, peer, requested   string
	observation                                      metrics.Observation
}

// parse reads a record; ok is whether it is an access log's.
func parse(rec *logspb.LogRecord) (e entry, ok bool) {
	e.observation.At = time.Unix(0, int64(rec.GetTimeUnixNano()))
	for _, kv := range rec.GetAttributes() {
		e.set(kv.GetKey(), text(kv.GetValue()))
	}
	if e.flags == "" {
		e.flags = "-"
	}
	return e, e.reporter == "source" || e.reporter == "destination"
}

func (e *entry) set(key, v string) {
	if v == "-" {
		v = "" // Envoy's word for nothing
	}
	switch key {
	case "reporter":
		e.reporter = v
	case "authority":
		e.authority = v
	case "response_code":
		e.code = v
	case "response_flags":
		e.flags = v
	case "protocol":
		e.protocol = v
	case "grpc_status":
		e.grpc = v
	case "upstream_cluster":
		e.cluster = v
	case "upstream_host":
		e.upstream = v
	case "downstream_remote_address":
		e.downstream = v
	case "peer_uri":
		e.peer = v
	case "requested_host":
		e.requested = v
	case "duration_ms":
		if ms, err := strconv.ParseFloat(v, 64); err == nil && ms >= 0 {
			e.observation.Duration, e.observation.DurationKnown = time.Duration(ms*float64(time.Millisecond)), true
		}
	case "bytes_received":
		e.observation.Received, _ = strconv.ParseUint(v, 10, 64)
	case "bytes_sent":
		e.observation.Sent, _ = strconv.ParseUint(v, 10, 64)
	}
}

func text(v *commonpb.AnyValue) string {
	switch x := v.GetValue().(type) {
	case *commonpb.AnyValue_StringValue:
		return x.StringValue
	case *commonpb.AnyValue_IntValue:
		return strconv.FormatInt(x.IntValue, 10)
	case *commonpb.AnyValue_DoubleValue:
		return strconv.FormatFloat(x.DoubleValue, 'f', -1, 64)
	}
	return ""
}

// labels says who called whom.
func (r *Reader) labels(e entry, self *enrich.Workload) metrics.Labels {
	l := metrics.Labels{
		Reporter: e.reporter, Code: e.code, Flags: e.flags, Security: "none", Protocol: e.kind(),
	}
	if l.Protocol == "tcp" {
		l.Code = ""
	} else if l.Code == "" {
		l.Code = "0"
	}
	if l.Protocol == "grpc" {
		l.GRPC = e.grpc
	}
	if e.peer != "" {
		l.Security = "mutual_tls"
	}
	host, subset := clusterHost(e.cluster)
	if e.reporter == "source" {
		source(&l, self, r.principal(self))
		destination(&l, r.peer(e.upstream, e.peer), e.peer)
		if l.DestinationApp == "" && host != "" {
			l.DestinationApp, l.DestinationVersion = shortName(host), subset
		}
	} else {
		destination(&l, self, r.principal(self))
		source(&l, r.peer(e.downstream, e.peer), e.peer)
		host = r.inboundHost(e, l)
	}
	l.Service, l.ServiceName, l.ServiceNamespace = service(host, l.DestinationNamespace)
	if l.DestinationNamespace == "" {
		l.DestinationNamespace = l.ServiceNamespace
	}
	return l
}

func (e *entry) kind() string {
	switch {
	case e.grpc != "":
		return "grpc"
	case strings.EqualFold(e.protocol, "tcp"):
		return "tcp"
	}
	return "http"
}

// inboundHost is the service that a caller meant: it is in the server name of the
// mesh's TLS (outbound_.<port>_.<subset>_.<host>), or else in the authority. What a
// caller wrote there counts only if there is such a service, or anybody could make
// any number of series.
func (r *Reader) inboundHost(e entry, l metrics.Labels) string {
	host := strings.ToLower(e.authority)
	if rest, ok := strings.CutPrefix(e.requested, "outbound_."); ok {
		if parts := strings.SplitN(rest, "_.", 3); len(parts) == 3 {
			host = parts[2]
		}
	}
	if i := strings.LastIndexByte(host, ':'); i >= 0 && !strings.HasSuffix(host, "]") {
		host = host[:i]
	}
	labels := strings.Split(host, ".")
	namespace := l.DestinationNamespace
	if len(labels) > 1 {
		namespace = labels[1]
	}
	if !r.Peers.HasService(namespace, labels[0]) {
		return l.DestinationApp
	}
	return host
}

// clusterHost reads outbound|<port>|<subset>|<host>.
func clusterHost(cluster string) (host, subset string) {
	parts := strings.Split(cluster, "|")
	if len(parts) != 4 || parts[0] != "outbound" {
		return "", ""
	}
	return parts[3], parts[2]
}

// service is a host's full name, short name and namespace. A short host means one
// in the namespace of the destination.
func service(host, namespace string) (full, name, ns string) {
	if host == "" {
		return "", "", namespace
	}
	if _, err := netip.ParseAddr(host); err == nil {
		return host, host, namespace
	}
	labels := strings.Split(host, ".")
	switch {
	case len(labels) >= 3 && labels[2] == "svc":
		return host, labels[0], labels[1]
	case len(labels) == 1 && namespace != "":
		return host, host, namespace
	case len(labels) == 2 && labels[1] == namespace:
		return host, labels[0], namespace
	}
	return host, host, namespace
}

func shortName(host string) string {
	full, name, _ := service(host, "")
	if strings.Contains(full, ".svc.") {
		return name
	}
	return full
}

// peer is the workload at the other end of a connection.
func (r *Reader) peer(address, principal string) *enrich.Workload {
	if ap, err := netip.ParseAddrPort(address); err == nil {
		if w := r.Peers.ByIP(ap.Addr()); w != nil {
			return w
		}
	}
	if principal != "" {
		return r.Peers.ByPrincipal(principal)
	}
	return nil
}

func (r *Reader) principal(w *enrich.Workload) string {
	if w == nil || !w.Meshed {
		return ""
	}
	return "spiffe://" + r.TrustDomain + "/ns/" + w.Namespace + "/sa/" + w.ServiceAccount
}

func source(l *metrics.Labels, w *enrich.Workload, principal string) {
	l.SourcePrincipal = principal
	if w != nil {
		l.SourceWorkload, l.SourceNamespace, l.SourceApp, l.SourceVersion = w.Name, w.Namespace, w.App, w.Version
	}
}

func destination(l *metrics.Labels, w *enrich.Workload, principal string) {
	l.DestinationPrincipal = principal
	if w != nil {
		l.DestinationWorkload, l.DestinationNamespace, l.DestinationApp, l.DestinationVersion = w.Name, w.Namespace, w.App, w.Version
	}
}
