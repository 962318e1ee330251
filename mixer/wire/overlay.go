package wire

import (
	"bytes"
	"sort"
)

// Overlay is attributes to put over those of a resource. It is immutable, and
// encoded once for all requests of a workload.
type Overlay struct {
	force    map[string]string
	fallback map[string]string
	forced   []byte            // the KeyValues of force, as fields of a Resource
	fallen   map[string][]byte // the KeyValue of each fallback, as a field of a Resource
	order    []string          // the keys of fallen
}

// NewOverlay makes an overlay: force replaces what the sender says, fallback
// counts where the sender says nothing, or "unknown_service", which is what SDKs
// say when they were told nothing.
func NewOverlay(force, fallback map[string]string) *Overlay {
	o := &Overlay{force: force, fallback: fallback, fallen: map[string][]byte{}}
	for _, k := range sorted(force) {
		if force[k] != "" {
			o.forced = appendAttribute(o.forced, k, force[k])
		}
	}
	for _, k := range sorted(fallback) {
		if fallback[k] != "" {
			o.fallen[k] = appendAttribute(nil, k, fallback[k])
			o.order = append(o.order, k)
		}
	}
	return o
}

func sorted(m map[string]string) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	sort.Strings(keys)
	return keys
}

// appendAttribute writes a Resource's field 1, KeyValue{key, AnyValue{string_value}}.
func appendAttribute(b []byte, key, value string) []byte {
	any := appendBytes(nil, 1, []byte(value))
	kv := appendBytes(appendBytes(nil, 1, []byte(key)), 2, any)
	return appendBytes(b, 1, kv)
}

// Apply appends a request to dst with every resource's attributes overlaid. A nil
// overlay copies. The items of the request are copied as they are.
func (o *Overlay) Apply(dst, request []byte) (_ []byte, err error) {
	if o == nil {
		return append(dst, request...), nil
	}
	var f field
	for len(request) > 0 {
		if request, err = next(request, &f); err != nil {
			return nil, err
		}
		if f.num != 1 || f.kind != typeBytes {
			dst = append(dst, f.raw...)
			continue
		}
		if dst, err = o.group(dst, f.bytes); err != nil {
			return nil, err
		}
	}
	return dst, nil
}

// group rewrites one ResourceSpans, ResourceLogs or ResourceMetrics.
func (o *Overlay) group(dst, group []byte) ([]byte, error) {
	var scratch [1024]byte
	old, err := lookup(group, 1)
	if err != nil {
		return nil, err
	}
	resource, err := o.resource(scratch[:0], old)
	if err != nil {
		return nil, err
	}
	size := sizeBytes(1, len(resource))
	var f field
	for rest := group; len(rest) > 0; {
		if rest, err = next(rest, &f); err != nil {
			return nil, err
		}
		if f.num != 1 {
			size += len(f.raw)
		}
	}
	dst = appendTag(dst, 1, typeBytes)
	dst = appendVarint(dst, size)
	dst = appendBytes(dst, 1, resource)
	for rest := group; len(rest) > 0; {
		if rest, err = next(rest, &f); err != nil {
			return nil, err
		}
		if f.num != 1 {
			dst = append(dst, f.raw...)
		}
	}
	return dst, nil
}

// resource appends a Resource message to dst, without tag or length.
func (o *Overlay) resource(dst, old []byte) (_ []byte, err error) {
	dst = append(dst, o.forced...)
	said := make(map[string]bool, len(o.order))
	var f field
	for len(old) > 0 {
		if old, err = next(old, &f); err != nil {
			return nil, err
		}
		if f.num != 1 || f.kind != typeBytes {
			dst = append(dst, f.raw...)
			continue
		}
		key, value, err := keyValue(f.bytes)
		if err != nil {
			return nil, err
		}
		if o.force[string(key)] != "" {
			continue
		}
		if o.fallback[string(key)] != "" {
			text, err := lookup(value, 1)
			if err != nil {
				return nil, err
			}
			if len(text) == 0 || bytes.HasPrefix(text, []byte("unknown_service")) {
				continue
			}
			said[string(key)] = true
		}
		dst = append(dst, f.raw...)
	}
	for _, k := range o.order {
		if !said[k] {
			dst = append(dst, o.fallen[k]...)
		}
	}
	return dst, nil
}

func appendVarint(b []byte, n int) []byte {
	v := uint64(n)
	for v >= 0x80 {
		b = append(b, byte(v)|0x80)
		v >>= 7
	}
	return append(b, byte(v))
}
