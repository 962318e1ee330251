// Package wire reads OTLP's protobuf encoding in place.
//
//	in:   the bytes of an ExportTraceServiceRequest, or of anything with its shape
//	out:  what an index needs of each span; the same bytes with other resource attributes
//
// OTLP's three requests are one shape: a repeated field 1 of (resource = 1,
// scope items = 2). Nothing is decoded that is not looked at, nothing is copied
// but on purpose, and no input makes a function panic or read outside its bytes.
// The concatenation of two requests is a request with the content of both.
//
// https://protobuf.dev/programming-guides/encoding/
package wire

import (
	"encoding/binary"
	"errors"
)

// The wire types.
const (
	typeVarint  = 0
	typeFixed64 = 1
	typeBytes   = 2
	typeFixed32 = 5
)

// ErrMalformed says that bytes are not a protobuf message.
var ErrMalformed = errors.New("malformed protobuf")

// field is one field of a message. Of num and kind, only what kind says is set.
type field struct {
	num   uint32
	kind  uint8
	value uint64 // varint, fixed
	bytes []byte // length-delimited
	raw   []byte // tag and value as they came
}

// next reads the field at the beginning of b and returns what follows it.
func next(b []byte, f *field) (rest []byte, err error) {
	tag, n := varint(b)
	if n == 0 || tag>>3 == 0 || tag>>3 > 1<<29-1 {
		return nil, ErrMalformed
	}
	f.num, f.kind = uint32(tag>>3), uint8(tag&7)
	at := n
	switch f.kind {
	case typeVarint:
		f.value, n = varint(b[at:])
		if n == 0 {
			return nil, ErrMalformed
		}
		at += n
	case typeFixed64:
		if len(b)-at < 8 {
			return nil, ErrMalformed
		}
		f.value = binary.LittleEndian.Uint64(b[at:])
		at += 8
	case typeBytes:
		size, n := varint(b[at:])
		if n == 0 || size > uint64(len(b)-at-n) {
			return nil, ErrMalformed
		}
		at += n
		f.bytes = b[at : at+int(size)]
		at += int(size)
	case typeFixed32:
		if len(b)-at < 4 {
			return nil, ErrMalformed
		}
		f.value = uint64(binary.LittleEndian.Uint32(b[at:]))
		at += 4
	default: // groups are not part of OTLP
		return nil, ErrMalformed
	}
	f.raw = b[:at]
	return b[at:], nil
}

// varint reads an unsigned varint; n is 0 if there is none.
func varint(b []byte) (v uint64, n int) {
	if len(b) > 0 && b[0] < 0x80 {
		return uint64(b[0]), 1
	}
	v, n = binary.Uvarint(b)
	return v, max(n, 0)
}

func appendTag(b []byte, num uint32, kind uint8) []byte {
	return binary.AppendUvarint(b, uint64(num)<<3|uint64(kind))
}

func appendBytes(b []byte, num uint32, v []byte) []byte {
	b = binary.AppendUvarint(appendTag(b, num, typeBytes), uint64(len(v)))
	return append(b, v...)
}

// sizeBytes is how long appendBytes makes it.
func sizeBytes(num uint32, n int) int {
	return sizeVarint(uint64(num)<<3) + sizeVarint(uint64(n)) + n
}

func sizeVarint(v uint64) int {
	n := 1
	for ; v >= 0x80; v >>= 7 {
		n++
	}
	return n
}
