package custom

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/util/duration"
	"k8s.io/client-go/util/jsonpath"

	"github.com/xebec-mesh/xebec/orchestrator/resource"
)

// cellPath finds a value in an object: a plain path of fields, or a JSONPath.
type cellPath struct {
	plain []string
	path  *jsonpath.JSONPath // where plain is nil; nil too if it does not parse
}

func parsePath(p string) cellPath {
	if plain := strings.TrimPrefix(p, "."); plain != "" && !strings.ContainsAny(plain, "[]*?@'\"\\(){}") && !strings.Contains(plain, "..") {
		return cellPath{plain: strings.Split(plain, ".")}
	}
	j := jsonpath.New("column").AllowMissingKeys(true)
	if err := j.Parse("{" + p + "}"); err != nil {
		return cellPath{}
	}
	return cellPath{path: j}
}

// value is the first value that the path finds.
func (p cellPath) value(obj map[string]any) (any, bool) {
	if p.plain != nil {
		v, ok, err := unstructured.NestedFieldNoCopy(obj, p.plain...)
		return v, ok && err == nil
	}
	if p.path == nil {
		return nil, false
	}
	results, err := p.path.FindResults(obj)
	if err != nil || len(results) == 0 || len(results[0]) == 0 {
		return nil, false
	}
	return results[0][0].Interface(), true
}

// text is all that the path finds, as a string.
func (p cellPath) text(obj map[string]any) string {
	if p.path != nil {
		if results, err := p.path.FindResults(obj); err == nil && len(results) > 0 {
			var out bytes.Buffer
			if p.path.PrintResults(&out, results[0]) == nil {
				return out.String()
			}
		}
		return ""
	}
	v, ok := p.value(obj)
	if !ok || v == nil {
		return ""
	}
	switch v := v.(type) {
	case string:
		return v
	case map[string]any, []any:
		raw, err := json.Marshal(v)
		if err != nil {
			return ""
		}
		return string(raw)
	}
	return fmt.Sprint(v)
}

type column struct {
	path cellPath
	typ  string
}

// addColumns makes the table that a definition asks for: the name, then its
// columns, or the age if it has none.
func addColumns(k *resource.Kind, defs []apiextensionsv1.CustomResourceColumnDefinition) {
	k.Columns = []metav1.TableColumnDefinition{{Name: "Name", Type: "string", Format: "name", Description: metav1.ObjectMeta{}.SwaggerDoc()["name"]}}
	if len(defs) == 0 {
		defs = []apiextensionsv1.CustomResourceColumnDefinition{{
			Name: "Age", Type: "date", Description: metav1.ObjectMeta{}.SwaggerDoc()["creationTimestamp"], JSONPath: ".metadata.creationTimestamp",
		}}
	}
	columns := make([]column, 0, len(defs))
	for _, d := range defs {
		about := d.Description
		if about == "" {
			about = fmt.Sprintf("Custom resource definition column (in JSONPath format): %s", d.JSONPath)
		}
		k.Columns = append(k.Columns, metav1.TableColumnDefinition{Name: d.Name, Type: d.Type, Format: d.Format, Description: about, Priority: d.Priority})
		columns = append(columns, column{parsePath(d.JSONPath), d.Type})
	}
	k.Row = func(o resource.Object, now time.Time) []any {
		cells := make([]any, 0, len(columns)+1)
		cells = append(cells, o.GetName())
		for _, c := range columns {
			cells = append(cells, c.cell(asUnstructured(o).Object, now))
		}
		return cells
	}
}

// cell is a value as the column's type shows it; nil where there is none or it is
// of another type.
func (c column) cell(obj map[string]any, now time.Time) any {
	if c.typ == "string" {
		if _, ok := c.path.value(obj); !ok {
			return nil
		}
		return c.path.text(obj)
	}
	v, ok := c.path.value(obj)
	if !ok {
		return nil
	}
	switch c.typ {
	case "integer":
		return asInteger(v)
	case "number":
		switch v.(type) {
		case int64, float64:
			return v
		}
	case "boolean":
		if b, ok := v.(bool); ok {
			return b
		}
	case "date":
		return asAge(v, now)
	}
	return nil
}

func asInteger(v any) any {
	switch n := v.(type) {
	case int64:
		return n
	case float64:
		return int64(n)
	case json.Number:
		if i, err := n.Int64(); err == nil {
			return i
		}
	}
	return nil
}

func asAge(v any, now time.Time) any {
	s, ok := v.(string)
	if !ok {
		return nil
	}
	t, err := time.Parse(time.RFC3339, s)
	if err != nil {
		return "<invalid>"
	}
	return duration.HumanDuration(now.Sub(t))
}
