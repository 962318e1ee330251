package registry

import (
	"fmt"
	"sync"
	"sync/atomic"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/managedfields"
	"k8s.io/client-go/applyconfigurations"
	"k8s.io/client-go/kubernetes/scheme"
	"sigs.k8s.io/structured-merge-diff/v6/fieldpath"

	"github.com/xebec-mesh/xebec/orchestrator/cache"
	"github.com/xebec-mesh/xebec/orchestrator/resource"
)

// builtInTypes parses the schema of all built-in kinds, once it is needed.
var builtInTypes = sync.OnceValue(func() managedfields.TypeConverter {
	return applyconfigurations.NewTypeConverter(scheme.Scheme)
})

// BuiltInTypes knows the schemas of the kinds that client-go knows.
func BuiltInTypes(k *resource.Kind) (managedfields.TypeConverter, error) {
	if k.Custom || !scheme.Scheme.Recognizes(k.GroupVersionKind) {
		return nil, nil
	}
	return builtInTypes(), nil
}

// fieldManagers keep metadata.managedFields, one manager for each kind and
// subresource.
type fieldManagers struct {
	types  TypeConverters
	m      sync.Map // fieldsKey → *fieldManager
	shapes sync.Map // *resource.Kind → *shape, nil where there is no plan
	sets   sets
}

// fieldManager has two ways to the same result: the tracker, and apimachinery's
// manager, which needs the kind's whole schema in memory. The latter is made when
// it is needed and let go when it has not been for a while.
type fieldManager struct {
	kind        *resource.Kind
	subresource string
	resets      fieldpath.Filter // nil: the writer may set everything
	fast        *tracker         // nil if there is none for the kind
	library     atomic.Pointer[managedfields.FieldManager]
	used        atomic.Bool // the library, since the last call of dropIdle
}

type fieldsKey struct {
	kind        *resource.Kind
	subresource string
}

// unknownManager is recorded where a writer does not say who it is.
const unknownManager = "unknown"

func (f *fieldManagers) forget(k *resource.Kind) {
	f.m.Range(func(key, _ any) bool {
		if old := key.(fieldsKey).kind; old.GroupVersionKind == k.GroupVersionKind {
			f.m.Delete(key)
			f.shapes.Delete(old)
		}
		return true
	})
}

// dropIdle lets go of schemas that nobody has needed since the last call.
func (f *fieldManagers) dropIdle() {
	f.m.Range(func(_, m any) bool {
		if m := m.(*fieldManager); !m.used.Swap(false) {
			m.library.Store(nil)
		}
		return true
	})
}

func (f *fieldManagers) get(k *resource.Kind, subresource string) *fieldManager {
	key := fieldsKey{k, subresource}
	if m, ok := f.m.Load(key); ok {
		return m.(*fieldManager)
	}
	m := &fieldManager{kind: k, subresource: subresource}
	part := subresource
	if part == "scale" {
		part = ""
	}
	if p := k.Part(part); p != nil && p.Resets != nil {
		m.resets = fieldpath.NewExcludeSetFilter(p.Resets)
	}
	s, err := f.shape(k)
	if err != nil {
		return m // the slow way says what is wrong with the schema
	}
	if s != nil {
		m.fast = &tracker{k, subresource, s, m.resets, &f.sets}
	}
	f.m.Store(key, m)
	return m
}

// shape is the plan of a kind's Go type, or nil if it cannot have one.
func (f *fieldManagers) shape(k *resource.Kind) (*shape, error) {
	if s, ok := f.shapes.Load(k); ok {
		return s.(*shape), nil
	}
	var s *shape
	if !k.Custom {
		types, err := f.types(k)
		if err != nil {
			return nil, err
		}
		if types != nil {
			s, _ = shapeOf(k, types) // what has no plan goes the slow way
		}
	}
	f.shapes.Store(k, s)
	return s, nil
}

// slow is apimachinery's manager.
func (f *fieldManagers) slow(m *fieldManager) (*managedfields.FieldManager, error) {
	m.used.Store(true)
	if l := m.library.Load(); l != nil {
		return l, nil
	}
	k := m.kind
	types, err := f.types(k)
	if err != nil {
		return nil, fmt.Errorf("read the schema of %s: %w", k.GroupVersionKind, err)
	}
	make := managedfields.NewDefaultFieldManager
	if k.Custom {
		make = managedfields.NewDefaultCRDFieldManager
	}
	if types == nil {
		types, make = managedfields.NewDeducedTypeConverter(), managedfields.NewDefaultCRDFieldManager
	}
	resets := map[fieldpath.APIVersion]fieldpath.Filter{}
	if m.resets != nil {
		resets[fieldpath.APIVersion(k.GroupVersion().String())] = m.resets
	}
	c := kindConverter{k}
	l, err := make(types, c, c, c, k.GroupVersionKind, k.GroupVersion(), m.subresource, resets)
	if err == nil {
		m.library.Store(l)
	}
	return l, err
}

// update records in next what its writer has changed of old, which is nil for a
// new object, and returns next.
func (f *fieldManagers) update(v *verb, old, next resource.Object) resource.Object {
	m := f.get(v.kind, v.req.Subresource)
	live := v.kind.New()
	if old != nil {
		live = cache.Shallow(old)
	}
	if m.fast != nil {
		if entries, err := m.fast.update(live, next, v.manager(), v.now()); err == nil {
			next.SetManagedFields(entries)
			return next
		}
	}
	l, err := f.slow(m)
	if err != nil {
		v.r.cfg.Log.Warn("managedFields are not kept", "kind", v.kind.Kind, "err", err)
		return next
	}
	live.GetObjectKind().SetGroupVersionKind(v.kind.GroupVersionKind)
	next.GetObjectKind().SetGroupVersionKind(v.kind.GroupVersionKind)
	out, ok := l.UpdateNoErrors(live, next, v.manager()).(resource.Object)
	if !ok {
		out = next
	}
	v.stripKind(out)
	return out
}

// apply merges a configuration into old.
func (f *fieldManagers) apply(v *verb, old resource.Object, config *unstructured.Unstructured, force bool) (obj resource.Object, err error) {
	defer notPanic("apply", &err)
	m, err := f.slow(f.get(v.kind, v.req.Subresource))
	if err != nil {
		return nil, err
	}
	live := cache.Shallow(old)
	live.GetObjectKind().SetGroupVersionKind(v.kind.GroupVersionKind)
	out, err := m.Apply(live, config, v.manager(), force)
	if err != nil {
		return nil, err
	}
	if obj, ok := out.(resource.Object); ok {
		v.stripKind(obj)
		return obj, nil
	}
	return nil, fmt.Errorf("apply made %T of %s", out, v.gr())
}

func (v *verb) manager() string {
	if v.req.FieldManager == "" {
		return unknownManager
	}
	return v.req.FieldManager
}

// keepTimes keeps the times in managedFields where nothing else has changed in
// an entry, so that applying the same again changes nothing.
func keepTimes(next, old resource.Object) {
	was, is := old.GetManagedFields(), next.GetManagedFields()
	for i := range is {
		for j := range was {
			a, b := is[i], was[j]
			if a.Manager == b.Manager && a.Operation == b.Operation && a.Subresource == b.Subresource && a.APIVersion == b.APIVersion &&
				string(rawFields(a)) == string(rawFields(b)) {
				is[i].Time = b.Time
			}
		}
	}
	next.SetManagedFields(is)
}

func rawFields(e metav1.ManagedFieldsEntry) []byte {
	if e.FieldsV1 == nil {
		return nil
	}
	return e.FieldsV1.Raw
}

// kindConverter is conversion where there is one version: between the Go type
// and its unstructured form only.
type kindConverter struct{ k *resource.Kind }

func (c kindConverter) Convert(in, out, context any) error {
	return fmt.Errorf("convert %T to %T: there is one version", in, out)
}

func (c kindConverter) ConvertFieldLabel(_ schema.GroupVersionKind, label, value string) (string, string, error) {
	return label, value, nil
}

func (c kindConverter) ConvertToVersion(in runtime.Object, to runtime.GroupVersioner) (runtime.Object, error) {
	gvk := c.k.GroupVersionKind
	if target, ok := to.KindForGroupVersionKinds([]schema.GroupVersionKind{gvk}); !ok || target != gvk {
		return nil, runtime.NewNotRegisteredGVKErrForTarget("xebec", gvk, to)
	}
	u, ok := in.(*unstructured.Unstructured)
	if !ok || c.k.Custom {
		return in, nil
	}
	obj := c.k.New()
	if err := runtime.DefaultUnstructuredConverter.FromUnstructured(u.Object, obj); err != nil {
		return nil, err
	}
	obj.GetObjectKind().SetGroupVersionKind(gvk)
	return obj, nil
}

func (c kindConverter) Default(in runtime.Object) {
	if obj, ok := in.(resource.Object); ok {
		c.k.SetDefaults(obj)
	}
}

func (c kindConverter) New(gvk schema.GroupVersionKind) (runtime.Object, error) {
	obj := c.k.New()
	obj.GetObjectKind().SetGroupVersionKind(gvk)
	return obj, nil
}
