package cache

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"fmt"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/xebec-mesh/xebec/orchestrator/resource"
)

// protoMagic opens every protobuf document of Kubernetes.
var protoMagic = []byte{'k', '8', 's', 0}

// message is what Kubernetes' generated protobuf code gives every API type.
type message interface {
	Size() int
	MarshalToSizedBuffer([]byte) (int, error)
	Unmarshal([]byte) error
}

// envelope is a protobuf document; raw is a part of all.
type envelope struct{ all, raw []byte }

// encodeJSON writes obj with kind and apiVersion first.
func encodeJSON(kind *resource.Kind, obj resource.Object) ([]byte, error) {
	if u, ok := obj.(*unstructured.Unstructured); ok {
		return json.Marshal(u.Object)
	}
	body, err := json.Marshal(obj)
	if err != nil {
		return nil, err
	}
	return append(jsonPrefix(kind.GroupVersionKind, len(body)), body[1:]...), nil
}

// jsonPrefix opens an object: everything before the first of its own fields.
func jsonPrefix(gvk schema.GroupVersionKind, room int) []byte {
	b := make([]byte, 0, room+len(gvk.Kind)+len(gvk.Group)+len(gvk.Version)+32)
	b = append(b, `{"kind":"`...)
	b = append(b, gvk.Kind...)
	b = append(b, `","apiVersion":"`...)
	b = append(b, gvk.GroupVersion().String()...)
	return append(b, `",`...)
}

// encodeProtobuf writes the envelope from the end, so that the object's own
// message is marshalled in place.
func encodeProtobuf(kind *resource.Kind, obj resource.Object) (envelope, error) {
	if kind.Custom {
		return envelope{}, nil
	}
	m, ok := obj.(message)
	if !ok {
		return envelope{}, fmt.Errorf("%T has no protobuf form", obj)
	}
	apiVersion := kind.GroupVersion().String()
	size := m.Size()
	head := len(protoMagic) + 2 + 2 + len(apiVersion) + 2 + len(kind.Kind) + 1 + uvarintLen(uint64(size))
	all := make([]byte, head+size+4)
	b := append(all[:0], protoMagic...)
	b = append(b, 0x0a, byte(4+len(apiVersion)+len(kind.Kind)))
	b = append(b, 0x0a, byte(len(apiVersion)))
	b = append(b, apiVersion...)
	b = append(b, 0x12, byte(len(kind.Kind)))
	b = append(b, kind.Kind...)
	b = append(b, 0x12)
	b = binary.AppendUvarint(b, uint64(size))
	raw := all[len(b) : len(b)+size : len(b)+size]
	if _, err := m.MarshalToSizedBuffer(raw); err != nil {
		return envelope{}, err
	}
	copy(all[len(b)+size:], []byte{0x1a, 0, 0x22, 0})
	return envelope{all: all, raw: raw}, nil
}

// Encode makes the bytes that are stored: protobuf for built-in kinds, JSON for
// custom ones. obj must have no resourceVersion.
func Encode(kind *resource.Kind, obj resource.Object) ([]byte, error) {
	kind = kind.Stored()
	if kind.Custom {
		return encodeJSON(kind, obj)
	}
	e, err := encodeProtobuf(kind, obj)
	return e.all, err
}

// Decode reads stored bytes.
func Decode(kind *resource.Kind, data []byte) (resource.Object, error) {
	kind = kind.Stored()
	obj := kind.New()
	if kind.Custom {
		u, ok := obj.(*unstructured.Unstructured)
		if !ok {
			return nil, fmt.Errorf("decode %s: %T is not unstructured", kind.Kind, obj)
		}
		if err := u.UnmarshalJSON(data); err != nil {
			return nil, fmt.Errorf("decode %s: %w", kind.Kind, err)
		}
		if err := setVersion(u, kind); err != nil {
			return nil, err
		}
		kind.SetDefaults(u) // the definition may have got defaults since it was stored
		return u, nil
	}
	raw, err := unwrap(data)
	if err != nil {
		return nil, fmt.Errorf("decode %s: %w", kind.Kind, err)
	}
	m, ok := obj.(message)
	if !ok {
		return nil, fmt.Errorf("decode %s: %T has no protobuf form", kind.Kind, obj)
	}
	if err := m.Unmarshal(raw); err != nil {
		return nil, fmt.Errorf("decode %s: %w", kind.Kind, err)
	}
	return obj, nil
}

// setVersion makes a custom object one of kind's version, which may not have been
// the stored one when it was written. Versions differ in nothing but their name.
func setVersion(obj resource.Object, kind *resource.Kind) error {
	u, ok := obj.(*unstructured.Unstructured)
	if !ok {
		return fmt.Errorf("%T is not unstructured", obj)
	}
	if v := kind.GroupVersion().String(); u.GetAPIVersion() != v {
		u.SetAPIVersion(v)
	}
	return nil
}

// unwrap finds the object's own message in an envelope.
func unwrap(data []byte) ([]byte, error) {
	if len(data) < 4 || string(data[:4]) != string(protoMagic) {
		return nil, fmt.Errorf("no protobuf envelope")
	}
	var raw []byte
	for b := data[4:]; len(b) > 0; {
		tag, n := binary.Uvarint(b)
		if n <= 0 || tag&7 != 2 {
			return nil, fmt.Errorf("malformed envelope")
		}
		size, m := binary.Uvarint(b[n:])
		if m <= 0 || size > uint64(len(b)-n-m) {
			return nil, fmt.Errorf("envelope is cut short")
		}
		if tag>>3 == 2 {
			raw = b[n+m : n+m+int(size)]
		}
		b = b[n+m+int(size):]
	}
	return raw, nil
}

func uvarintLen(v uint64) int {
	n := 1
	for ; v >= 0x80; v >>= 7 {
		n++
	}
	return n
}

// Encodes says whether obj, of the same built-in kind, encodes to the same
// bytes as o, resource version included.
func (o *Object) Encodes(obj resource.Object) bool {
	m, ok := obj.(message)
	if !ok {
		return false
	}
	raw := o.RawProtobuf()
	if m.Size() != len(raw) {
		return false
	}
	b := make([]byte, len(raw))
	_, err := m.MarshalToSizedBuffer(b)
	return err == nil && bytes.Equal(b, raw)
}
