package apiserver

import (
	"bytes"
	"io"
	"net/http"

	"github.com/xebec-mesh/xebec/orchestrator/cache"
)

func (c *call) get() {
	if !c.accepts(asOne) {
		return
	}
	opts, err := getOptions(c.query)
	if err != nil {
		c.fail(err)
		return
	}
	o, err := c.s.registry.Get(c.r.Context(), c.request(), opts)
	if err != nil {
		c.fail(err)
		return
	}
	c.writeObject(http.StatusOK, o)
}

func (c *call) list() {
	if !c.accepts(asList) {
		return
	}
	opts, err := listOptions(c.query, false)
	if err != nil {
		c.fail(err)
		return
	}
	req := c.request()
	req.Name = "" // the name that a selector demands was for the authorizer
	l, err := c.s.registry.List(c.r.Context(), req, opts)
	if err != nil {
		c.fail(err)
		return
	}
	c.writeList(l)
}

// writeList answers with a list: its head, and the encodings that its objects have.
func (c *call) writeList(l *cache.List) {
	switch {
	case c.format.As != "":
		c.writeConverted(c.convertList(l))
		return
	case c.format.Type == typeYAML || c.format.Pretty:
		c.writeReformatted(l)
		return
	}
	c.header(c.format.contentType())
	if listSize(l) < gzipFrom {
		c.stream(l, c.w)
		return
	}
	out, done := compressed(c.w, c.r)
	defer done()
	c.stream(l, out)
}

// stream writes the list. An error means that the client is gone.
func (c *call) stream(l *cache.List, w io.Writer) {
	if c.format.Type == typeProtobuf {
		_ = l.WriteProtobuf(w)
		return
	}
	_ = l.WriteJSON(w)
}

func (c *call) writeReformatted(l *cache.List) {
	var raw bytes.Buffer
	if err := l.WriteJSON(&raw); err != nil {
		c.fail(err)
		return
	}
	text, err := reformat(c.format, raw.Bytes())
	if err != nil {
		c.fail(err)
		return
	}
	c.writeRaw(http.StatusOK, text)
}

// listSize guesses the size of a list's encoding from its first object: it only
// decides whether compressing is worth it.
func listSize(l *cache.List) int {
	if len(l.Items) == 0 {
		return 0
	}
	if l.Kind.Custom {
		return len(l.Items) * len(l.Items[0].JSON())
	}
	return len(l.Items) * len(l.Items[0].RawProtobuf())
}
