package otlp

import (
	"errors"
	"sync"
)

// raw is a request message that keeps its bytes: gRPC hands them over as they
// came, and nothing is decoded that nobody looks at. Its methods are those by
// which protobuf recognises a message that encodes itself.
type raw struct {
	data []byte
}

var rawPool = sync.Pool{New: func() any { return new(raw) }}

// Reset forgets the bytes.
func (r *raw) Reset() { r.data = r.data[:0] }

// String says nothing of the content.
func (r *raw) String() string { return "otlp request" }

// ProtoMessage marks a protobuf message.
func (r *raw) ProtoMessage() {}

// Unmarshal copies the bytes, which belong to gRPC.
func (r *raw) Unmarshal(b []byte) error {
	r.data = append(r.data[:0], b...)
	return nil
}

// Marshal returns the bytes.
func (r *raw) Marshal() ([]byte, error) { return r.data, nil }

// keepBytes is the largest buffer that goes back to the pool.
const keepBytes = 1 << 20

func (r *raw) free() {
	if cap(r.data) <= keepBytes {
		r.Reset()
		rawPool.Put(r)
	}
}

// Signal is one of OTLP's three.
type Signal uint8

// The signals.
const (
	Traces Signal = iota + 1
	Metrics
	Logs
)

// String is the signal's name in URLs.
func (s Signal) String() string {
	return [...]string{"unknown", "traces", "metrics", "logs"}[min(s, 3)]
}

// Outcome is what a consumer did with a request that it accepted.
type Outcome struct {
	Rejected int    // items that were not taken
	Message  string // why, or a warning
}

// ErrBusy says that a request must be sent again later.
var ErrBusy = errors.New("too many requests are being processed: send this again")
