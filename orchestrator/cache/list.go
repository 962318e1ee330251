package cache

import (
	"encoding/binary"
	"io"
	"strconv"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/xebec-mesh/xebec/orchestrator/resource"
)

// List is objects of one kind as they were at one revision, sorted by key.
type List struct {
	Kind *resource.Kind
	RV   uint64
	// Items is shared and must not be changed.
	Items []*Object
	// Continue asks for the next page; "" on the last.
	Continue string
	// Remaining counts what comes after this page, where that is known cheaply.
	Remaining *int64
}

// Meta is the list's metadata.
func (l *List) Meta() metav1.ListMeta {
	return metav1.ListMeta{ResourceVersion: strconv.FormatUint(l.RV, 10), Continue: l.Continue, RemainingItemCount: l.Remaining}
}

// WriteJSON writes the list as Kubernetes does, kind first. Items keep their
// kind and apiVersion.
func (l *List) WriteJSON(w io.Writer) error {
	b := append(jsonPrefix(l.gvk(), 128), `"metadata":{"resourceVersion":"`...)
	b = strconv.AppendUint(b, l.RV, 10)
	b = append(b, '"')
	if l.Continue != "" {
		b = append(b, `,"continue":"`...)
		b = append(b, l.Continue...)
		b = append(b, '"')
	}
	if l.Remaining != nil {
		b = append(b, `,"remainingItemCount":`...)
		b = strconv.AppendInt(b, *l.Remaining, 10)
	}
	b = append(b, `},"items":[`...)
	for i, o := range l.Items {
		if i > 0 {
			b = append(b, ',')
		}
		var err error
		if b, err = gather(w, b, o.JSON()); err != nil {
			return err
		}
	}
	_, err := w.Write(append(b, "]}\n"...))
	return err
}

// ProtobufSize is the number of bytes that WriteProtobuf writes.
func (l *List) ProtobufSize() int {
	head, size := l.protobufHead()
	return len(head) + size + 4
}

// WriteProtobuf writes the list in Kubernetes' envelope. It must not be called
// for custom kinds.
func (l *List) WriteProtobuf(w io.Writer) error {
	b, _ := l.protobufHead()
	meta := l.Meta()
	b = append(b, 0x0a)
	b = binary.AppendUvarint(b, uint64(meta.Size()))
	m, err := meta.Marshal()
	if err != nil {
		return err
	}
	b = append(b, m...)
	for _, o := range l.Items {
		raw := o.RawProtobuf()
		b = append(b, 0x12)
		b = binary.AppendUvarint(b, uint64(len(raw)))
		if b, err = gather(w, b, raw); err != nil {
			return err
		}
	}
	_, err = w.Write(append(b, 0x1a, 0, 0x22, 0))
	return err
}

// protobufHead is everything before the list's own message, and its size.
func (l *List) protobufHead() ([]byte, int) {
	meta := l.Meta()
	size := 1 + uvarintLen(uint64(meta.Size())) + meta.Size()
	for _, o := range l.Items {
		n := len(o.RawProtobuf())
		size += 1 + uvarintLen(uint64(n)) + n
	}
	gvk := l.gvk()
	apiVersion := gvk.GroupVersion().String()
	b := append(make([]byte, 0, gatherSize), protoMagic...)
	b = append(b, 0x0a, byte(4+len(apiVersion)+len(gvk.Kind)))
	b = append(b, 0x0a, byte(len(apiVersion)))
	b = append(b, apiVersion...)
	b = append(b, 0x12, byte(len(gvk.Kind)))
	b = append(b, gvk.Kind...)
	b = append(b, 0x12)
	return binary.AppendUvarint(b, uint64(size)), size
}

// gatherSize is how much is collected before it is written. With the header of its
// HTTP/2 frame such a piece fills one TLS record; a larger one would be sent as a
// full record and a second of a few bytes, with a system call each.
const gatherSize = 16<<10 - 9

// gather appends p to b, writing b out when it would grow beyond gatherSize.
func gather(w io.Writer, b, p []byte) ([]byte, error) {
	if len(b)+len(p) <= gatherSize {
		return append(b, p...), nil
	}
	if _, err := w.Write(b); err != nil {
		return nil, err
	}
	if len(p) < gatherSize {
		return append(b[:0], p...), nil
	}
	_, err := w.Write(p)
	return b[:0], err
}

func (l *List) gvk() schema.GroupVersionKind {
	gvk := l.Kind.GroupVersionKind
	gvk.Kind += "List"
	return gvk
}
