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
	"bytes"
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/xebec-mesh/xebec/mixer/enrich"
	"github.com/xebec-mesh/xebec/mixer/metrics"
	"github.com/xebec-mesh/xebec/mixer/wire"
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

// Config says where names come from and counts go to.
type Config struct {
	Peers       Peers         // required
	Sink        Sink          // required
	TrustDomain string        // default cluster.local
	Remember    time.Duration // how long who-is-who of a pair is believed; default 5 s
	Now         func() time.Time
}

// Reader turns access logs into observations.
type Reader struct {
	cfg Config

	mu    sync.Mutex
	known map[string]remembered // labels by everything that they follow from
	hosts map[string]bool       // that were called and are no service of the mesh
}

// remembered is labels that were found lately.
type remembered struct {
	labels metrics.Labels
	until  time.Time
}

// maxKnown bounds what is remembered; beyond it everything is looked up anew.
const maxKnown = 8192

// New checks the configuration.
func New(cfg Config) (*Reader, error) {
	if cfg.Peers == nil || cfg.Sink == nil {
		return nil, errors.New("access logs: Peers and Sink are required")
	}
	if cfg.TrustDomain == "" {
		cfg.TrustDomain = "cluster.local"
	}
	if cfg.Remember == 0 {
		cfg.Remember = 5 * time.Second
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	return &Reader{cfg: cfg, known: map[string]remembered{}, hosts: map[string]bool{}}, nil
}

// Consume counts the access log records of a logs request in OTLP's encoding.
// Other records are none of its business.
func (r *Reader) Consume(data []byte, self *enrich.Workload) error {
	s := scanPool.Get().(*scan)
	defer scanPool.Put(s)
	s.reader, s.self, s.now = r, self, r.cfg.Now()
	err := wire.ScanLogs(data, s)
	s.entry, s.self = entry{}, nil
	if err != nil {
		return fmt.Errorf("read logs: %w", err)
	}
	return nil
}

var scanPool = sync.Pool{New: func() any { return new(scan) }}

// scan is a walk through one request.
type scan struct {
	reader *Reader
	self   *enrich.Workload
	now    time.Time
	entry  entry
	key    []byte
}

// Record is part of wire.LogVisitor.
func (s *scan) Record() { s.entry = entry{} }

// Attribute is part of wire.LogVisitor.
func (s *scan) Attribute(key, value []byte) { s.entry.set(key, value) }

// End is part of wire.LogVisitor.
func (s *scan) End() {
	e := &s.entry
	if !e.isAccessLog() || bytes.HasPrefix(e.cluster, telemetryTCP) || bytes.HasPrefix(e.cluster, telemetryHTTP) {
		return
	}
	e.observation.At = s.now
	s.reader.cfg.Sink.Observe(s.labels(), e.observation)
}

// Telemetry's own connections are no traffic of the mesh.
var (
	telemetryTCP  = []byte("outbound|4317||otel.xebec-system.")
	telemetryHTTP = []byte("outbound|4318||otel.xebec-system.")
)

// labels are remembered for a while: a service makes the same ones all the time.
func (s *scan) labels() metrics.Labels {
	s.key = s.entry.appendKey(s.key[:0], s.self)
	r := s.reader
	r.mu.Lock()
	found, ok := r.known[string(s.key)]
	r.mu.Unlock()
	if ok && s.now.Before(found.until) {
		return found.labels
	}
	l := r.labels(&s.entry, s.self)
	r.mu.Lock()
	if len(r.known) >= maxKnown {
		clear(r.known)
	}
	r.known[string(s.key)] = remembered{l, s.now.Add(r.cfg.Remember)}
	r.mu.Unlock()
	return l
}

// entry is one access log record. The bytes are the request's.
type entry struct {
	reporter, authority, code, flags, protocol, grpc []byte
	cluster, upstream, downstream, peer, requested   []byte // addresses without ports
	observation                                      metrics.Observation
}

func (e *entry) isAccessLog() bool {
	return string(e.reporter) == "source" || string(e.reporter) == "destination"
}

func (e *entry) set(key, v []byte) {
	if len(v) == 1 && v[0] == '-' {
		return // Envoy's word for nothing
	}
	switch string(key) {
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
		e.upstream = host(v)
	case "downstream_remote_address":
		e.downstream = host(v)
	case "peer_uri":
		e.peer = v
	case "requested_host":
		e.requested = v
	case "duration_ms":
		if ms, err := strconv.ParseFloat(string(v), 64); err == nil && ms >= 0 && ms < 1e12 {
			e.observation.Duration, e.observation.DurationKnown = time.Duration(ms*float64(time.Millisecond)), true
		}
	case "bytes_received":
		e.observation.Received, _ = strconv.ParseUint(string(v), 10, 64)
	case "bytes_sent":
		e.observation.Sent, _ = strconv.ParseUint(string(v), 10, 64)
	}
}

// host is an address or a name without its port.
func host(v []byte) []byte {
	if i := bytes.LastIndexByte(v, ':'); i >= 0 && (bytes.IndexByte(v, ':') == i || v[i-1] == ']') {
		v = v[:i]
	}
	return bytes.Trim(v, "[]")
}

// appendKey appends everything that labels follow from.
func (e *entry) appendKey(b []byte, self *enrich.Workload) []byte {
	if self != nil {
		b = append(append(b, self.UID...), self.Version...)
		b = append(append(b, '/'), self.Namespace...)
		b = append(append(b, '/'), self.Pod...)
	}
	for _, v := range [...][]byte{e.reporter, e.authority, e.code, e.flags, e.protocol, e.grpc, e.cluster, e.upstream, e.downstream, e.peer, e.requested} {
		b = append(append(b, 0), v...)
	}
	return b
}

// labels says who called whom.
func (r *Reader) labels(e *entry, self *enrich.Workload) metrics.Labels {
	l := metrics.Labels{
		Reporter: string(e.reporter), Code: string(e.code), Flags: string(e.flags), Security: "none", Protocol: e.kind(),
	}
	if l.Flags == "" {
		l.Flags = "-"
	}
	if l.Protocol == "tcp" {
		l.Code = ""
	} else if l.Code == "" {
		l.Code = "0"
	}
	if l.Protocol == "grpc" {
		l.GRPC = string(e.grpc)
	}
	peer := string(e.peer)
	if peer != "" {
		l.Security = "mutual_tls"
	}
	host, subset := clusterHost(string(e.cluster))
	if l.Reporter == "source" {
		source(&l, self, r.principal(self))
		destination(&l, r.peer(string(e.upstream), peer), peer)
		if host == "" && l.DestinationApp == "" {
			host = r.elsewhere(e)
		}
		if l.DestinationApp == "" && host != "" {
			l.DestinationApp, l.DestinationVersion = shortName(host), subset
		}
	} else {
		destination(&l, self, r.principal(self))
		source(&l, r.peer(string(e.downstream), peer), peer)
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
	case len(e.grpc) > 0:
		return "grpc"
	case strings.EqualFold(string(e.protocol), "tcp"):
		return "tcp"
	}
	return "http"
}

// inboundHost is the service that a caller meant: it is in the server name of the
// mesh's TLS (outbound_.<port>_.<subset>_.<host>), or else in the authority. What a
// caller wrote there counts only if there is such a service, or anybody could make
// any number of series.
func (r *Reader) inboundHost(e *entry, l metrics.Labels) string {
	host := strings.ToLower(string(e.authority))
	if rest, ok := strings.CutPrefix(string(e.requested), "outbound_."); ok {
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
	if !r.cfg.Peers.HasService(namespace, labels[0]) {
		return l.DestinationApp
	}
	return host
}

// maxHosts bounds the names of hosts outside the mesh: a crawler calls any number.
const maxHosts = 200

// elsewhere is the host of a call that passed through to no service of the mesh.
func (r *Reader) elsewhere(e *entry) string {
	name := strings.ToLower(string(host(e.authority)))
	if name == "" {
		name = string(host(e.requested))
	}
	if name == "" {
		return ""
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.hosts[name] && len(r.hosts) >= maxHosts {
		return "other hosts"
	}
	r.hosts[name] = true
	return name
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

// shortName is what a service is called in its own namespace; another host keeps its name.
func shortName(host string) string {
	full, name, _ := service(host, "")
	if strings.Contains(full, ".svc.") {
		return name
	}
	return full
}

// peer is the workload at the other end of a connection.
func (r *Reader) peer(address, principal string) *enrich.Workload {
	if ip, err := netip.ParseAddr(address); err == nil {
		if w := r.cfg.Peers.ByIP(ip); w != nil {
			return w
		}
	}
	if principal != "" {
		return r.cfg.Peers.ByPrincipal(principal)
	}
	return nil
}

func (r *Reader) principal(w *enrich.Workload) string {
	if w == nil || !w.Meshed {
		return ""
	}
	return "spiffe://" + r.cfg.TrustDomain + "/ns/" + w.Namespace + "/sa/" + w.ServiceAccount
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
