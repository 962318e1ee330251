package query

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
)

// Client asks an API over HTTP.
type Client struct {
	Base string       // https://host:6443, without /telemetry
	HTTP *http.Client // with whatever proves who asks
}

// Traces lists traces; filters are the API's parameters.
func (c *Client) Traces(ctx context.Context, filters url.Values) (*List, error) {
	var l List
	return &l, c.get(ctx, "/telemetry/traces?"+filters.Encode(), &l)
}

// Trace returns one trace.
func (c *Client) Trace(ctx context.Context, id string) (*TraceView, error) {
	var v TraceView
	return &v, c.get(ctx, "/telemetry/traces/"+url.PathEscape(id), &v)
}

func (c *Client) get(ctx context.Context, path string, into any) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, strings.TrimSuffix(c.Base, "/")+path, nil)
	if err != nil {
		return err
	}
	resp, err := c.HTTP.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, 256<<20))
	if err != nil {
		return err
	}
	if resp.StatusCode != http.StatusOK {
		var said struct{ Error, Message string }
		if json.Unmarshal(body, &said) == nil && said.Error+said.Message != "" {
			return fmt.Errorf("get %s: %s", req.URL.Path, said.Error+said.Message)
		}
		return fmt.Errorf("get %s: %s", req.URL.Path, resp.Status)
	}
	return json.Unmarshal(body, into)
}
