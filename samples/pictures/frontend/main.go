// Command frontend is what a visitor of the photo service sees: a page, and the
// same as JSON under /api/pictures.
package main

import (
	_ "embed"
	"encoding/json"
	"html/template"
	"log"
	"log/slog"
	"net/http"

	"go.opentelemetry.io/otel/trace"

	"github.com/xebec-mesh/xebec/samples/pictures/service"
)

//go:embed page.html
var pageSource string

var page = template.Must(template.New("page").Parse(pageSource))

// album is what the pictures service answers; it is passed on as it came.
type album struct {
	Version  string            `json:"version"`
	Pictures []json.RawMessage `json:"pictures"`
	Callers  map[string]string `json:"callers,omitempty"`
	// TraceID finds this request with `xebec traces`.
	TraceID string `json:"traceId,omitempty"`
}

func main() {
	pictures := service.Env("PICTURES_URL", "http://pictures:8080")
	fetch := func(w http.ResponseWriter, r *http.Request) (*album, bool) {
		var a album
		if err := service.Get(r, pictures+"/pictures", &a); err != nil {
			slog.Warn("pictures", "err", err)
			http.Error(w, "the pictures service does not answer: "+err.Error(), http.StatusBadGateway)
			return nil, false
		}
		if span := trace.SpanContextFromContext(r.Context()); span.HasTraceID() {
			a.TraceID = span.TraceID().String()
			w.Header().Set("X-Trace-Id", a.TraceID)
		}
		w.Header().Set("X-Pictures-Version", a.Version)
		return &a, true
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /api/pictures", func(w http.ResponseWriter, r *http.Request) {
		if a, ok := fetch(w, r); ok {
			service.WriteJSON(w, a)
		}
	})
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, r *http.Request) {
		a, ok := fetch(w, r)
		if !ok {
			return
		}
		view := struct {
			*album
			Shown []picture
		}{album: a}
		for _, raw := range a.Pictures {
			var p picture
			if err := json.Unmarshal(raw, &p); err != nil {
				slog.Warn("picture", "err", err)
				continue
			}
			view.Shown = append(view.Shown, p)
		}
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		if err := page.Execute(w, view); err != nil {
			slog.Warn("page", "err", err)
		}
	})
	if err := service.Run("frontend", "8080", mux); err != nil {
		log.Fatal("frontend: ", err)
	}
}

type picture struct {
	ID, Title, Author, Place string
	Colour                   []string
}

// Sky, Land and Water are grey until version 2 of the pictures service.
func (p picture) Sky() string   { return p.tone(0, "#e5e5e5") }
func (p picture) Land() string  { return p.tone(1, "#8a8a8a") }
func (p picture) Water() string { return p.tone(2, "#bdbdbd") }

func (p picture) tone(i int, grey string) string {
	if i < len(p.Colour) {
		return p.Colour[i]
	}
	return grey
}
