// Package service is what the photo service's three programs have in common: an
// HTTP server that ends gracefully, and spans that continue the caller's trace.
//
//	in:   PORT, OTEL_EXPORTER_OTLP_ENDPOINT and OTEL_SERVICE_NAME from the environment
//	out:  an HTTP server; OTLP spans
package service

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"os/signal"
	"regexp"
	"syscall"
	"time"

	"go.opentelemetry.io/contrib/instrumentation/net/http/otelhttp"
	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
)

// Run serves handler until the process is told to stop, then lets the requests
// that are under way end, and sends the last spans.
func Run(name, defaultPort string, handler http.Handler) error {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	flush, err := trace(ctx, name)
	if err != nil {
		return err
	}
	defer flush()

	port := os.Getenv("PORT")
	if port == "" {
		port = defaultPort
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") })
	mux.Handle("/", otelhttp.NewHandler(handler, name))
	server := &http.Server{Addr: ":" + port, Handler: mux, ReadHeaderTimeout: 10 * time.Second}
	failed := make(chan error, 1)
	go func() { failed <- server.ListenAndServe() }()
	slog.Info("serving", "service", name, "port", port)

	select {
	case err := <-failed:
		return fmt.Errorf("serve on port %s: %w", port, err)
	case <-ctx.Done():
	}
	slog.Info("stopping", "service", name)
	end, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	if err := server.Shutdown(end); err != nil && !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("stop: %w", err)
	}
	return nil
}

// trace sets up spans; without an endpoint they go nowhere, yet trace context is passed on.
func trace(ctx context.Context, name string) (flush func(), err error) {
	otel.SetTextMapPropagator(propagation.NewCompositeTextMapPropagator(propagation.TraceContext{}, propagation.Baggage{}))
	if os.Getenv("OTEL_EXPORTER_OTLP_ENDPOINT") == "" && os.Getenv("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT") == "" {
		return func() {}, nil
	}
	if os.Getenv("OTEL_SERVICE_NAME") == "" {
		if err := os.Setenv("OTEL_SERVICE_NAME", name); err != nil {
			return nil, err
		}
	}
	exporter, err := otlptracehttp.New(ctx)
	if err != nil {
		return nil, fmt.Errorf("OTLP exporter: %w", err)
	}
	res, err := resource.New(ctx, resource.WithFromEnv(), resource.WithTelemetrySDK())
	if err != nil {
		return nil, fmt.Errorf("OTLP resource: %w", err)
	}
	provider := sdktrace.NewTracerProvider(
		sdktrace.WithBatcher(exporter, sdktrace.WithBatchTimeout(500*time.Millisecond)),
		sdktrace.WithResource(res),
	)
	otel.SetTracerProvider(provider)
	return func() {
		end, cancel := context.WithTimeout(context.Background(), 3*time.Second)
		defer cancel()
		if err := provider.Shutdown(end); err != nil {
			slog.Warn("last spans were not sent", "err", err)
		}
	}, nil
}

// Client calls other services within the trace of the request's context.
var Client = &http.Client{
	Timeout: 10 * time.Second,
	Transport: otelhttp.NewTransport(&http.Transport{
		MaxIdleConnsPerHost: 64,
		IdleConnTimeout:     30 * time.Second,
	}),
}

// Get fetches JSON from url on behalf of r: the trace continues and the visitor's
// user agent goes along, so that routing rules can tell visitors apart anywhere.
func Get(r *http.Request, url string, into any) error {
	request, err := http.NewRequestWithContext(r.Context(), http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	request.Header.Set("User-Agent", r.UserAgent())
	response, err := Client.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("GET %s: %s", url, response.Status)
	}
	if err := json.NewDecoder(response.Body).Decode(into); err != nil {
		return fmt.Errorf("GET %s: %w", url, err)
	}
	return nil
}

// WriteJSON answers with v.
func WriteJSON(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	if err := json.NewEncoder(w).Encode(v); err != nil {
		slog.Warn("write answer", "err", err)
	}
}

var peerURI = regexp.MustCompile(`URI=([^;,"]+)`)

// Caller is the SPIFFE ID of whoever called, as the sidecar checked it, or "" for
// a call that came without mutual TLS. The sidecar replaces what a caller sends.
func Caller(r *http.Request) string {
	if m := peerURI.FindStringSubmatch(r.Header.Get("X-Forwarded-Client-Cert")); m != nil {
		return m[1]
	}
	return ""
}

// Env is a variable of the environment, or otherwise where it is not set.
func Env(name, otherwise string) string {
	if v := os.Getenv(name); v != "" {
		return v
	}
	return otherwise
}
