package export

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/xebec-mesh/xebec/mixer/otlp"
)

// httpSender sends over OTLP/HTTP with protobuf.
type httpSender struct {
	base    string
	headers map[string]string
	client  *http.Client
}

func newHTTP(u *url.URL, cfg Config) *httpSender {
	t := http.DefaultTransport.(*http.Transport).Clone()
	t.TLSClientConfig = cfg.TLS
	base := strings.TrimSuffix(u.String(), "/")
	return &httpSender{base: base, headers: cfg.Headers, client: &http.Client{Transport: t}}
}

func (h *httpSender) send(ctx context.Context, signal otlp.Signal, data []byte) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, h.base+"/v1/"+signal.String(), bytes.NewReader(data))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/x-protobuf")
	for k, v := range h.headers {
		req.Header.Set(k, v)
	}
	resp, err := h.client.Do(req)
	if err != nil {
		return temporary{err, 0}
	}
	defer resp.Body.Close()
	_, _ = io.Copy(io.Discard, io.LimitReader(resp.Body, 1<<20))
	err = fmt.Errorf("%s answers %s", req.URL.Redacted(), resp.Status)
	switch resp.StatusCode {
	case http.StatusOK, http.StatusAccepted, http.StatusNoContent:
		return nil
	case http.StatusTooManyRequests, http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		return temporary{err, retryAfter(resp.Header.Get("Retry-After"))}
	}
	return err
}

// retryAfter reads a header that is seconds or a date.
func retryAfter(v string) time.Duration {
	if s, err := strconv.Atoi(v); err == nil && s > 0 {
		return time.Duration(min(s, 600)) * time.Second
	}
	if t, err := http.ParseTime(v); err == nil {
		return min(max(time.Until(t), 0), 10*time.Minute)
	}
	return 0
}

func (h *httpSender) close() error {
	h.client.CloseIdleConnections()
	return nil
}
