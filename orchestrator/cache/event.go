package cache

import (
	"encoding/binary"
	"sync/atomic"

	"k8s.io/apimachinery/pkg/watch"
)

// Event is one thing that a watcher is told. It is shared by all watchers to
// which the same thing happened, and so are its encodings.
type Event struct {
	Type   watch.EventType // Added, Modified, Deleted, Bookmark
	Object *Object
	Old    *Object // the version before, for Modified and Deleted

	json, proto atomic.Pointer[[]byte]
}

// JSON is the event as a watch stream carries it: one line with its newline.
func (e *Event) JSON() []byte {
	if b := e.json.Load(); b != nil {
		return *b
	}
	obj := e.Object.JSON()
	b := make([]byte, 0, len(obj)+40)
	b = append(b, `{"type":"`...)
	b = append(b, e.Type...)
	b = append(b, `","object":`...)
	b = append(b, obj...)
	b = append(b, "}\n"...)
	e.json.Store(&b)
	return b
}

// Protobuf is the event as a protobuf watch stream carries it: four bytes of
// length, then a metav1.WatchEvent whose object is in Kubernetes' envelope.
func (e *Event) Protobuf() []byte {
	if b := e.proto.Load(); b != nil {
		return *b
	}
	b := frame(string(e.Type), e.Object.Protobuf())
	e.proto.Store(&b)
	return b
}

// frame writes a WatchEvent{type, object: RawExtension{raw}} behind its length.
func frame(typ string, obj []byte) []byte {
	ext := 1 + uvarintLen(uint64(len(obj))) + len(obj)
	size := 2 + len(typ) + 1 + uvarintLen(uint64(ext)) + ext
	b := make([]byte, 4, 4+size)
	binary.BigEndian.PutUint32(b, uint32(size))
	b = append(b, 0x0a, byte(len(typ)))
	b = append(b, typ...)
	b = append(b, 0x12)
	b = binary.AppendUvarint(b, uint64(ext))
	b = append(b, 0x0a)
	b = binary.AppendUvarint(b, uint64(len(obj)))
	return append(b, obj...)
}
