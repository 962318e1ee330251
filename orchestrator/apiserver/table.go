package apiserver

import (
	"encoding/json"
	"net/http"
	"net/url"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/xebec-mesh/xebec/orchestrator/cache"
	"github.com/xebec-mesh/xebec/orchestrator/resource"
)

// Conversions that any object can be asked for with Accept: …;as=….
var (
	asOne  = []string{"Table", "PartialObjectMetadata"}
	asList = []string{"Table", "PartialObjectMetadataList"}
)

func (f format) convertedKind() schema.GroupVersionKind {
	return schema.GroupVersionKind{Group: metav1.GroupName, Version: f.AsVersion, Kind: f.As}
}

// tableMaker makes the rows of one answer.
type tableMaker struct {
	kind    *resource.Kind
	include metav1.IncludeObjectPolicy
	version string // of meta.k8s.io
	now     time.Time
}

func newTableMaker(kind *resource.Kind, f format, query url.Values, now time.Time) (tableMaker, error) {
	t := tableMaker{kind: kind, include: metav1.IncludeObjectPolicy(query.Get("includeObject")), version: f.AsVersion, now: now}
	switch t.include {
	case "":
		t.include = metav1.IncludeMetadata
	case metav1.IncludeMetadata, metav1.IncludeObject, metav1.IncludeNone:
	default:
		return t, apierrors.NewBadRequest("includeObject: Invalid value: " + string(t.include) + ": must be 'Metadata', 'Object', 'None', or empty")
	}
	return t, nil
}

func (t tableMaker) table(m metav1.ListMeta, objects []*cache.Object) *metav1.Table {
	table := &metav1.Table{ListMeta: m, ColumnDefinitions: t.kind.TableColumns(), Rows: make([]metav1.TableRow, 0, len(objects))}
	for _, o := range objects {
		table.Rows = append(table.Rows, metav1.TableRow{Cells: t.kind.TableRow(o.Obj, t.now), Object: t.object(o)})
	}
	return table
}

func (t tableMaker) object(o *cache.Object) runtime.RawExtension {
	switch t.include {
	case metav1.IncludeNone:
		return runtime.RawExtension{}
	case metav1.IncludeObject:
		return runtime.RawExtension{Raw: o.JSON()}
	}
	raw, err := json.Marshal(partial(o.Obj, t.version))
	if err != nil {
		return runtime.RawExtension{}
	}
	return runtime.RawExtension{Raw: raw}
}

// partial is an object's metadata, which belongs to nobody: it must not be changed.
func partial(obj resource.Object, version string) *metav1.PartialObjectMetadata {
	p := meta.AsPartialObjectMetadata(obj)
	p.TypeMeta = metav1.TypeMeta{APIVersion: metav1.GroupName + "/" + version, Kind: "PartialObjectMetadata"}
	return p
}

func partialList(l *cache.List, version string) *metav1.PartialObjectMetadataList {
	out := &metav1.PartialObjectMetadataList{ListMeta: l.Meta(), Items: make([]metav1.PartialObjectMetadata, 0, len(l.Items))}
	for _, o := range l.Items {
		out.Items = append(out.Items, *partial(o.Obj, version))
	}
	return out
}

// convert makes what a format's "as" asks for of a list.
func (c *call) convertList(l *cache.List) (runtime.Object, error) {
	if c.format.As != "Table" {
		return partialList(l, c.format.AsVersion), nil
	}
	t, err := newTableMaker(c.kind, c.format, c.query, time.Now())
	if err != nil {
		return nil, err
	}
	return t.table(l.Meta(), l.Items), nil
}

func (c *call) convertOne(o *cache.Object) (runtime.Object, error) {
	if c.format.As != "Table" {
		return partial(o.Obj, c.format.AsVersion), nil
	}
	t, err := newTableMaker(o.Kind, c.format, c.query, time.Now())
	if err != nil {
		return nil, err
	}
	return t.table(metav1.ListMeta{ResourceVersion: o.Obj.GetResourceVersion()}, []*cache.Object{o}), nil
}

// writeConverted answers with a Table or metadata.
func (c *call) writeConverted(obj runtime.Object, err error) {
	if err != nil {
		c.fail(err)
		return
	}
	raw, err := encode(c.format, obj, c.format.convertedKind())
	if err != nil {
		c.fail(err)
		return
	}
	if len(raw) < gzipFrom {
		writeBody(c.w, c.format, http.StatusOK, raw)
		return
	}
	out, done := compressed(c.w, c.r)
	defer done()
	c.header(c.format.contentType())
	_, _ = out.Write(raw)
}
