package otlp

import (
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"math"
	"mime"
	"net/http"
	"net/netip"
	"strconv"

	statuspb "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"github.com/xebec-mesh/xebec/mixer/enrich"
)

// Handler is OTLP/HTTP for those who are known by their address.
func (r *Receiver) Handler() http.Handler {
	return r.handler(func(req *http.Request) *enrich.Workload {
		ap, err := netip.ParseAddrPort(req.RemoteAddr)
		if err != nil {
			return nil
		}
		return r.cfg.Directory.ByIP(ap.Addr())
	})
}

// Handler is OTLP/HTTP for this source.
func (s *Source) Handler() http.Handler {
	return s.receiver.handler(func(req *http.Request) *enrich.Workload { return s.who(req.Context()) })
}

func (r *Receiver) handler(who func(*http.Request) *enrich.Workload) http.Handler {
	mux := http.NewServeMux()
	for s := Traces; s <= Logs; s++ {
		mux.HandleFunc("POST /v1/"+s.String(), func(w http.ResponseWriter, req *http.Request) { r.serve(w, req, s, who(req)) })
	}
	return mux
}

const (
	protobuf = "application/x-protobuf"
	jsonType = "application/json"
)

func (r *Receiver) serve(w http.ResponseWriter, req *http.Request, signal Signal, who *enrich.Workload) {
	kind, _, err := mime.ParseMediaType(req.Header.Get("Content-Type"))
	if err != nil || kind != protobuf && kind != jsonType {
		http.Error(w, fmt.Sprintf("Content-Type %q is not accepted: use %s or %s", req.Header.Get("Content-Type"), protobuf, jsonType), http.StatusUnsupportedMediaType)
		return
	}
	if req.ContentLength > 0 && r.inFlight.Load()+req.ContentLength > r.cfg.MaxInFlight {
		r.refused[signal].Add(1)
		r.fail(w, kind, ErrBusy)
		return
	}
	data, err := r.body(w, req)
	if err == nil && kind == jsonType {
		data, err = fromJSON(signal, data)
	}
	if err != nil {
		r.broken[signal].Add(1)
		r.fail(w, kind, fmt.Errorf("read %s: %w", signal, err))
		return
	}
	out, err := r.take(req.Context(), signal, data, who)
	if err != nil {
		r.fail(w, kind, err)
		return
	}
	write(w, kind, http.StatusOK, response(signal, out))
}

// body reads a request whole, uncompressed.
func (r *Receiver) body(w http.ResponseWriter, req *http.Request) ([]byte, error) {
	var in io.Reader = http.MaxBytesReader(w, req.Body, r.cfg.MaxRequest)
	switch enc := req.Header.Get("Content-Encoding"); enc {
	case "", "identity":
	case "gzip":
		z, err := gzip.NewReader(in)
		if err != nil {
			return nil, err
		}
		in = io.LimitReader(z, r.cfg.MaxRequest+1)
	default:
		return nil, fmt.Errorf("Content-Encoding %q is not accepted: use gzip or none", enc)
	}
	var b bytes.Buffer
	if n := req.ContentLength; n > 0 && n <= r.cfg.MaxRequest {
		b.Grow(int(n))
	}
	if _, err := b.ReadFrom(in); err != nil {
		return nil, err
	}
	if int64(b.Len()) > r.cfg.MaxRequest {
		return nil, &http.MaxBytesError{Limit: r.cfg.MaxRequest}
	}
	return b.Bytes(), nil
}

func (r *Receiver) fail(w http.ResponseWriter, kind string, err error) {
	code, grpcCode := http.StatusBadRequest, codes.InvalidArgument
	var tooLarge *http.MaxBytesError
	switch {
	case errors.Is(err, ErrBusy):
		code, grpcCode = http.StatusServiceUnavailable, codes.Unavailable
		w.Header().Set("Retry-After", strconv.Itoa(int(math.Ceil(r.cfg.RetryAfter.Seconds()))))
	case errors.As(err, &tooLarge):
		code = http.StatusRequestEntityTooLarge
		err = fmt.Errorf("the request is longer than %d bytes: send smaller batches", tooLarge.Limit)
	}
	write(w, kind, code, &statuspb.Status{Code: int32(grpcCode), Message: err.Error()})
}

func write(w http.ResponseWriter, kind string, code int, m proto.Message) {
	var b []byte
	var err error
	if kind == jsonType {
		b, err = protojson.Marshal(m)
	} else {
		b, err = proto.Marshal(m)
	}
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", kind)
	w.WriteHeader(code)
	_, _ = w.Write(b)
}
