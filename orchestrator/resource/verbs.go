package resource

import (
	"strings"
	"time"

	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/util/duration"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// SetDefaults fills in what was left out of obj.
func (k *Kind) SetDefaults(obj Object) {
	if k.Default != nil {
		k.Default(obj)
	}
}

// BeforeCreate prepares obj for its first write.
func (k *Kind) BeforeCreate(obj Object) {
	if k.PrepareCreate != nil {
		k.PrepareCreate(obj)
	}
}

// CheckCreate returns what is wrong with a new object, its metadata included.
// Its name has been generated.
func (k *Kind) CheckCreate(obj Object) field.ErrorList {
	name := k.ValidateName
	if name == nil {
		name = apivalidation.NameIsDNSSubdomain
	}
	errs := apivalidation.ValidateObjectMetaAccessor(obj, k.Namespaced, name, field.NewPath("metadata"))
	if k.ValidateCreate != nil {
		errs = append(errs, k.ValidateCreate(obj)...)
	}
	return errs
}

// Part returns the behaviour of a subresource that is updated in place: "" is
// the object itself. Nil: there is no such subresource.
func (k *Kind) Part(subresource string) *Subresource {
	switch subresource {
	case "":
		return &Subresource{PrepareUpdate: k.PrepareUpdate, ValidateUpdate: k.ValidateUpdate, Warnings: k.Warnings, Resets: k.Resets}
	case "status":
		return k.Status
	}
	return k.Parts[subresource]
}

// BeforeUpdate prepares obj to replace old. The generation is the server's to count.
func (s *Subresource) BeforeUpdate(obj, old Object) {
	obj.SetGeneration(old.GetGeneration())
	if s.PrepareUpdate != nil {
		s.PrepareUpdate(obj, old)
	}
}

// CheckUpdate returns what is wrong with obj as a successor of old, its metadata
// included. By now obj has a resourceVersion, be it old's.
func (s *Subresource) CheckUpdate(obj, old Object) field.ErrorList {
	errs := apivalidation.ValidateObjectMetaAccessorUpdate(obj, old, field.NewPath("metadata"))
	if s.ValidateUpdate != nil {
		errs = append(errs, s.ValidateUpdate(obj, old)...)
	}
	return errs
}

// Warn returns what the client should be told although obj is accepted.
func (s *Subresource) Warn(obj, old Object) []string {
	if s.Warnings == nil {
		return nil
	}
	return s.Warnings(obj, old)
}

// Selectable gives the values of obj's selectable fields.
func (k *Kind) Selectable(obj Object) fields.Set {
	if k.Fields != nil {
		return k.Fields(obj)
	}
	return metaFields(k, obj, 0)
}

// HasField says whether a field selector may name the field.
func (k *Kind) HasField(name string) bool {
	if name == "metadata.name" || name == "metadata.namespace" && k.Namespaced {
		return true
	}
	for _, f := range k.FieldNames {
		if f == name {
			return true
		}
	}
	return false
}

// TableColumns are the table's columns.
func (k *Kind) TableColumns() []metav1.TableColumnDefinition {
	if k.Columns != nil {
		return k.Columns
	}
	return columns(nameColumn, ageColumn)
}

// TableRow is obj's cells, one for each of TableColumns.
func (k *Kind) TableRow(obj Object, now time.Time) []any {
	if k.Row != nil {
		return k.Row(obj, now)
	}
	return []any{obj.GetName(), age(obj.GetCreationTimestamp(), now)}
}

func metaFields(k *Kind, obj Object, more int) fields.Set {
	s := make(fields.Set, 2+more)
	s["metadata.name"] = obj.GetName()
	if k.Namespaced {
		s["metadata.namespace"] = obj.GetNamespace()
	}
	return s
}

// age is the time since t as kubectl prints it.
func age(t metav1.Time, now time.Time) string {
	if t.IsZero() {
		return "<unknown>"
	}
	return duration.HumanDuration(now.Sub(t.Time))
}

func lower(s string) string { return strings.ToLower(s) }

// trimmed is text without the space around it, as a table shows it.
func trimmed(s string) string { return strings.TrimSpace(s) }
