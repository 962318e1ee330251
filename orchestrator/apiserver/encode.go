package apiserver

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"

	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer/protobuf"
	"sigs.k8s.io/yaml"
)

// gzipFrom is the size, in bytes, from which an answer is worth compressing.
const gzipFrom = 128 << 10

// encode writes an object that no cache holds: a Status, a Table, a review.
func encode(f format, obj runtime.Object, gvk schema.GroupVersionKind) ([]byte, error) {
	obj.GetObjectKind().SetGroupVersionKind(gvk)
	if f.Type == typeProtobuf {
		var out bytes.Buffer
		if err := protobufSerializer.Encode(obj, &out); err == nil {
			return out.Bytes(), nil
		}
		return nil, fmt.Errorf("encode %s as protobuf: it has no such form", gvk.Kind)
	}
	raw, err := json.Marshal(obj)
	if err != nil {
		return nil, fmt.Errorf("encode %s: %w", gvk.Kind, err)
	}
	return reformat(f, append(raw, '\n'))
}

var protobufSerializer = protobuf.NewSerializer(nil, nil)

// reformat turns JSON into what was asked for.
func reformat(f format, raw []byte) ([]byte, error) {
	switch {
	case f.Type == typeYAML:
		return yaml.JSONToYAML(raw)
	case f.Pretty:
		var out bytes.Buffer
		if err := json.Indent(&out, raw, "", "  "); err != nil {
			return nil, err
		}
		return out.Bytes(), nil
	}
	return raw, nil
}

func writeBody(w http.ResponseWriter, f format, code int, body []byte) {
	h := w.Header()
	h.Set("Content-Type", f.contentType())
	h.Set("Cache-Control", "no-cache, private")
	h.Set("Content-Length", strconv.Itoa(len(body)))
	w.WriteHeader(code)
	_, _ = w.Write(body) // the client is gone if this fails, and nobody is left to tell
}

// compressed returns a writer that compresses, and a function that ends it, if
// the client reads gzip and is not on this machine, where copying is cheaper.
func compressed(w http.ResponseWriter, r *http.Request) (io.Writer, func()) {
	if !strings.Contains(r.Header.Get("Accept-Encoding"), "gzip") || isLoopback(r.RemoteAddr) {
		return w, func() {}
	}
	w.Header().Set("Content-Encoding", "gzip")
	w.Header().Add("Vary", "Accept-Encoding")
	zip := gzipPool.Get().(*gzip.Writer)
	zip.Reset(w)
	return zip, func() {
		_ = zip.Close()
		gzipPool.Put(zip)
	}
}

var gzipPool = sync.Pool{New: func() any {
	zip, _ := gzip.NewWriterLevel(nil, gzip.BestSpeed) // the level is valid
	return zip
}}

func isLoopback(addr string) bool {
	host, _, err := net.SplitHostPort(addr)
	return err == nil && net.ParseIP(host).IsLoopback()
}
