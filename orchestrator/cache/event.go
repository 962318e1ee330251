package cache

import (
	"encoding/binary"

	"k8s.io/apimachinery/pkg/watch"
)

// Event is one thing that a watcher is told. It is shared by all watchers to
// which the same thing happened; its encodings are little more than its object's,
// which are made once, so that sending it is one copy for each watcher.
type Event struct {
	Type   watch.EventType // Added, Modified, Deleted, Bookmark
	Object *Object
	Old    *Object // the version before, for Modified and Deleted
}

// AppendJSON appends the event as a watch stream carries it: one line with its newline.
func (e *Event) AppendJSON(b []byte) []byte {
	b = append(b, `{"type":"`...)
	b = append(b, e.Type...)
	b = append(b, `","object":`...)
	b = append(b, e.Object.JSON()...)
	return append(b, "}\n"...)
}

// AppendProtobuf appends the event as a protobuf watch stream carries it: four
// bytes of length, then a metav1.WatchEvent whose object is in Kubernetes' envelope.
func (e *Event) AppendProtobuf(b []byte) []byte {
	obj := e.Object.Protobuf()
	ext := 1 + uvarintLen(uint64(len(obj))) + len(obj)
	size := 2 + len(e.Type) + 1 + uvarintLen(uint64(ext)) + ext
	b = binary.BigEndian.AppendUint32(b, uint32(size))
	b = append(b, 0x0a, byte(len(e.Type)))
	b = append(b, e.Type...)
	b = append(b, 0x12)
	b = binary.AppendUvarint(b, uint64(ext))
	b = append(b, 0x0a)
	b = binary.AppendUvarint(b, uint64(len(obj)))
	return append(b, obj...)
}

// JSON is AppendJSON to nothing.
func (e *Event) JSON() []byte { return e.AppendJSON(make([]byte, 0, len(e.Object.JSON())+40)) }

// Protobuf is AppendProtobuf to nothing.
func (e *Event) Protobuf() []byte {
	return e.AppendProtobuf(make([]byte, 0, len(e.Object.Protobuf())+32))
}
