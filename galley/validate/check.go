package validate

import (
	"fmt"
	"net/netip"
	"net/url"
	"regexp/syntax"
	"strings"
	"time"

	networking "istio.io/api/networking/v1alpha3"
	apivalidation "k8s.io/apimachinery/pkg/util/validation"

	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/xebec-mesh/xebec/galley/message"
)

// path names a field.
type path string

const spec path = "spec"

func (p path) dot(field string) path { return p + "." + path(field) }
func (p path) at(i int) path         { return p + path(fmt.Sprintf("[%d]", i)) }
func (p path) key(k string) path     { return p + path(fmt.Sprintf("[%s]", k)) }

// checker collects findings.
type checker struct{ found message.List }

func (c *checker) bad(p path, value any, accepted string, args ...any) {
	c.found = append(c.found, message.New(message.SchemaValidationError, string(p), value, accepted, args...))
}

func (c *checker) missing(p path, accepted string, args ...any) {
	c.found = append(c.found, message.Note(message.SchemaValidationError, string(p), "missing: "+accepted, args...))
}

func (c *checker) warn(k message.Kind, p path, text string, args ...any) {
	c.found = append(c.found, message.Note(k, string(p), text, args...))
}

func (c *checker) port(p path, n uint32) {
	if n < 1 || n > 65535 {
		c.bad(p, n, "want a port from 1 to 65535")
	}
}

func (c *checker) percent(p path, v float64) {
	if v < 0 || v > 100 {
		c.bad(p, v, "want a percentage from 0 to 100")
	}
}

// duration checks one that must be at least least, in steps of a millisecond.
func (c *checker) duration(p path, d *durationpb.Duration, least time.Duration) {
	if d == nil {
		return
	}
	v := d.AsDuration()
	switch {
	case d.CheckValid() != nil:
		c.bad(p, v, "want a duration such as 1.5s")
	case v < least:
		c.bad(p, v, "want at least %s", least)
	case v%time.Millisecond != 0:
		c.bad(p, v, "want whole milliseconds, such as 250ms")
	}
}

// regex checks RE2 syntax, the one that Envoy speaks. The whole value has to match.
func (c *checker) regex(p path, s string) {
	if s == "" {
		c.bad(p, s, "want a regular expression; to match any value use .*")
		return
	}
	if _, err := syntax.Parse(s, syntax.Perl); err != nil {
		hint := ""
		if strings.Contains(s, "(?=") || strings.Contains(s, "(?!") || strings.Contains(s, "(?<") {
			hint = "; RE2 has no look-around"
		}
		c.bad(p, s, "want a regular expression in RE2 syntax (https://github.com/google/re2/wiki/Syntax): %v%s", err, hint)
	}
}

func (c *checker) stringMatch(p path, m *networking.StringMatch) {
	switch t := m.GetMatchType().(type) {
	case nil:
		if m != nil {
			c.missing(p, "want one of exact, prefix or regex")
		}
	case *networking.StringMatch_Regex:
		c.regex(p.dot("regex"), t.Regex)
	}
}

// host checks a name as it may be called: a DNS name or an address, with a leading
// "*." where wildcards are allowed.
func (c *checker) host(p path, h string, wildcard bool) {
	if h == "" {
		c.missing(p, "want the name of a service, such as reviews or reviews.default.svc.cluster.local")
		return
	}
	if _, err := netip.ParseAddr(h); err == nil {
		return
	}
	name := h
	if strings.Contains(h, "*") {
		if !wildcard {
			c.bad(p, h, "want the name of one service, without *")
			return
		}
		if h == "*" {
			return
		}
		name = strings.TrimPrefix(strings.TrimPrefix(h, "*"), ".")
		if strings.Contains(name, "*") || !strings.HasPrefix(h, "*.") && !strings.HasPrefix(h, "*-") {
			c.bad(p, h, "want * only as the first label, as in *.example.com")
			return
		}
	}
	for _, label := range strings.Split(strings.TrimSuffix(name, "."), ".") {
		if errs := apivalidation.IsDNS1123Label(strings.ToLower(strings.ReplaceAll(label, "_", "-"))); len(errs) > 0 {
			c.bad(p, h, "want a DNS name: labels of letters, digits and -, at most 63 long, separated by dots")
			return
		}
	}
	if len(name) > 253 {
		c.bad(p, h, "want a DNS name of at most 253 characters")
	}
}

func (c *checker) labels(p path, m map[string]string) {
	for k, v := range m {
		if strings.Contains(v, "*") || strings.Contains(k, "*") {
			c.bad(p.key(k), v, "want an exact label, without *")
			continue
		}
		if errs := apivalidation.IsQualifiedName(k); len(errs) > 0 {
			c.bad(p, k, "want a label key: %s", errs[0])
		}
		if errs := apivalidation.IsValidLabelValue(v); len(errs) > 0 {
			c.bad(p.key(k), v, "want a label value: %s", errs[0])
		}
	}
}

func (c *checker) dnsLabel(p path, name, what string) {
	if errs := apivalidation.IsDNS1123Label(name); len(errs) > 0 {
		c.bad(p, name, "want %s: lower-case letters, digits and -, at most 63 characters", what)
	}
}

// headerName checks a field name as HTTP defines it (RFC 9110, section 5.1).
func (c *checker) headerName(p path, name string) bool {
	if name == "" {
		c.missing(p, "want the name of a header")
		return false
	}
	for _, r := range strings.TrimPrefix(name, ":") {
		if r <= ' ' || r >= 0x7f || strings.ContainsRune("\"(),/:;<=>?@[\\]{}", r) {
			c.bad(p, name, "want the name of a header: letters, digits and !#$%%&'*+-.^_`|~")
			return false
		}
	}
	return true
}

func (c *checker) exportTo(p path, to []string) {
	for i, t := range to {
		switch t {
		case ".", "*", "~":
		default:
			c.dnsLabel(p.at(i), t, `".", "*" or the name of a namespace`)
		}
	}
	if len(to) > 1 {
		for i, t := range to {
			if t == "*" || t == "~" {
				c.bad(p.at(i), t, "want it alone, or namespaces by name")
			}
		}
	}
}

func (c *checker) url(p path, s string, schemes ...string) {
	u, err := url.Parse(s)
	ok := err == nil && u.Host != ""
	if ok && len(schemes) > 0 {
		ok = false
		for _, want := range schemes {
			ok = ok || u.Scheme == want
		}
	}
	if !ok {
		c.bad(p, s, "want a URL with %s://host", strings.Join(schemes, ":// or "))
	}
}

func oneOf(v string, words ...string) bool {
	for _, w := range words {
		if v == w {
			return true
		}
	}
	return false
}
