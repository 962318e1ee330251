// Package pipeline takes a request through mixer.
//
//	in:   an OTLP request and the workload that sent it
//	out:  the same with the workload's attributes, to the trace store, the request metrics and the exporter
//
// The trace store has a request before its sender is answered. The exporter gets
// a copy into a bounded queue and never holds a sender up.
package pipeline

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/xebec-mesh/xebec/mixer/enrich"
	"github.com/xebec-mesh/xebec/mixer/otlp"
	"github.com/xebec-mesh/xebec/mixer/traces"
	"github.com/xebec-mesh/xebec/mixer/wire"
)

// Spans keeps traces; *traces.Store does.
type Spans interface {
	Append(frame []byte) (rejected int, why string, err error)
}

// AccessLogs counts requests; *accesslog.Reader does.
type AccessLogs interface {
	Consume(data []byte, self *enrich.Workload) error
}

// Exporter sends onward; *export.Exporter does.
type Exporter interface {
	Offer(signal otlp.Signal, data []byte)
}

// Config says where requests go.
type Config struct {
	Spans      Spans      // required
	AccessLogs AccessLogs // required
	Exporters  []Exporter
}

// Pipeline is an otlp.Consumer.
type Pipeline struct{ cfg Config }

// New checks the configuration.
func New(cfg Config) (*Pipeline, error) {
	if cfg.Spans == nil || cfg.AccessLogs == nil {
		return nil, errors.New("telemetry pipeline: Spans and AccessLogs are required")
	}
	return &Pipeline{cfg: cfg}, nil
}

var _ otlp.Consumer = (*Pipeline)(nil)

// buffer is where a request is put together. It begins with room for the store.
type buffer struct{ b []byte }

var buffers = sync.Pool{New: func() any { return new(buffer) }}

const keepBytes = 1 << 20

func (b *buffer) free() {
	if cap(b.b) <= keepBytes {
		buffers.Put(b)
	}
}

// Consume is part of otlp.Consumer.
func (p *Pipeline) Consume(_ context.Context, signal otlp.Signal, data []byte, from *enrich.Workload) (otlp.Outcome, error) {
	var overlay *wire.Overlay
	if from != nil {
		overlay = from.Overlay
	}
	buf := buffers.Get().(*buffer)
	defer buf.free()
	buf.b = append(buf.b[:0], make([]byte, traces.Headroom)...)
	frame, err := overlay.Apply(buf.b, data)
	if err != nil {
		return otlp.Outcome{}, fmt.Errorf("read request: %w", err)
	}
	buf.b = frame
	request := frame[traces.Headroom:]
	var out otlp.Outcome
	switch signal {
	case otlp.Traces:
		out.Rejected, out.Message, err = p.cfg.Spans.Append(frame)
	case otlp.Logs:
		err = p.cfg.AccessLogs.Consume(request, from)
	}
	if err != nil {
		return out, err
	}
	for _, e := range p.cfg.Exporters {
		e.Offer(signal, request)
	}
	return out, nil
}
