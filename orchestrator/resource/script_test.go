package resource_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"sigs.k8s.io/yaml"

	"github.com/xebec-mesh/xebec/orchestrator/resource"
	"github.com/xebec-mesh/xebec/tests/script"
)

var now = time.Date(2026, 1, 2, 12, 0, 0, 0, time.UTC)

// The commands take objects in YAML, of the archive's files:
//
//	create FILE              prints it as it would be stored, or what is wrong with it
//	update FILE OLD [PART]   the same for a change to what OLD creates; PART is a subresource
//	table FILE [wide]        prints the row that kubectl get shows
//	fields FILE              prints the selectable fields
func TestScripts(t *testing.T) {
	script.Run(t, "testdata/*.txtar", func(*testing.T) map[string]script.Command {
		return map[string]script.Command{"create": create, "update": update, "table": table, "fields": selectable}
	})
}

func parse(data []byte) (*resource.Kind, resource.Object, error) {
	var head metav1.TypeMeta
	if err := yaml.Unmarshal(data, &head); err != nil {
		return nil, nil, err
	}
	k := resource.LookupKind(schema.FromAPIVersionAndKind(head.APIVersion, head.Kind))
	if k == nil {
		return nil, nil, fmt.Errorf("no kind %s %s", head.APIVersion, head.Kind)
	}
	obj := k.New()
	if err := yaml.UnmarshalStrict(data, obj); err != nil {
		return nil, nil, err
	}
	if k.Namespaced && obj.GetNamespace() == "" {
		obj.SetNamespace("default")
	}
	return k, obj, nil
}

func prepared(data []byte) (*resource.Kind, resource.Object, error) {
	k, obj, err := parse(data)
	if err != nil {
		return nil, nil, err
	}
	k.SetDefaults(obj)
	k.BeforeCreate(obj)
	k.SetDefaults(obj)
	return k, obj, nil
}

func create(s *script.State, args []string) (string, error) {
	data, err := s.File(args[0])
	if err != nil {
		return "", err
	}
	k, obj, err := prepared(data)
	if err != nil {
		return "", err
	}
	if errs := k.CheckCreate(obj); len(errs) > 0 {
		return "", listed(errs)
	}
	var warnings []string
	if k.Warnings != nil {
		warnings = k.Warnings(obj, nil)
	}
	return show(obj, warnings)
}

func update(s *script.State, args []string) (string, error) {
	data, err := s.File(args[0])
	if err != nil {
		return "", err
	}
	before, err := s.File(args[1])
	if err != nil {
		return "", err
	}
	k, old, err := parse(before)
	if err != nil {
		return "", err
	}
	k.SetDefaults(old)
	if old.GetGeneration() == 0 {
		k.BeforeCreate(old)
		k.SetDefaults(old)
	}
	_, obj, err := parse(data)
	if err != nil {
		return "", err
	}
	sub := ""
	if len(args) > 2 {
		sub = args[2]
	}
	part := k.Part(sub)
	if part == nil {
		return "", fmt.Errorf("%s have no subresource %s", k.Resource, sub)
	}
	k.SetDefaults(obj)
	part.BeforeUpdate(obj, old)
	k.SetDefaults(obj)
	obj.SetResourceVersion("1")
	obj.SetCreationTimestamp(old.GetCreationTimestamp())
	errs := part.CheckUpdate(obj, old)
	obj.SetResourceVersion("")
	if len(errs) > 0 {
		return "", listed(errs)
	}
	return show(obj, part.Warn(obj, old))
}

func listed(errs field.ErrorList) error {
	lines := make([]string, len(errs))
	for i, e := range errs {
		lines[i] = strings.TrimSpace(e.Error())
	}
	return errors.New(strings.Join(lines, "\n"))
}

func show(obj resource.Object, warnings []string) (string, error) {
	out, err := yaml.Marshal(obj)
	if err != nil {
		return "", err
	}
	text := string(out)
	for _, w := range warnings {
		text += "Warning: " + w + "\n"
	}
	return text, nil
}

func table(s *script.State, args []string) (string, error) {
	wide := args[len(args)-1] == "wide"
	if wide {
		args = args[:len(args)-1]
	}
	var out strings.Builder
	for i, name := range args {
		data, err := s.File(name)
		if err != nil {
			return "", err
		}
		k, obj, err := parse(data)
		if err != nil {
			return "", err
		}
		columns, cells := k.TableColumns(), k.TableRow(obj, now)
		if len(columns) != len(cells) {
			return "", fmt.Errorf("%s: %d columns, %d cells", k.Kind, len(columns), len(cells))
		}
		var head, row []string
		for j, c := range columns {
			if c.Priority == 0 || wide {
				head, row = append(head, strings.ToUpper(c.Name)), append(row, fmt.Sprint(cells[j]))
			}
		}
		if i == 0 {
			fmt.Fprintln(&out, strings.Join(head, " | "))
		}
		fmt.Fprintln(&out, strings.Join(row, " | "))
	}
	return out.String(), nil
}

func selectable(s *script.State, args []string) (string, error) {
	data, err := s.File(args[0])
	if err != nil {
		return "", err
	}
	k, obj, err := parse(data)
	if err != nil {
		return "", err
	}
	set := k.Selectable(obj)
	for name := range set {
		if !k.HasField(name) && k.View == nil {
			return "", fmt.Errorf("%s has a value for %s, which may not be selected", k.Kind, name)
		}
	}
	return strings.ReplaceAll(set.String(), ",", "\n") + "\n", nil
}
