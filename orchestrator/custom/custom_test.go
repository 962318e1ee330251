package custom

import (
	"fmt"
	"strings"
	"testing"
	"time"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"sigs.k8s.io/yaml"

	"github.com/xebec-mesh/xebec/tests/script"
)

// TestScripts reads definitions and objects as a client would send them.
//
//	define FILE                  validates a definition and takes its kinds
//	create FILE [VERSION]        an object as it would be stored, with what pruning dropped
//	update FILE OLD [SUBRESOURCE]
//	row FILE                     the object's table row
//	fields FILE                  its selectable fields
//	scale FILE
//	plan FILE... INSTANCES       the plan for the last definition, beside the others
func TestScripts(t *testing.T) {
	script.Run(t, "testdata/*.txtar", func(t *testing.T) map[string]script.Command {
		b := &bench{}
		return map[string]script.Command{
			"define": b.define, "create": b.create, "update": b.update, "row": b.row, "fields": b.fields, "scale": b.scale, "plan": plan,
		}
	})
}

type bench struct{ kinds []served }

var now = time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)

func load[T any](s *script.State, file string) (*T, error) {
	data, err := s.File(file)
	if err != nil {
		return nil, err
	}
	out := new(T)
	return out, yaml.UnmarshalStrict(data, out)
}

func loadObject(s *script.State, file string) (*unstructured.Unstructured, error) {
	data, err := s.File(file)
	if err != nil {
		return nil, err
	}
	u := &unstructured.Unstructured{Object: map[string]any{}}
	json, err := yaml.YAMLToJSON(data)
	if err != nil {
		return nil, err
	}
	return u, u.UnmarshalJSON(json)
}

func (b *bench) define(s *script.State, args []string) (string, error) {
	d, err := load[apiextensionsv1.CustomResourceDefinition](s, args[0])
	if err != nil {
		return "", err
	}
	k := Definition()
	k.SetDefaults(d)
	k.BeforeCreate(d)
	if errs := k.ValidateCreate(d); len(errs) > 0 {
		return "", errs.ToAggregate()
	}
	b.kinds = kindsOf(d)
	var out strings.Builder
	for _, s := range b.kinds {
		fmt.Fprintf(&out, "%s %s view=%t\n", s.kind.GroupVersionKind, s.kind.Resource, s.kind.View != nil)
	}
	return out.String(), nil
}

func (b *bench) create(s *script.State, args []string) (string, error) {
	u, err := loadObject(s, args[0])
	if err != nil {
		return "", err
	}
	k := b.kinds[0].kind
	dropped := k.Prune(u)
	k.SetDefaults(u)
	k.BeforeCreate(u)
	return show(u, dropped, k.ValidateCreate(u))
}

func show(u *unstructured.Unstructured, dropped []string, errs field.ErrorList) (string, error) {
	var out strings.Builder
	for _, p := range dropped {
		fmt.Fprintf(&out, "dropped %s\n", p)
	}
	for _, e := range errs {
		fmt.Fprintf(&out, "error %s\n", e)
	}
	raw, err := yaml.Marshal(u.Object)
	return out.String() + string(raw), err
}

func (b *bench) update(s *script.State, args []string) (string, error) {
	u, err := loadObject(s, args[0])
	if err != nil {
		return "", err
	}
	old, err := loadObject(s, args[1])
	if err != nil {
		return "", err
	}
	k := b.kinds[0].kind
	part := k.Part("")
	if len(args) > 2 {
		part = k.Part(args[2])
	}
	k.SetDefaults(u)
	k.SetDefaults(old)
	part.BeforeUpdate(u, old)
	return show(u, nil, part.ValidateUpdate(u, old))
}

func (b *bench) row(s *script.State, args []string) (string, error) {
	u, err := loadObject(s, args[0])
	if err != nil {
		return "", err
	}
	var out strings.Builder
	for i, cell := range b.kinds[0].kind.TableRow(u, now) {
		fmt.Fprintf(&out, "%s: %v\n", b.kinds[0].kind.TableColumns()[i].Name, cell)
	}
	return out.String(), nil
}

func (b *bench) fields(s *script.State, args []string) (string, error) {
	u, err := loadObject(s, args[0])
	if err != nil {
		return "", err
	}
	return fmt.Sprintln(b.kinds[0].kind.Selectable(u)), nil
}

func (b *bench) scale(s *script.State, args []string) (string, error) {
	u, err := loadObject(s, args[0])
	if err != nil {
		return "", err
	}
	sc, err := b.kinds[0].kind.Scale.Get(u)
	if err != nil {
		return "", err
	}
	sc.Spec.Replicas++
	if err := b.kinds[0].kind.Scale.Set(u, sc); err != nil {
		return "", err
	}
	grown, err := b.kinds[0].kind.Scale.Get(u)
	return fmt.Sprintf("spec %d status %d selector %q, then spec %d\n", sc.Spec.Replicas-1, sc.Status.Replicas, sc.Status.Selector, grown.Spec.Replicas), err
}

func plan(s *script.State, args []string) (string, error) {
	var all []*apiextensionsv1.CustomResourceDefinition
	for _, file := range args[:len(args)-1] {
		d, err := load[apiextensionsv1.CustomResourceDefinition](s, file)
		if err != nil {
			return "", err
		}
		apiextensionsv1.SetObjectDefaults_CustomResourceDefinition(d)
		all = append(all, d)
	}
	var instances int
	if _, err := fmt.Sscan(args[len(args)-1], &instances); err != nil {
		return "", err
	}
	last := all[len(all)-1]
	p := compute(last, all, instances, metav1.NewTime(now))
	if p.Status != nil { // applied, the plan has nothing more to write
		next := last.DeepCopy()
		next.Status = *p.Status
		if again := compute(next, all, instances, metav1.NewTime(now.Add(time.Hour))); again.Status != nil {
			return "", fmt.Errorf("the plan does not converge: %s", again)
		}
	}
	return p.String(), nil
}

// A kind that nobody uses has compiled nothing.
func TestSchemasAreLazy(t *testing.T) {
	c := compile(&apiextensionsv1.JSONSchemaProps{Type: "object", Properties: map[string]apiextensionsv1.JSONSchemaProps{"spec": {Type: "string"}}}, false)
	u := &unstructured.Unstructured{Object: map[string]any{"spec": "x", "more": 1}}
	if dropped := c.prune(u); len(dropped) != 1 || dropped[0] != "more" {
		t.Errorf("dropped %v", dropped)
	}
}

func BenchmarkKinds(b *testing.B) {
	d := wide(50)
	b.ReportAllocs()
	for b.Loop() {
		kindsOf(d)
	}
}

func wide(n int) *apiextensionsv1.CustomResourceDefinition {
	props := map[string]apiextensionsv1.JSONSchemaProps{}
	for i := range n {
		props[fmt.Sprint("field", i)] = apiextensionsv1.JSONSchemaProps{Type: "string"}
	}
	return &apiextensionsv1.CustomResourceDefinition{
		ObjectMeta: metav1.ObjectMeta{Name: "things.example.com"},
		Spec: apiextensionsv1.CustomResourceDefinitionSpec{
			Group: "example.com", Names: apiextensionsv1.CustomResourceDefinitionNames{Plural: "things", Kind: "Thing"},
			Versions: []apiextensionsv1.CustomResourceDefinitionVersion{{
				Name: "v1", Served: true, Storage: true,
				Schema: &apiextensionsv1.CustomResourceValidation{OpenAPIV3Schema: &apiextensionsv1.JSONSchemaProps{Type: "object", Properties: map[string]apiextensionsv1.JSONSchemaProps{"spec": {Type: "object", Properties: props}}}},
			}},
		},
	}
}

func BenchmarkValidate(b *testing.B) {
	for _, n := range []int{10, 100} {
		b.Run(fmt.Sprintf("fields=%d", n), func(b *testing.B) {
			k := kindsOf(wide(n))[0].kind
			spec := map[string]any{}
			for i := range n {
				spec[fmt.Sprint("field", i)] = "value"
			}
			u := &unstructured.Unstructured{Object: map[string]any{"apiVersion": "example.com/v1", "kind": "Thing", "metadata": map[string]any{"name": "x"}, "spec": spec}}
			b.ReportAllocs()
			for b.Loop() {
				if errs := k.ValidateCreate(u); len(errs) > 0 {
					b.Fatal(errs)
				}
			}
		})
	}
}
