package cache

import (
	"fmt"
	"sync"
	"sync/atomic"

	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/xebec-mesh/xebec/orchestrator/resource"
)

// Object is one version of one object, as one kind shows it. It is immutable
// and shared by every list, watch and in-process reader; so are the slices that
// its methods return.
type Object struct {
	// Kind is the kind as which the object is shown.
	Kind *resource.Kind
	// Key is namespace/name, or name for kinds without namespaces. Lists are
	// sorted by it.
	Key string
	// RV is the resource version; Obj's metadata.resourceVersion says the same.
	RV uint64
	// Obj is the decoded object. Its TypeMeta is empty unless it is unstructured.
	Obj resource.Object

	size   int // of the stored bytes
	fields atomic.Pointer[fields.Set]
	json   atomic.Pointer[[]byte]
	proto  atomic.Pointer[envelope]
	used   atomic.Bool // an encoding was read since the last sweep

	mu    sync.Mutex
	faces []*Object // the same version as other kinds show it
	typed any       // memo of client/local, see Memo
}

// NewObject wraps a decoded object. The caller gives obj away.
func NewObject(kind *resource.Kind, obj resource.Object, rv uint64) *Object {
	return &Object{Kind: kind, Key: KeyOf(obj.GetNamespace(), obj.GetName()), RV: rv, Obj: obj}
}

// KeyOf is the key of an object within its resource.
func KeyOf(namespace, name string) string {
	if namespace == "" {
		return name
	}
	return namespace + "/" + name
}

// Labels are the object's labels.
func (o *Object) Labels() labels.Set { return o.Obj.GetLabels() }

// Fields are the values of the kind's selectable fields.
func (o *Object) Fields() fields.Set {
	if f := o.fields.Load(); f != nil {
		return *f
	}
	f := o.Kind.Selectable(o.Obj)
	o.fields.Store(&f)
	return f
}

// JSON is the object in JSON, with kind and apiVersion. It is made once; an
// object that cannot be encoded breaks an invariant of the store and panics.
func (o *Object) JSON() []byte {
	o.used.Store(true)
	if b := o.json.Load(); b != nil {
		return *b
	}
	b, err := encodeJSON(o.Kind, o.Obj)
	if err != nil {
		panic(fmt.Sprintf("encode %s %s as JSON: %v", o.Kind.Resource, o.Key, err))
	}
	o.json.Store(&b)
	return b
}

// Protobuf is the object in Kubernetes' protobuf envelope (magic number,
// runtime.Unknown), or nil for custom kinds, which have no protobuf form.
func (o *Object) Protobuf() []byte { return o.envelope().all }

// RawProtobuf is the object's own message without the envelope, as it stands
// inside a list; nil for custom kinds.
func (o *Object) RawProtobuf() []byte { return o.envelope().raw }

func (o *Object) envelope() *envelope {
	o.used.Store(true)
	if e := o.proto.Load(); e != nil {
		return e
	}
	e, err := encodeProtobuf(o.Kind, o.Obj)
	if err != nil {
		panic(fmt.Sprintf("encode %s %s as protobuf: %v", o.Kind.Resource, o.Key, err))
	}
	o.proto.Store(&e)
	return &e
}

// As is the same version as another kind shows it; both kinds must be stored
// as one.
func (o *Object) As(kind *resource.Kind) (*Object, error) {
	if sameKind(kind, o.Kind) {
		return o, nil
	}
	if kind.Stored().GroupResource() != o.Kind.Stored().GroupResource() {
		return nil, fmt.Errorf("show %s %s as %s: they are not stored together", o.Kind.Resource, o.Key, kind.GroupVersionKind)
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, f := range o.faces {
		if sameKind(kind, f.Kind) {
			return f, nil
		}
	}
	obj, err := o.Obj, error(nil)
	if kind.View != nil {
		obj, err = kind.View.From(o.Obj)
	} else if kind.Custom { // the version that is stored has changed since it was read
		obj = Shallow(obj)
		err = setVersion(obj, kind)
	}
	if err != nil {
		return nil, fmt.Errorf("show %s %s as %s: %w", o.Kind.Resource, o.Key, kind.GroupVersionKind, err)
	}
	face := &Object{Kind: kind, Key: o.Key, RV: o.RV, Obj: obj, size: o.size}
	o.faces = append(o.faces, face)
	return face, nil
}

// Memo returns what build makes of the object, and makes it once. It serves
// client/local, which needs another Go type for custom kinds.
func (o *Object) Memo(build func(*Object) (any, error)) (any, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.typed == nil {
		v, err := build(o)
		if err != nil {
			return nil, err
		}
		o.typed = v
	}
	return o.typed, nil
}

// dropEncodings forgets encodings that nobody has read since the last call. With
// verify it first compares them with the object, and says whether they fit: if
// not, somebody has changed an object that is everybody's.
func (o *Object) dropEncodings(verify bool) (intact bool) {
	intact = true
	if e := o.proto.Load(); verify && e != nil && e.raw != nil {
		intact = o.Encodes(o.Obj)
	} else if b := o.json.Load(); verify && b != nil {
		now, err := encodeJSON(o.Kind, o.Obj)
		intact = err == nil && string(now) == string(*b)
	}
	if o.used.Swap(false) {
		return intact
	}
	o.json.Store(nil)
	o.proto.Store(nil)
	return intact
}

// sameKind is true for two generations of one kind too: a custom resource's
// definition may have been replaced.
func sameKind(a, b *resource.Kind) bool {
	return a == b || a.GroupVersionKind == b.GroupVersionKind && a.Resource == b.Resource
}
