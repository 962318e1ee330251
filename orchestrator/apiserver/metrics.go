package apiserver

import (
	"fmt"
	"maps"
	"net/http"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// metrics counts requests by verb, resource and code. It is written by hand
// because the usual library costs milliseconds of every start.
type metrics struct {
	mu     sync.RWMutex
	series map[seriesKey]*series
	start  time.Time
}

type seriesKey struct {
	verb, group, version, resource, subresource string
	code                                        int
}

type series struct {
	count   atomic.Int64
	nanos   atomic.Int64
	buckets [len(bounds)]atomic.Int64
}

// bounds are the histogram's, in seconds.
var bounds = [...]float64{0.001, 0.005, 0.025, 0.1, 0.5, 1, 5, 30, 60}

var knownVerbs = map[string]bool{
	"GET": true, "LIST": true, "WATCH": true, "CREATE": true, "UPDATE": true, "PATCH": true, "DELETE": true, "DELETECOLLECTION": true,
	"HEAD": true, "POST": true, "PUT": true,
}

func newMetrics() *metrics {
	return &metrics{series: map[seriesKey]*series{}, start: time.Now()}
}

func (m *metrics) observe(req *request, code int, took time.Duration, long bool) {
	verb := strings.ToUpper(req.Verb)
	if !knownVerbs[verb] {
		verb = "OTHER"
	}
	key := seriesKey{verb: verb, group: req.Group, version: req.Version, resource: req.Resource, subresource: req.Subresource, code: code}
	if code == http.StatusNotFound || req.Resource == "" { // names that clients make up must not make series
		key = seriesKey{verb: verb, code: code}
	}
	s := m.of(key)
	s.count.Add(1)
	if long {
		return
	}
	s.nanos.Add(int64(took))
	for i, b := range bounds {
		if took.Seconds() <= b {
			s.buckets[i].Add(1)
			break
		}
	}
}

func (m *metrics) of(key seriesKey) *series {
	m.mu.RLock()
	s := m.series[key]
	m.mu.RUnlock()
	if s != nil {
		return s
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if s = m.series[key]; s == nil {
		s = &series{}
		m.series[key] = s
	}
	return s
}

func (k seriesKey) labels() string {
	return fmt.Sprintf(`verb=%q,group=%q,version=%q,resource=%q,subresource=%q,code="%d"`, k.verb, k.group, k.version, k.resource, k.subresource, k.code)
}

// serveMetrics writes the Prometheus text format.
func (s *Server) serveMetrics(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
	m := s.metrics
	m.mu.RLock()
	all := maps.Clone(m.series)
	m.mu.RUnlock()
	keys := slices.SortedFunc(maps.Keys(all), func(a, b seriesKey) int { return strings.Compare(a.labels(), b.labels()) })

	fmt.Fprint(w, "# HELP apiserver_request_total Requests by verb, resource and code.\n# TYPE apiserver_request_total counter\n")
	for _, k := range keys {
		fmt.Fprintf(w, "apiserver_request_total{%s} %d\n", k.labels(), all[k].count.Load())
	}
	fmt.Fprint(w, "# HELP apiserver_request_duration_seconds Time from request to answer; watches are not in it.\n# TYPE apiserver_request_duration_seconds histogram\n")
	for _, k := range keys {
		writeHistogram(w, k, all[k])
	}
	fmt.Fprint(w, "# HELP apiserver_current_inflight_requests Requests that hold or await a seat.\n# TYPE apiserver_current_inflight_requests gauge\n")
	for _, f := range []*flow{s.users, s.system} {
		f.mu.Lock()
		fmt.Fprintf(w, "apiserver_current_inflight_requests{flow=%q,state=\"running\"} %d\napiserver_current_inflight_requests{flow=%q,state=\"waiting\"} %d\napiserver_rejected_requests_total{flow=%q} %d\n", f.name, f.running, f.name, f.waiting, f.name, f.refused)
		f.mu.Unlock()
	}
	var mem runtime.MemStats
	runtime.ReadMemStats(&mem)
	fmt.Fprintf(w, "# TYPE go_goroutines gauge\ngo_goroutines %d\n# TYPE go_memstats_heap_alloc_bytes gauge\ngo_memstats_heap_alloc_bytes %d\n# TYPE process_start_time_seconds gauge\nprocess_start_time_seconds %d\n", runtime.NumGoroutine(), mem.HeapAlloc, m.start.Unix())
}

func writeHistogram(w http.ResponseWriter, k seriesKey, s *series) {
	sum := int64(0)
	for i, b := range bounds {
		sum += s.buckets[i].Load()
		fmt.Fprintf(w, "apiserver_request_duration_seconds_bucket{%s,le=\"%g\"} %d\n", k.labels(), b, sum)
	}
	total := s.count.Load()
	fmt.Fprintf(w, "apiserver_request_duration_seconds_bucket{%s,le=\"+Inf\"} %d\napiserver_request_duration_seconds_sum{%s} %g\napiserver_request_duration_seconds_count{%s} %d\n",
		k.labels(), total, k.labels(), time.Duration(s.nanos.Load()).Seconds(), k.labels(), total)
}
