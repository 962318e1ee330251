// Package simulate sends a call through generated configuration, as Envoy would, and
// says where it lands.
//
//	in:   a proxy's snapshots, and a Call
//	out:  the listener, route and cluster that it meets
//
// It is for tests and for people who ask why: it knows the parts of Envoy's matching
// that the generators use, and no others.
package simulate

import (
	"fmt"
	"net/url"
	"regexp"
	"strconv"
	"strings"

	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	matcher "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"

	"google.golang.org/protobuf/proto"

	"github.com/xebec-mesh/xebec/pilot/describe"
	"github.com/xebec-mesh/xebec/pilot/envoy"
	"github.com/xebec-mesh/xebec/pilot/view"
)

// Call is a request of an application.
type Call struct {
	To      string // address that was dialled
	Port    uint32
	Host    string            // authority
	Method  string            // default GET
	Path    string            // with the query, default /
	Headers map[string]string // lower-case names
	TCP     bool              // it is no HTTP
}

// Run says where the call lands, in one line.
func Run(s *view.Snapshot, c Call) (string, error) {
	name := c.To + "_" + strconv.Itoa(int(c.Port))
	r, ok := s.Sets[envoy.TypeIndex(envoy.ListenerType)].Get(name)
	if !ok {
		name = "0.0.0.0_" + strconv.Itoa(int(c.Port))
		if r, ok = s.Sets[envoy.TypeIndex(envoy.ListenerType)].Get(name); !ok {
			return "virtualOutbound → PassthroughCluster", nil
		}
	}
	var l listenerv3.Listener
	if err := proto.Unmarshal(r.Body, &l); err != nil {
		return "", fmt.Errorf("decode %s: %w", name, err)
	}
	text, err := describe.Resource(r)
	if err != nil {
		return "", err
	}
	for _, line := range strings.Split(text, "\n")[1:] {
		cond, to, _ := strings.Cut(strings.TrimSpace(line), " → ")
		if strings.Contains(cond, "http/1.1") == c.TCP && cond != "any" {
			continue
		}
		if table, ok := strings.CutPrefix(to, "http table "); ok {
			where, err := request(s, table, c)
			return name + " → " + where, err
		}
		return name + " → " + to, nil
	}
	return name + " → closed", nil
}

// request finds the route in a table.
func request(s *view.Snapshot, table string, c Call) (string, error) {
	rank, best := 0, (*routev3.VirtualHost)(nil)
	consider := func(vh *routev3.VirtualHost) {
		for _, d := range vh.GetDomains() {
			if n := covers(d, c.Host); n > rank {
				rank, best = n, vh
			}
		}
	}
	for name, r := range s.Sets[envoy.TypeIndex(envoy.VirtualHostType)].All() {
		if strings.LastIndexByte(name, '/') == len(table) && strings.HasPrefix(name, table) && r.Rejected() == "" {
			vh := &routev3.VirtualHost{}
			if err := proto.Unmarshal(r.Body, vh); err != nil {
				return "", fmt.Errorf("decode %s: %w", name, err)
			}
			consider(vh)
		}
	}
	if r, ok := s.Sets[envoy.TypeIndex(envoy.RouteType)].Get(table); ok {
		rc := &routev3.RouteConfiguration{}
		if err := proto.Unmarshal(r.Body, rc); err != nil {
			return "", fmt.Errorf("decode %s: %w", table, err)
		}
		for _, vh := range rc.GetVirtualHosts() {
			consider(vh)
		}
	}
	for _, r := range best.GetRoutes() {
		if matches(r.GetMatch(), c) {
			return best.GetName() + " [" + r.GetName() + "] → " + describe.Action(r), nil
		}
	}
	return best.GetName() + " → 404", nil
}

// covers ranks how well a domain fits a host: exactly, by its longest suffix, at all.
func covers(domain, host string) int {
	if i := strings.LastIndexByte(host, ':'); i > 0 && !strings.HasSuffix(host, "]") {
		host = host[:i]
	}
	switch {
	case domain == "*":
		return 1
	case strings.EqualFold(domain, host):
		return 1 << 20
	case strings.HasPrefix(domain, "*") && strings.HasSuffix(host, domain[1:]):
		return 1 + len(domain)
	}
	return 0
}

func matches(m *routev3.RouteMatch, c Call) bool {
	u, err := url.ParseRequestURI(or(c.Path, "/"))
	if err != nil {
		return false
	}
	path, fold := u.Path, func(s string) string { return s }
	if m.GetCaseSensitive() != nil && !m.GetCaseSensitive().GetValue() {
		fold = strings.ToLower
	}
	switch p := m.GetPathSpecifier().(type) {
	case *routev3.RouteMatch_Path:
		if fold(path) != fold(p.Path) {
			return false
		}
	case *routev3.RouteMatch_Prefix:
		if !strings.HasPrefix(fold(path), fold(p.Prefix)) {
			return false
		}
	case *routev3.RouteMatch_SafeRegex:
		if !whole(p.SafeRegex.GetRegex(), path) {
			return false
		}
	}
	for _, h := range m.GetHeaders() {
		v, there := header(c, h.GetName())
		ok := there && text(h.GetStringMatch(), v)
		if !there && h.GetTreatMissingHeaderAsEmpty() {
			ok = text(h.GetStringMatch(), "")
		}
		if ok == h.GetInvertMatch() {
			return false
		}
	}
	for _, q := range m.GetQueryParameters() {
		if !u.Query().Has(q.GetName()) || !text(q.GetStringMatch(), u.Query().Get(q.GetName())) {
			return false
		}
	}
	return true
}

func header(c Call, name string) (string, bool) {
	switch name {
	case ":method":
		return or(c.Method, "GET"), true
	case ":authority":
		return c.Host, true
	case ":scheme":
		return "http", true
	}
	v, ok := c.Headers[strings.ToLower(name)]
	return v, ok
}

// text matches a value; no matcher means that presence is enough.
func text(m *matcher.StringMatcher, v string) bool {
	switch p := m.GetMatchPattern().(type) {
	case *matcher.StringMatcher_Exact:
		return v == p.Exact
	case *matcher.StringMatcher_Prefix:
		return strings.HasPrefix(v, p.Prefix)
	case *matcher.StringMatcher_SafeRegex:
		return whole(p.SafeRegex.GetRegex(), v)
	}
	return true
}

func whole(expr, v string) bool {
	re, err := regexp.Compile("^(?:" + expr + ")$")
	return err == nil && re.MatchString(v)
}

func or(s, otherwise string) string {
	if s == "" {
		return otherwise
	}
	return s
}
