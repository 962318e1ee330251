package registry

import (
	"bytes"
	"encoding/json"
	"fmt"
	"reflect"
	"sync"

	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/managedfields"
	"sigs.k8s.io/structured-merge-diff/v6/fieldpath"
	"sigs.k8s.io/structured-merge-diff/v6/schema"
	"sigs.k8s.io/structured-merge-diff/v6/value"

	"github.com/xebec-mesh/xebec/orchestrator/resource"
)

// This file says which fields differ between two Go values of a built-in kind,
// as structured-merge-diff's Compare says it, but from a plan of the Go type that
// is made once. It is what most of the cost of a write would be otherwise. A test
// holds the two against each other on random objects of every kind.

// form is how values of a type are compared.
type form uint8

const (
	leafForm   form = iota // as a whole
	structForm             // field by field
	mapForm                // key by key
	assocForm              // item by item, found by their keys
	setForm                // item by item, found by their value
)

// shape is the plan for one Go type under one schema type.
type shape struct {
	form   form
	fields []shapeField // structForm
	elem   *shape       // mapForm, assocForm
	keys   []shapeKey   // assocForm
}

type shapeField struct {
	entry *value.FieldCacheEntry
	pe    fieldpath.PathElement
	shape *shape
}

type shapeKey struct {
	name     string
	entry    *value.FieldCacheEntry
	fallback any // the schema's default; nil is none
}

// shapes makes shapes of the types of one schema.
type shapes struct {
	schema *schema.Schema
	made   map[shapeID]*shape
}

type shapeID struct {
	t    reflect.Type
	name string
	rel  schema.ElementRelationship
}

// shapeOf makes the plan of a kind.
func shapeOf(k *resource.Kind, types managedfields.TypeConverter) (*shape, error) {
	obj := k.New()
	obj.GetObjectKind().SetGroupVersionKind(k.GroupVersionKind)
	v, err := types.ObjectToTyped(obj.(runtime.Object))
	if err != nil {
		return nil, err
	}
	m := &shapes{schema: v.Schema(), made: map[shapeID]*shape{}}
	return m.make(reflect.TypeOf(obj), v.TypeRef())
}

func (m *shapes) make(t reflect.Type, ref schema.TypeRef) (*shape, error) {
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	id := shapeID{t: t}
	if ref.NamedType != nil {
		id.name = *ref.NamedType
		if ref.ElementRelationship != nil {
			id.rel = *ref.ElementRelationship
		}
		if s := m.made[id]; s != nil {
			return s, nil
		}
	}
	atom, ok := m.schema.Resolve(ref)
	if !ok {
		return nil, fmt.Errorf("no schema for %s", t)
	}
	s := &shape{}
	if ref.NamedType != nil {
		m.made[id] = s // before its fields: types may contain themselves
	}
	return s, m.fill(s, t, atom)
}

func (m *shapes) fill(s *shape, t reflect.Type, a schema.Atom) error {
	switch {
	case value.TypeReflectEntryOf(t).CanConvertToUnstructured(), isBytes(t):
		if a.Scalar == nil && !isAtomic(a) {
			return fmt.Errorf("%s has a form of its own", t)
		}
		return nil
	case t.Kind() == reflect.Struct && a.Map != nil:
		return m.fillStruct(s, t, a.Map)
	case t.Kind() == reflect.Map && a.Map != nil:
		return m.fillMap(s, t, a.Map)
	case t.Kind() == reflect.Slice && a.List != nil:
		return m.fillList(s, t, a.List)
	case a.Scalar != nil && isScalar(t.Kind()):
		return nil
	}
	return fmt.Errorf("%s does not fit its schema", t)
}

func isAtomic(a schema.Atom) bool {
	return (a.Map == nil || a.Map.ElementRelationship == schema.Atomic) && (a.List == nil || a.List.ElementRelationship == schema.Atomic)
}

func isBytes(t reflect.Type) bool {
	return t.Kind() == reflect.Slice && t.Elem().Kind() == reflect.Uint8
}

func isScalar(k reflect.Kind) bool {
	return k == reflect.String || k == reflect.Bool || k >= reflect.Int && k <= reflect.Float64
}

func (m *shapes) fillStruct(s *shape, t reflect.Type, a *schema.Map) error {
	if a.ElementRelationship == schema.Atomic {
		return nil
	}
	s.form = structForm
	for _, f := range value.TypeReflectEntryOf(t).OrderedFields() {
		ref := a.ElementType
		if sf, ok := a.FindField(f.JsonName); ok {
			ref = sf.Type
		}
		sub, err := m.make(fieldType(t, f), ref)
		if err != nil {
			return fmt.Errorf("%s.%w", f.JsonName, err)
		}
		name := f.JsonName
		s.fields = append(s.fields, shapeField{f, fieldpath.PathElement{FieldName: &name}, sub})
	}
	return nil
}

func fieldType(t reflect.Type, f *value.FieldCacheEntry) reflect.Type {
	return f.GetFrom(reflect.New(t).Elem()).Type()
}

func (m *shapes) fillMap(s *shape, t reflect.Type, a *schema.Map) (err error) {
	if a.ElementRelationship == schema.Atomic {
		return nil
	}
	if t.Key().Kind() != reflect.String || len(a.Fields) > 0 {
		return fmt.Errorf("%s is not a plain map", t)
	}
	s.form = mapForm
	s.elem, err = m.make(t.Elem(), a.ElementType)
	return err
}

func (m *shapes) fillList(s *shape, t reflect.Type, a *schema.List) (err error) {
	if a.ElementRelationship == schema.Atomic {
		return nil
	}
	if s.elem, err = m.make(t.Elem(), a.ElementType); err != nil {
		return err
	}
	if len(a.Keys) == 0 {
		s.form = setForm
		if !isScalar(t.Elem().Kind()) {
			return fmt.Errorf("%s is not a set of scalars", t)
		}
		return nil
	}
	s.form = assocForm
	item, _ := m.schema.Resolve(a.ElementType)
	if t.Elem().Kind() != reflect.Struct || item.Map == nil {
		return fmt.Errorf("%s is not a list of structs", t)
	}
	for _, k := range a.Keys {
		key := shapeKey{name: k, entry: value.TypeReflectEntryOf(t.Elem()).Fields()[k]}
		if key.entry == nil {
			return fmt.Errorf("%s has no field %s", t, k)
		}
		if f, ok := item.Map.FindField(k); ok {
			key.fallback = f.Default
		}
		s.keys = append(s.keys, key)
	}
	return nil
}

// some is a value that may be absent (the zero some), null, or there.
type some struct {
	state uint8
	v     reflect.Value
}

const (
	absent uint8 = iota
	null
	there
)

// someOf looks behind pointers.
func someOf(v reflect.Value) some {
	for v.Kind() == reflect.Pointer || v.Kind() == reflect.Interface {
		if v.IsNil() {
			return some{state: null}
		}
		v = v.Elem()
	}
	if k := v.Kind(); (k == reflect.Map || k == reflect.Slice) && v.IsNil() {
		return some{state: null}
	}
	return some{there, v}
}

// shares says that both are the same memory, as a spec is that a status update
// carries over.
func (s some) shares(o some) bool {
	if s.state != there || o.state != there {
		return false
	}
	switch s.v.Kind() {
	case reflect.Map:
		return s.v.UnsafePointer() == o.v.UnsafePointer()
	case reflect.Slice:
		return s.v.Len() == o.v.Len() && s.v.UnsafePointer() == o.v.UnsafePointer()
	case reflect.Struct:
		return s.v.CanAddr() && o.v.CanAddr() && s.v.Addr().UnsafePointer() == o.v.Addr().UnsafePointer()
	}
	return false
}

func (f *shapeField) of(s some) some {
	if s.state != there {
		return some{}
	}
	v := f.entry.GetFrom(s.v)
	if f.entry.CanOmit(v) {
		return some{}
	}
	return someOf(v)
}

// difference is what has changed between two values.
type difference struct {
	changed *fieldpath.Set // added or modified
	removed *fieldpath.Set
	path    fieldpath.Path
}

// errDuplicates: lists with one key twice are left to the library.
var errDuplicates = fmt.Errorf("a list has the same key twice")

func (d *difference) compare(s *shape, l, r some) error {
	if l.state == absent && r.state == absent || l.shares(r) {
		return nil
	}
	if s.form == leafForm || s.empty(l) && s.empty(r) {
		switch {
		case l.state == absent:
			d.changed.Insert(d.path)
		case r.state == absent:
			d.removed.Insert(d.path)
		case !equalLeaves(l, r):
			d.changed.Insert(d.path)
		}
		return nil
	}
	if err := d.descend(s, l, r); err != nil {
		return err
	}
	if l.state == absent {
		d.changed.Insert(d.path)
	} else if r.state == absent {
		d.removed.Insert(d.path)
	}
	return nil
}

func (s *shape) empty(v some) bool {
	if v.state != there {
		return true
	}
	if s.form != structForm {
		return v.v.Len() == 0
	}
	for i := range s.fields {
		if s.fields[i].of(v).state != absent {
			return false
		}
	}
	return true
}

func (d *difference) at(pe fieldpath.PathElement, s *shape, l, r some) error {
	d.path = append(d.path, pe)
	err := d.compare(s, l, r)
	d.path = d.path[:len(d.path)-1]
	return err
}

func (d *difference) descend(s *shape, l, r some) error {
	switch s.form {
	case structForm:
		for i := range s.fields {
			f := &s.fields[i]
			if err := d.at(f.pe, f.shape, f.of(l), f.of(r)); err != nil {
				return err
			}
		}
		return nil
	case mapForm:
		return d.descendMap(s, l, r)
	}
	return d.descendList(s, l, r)
}

func (d *difference) descendMap(s *shape, l, r some) error {
	if l.state == there {
		for it := l.v.MapRange(); it.Next(); {
			name, other := it.Key().String(), some{}
			if r.state == there {
				if v := r.v.MapIndex(it.Key()); v.IsValid() {
					other = someOf(v)
				}
			}
			if err := d.at(fieldpath.PathElement{FieldName: &name}, s.elem, someOf(it.Value()), other); err != nil {
				return err
			}
		}
	}
	if r.state != there {
		return nil
	}
	for it := r.v.MapRange(); it.Next(); {
		if l.state == there && l.v.MapIndex(it.Key()).IsValid() {
			continue
		}
		name := it.Key().String()
		if err := d.at(fieldpath.PathElement{FieldName: &name}, s.elem, some{}, someOf(it.Value())); err != nil {
			return err
		}
	}
	return nil
}

func (d *difference) descendList(s *shape, l, r some) error {
	left, err := s.items(l)
	if err != nil {
		return err
	}
	right, err := s.items(r)
	if err != nil {
		return err
	}
	for _, it := range left {
		other, _ := find(right, it.pe)
		if err := d.at(it.pe, s.elem, it.v, other); err != nil {
			return err
		}
	}
	for _, it := range right {
		if _, ok := find(left, it.pe); ok {
			continue
		}
		if err := d.at(it.pe, s.elem, some{}, it.v); err != nil {
			return err
		}
	}
	return nil
}

type listItem struct {
	pe fieldpath.PathElement
	v  some
}

func find(items []listItem, pe fieldpath.PathElement) (some, bool) {
	for i := range items {
		if items[i].pe.Equals(pe) {
			return items[i].v, true
		}
	}
	return some{}, false
}

// items gives a list's items with what identifies them.
func (s *shape) items(l some) ([]listItem, error) {
	if l.state != there {
		return nil, nil
	}
	out := make([]listItem, 0, l.v.Len())
	for i := range l.v.Len() {
		v := l.v.Index(i)
		pe, err := s.identify(v)
		if err != nil {
			return nil, err
		}
		if _, twice := find(out, pe); twice {
			return nil, errDuplicates
		}
		out = append(out, listItem{pe, someOf(v)})
	}
	return out, nil
}

func (s *shape) identify(v reflect.Value) (fieldpath.PathElement, error) {
	if s.form == setForm {
		val := value.NewValueInterface(plainScalar(v))
		return fieldpath.PathElement{Value: &val}, nil
	}
	var keys value.FieldList
	for _, k := range s.keys {
		f := k.entry.GetFrom(v)
		val := any(nil)
		if k.entry.CanOmit(f) {
			val = k.fallback
		} else if f := someOf(f); f.state == there && isScalar(f.v.Kind()) {
			val = plainScalar(f.v)
		} else {
			return fieldpath.PathElement{}, fmt.Errorf("key %s is not a scalar", k.name)
		}
		if val != nil {
			keys = append(keys, value.Field{Name: k.name, Value: value.NewValueInterface(val)})
		}
	}
	if len(keys) == 0 {
		return fieldpath.PathElement{}, fmt.Errorf("an item has no key")
	}
	keys.Sort()
	return fieldpath.PathElement{Key: &keys}, nil
}

// plainScalar is a scalar of a named type as one of JSON's.
func plainScalar(v reflect.Value) any {
	switch k := v.Kind(); {
	case k == reflect.String:
		return v.String()
	case k == reflect.Bool:
		return v.Bool()
	case v.CanInt():
		return v.Int()
	case v.CanUint():
		return int64(v.Uint())
	}
	return v.Float()
}

// equalLeaves compares what would be written as JSON.
func equalLeaves(l, r some) bool {
	if l.state != r.state {
		return marshalsNull(l) && marshalsNull(r)
	}
	if l.state == null {
		return true
	}
	if k := l.v.Kind(); isScalar(k) && l.v.Comparable() {
		return l.v.Equal(r.v)
	}
	a, b := l.v.Interface(), r.v.Interface()
	if reflect.DeepEqual(a, b) {
		return true
	}
	x, err := json.Marshal(a)
	if err != nil {
		return false
	}
	y, err := json.Marshal(b)
	return err == nil && bytes.Equal(x, y)
}

// marshalsNull is true of null itself and of the zero time.
func marshalsNull(s some) bool {
	if s.state == null {
		return true
	}
	data, err := json.Marshal(s.v.Interface())
	return err == nil && string(data) == "null"
}

// sets remembers what the field sets in managedFields mean, and keeps one copy of
// their text: many objects have the same ones, byte by byte.
type sets struct {
	mu sync.Mutex
	m  map[string]fieldText
}

type fieldText struct {
	raw []byte
	set *fieldpath.Set
}

const setsMost = 2048

func (s *sets) read(raw []byte) (*fieldpath.Set, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if t, ok := s.m[string(raw)]; ok {
		return t.set, nil
	}
	set := &fieldpath.Set{}
	if err := set.FromJSON(bytes.NewReader(raw)); err != nil {
		return nil, err
	}
	s.keep(raw, set)
	return set, nil
}

func (s *sets) write(set *fieldpath.Set) ([]byte, error) {
	raw, err := set.ToJSON()
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if t, ok := s.m[string(raw)]; ok {
		return t.raw, nil
	}
	s.keep(raw, set)
	return raw, nil
}

func (s *sets) keep(raw []byte, set *fieldpath.Set) {
	if len(s.m) >= setsMost || s.m == nil {
		s.m = make(map[string]fieldText)
	}
	s.m[string(raw)] = fieldText{raw, set}
}
