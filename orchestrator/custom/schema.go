package custom

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"k8s.io/apiextensions-apiserver/pkg/apis/apiextensions"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/cel"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/cel/model"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/defaulting"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/listtype"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/objectmeta"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/pruning"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/validation"
	openapiv2 "k8s.io/apiextensions-apiserver/pkg/controller/openapi/v2"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/util/validation/field"
	celconfig "k8s.io/apiserver/pkg/apis/cel"
	"k8s.io/apiserver/pkg/cel/common"
	"k8s.io/kube-openapi/pkg/validation/spec"
)

// compiled is one version's schema, made ready in two steps: its structure when an
// object is first read or written, its rules when one is first validated.
type compiled struct {
	source   *apiextensionsv1.JSONSchemaProps // nil accepts everything
	preserve bool                             // nothing is pruned (an old definition says so)
	kept     atomic.Pointer[schema.Structural]
	rules    func() (*rules, error)
}

// rules check an object's values.
type rules struct {
	object, status validation.SchemaValidator
	cel            *cel.Validator // nil: no rule
}

func compile(source *apiextensionsv1.JSONSchemaProps, preserve bool) *compiled {
	c := &compiled{source: source, preserve: preserve}
	c.rules = sync.OnceValues(c.makeRules)
	return c
}

func (c *compiled) internal() (*apiextensions.JSONSchemaProps, error) {
	if c.source == nil {
		return nil, nil
	}
	in := &apiextensions.JSONSchemaProps{}
	if err := apiextensionsv1.Convert_v1_JSONSchemaProps_To_apiextensions_JSONSchemaProps(c.source.DeepCopy(), in, nil); err != nil {
		return nil, fmt.Errorf("convert schema: %w", err)
	}
	return in, nil
}

// structure is made once and kept.
func (c *compiled) structure() (*schema.Structural, error) {
	if s := c.kept.Load(); s != nil {
		return s, nil
	}
	s, err := c.makeStructure()
	if err != nil {
		return nil, err
	}
	c.kept.CompareAndSwap(nil, s)
	return c.kept.Load(), nil
}

func (c *compiled) makeStructure() (*schema.Structural, error) {
	in, err := c.internal()
	if err != nil || in == nil {
		return &schema.Structural{Generic: schema.Generic{Type: "object"}, Extensions: schema.Extensions{XPreserveUnknownFields: true}}, err
	}
	s, err := schema.NewStructural(in)
	if err != nil {
		return nil, fmt.Errorf("read schema: %w", err)
	}
	s = s.DeepCopy()
	if err := defaulting.PruneDefaults(s); err != nil {
		return nil, fmt.Errorf("prune the defaults of a schema: %w", err)
	}
	return s, nil
}

func (c *compiled) makeRules() (*rules, error) {
	s, err := c.structure()
	if err != nil {
		return nil, err
	}
	in, err := c.internal()
	if err != nil {
		return nil, err
	}
	r := &rules{cel: cel.NewValidator(s, true, celconfig.PerCallLimit)}
	if in == nil {
		in = &apiextensions.JSONSchemaProps{}
	}
	if r.object, _, err = validation.NewSchemaValidator(in); err != nil {
		return nil, fmt.Errorf("compile schema: %w", err)
	}
	if status, ok := in.Properties["status"]; ok {
		if r.status, _, err = validation.NewSchemaValidator(&status); err != nil {
			return nil, fmt.Errorf("compile schema of the status: %w", err)
		}
	}
	return r, nil
}

// prune drops what the schema does not know, and returns the paths.
func (c *compiled) prune(u *unstructured.Unstructured) []string {
	s, err := c.structure()
	if err != nil || c.preserve {
		return nil
	}
	unknown := pruning.PruneWithOptions(u.Object, s, true, schema.UnknownFieldPathOptions{TrackUnknownFieldPaths: true})
	defaulting.PruneNonNullableNullsWithoutDefaults(u.Object, s)
	_, more := objectmeta.CoerceWithOptions(nil, u.Object, s, false, objectmeta.CoerceOptions{DropInvalidFields: false, ReturnUnknownFieldPaths: true})
	return append(unknown, more...)
}

func (c *compiled) setDefaults(u *unstructured.Unstructured) {
	if s, err := c.structure(); err == nil {
		defaulting.PruneNonNullableNullsWithoutDefaults(u.Object, s)
		defaulting.Default(u.Object, s)
	}
}

// validate checks a new object (old is nil) or an update.
func (c *compiled) validate(u, old *unstructured.Unstructured) field.ErrorList {
	s, r, err := c.ready()
	if err != nil {
		return field.ErrorList{field.InternalError(nil, err)}
	}
	var errs field.ErrorList
	var celOptions []cel.Option
	var oldObject any
	if old == nil {
		errs = validation.ValidateCustomResource(nil, u.Object, r.object)
	} else {
		correlated := common.NewCorrelatedObject(u.Object, old.Object, &model.Structural{Structural: s})
		errs = validation.ValidateCustomResourceUpdate(nil, u.Object, old.Object, r.object, validation.WithRatcheting(correlated))
		celOptions, oldObject = append(celOptions, cel.WithRatcheting(correlated)), old.Object
	}
	slices.SortStableFunc(errs, func(a, b *field.Error) int { return strings.Compare(a.Field, b.Field) }) // they come in the order of a map
	ctx := context.Background()
	errs = append(errs, objectmeta.Validate(ctx, nil, u.Object, s, false)...)
	if old == nil || len(listtype.ValidateListSetsAndMaps(nil, s, old.Object)) == 0 {
		errs = append(errs, listtype.ValidateListSetsAndMaps(nil, s, u.Object)...)
	}
	if r.cel == nil {
		return errs
	}
	if blocks(errs) {
		return append(errs, field.Invalid(nil, nil, "some validation rules were not checked because the object was invalid; correct the existing errors to complete validation"))
	}
	found, _ := r.cel.Validate(ctx, nil, s, u.Object, oldObject, celconfig.RuntimeCELCostBudget, celOptions...)
	return append(errs, found...)
}

// validateStatus checks an update of the status only.
func (c *compiled) validateStatus(u, old *unstructured.Unstructured) field.ErrorList {
	s, r, err := c.ready()
	if err != nil {
		return field.ErrorList{field.InternalError(nil, err)}
	}
	var errs field.ErrorList
	if status, ok := u.Object["status"]; ok && r.status != nil {
		errs = validation.ValidateCustomResourceUpdate(field.NewPath("status"), status, old.Object["status"], r.status)
	}
	if r.cel == nil || blocks(errs) {
		return errs
	}
	correlated := common.NewCorrelatedObject(u.Object, old.Object, &model.Structural{Structural: s})
	found, _ := r.cel.Validate(context.Background(), nil, s, u.Object, old.Object, celconfig.RuntimeCELCostBudget, cel.WithRatcheting(correlated))
	return append(errs, found...)
}

func (c *compiled) ready() (*schema.Structural, *rules, error) {
	s, err := c.structure()
	if err != nil {
		return nil, nil, err
	}
	r, err := c.rules()
	return s, r, err
}

// blocks says whether errors are such that rules could not make sense of the object.
func blocks(errs field.ErrorList) bool {
	for _, e := range errs {
		switch e.Type {
		case field.ErrorTypeNotSupported, field.ErrorTypeRequired, field.ErrorTypeTooLong, field.ErrorTypeTooMany, field.ErrorTypeTypeInvalid:
			return true
		}
	}
	return false
}

// openAPI is the schema as clients read it. A structure that is made only for it
// is not kept.
func (c *compiled) openAPI(v2 bool) (*spec.Schema, error) {
	s := c.kept.Load()
	if s == nil {
		var err error
		if s, err = c.makeStructure(); err != nil {
			return nil, err
		}
	}
	if v2 {
		s = openapiv2.ToStructuralOpenAPIV2(s)
	}
	return s.ToKubeOpenAPI(), nil
}
