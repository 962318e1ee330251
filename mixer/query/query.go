// Package query answers questions about telemetry.
//
//	in:   the trace store, the request metrics, the workloads
//	out:  an HTTP API in JSON; the same as text for a terminal
//
// All answers are GET and read-only. Times are RFC 3339 or, as ?since= and ?until=,
// a duration before now (15m). Errors are {"error": "..."} with the status.
//
//	/telemetry/traces/{id}    one trace: TraceView; 404 if no span of it is stored
//	/telemetry/traces         the newest traces: {"traces": [Summary]}
//	    service=  minDuration=  error=true  since=  until=  limit= (20, at most 1000)
//	/telemetry/graph          graph.Graph of a recent window
//	    window= (1m)  namespace=
//	/telemetry/metrics        rate, errors and latency over time: {"step": seconds, "points": [Point]}
//	    source=  destination=  version=  namespace=  since= (15m)  step= (15s)
//	/telemetry/services       who has sent spans or requests: {"services": [string]}
//	    since= (1h)
//	/telemetry/health         {"ok": bool, "problems": [string]}
//
// Who may ask is for the caller to decide: mount the Handler behind something.
package query

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"time"

	"github.com/xebec-mesh/xebec/mixer/enrich"
	"github.com/xebec-mesh/xebec/mixer/graph"
	"github.com/xebec-mesh/xebec/mixer/metrics"
	"github.com/xebec-mesh/xebec/mixer/traces"
	"github.com/xebec-mesh/xebec/mixer/wire"
)

// Config says what is asked.
type Config struct {
	Traces    *traces.Store             // required
	Metrics   *metrics.Store            // required
	Workloads func() []*enrich.Workload // required
	Health    func() []error            // what is wrong now
}

// API answers.
type API struct {
	cfg Config
	mux *http.ServeMux
}

// New checks the configuration.
func New(cfg Config) (*API, error) {
	if cfg.Traces == nil || cfg.Metrics == nil || cfg.Workloads == nil {
		return nil, errors.New("telemetry query: Traces, Metrics and Workloads are required")
	}
	if cfg.Health == nil {
		cfg.Health = func() []error { return nil }
	}
	a := &API{cfg: cfg, mux: http.NewServeMux()}
	for path, answer := range map[string]func(*http.Request) (any, error){
		"/telemetry/traces/{id}": a.trace,
		"/telemetry/traces":      a.traces,
		"/telemetry/graph":       a.graph,
		"/telemetry/metrics":     a.metrics,
		"/telemetry/services":    a.services,
		"/telemetry/health":      a.health,
	} {
		a.mux.HandleFunc("GET "+path, func(w http.ResponseWriter, r *http.Request) {
			v, err := answer(r)
			reply(w, v, err)
		})
	}
	a.mux.HandleFunc("/telemetry/", func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodGet {
			w.Header().Set("Allow", "GET")
			reply(w, nil, &problem{http.StatusMethodNotAllowed, "only GET is answered here"})
			return
		}
		reply(w, nil, &problem{http.StatusNotFound, fmt.Sprintf("there is no %s: ask for traces, graph, metrics, services or health", r.URL.Path)})
	})
	return a, nil
}

// ServeHTTP answers below /telemetry/.
func (a *API) ServeHTTP(w http.ResponseWriter, r *http.Request) { a.mux.ServeHTTP(w, r) }

// problem is an error with a status.
type problem struct {
	status int
	text   string
}

func (p *problem) Error() string { return p.text }

func bad(name, value, want string) error {
	return &problem{http.StatusBadRequest, fmt.Sprintf("%s=%q: want %s", name, value, want)}
}

func reply(w http.ResponseWriter, v any, err error) {
	status := http.StatusOK
	if err != nil {
		status = http.StatusInternalServerError
		var p *problem
		switch {
		case errors.As(err, &p):
			status = p.status
		case errors.Is(err, traces.ErrNotFound):
			status = http.StatusNotFound
		case errors.Is(err, context.Canceled):
			status = 499 // nobody is there to read it
		}
		v = map[string]string{"error": err.Error()}
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(v)
}

func (a *API) trace(r *http.Request) (any, error) {
	text := r.PathValue("id")
	var id wire.TraceID
	if n, err := hex.Decode(id[:], pad(text)); err != nil || n != len(id) {
		return nil, bad("id", text, "a trace id of 32 hexadecimal digits")
	}
	spans, err := a.cfg.Traces.Get(r.Context(), id)
	if err != nil {
		return nil, err
	}
	return Arrange(hex.EncodeToString(id[:]), spans), nil
}

// pad makes 16 hexadecimal digits, which older tracers use, to 32.
func pad(s string) []byte {
	if len(s) == 16 {
		s = "0000000000000000" + s
	}
	if len(s) != 32 {
		return []byte("x")
	}
	return []byte(s)
}

// Summary is a trace in a list.
type Summary struct {
	TraceID    string    `json:"traceId"`
	Start      time.Time `json:"start"`
	DurationNS int64     `json:"durationNs"`
	Root       string    `json:"root"`
	Service    string    `json:"service"` // of the root
	Spans      int       `json:"spans"`
	Errors     int       `json:"errors"`
	Services   []string  `json:"services"`
}

// List is an answer to /telemetry/traces.
type List struct {
	Traces []Summary `json:"traces"`
}

func (a *API) traces(r *http.Request) (any, error) {
	p := params{r.URL.Query(), a.cfg.Metrics.Now(), nil}
	q := traces.Query{
		Service: p.Get("service"), MinDuration: p.duration("minDuration", 0), Error: p.bool("error"),
		Since: p.time("since", time.Time{}), Until: p.time("until", time.Time{}), Limit: p.int("limit", 20, 1000),
	}
	if p.err != nil {
		return nil, p.err
	}
	found, err := a.cfg.Traces.List(r.Context(), q)
	if err != nil {
		return nil, err
	}
	out := List{Traces: []Summary{}}
	for _, s := range found {
		out.Traces = append(out.Traces, Summary{
			TraceID: hex.EncodeToString(s.Trace[:]), Start: s.Start.UTC(), DurationNS: int64(s.Duration),
			Root: s.Root, Service: s.RootService, Spans: s.Spans, Errors: s.Errors, Services: append([]string{}, s.Services...),
		})
	}
	return out, nil
}

func (a *API) graph(r *http.Request) (any, error) {
	p := params{r.URL.Query(), a.cfg.Metrics.Now(), nil}
	window := p.duration("window", time.Minute)
	if p.err != nil {
		return nil, p.err
	}
	if window < time.Second || window > 24*time.Hour {
		return nil, bad("window", p.Get("window"), "a duration from 1s to 24h")
	}
	namespace := p.Get("namespace")
	windows := a.cfg.Metrics.Window(p.now.Add(-window), p.now)
	workloads := a.cfg.Workloads()
	if namespace != "" {
		windows = slices.DeleteFunc(windows, func(w metrics.Window) bool {
			return w.SourceNamespace != namespace && w.DestinationNamespace != namespace
		})
		workloads = slices.DeleteFunc(workloads, func(w *enrich.Workload) bool { return w.Namespace != namespace })
	}
	return graph.Build(windows, workloads, p.now.Add(-window), p.now), nil
}

// Point is one step of a series.
type Point struct {
	At     time.Time `json:"at"`
	Rate   float64   `json:"rate"`   // requests per second
	Errors float64   `json:"errors"` // share that failed, 0 to 1
	P50    float64   `json:"p50"`    // ms
	P99    float64   `json:"p99"`    // ms
}

// Range is an answer to /telemetry/metrics.
type Range struct {
	Step   float64 `json:"step"` // seconds
	Points []Point `json:"points"`
}

func (a *API) metrics(r *http.Request) (any, error) {
	p := params{r.URL.Query(), a.cfg.Metrics.Now(), nil}
	since, step := p.time("since", p.now.Add(-15*time.Minute)), p.duration("step", 15*time.Second)
	if p.err != nil {
		return nil, p.err
	}
	if step < time.Second || p.now.Sub(since)/step > 2000 {
		return nil, bad("step", p.Get("step"), "at least 1s, and at most 2000 steps since the beginning")
	}
	source, destination, version, namespace := p.Get("source"), p.Get("destination"), p.Get("version"), p.Get("namespace")
	match := func(l metrics.Labels) bool {
		return l.Reporter == reporter(l) &&
			(source == "" || l.SourceApp == source) && (destination == "" || l.DestinationApp == destination) &&
			(version == "" || l.DestinationVersion == version) && (namespace == "" || l.DestinationNamespace == namespace)
	}
	out := Range{Step: step.Seconds(), Points: []Point{}}
	for _, s := range a.cfg.Metrics.Range(since, p.now, step, match) {
		pt := Point{At: s.At.UTC(), Rate: float64(s.Count) / step.Seconds(), P50: ms(s.P50), P99: ms(s.P99)}
		if s.Count > 0 {
			pt.Errors = float64(s.Failed) / float64(s.Count)
		}
		out.Points = append(out.Points, pt)
	}
	return out, nil
}

// reporter is whose report of a call counts: the caller's, where it has a sidecar.
func reporter(l metrics.Labels) string {
	if l.SourcePrincipal != "" {
		return "source"
	}
	return "destination"
}

func ms(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

func (a *API) services(r *http.Request) (any, error) {
	p := params{r.URL.Query(), a.cfg.Metrics.Now(), nil}
	since := p.time("since", p.now.Add(-time.Hour))
	if p.err != nil {
		return nil, p.err
	}
	names, err := a.cfg.Traces.Services(r.Context(), since)
	if err != nil {
		return nil, err
	}
	for _, w := range a.cfg.Metrics.Window(since, p.now) {
		names = append(names, w.SourceApp, w.DestinationApp)
	}
	slices.Sort(names)
	names = slices.DeleteFunc(slices.Compact(names), func(s string) bool { return s == "" })
	return map[string][]string{"services": append([]string{}, names...)}, nil
}

func (a *API) health(*http.Request) (any, error) {
	problems := []string{}
	for _, err := range a.cfg.Health() {
		problems = append(problems, err.Error())
	}
	return map[string]any{"ok": len(problems) == 0, "problems": problems}, nil
}

// params reads a query string; the first mistake is kept.
type params struct {
	url.Values
	now time.Time
	err error
}

func (p *params) fail(name, want string) {
	if p.err == nil {
		p.err = bad(name, p.Get(name), want)
	}
}

func (p *params) duration(name string, def time.Duration) time.Duration {
	v := p.Get(name)
	if v == "" {
		return def
	}
	d, err := time.ParseDuration(v)
	if err != nil || d < 0 {
		p.fail(name, "a duration such as 250ms, 15m or 2h")
	}
	return d
}

func (p *params) time(name string, def time.Time) time.Time {
	v := p.Get(name)
	if v == "" {
		return def
	}
	if t, err := time.Parse(time.RFC3339, v); err == nil {
		return t
	}
	d, err := time.ParseDuration(v)
	if err != nil || d < 0 {
		p.fail(name, "a duration before now such as 15m, or a time such as 2026-03-01T12:00:00Z")
	}
	return p.now.Add(-d)
}

func (p *params) bool(name string) bool {
	v := p.Get(name)
	if v == "" {
		return false
	}
	b, err := strconv.ParseBool(v)
	if err != nil {
		p.fail(name, "true or false")
	}
	return b
}

func (p *params) int(name string, def, most int) int {
	v := p.Get(name)
	if v == "" {
		return def
	}
	n, err := strconv.Atoi(v)
	if err != nil || n < 1 || n > most {
		p.fail(name, fmt.Sprintf("a number from 1 to %d", most))
	}
	return n
}

// number is a float as JSON has it.
func number(f float64) any {
	if math.IsNaN(f) || math.IsInf(f, 0) {
		return fmt.Sprint(f)
	}
	return f
}
