package apiserver

import (
	"mime"
	"net/http"
	"slices"
	"strconv"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// The encodings that are spoken.
const (
	typeJSON     = "application/json"
	typeYAML     = "application/yaml"
	typeProtobuf = "application/vnd.kubernetes.protobuf"
)

// format is how an answer is to be written.
type format struct {
	Type   string // one of typeJSON, typeYAML, typeProtobuf
	Pretty bool
	// As is "", Table, PartialObjectMetadata or PartialObjectMetadataList, of
	// meta.k8s.io in version AsVersion.
	As, AsVersion string
}

func (f format) contentType() string { return f.Type }

// clause is one entry of an Accept header.
type clause struct {
	mediaType string
	params    map[string]string
	q         float64
}

// parseAccept sorts the clauses of an Accept header by preference. Clauses that
// cannot be read are left out.
func parseAccept(header string) []clause {
	var out []clause
	for _, part := range strings.Split(header, ",") {
		mediaType, params, err := mime.ParseMediaType(part)
		if err != nil {
			continue
		}
		c := clause{mediaType: mediaType, params: params, q: 1}
		if q, ok := params["q"]; ok {
			if c.q, err = strconv.ParseFloat(q, 64); err != nil || c.q <= 0 {
				continue
			}
		}
		out = append(out, c)
	}
	slices.SortStableFunc(out, func(a, b clause) int {
		switch {
		case a.q > b.q:
			return -1
		case a.q < b.q:
			return 1
		}
		return 0
	})
	return out
}

// offers are what a particular answer can be written as.
type offers struct {
	protobuf bool     // typeProtobuf is possible
	as       []string // conversions that are possible
}

// negotiate finds the first clause of the Accept header that can be met. No
// header means JSON.
func negotiate(r *http.Request, o offers) (format, bool) {
	header := r.Header.Get("Accept")
	f := format{Type: typeJSON}
	switch header { // what clients in Go send
	case "", typeJSON, "*/*":
		f.Pretty = pretty(r)
		return f, true
	case typeProtobuf, typeProtobuf + "," + typeJSON:
		if o.protobuf {
			f.Type = typeProtobuf
			return f, true
		}
	}
	for _, c := range parseAccept(strings.Join(r.Header.Values("Accept"), ",")) {
		if f, ok := o.meet(c); ok {
			f.Pretty = f.Type == typeJSON && pretty(r)
			return f, true
		}
	}
	return format{}, false
}

func (o offers) meet(c clause) (format, bool) {
	var f format
	switch c.mediaType {
	case typeJSON, "*/*", "application/*":
		f.Type = typeJSON
	case typeYAML:
		f.Type = typeYAML
	case typeProtobuf:
		if f.Type = typeProtobuf; !o.protobuf && c.params["as"] == "" {
			return f, false
		}
	default:
		return f, false
	}
	as := c.params["as"]
	if as == "" {
		return f, true
	}
	if c.params["g"] != metav1.GroupName || c.params["v"] != "v1" && c.params["v"] != "v1beta1" || !slices.Contains(o.as, as) {
		return f, false
	}
	if as == "Table" && f.Type == typeProtobuf {
		return f, false // tables hold objects of any kind, which protobuf cannot name
	}
	f.As, f.AsVersion = as, c.params["v"]
	return f, true
}

// pretty indents for people: when asked for, and for curl, wget and browsers.
func pretty(r *http.Request) bool {
	if r.URL.RawQuery != "" {
		if values, ok := r.URL.Query()["pretty"]; ok {
			return isTrue(map[string][]string{"pretty": values}, "pretty")
		}
	}
	agent := r.Header.Get("User-Agent")
	return strings.HasPrefix(agent, "curl") || strings.HasPrefix(agent, "Wget") || strings.HasPrefix(agent, "Mozilla/5.0")
}
