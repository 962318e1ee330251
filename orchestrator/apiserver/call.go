package apiserver

import (
	"net/http"
	"net/url"
	"strings"

	utilnet "k8s.io/apimachinery/pkg/util/net"
	"k8s.io/apiserver/pkg/authentication/user"

	"github.com/xebec-mesh/xebec/orchestrator/cache"
	"github.com/xebec-mesh/xebec/orchestrator/registry"
	"github.com/xebec-mesh/xebec/orchestrator/resource"
)

// call is one request for a resource on its way through its handler.
type call struct {
	s      *Server
	w      http.ResponseWriter
	r      *http.Request
	req    request
	query  url.Values
	kind   *resource.Kind
	user   user.Info
	format format
}

func (c *call) fail(err error) { c.s.fail(c.w, c.r, err) }

// request is the call as the registry takes it.
func (c *call) request() registry.Request {
	ns := c.req.Namespace
	if !c.kind.Namespaced {
		ns = ""
	}
	return registry.Request{
		Kind: c.kind, Namespace: ns, Name: c.req.Name, Subresource: c.req.Subresource,
		User: c.user, Warn: c.warn,
	}
}

// writing adds to a request what writes have in common.
func (c *call) writing(dry []string, manager, validation string) registry.Request {
	req := c.request()
	req.DryRun, req.FieldValidation = dryRun(dry), validation
	if req.FieldManager = manager; manager == "" {
		req.FieldManager = managerOf(c.r.UserAgent())
	}
	return req
}

// managerOf is the field manager of a client that names none: what its user
// agent begins with.
func managerOf(agent string) string {
	for i, r := range agent {
		if r == '/' || i >= 128 {
			return agent[:i]
		}
	}
	return agent
}

// warn tells the client something beside the answer. It must come before the answer.
func (c *call) warn(text string) {
	line := strings.Join(strings.Fields(text), " ") // a header has one line
	if header, err := utilnet.NewWarningHeader(299, "-", line); err == nil {
		c.w.Header().Add("Warning", header)
	}
}

// accepts settles the answer's format, or fails.
func (c *call) accepts(as []string) bool {
	f, ok := negotiate(c.r, offers{protobuf: !c.kind.Custom, as: as})
	if !ok {
		c.fail(errNotAcceptable())
		return false
	}
	c.format = f
	return true
}

// header sets what every answer with a body has.
func (c *call) header(contentType string) {
	h := c.w.Header()
	h["Content-Type"] = []string{contentType}
	h["Cache-Control"] = noCache
}

var noCache = []string{"no-cache, private"}

// writeObject answers with an object, from its shared encodings where the format allows.
func (c *call) writeObject(code int, o *cache.Object) {
	if c.format.As != "" {
		c.writeConverted(c.convertOne(o))
		return
	}
	if c.format.Type == typeProtobuf {
		if raw := o.Protobuf(); raw != nil {
			c.writeRaw(code, raw)
			return
		}
		c.format.Type = typeJSON
	}
	raw := o.JSON()
	if c.format.Type != typeJSON || c.format.Pretty {
		var err error
		if raw, err = reformat(c.format, raw); err != nil {
			c.fail(err)
			return
		}
	}
	c.writeRaw(code, raw)
}

func (c *call) writeRaw(code int, raw []byte) {
	if len(raw) < gzipFrom {
		writeBody(c.w, c.format, code, raw)
		return
	}
	c.header(c.format.contentType())
	out, done := compressed(c.w, c.r)
	defer done()
	c.w.WriteHeader(code)
	_, _ = out.Write(raw)
}
