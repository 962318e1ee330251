package metrics

import (
	"bufio"
	"cmp"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
)

// bounds are the upper ends of the buckets of Istio's distributions: milliseconds
// for durations, bytes for sizes.
var bounds = [...]float64{0.5, 1, 5, 10, 25, 50, 100, 250, 500, 1000, 2500, 5000, 10000, 30000, 60000, 300000, 600000, 1800000, 3600000}

// distribution is a Prometheus histogram.
type distribution struct {
	buckets [len(bounds) + 1]uint64 // not cumulative; the last is +Inf
	sum     float64
	count   uint64
}

func (d *distribution) add(v float64) {
	i, _ := slices.BinarySearch(bounds[:], v)
	d.buckets[i]++
	d.sum += v
	d.count++
}

// pairs are the labels under their Prometheus names, in a fixed order.
func (l Labels) pairs() [][2]string {
	out := [][2]string{
		{"reporter", l.Reporter},
		{"source_workload", l.SourceWorkload},
		{"source_workload_namespace", l.SourceNamespace},
		{"source_principal", l.SourcePrincipal},
		{"source_app", l.SourceApp},
		{"source_version", l.SourceVersion},
		{"source_canonical_service", l.SourceApp},
		{"source_canonical_revision", l.SourceVersion},
		{"destination_workload", l.DestinationWorkload},
		{"destination_workload_namespace", l.DestinationNamespace},
		{"destination_principal", l.DestinationPrincipal},
		{"destination_app", l.DestinationApp},
		{"destination_version", l.DestinationVersion},
		{"destination_canonical_service", l.DestinationApp},
		{"destination_canonical_revision", l.DestinationVersion},
		{"destination_service", l.Service},
		{"destination_service_name", l.ServiceName},
		{"destination_service_namespace", l.ServiceNamespace},
		{"request_protocol", l.Protocol},
		{"response_flags", l.Flags},
		{"connection_security_policy", l.Security},
	}
	if l.Protocol != "tcp" {
		out = append(out, [2]string{"response_code", l.Code}, [2]string{"grpc_response_status", l.GRPC})
	}
	return out
}

var escape = strings.NewReplacer(`\`, `\\`, "\n", `\n`, `"`, `\"`)

// Text is the labels as Prometheus writes them, without braces.
func (l Labels) Text() string {
	var b strings.Builder
	for i, p := range l.pairs() {
		if i > 0 {
			b.WriteByte(',')
		}
		value := p[1]
		if value == "" && p[0] != "grpc_response_status" {
			value = "unknown"
		}
		fmt.Fprintf(&b, `%s="%s"`, p[0], escape.Replace(value))
	}
	return b.String()
}

// WriteMetrics writes every series in the Prometheus text format.
func (s *Store) WriteMetrics(w io.Writer) error {
	type line struct {
		text string
		tcp  bool
		series
	}
	var lines []line
	s.mu.Lock()
	for l, r := range s.series {
		lines = append(lines, line{l.Text(), l.Protocol == "tcp", *r})
	}
	s.mu.Unlock()
	slices.SortFunc(lines, func(a, b line) int { return cmp.Compare(a.text, b.text) })
	b := bufio.NewWriter(w)
	counter := func(name, help string, tcp bool, value func(*series) uint64) {
		fmt.Fprintf(b, "# HELP %s %s\n# TYPE %s counter\n", name, help, name)
		for i := range lines {
			if lines[i].tcp == tcp {
				fmt.Fprintf(b, "%s{%s} %d\n", name, lines[i].text, value(&lines[i].series))
			}
		}
	}
	histogram := func(name, help string, value func(*series) *distribution) {
		fmt.Fprintf(b, "# HELP %s %s\n# TYPE %s histogram\n", name, help, name)
		for i := range lines {
			if !lines[i].tcp {
				value(&lines[i].series).write(b, name, lines[i].text)
			}
		}
	}
	counter("istio_requests_total", "Requests that have ended.", false, func(r *series) uint64 { return r.count })
	histogram("istio_request_duration_milliseconds", "How long requests took.", func(r *series) *distribution { return &r.duration })
	histogram("istio_request_bytes", "Sizes of requests.", func(r *series) *distribution { return &r.request })
	histogram("istio_response_bytes", "Sizes of responses.", func(r *series) *distribution { return &r.response })
	counter("istio_tcp_connections_closed_total", "Connections that have ended.", true, func(r *series) uint64 { return r.count })
	counter("istio_tcp_sent_bytes_total", "Bytes sent on connections that have ended.", true, func(r *series) uint64 { return r.sent })
	counter("istio_tcp_received_bytes_total", "Bytes received on connections that have ended.", true, func(r *series) uint64 { return r.received })
	fmt.Fprintf(b, "# HELP mixer_series Series of request metrics.\n# TYPE mixer_series gauge\nmixer_series %d\n", len(lines))
	fmt.Fprintf(b, "# HELP mixer_observations_dropped_total Observations that would have made one series too many.\n# TYPE mixer_observations_dropped_total counter\nmixer_observations_dropped_total %d\n", s.dropped.Load())
	return b.Flush()
}

func (d *distribution) write(w io.Writer, name, labels string) {
	var n uint64
	for i, b := range bounds {
		n += d.buckets[i]
		fmt.Fprintf(w, "%s_bucket{%s,le=\"%s\"} %d\n", name, labels, strconv.FormatFloat(b, 'f', -1, 64), n)
	}
	fmt.Fprintf(w, "%s_bucket{%s,le=\"+Inf\"} %d\n", name, labels, d.count)
	fmt.Fprintf(w, "%s_sum{%s} %s\n", name, labels, strconv.FormatFloat(d.sum, 'f', -1, 64))
	fmt.Fprintf(w, "%s_count{%s} %d\n", name, labels, d.count)
}
