package apiserver

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"math/rand/v2"
	"net/http"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"

	"github.com/xebec-mesh/xebec/orchestrator/cache"
)

// minWatch is how long a watch lasts at least where the client does not say; up
// to as much again is added, so that watches do not all end at once.
const minWatch = 30 * time.Minute

// watch follows a resource: over a chunked answer, or over a WebSocket.
func (c *call) watch() {
	if !c.accepts(asOne) {
		return
	}
	opts, err := listOptions(c.query, true)
	if err == nil {
		err = selectName(&opts, c.watchedName())
	}
	if err != nil {
		c.fail(err)
		return
	}
	encode, err := c.eventEncoder()
	if err != nil {
		c.fail(err)
		return
	}
	ctx, cancel := context.WithTimeout(c.r.Context(), watchTime(opts.TimeoutSeconds))
	defer cancel()
	defer context.AfterFunc(c.s.draining, cancel)()

	req := c.request()
	req.Name = ""
	w, err := c.s.registry.Watch(ctx, req, opts)
	if err != nil && !apierrors.IsResourceExpired(err) && !apierrors.IsGone(err) {
		c.fail(err)
		return
	}
	if err == nil {
		defer w.Stop()
	}
	if isWebSocket(c.r) {
		c.watchWebSocket(ctx, w, err, encode)
		return
	}
	c.watchChunked(ctx, w, err, encode)
}

// watchedName is the name in the path, which only the deprecated form has.
func (c *call) watchedName() string {
	if c.query.Has("fieldSelector") {
		return ""
	}
	return c.req.Name
}

func watchTime(seconds *int64) time.Duration {
	if seconds != nil && *seconds > 0 {
		return time.Duration(*seconds) * time.Second
	}
	return minWatch + rand.N(minWatch)
}

// eventSource is what a watch has to send: events, or the error that ends it.
type eventSource interface {
	Next(ctx context.Context) ([]*cache.Event, error)
}

// watchChunked writes events as they come; all that are there go out in one write.
func (c *call) watchChunked(ctx context.Context, w eventSource, first error, encode func([]byte, *cache.Event) []byte) {
	flusher, ok := c.w.(http.Flusher)
	if !ok {
		c.fail(errors.New("the connection cannot stream"))
		return
	}
	contentType := c.format.contentType()
	if c.format.Type == typeProtobuf {
		contentType += ";stream=watch"
	}
	c.header(contentType)
	c.w.WriteHeader(http.StatusOK)
	flusher.Flush()
	if first != nil {
		_, _ = c.w.Write(c.errorEvent(first))
		return
	}
	var buf []byte
	for {
		events, err := w.Next(ctx)
		buf = buf[:0]
		for _, e := range events {
			if buf = encode(buf, e); len(buf) >= watchWrite {
				if _, err := c.w.Write(buf); err != nil {
					return
				}
				buf = buf[:0]
			}
		}
		if err != nil && ctx.Err() == nil {
			buf = append(buf, c.errorEvent(err)...)
		}
		if len(buf) > 0 {
			if _, werr := c.w.Write(buf); werr != nil {
				return
			}
			flusher.Flush()
		}
		if err != nil {
			return
		}
		if cap(buf) > 2*watchWrite {
			buf = nil
		}
	}
}

// watchWrite is how much is collected, in bytes, before it is written.
const watchWrite = 64 << 10

// eventEncoder appends events in the call's format. Without a conversion they
// are the bytes that all watchers share.
func (c *call) eventEncoder() (func([]byte, *cache.Event) []byte, error) {
	switch {
	case c.format.As != "":
		return c.convertedEvents()
	case c.format.Type == typeProtobuf:
		return func(b []byte, e *cache.Event) []byte { return e.AppendProtobuf(b) }, nil
	case c.format.Type == typeYAML:
		return nil, errNotAcceptable()
	}
	return func(b []byte, e *cache.Event) []byte { return e.AppendJSON(b) }, nil
}

// convertedEvents shows objects as tables or metadata. A table's columns come
// with the first event only.
func (c *call) convertedEvents() (func([]byte, *cache.Event) []byte, error) {
	t, err := newTableMaker(c.kind, c.format, c.query, time.Now())
	if err != nil {
		return nil, err
	}
	columns := true
	return func(b []byte, e *cache.Event) []byte {
		var obj runtime.Object
		if c.format.As == "Table" {
			t.now = time.Now()
			table := t.table(metav1.ListMeta{ResourceVersion: e.Object.Obj.GetResourceVersion()}, []*cache.Object{e.Object})
			if !columns {
				table.ColumnDefinitions = nil
			}
			columns, obj = false, table
		} else {
			obj = partial(e.Object.Obj, c.format.AsVersion)
		}
		return append(b, c.event(string(e.Type), obj)...)
	}, nil
}

// errorEvent is the event that ends a watch.
func (c *call) errorEvent(err error) []byte {
	status := statusOf(err)
	f := c.format
	f.As = ""
	raw, encodeErr := encode(format{Type: f.Type}, &status, metav1.SchemeGroupVersion.WithKind("Status"))
	if encodeErr != nil {
		return nil
	}
	return frame(f.Type, string(watch.Error), raw)
}

func (c *call) event(typ string, obj runtime.Object) []byte {
	raw, err := encode(format{Type: c.format.Type}, obj, c.format.convertedKind())
	if err != nil {
		return c.errorEvent(err)
	}
	return frame(c.format.Type, typ, raw)
}

// frame is one event on the wire, for objects that no cache holds.
func frame(format, typ string, raw []byte) []byte {
	e := metav1.WatchEvent{Type: typ, Object: runtime.RawExtension{Raw: raw}}
	if format != typeProtobuf {
		line, err := json.Marshal(e)
		if err != nil {
			return nil
		}
		return append(line, '\n')
	}
	msg, err := e.Marshal()
	if err != nil {
		return nil
	}
	return append(binary.BigEndian.AppendUint32(make([]byte, 0, len(msg)+4), uint32(len(msg))), msg...)
}
