package apiserver_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/xebec-mesh/xebec/orchestrator/apiserver/apitest"
	"github.com/xebec-mesh/xebec/tests/script"
)

// TestScripts sends the requests of testdata to a whole server over TLS.
//
//	as USER GROUP...                                who asks from now on; nobody: no credential
//	METHOD PATH [body=FILE] [type=MEDIA] [accept=MEDIA] [HEADER:VALUE]...
//	watch N PATH [accept=MEDIA]                     opens a watch, and prints its first N lines
func TestScripts(t *testing.T) {
	script.Run(t, "testdata/*.txtar", func(t *testing.T) map[string]script.Command {
		s := &session{t: t, server: apitest.Start(t, nil)}
		s.client = s.server.HTTP(t, "admin", "system:masters")
		commands := map[string]script.Command{"as": s.as, "watch": s.watch}
		for _, m := range []string{"GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"} {
			commands[m] = func(st *script.State, args []string) (string, error) { return s.request(st, m, args) }
		}
		return commands
	})
}

type session struct {
	t      *testing.T
	server *apitest.Server
	client *http.Client
}

func (s *session) as(_ *script.State, args []string) (string, error) {
	if args[0] == "nobody" {
		s.client = s.server.HTTP(s.t, "")
		return "", nil
	}
	s.client = s.server.HTTP(s.t, args[0], args[1:]...)
	return "", nil
}

func (s *session) request(st *script.State, method string, args []string) (string, error) {
	r, err := s.prepare(st, method, args)
	if err != nil {
		return "", err
	}
	resp, err := s.client.Do(r)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return "", err
	}
	return render(resp, body), nil
}

func (s *session) prepare(st *script.State, method string, args []string) (*http.Request, error) {
	if len(args) == 0 {
		return nil, errors.New("no path given")
	}
	r, err := http.NewRequest(method, s.server.URL+args[0], nil)
	if err != nil {
		return nil, err
	}
	r.Header.Set("User-Agent", "script")
	for _, arg := range args[1:] {
		key, value, ok := strings.Cut(arg, "=")
		name, text, header := strings.Cut(arg, ":")
		switch {
		case ok && key == "body":
			data, err := st.File(value)
			if err != nil {
				return nil, err
			}
			r.Body, r.ContentLength = io.NopCloser(bytes.NewReader(data)), int64(len(data))
		case ok && key == "zeros": // a large body
			r.Body = io.NopCloser(io.LimitReader(zeros{}, 4<<20))
		case ok && key == "type":
			r.Header.Set("Content-Type", value)
		case ok && key == "accept":
			r.Header.Set("Accept", value)
		case header:
			r.Header.Add(name, text)
		default:
			return nil, fmt.Errorf("cannot read argument %q", arg)
		}
	}
	return r, nil
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = ' '
	}
	return len(p), nil
}

func (s *session) watch(st *script.State, args []string) (string, error) {
	var n int
	if _, err := fmt.Sscan(args[0], &n); err != nil {
		return "", err
	}
	r, err := s.prepare(st, http.MethodGet, args[1:])
	if err != nil {
		return "", err
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	resp, err := s.client.Do(r.WithContext(ctx))
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	var out strings.Builder
	lines := bufio.NewScanner(resp.Body)
	for ; n > 0 && lines.Scan(); n-- {
		out.WriteString(compact(lines.Bytes()) + "\n")
	}
	return out.String(), lines.Err()
}

// render shows status, the headers that matter, and the body with what differs
// from run to run blotted out.
func render(resp *http.Response, body []byte) string {
	var out strings.Builder
	fmt.Fprintln(&out, resp.Status)
	for _, h := range []string{"Content-Type", "Warning", "Retry-After", "Location"} {
		for _, v := range resp.Header.Values(h) {
			if h != "Content-Type" || v != "application/json" {
				fmt.Fprintf(&out, "%s: %s\n", h, v)
			}
		}
	}
	var indented bytes.Buffer
	if json.Indent(&indented, body, "", "  ") == nil {
		body = indented.Bytes()
	}
	out.WriteString(blot(strings.TrimSpace(string(body))) + "\n")
	return out.String()
}

func compact(line []byte) string { return blot(string(line)) }

var volatile = []struct {
	pattern *regexp.Regexp
	to      string
}{
	{regexp.MustCompile(`[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}`), "UID"},
	{regexp.MustCompile(`\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z`), "TIME"},
	{regexp.MustCompile(`(?s),?\s*"managedFields": ?\[.*?\n    \]`), ""},
	{regexp.MustCompile(`,"managedFields":\[.*?\]\}?\]?`), ""},
	{regexp.MustCompile(`("continue": ?)"[^"]+"`), `$1"TOKEN"`},
	{regexp.MustCompile(`("?resourceVersion"?: ?)"[^"]+"`), `$1"RV"`},
}

func blot(s string) string {
	for _, v := range volatile {
		s = v.pattern.ReplaceAllString(s, v.to)
	}
	return s
}
