package export

import (
	"context"
	"crypto/tls"
	"fmt"
	"net/url"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/mem"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/xebec-mesh/xebec/mixer/otlp"
)

// grpcSender sends over OTLP/gRPC.
type grpcSender struct {
	conn    *grpc.ClientConn
	headers metadata.MD
}

func newGRPC(u *url.URL, cfg Config) (*grpcSender, error) {
	creds := insecure.NewCredentials()
	if u.Scheme == "grpcs" {
		t := cfg.TLS
		if t == nil {
			t = &tls.Config{MinVersion: tls.VersionTLS12}
		}
		creds = credentials.NewTLS(t)
	}
	conn, err := grpc.NewClient("dns:///"+u.Host, grpc.WithTransportCredentials(creds))
	if err != nil {
		return nil, err
	}
	return &grpcSender{conn: conn, headers: metadata.New(cfg.Headers)}, nil
}

var exportMethods = map[otlp.Signal]string{
	otlp.Traces:  "/opentelemetry.proto.collector.trace.v1.TraceService/Export",
	otlp.Metrics: "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export",
	otlp.Logs:    "/opentelemetry.proto.collector.logs.v1.LogsService/Export",
}

func (g *grpcSender) send(ctx context.Context, signal otlp.Signal, data []byte) error {
	ctx = metadata.NewOutgoingContext(ctx, g.headers)
	var reply []byte
	err := g.conn.Invoke(ctx, exportMethods[signal], data, &reply, grpc.ForceCodecV2(bytesCodec{}))
	if err == nil {
		return nil
	}
	st := status.Convert(err)
	if after, ok := retry(st); ok {
		return temporary{err, after}
	}
	return err
}

// retry is whether and when OTLP lets a request be repeated.
//
// https://opentelemetry.io/docs/specs/otlp/#failures
func retry(st *status.Status) (time.Duration, bool) {
	var after time.Duration
	told := false
	for _, d := range st.Details() {
		if r, ok := d.(*errdetails.RetryInfo); ok {
			after, told = r.GetRetryDelay().AsDuration(), true
		}
	}
	switch st.Code() {
	case codes.Canceled, codes.DeadlineExceeded, codes.Aborted, codes.OutOfRange, codes.Unavailable, codes.DataLoss:
		return after, true
	case codes.ResourceExhausted:
		return after, told
	}
	return 0, false
}

func (g *grpcSender) close() error { return g.conn.Close() }

// bytesCodec passes bytes that are protobuf already.
type bytesCodec struct{}

var _ encoding.CodecV2 = bytesCodec{}

func (bytesCodec) Marshal(v any) (mem.BufferSlice, error) {
	b, ok := v.([]byte)
	if !ok {
		return nil, fmt.Errorf("encode %T: want bytes", v)
	}
	return mem.BufferSlice{mem.SliceBuffer(b)}, nil
}

func (bytesCodec) Unmarshal(data mem.BufferSlice, v any) error {
	p, ok := v.(*[]byte)
	if !ok {
		return fmt.Errorf("decode into %T: want bytes", v)
	}
	*p = data.Materialize()
	return nil
}

func (bytesCodec) Name() string { return "proto" }
