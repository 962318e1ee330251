package apiserver

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"strings"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	kjson "sigs.k8s.io/json"
	"sigs.k8s.io/yaml"

	"github.com/xebec-mesh/xebec/orchestrator/resource"
)

// body is what a client sent.
type body struct {
	data      []byte
	mediaType string // one of typeJSON, typeYAML, typeProtobuf, or of a patch
}

// readBody reads a request's body, of at most maxBody bytes. A missing
// Content-Type means JSON.
func readBody(w http.ResponseWriter, r *http.Request) (body, error) {
	b := body{mediaType: typeJSON}
	if header := r.Header.Get("Content-Type"); header != "" {
		mediaType, _, err := mime.ParseMediaType(header)
		if err != nil {
			return b, errMediaType(bodyTypes)
		}
		b.mediaType = mediaType
	}
	if r.ContentLength > maxBody {
		return b, &http.MaxBytesError{Limit: maxBody}
	}
	if r.ContentLength != 0 {
		// A client that stops half-way must not keep its seat.
		control := http.NewResponseController(w)
		_ = control.SetReadDeadline(time.Now().Add(bodyTimeout))
		defer func() { _ = control.SetReadDeadline(time.Time{}) }()
	}
	limited := http.MaxBytesReader(w, r.Body, maxBody)
	if r.ContentLength > 0 {
		b.data = make([]byte, r.ContentLength)
		_, err := io.ReadFull(limited, b.data)
		return b, readError(err)
	}
	var err error
	b.data, err = io.ReadAll(limited)
	return b, readError(err)
}

// bodyTimeout is how long a client may take to send a body.
const bodyTimeout = 30 * time.Second

func readError(err error) error {
	var tooLarge *http.MaxBytesError
	if err == nil || errors.As(err, &tooLarge) {
		return err
	}
	return apierrors.NewBadRequest(fmt.Sprintf("the request's body ended early: %v", err))
}

const bodyTypes = typeJSON + ", " + typeYAML + ", " + typeProtobuf

// target is what a body is to be read into.
type target struct {
	gvk    schema.GroupVersionKind
	object runtime.Object
	prune  func(resource.Object) []string // of custom kinds
	// others are further kinds that the body may call itself.
	others []schema.GroupVersionKind
}

// decode reads the body into t.object, whose TypeMeta it leaves empty unless it
// is unstructured. strict are the complaints that fieldValidation is about:
// unknown and duplicate fields. An error is a bad request, in the words that
// clients know.
func (b body) decode(t target) (strict []error, err error) {
	var got schema.GroupVersionKind
	switch b.mediaType {
	case typeProtobuf:
		got, err = b.decodeProtobuf(t)
	case typeYAML, typeJSON:
		got, strict, err = b.decodeJSON(t)
	default:
		return nil, errMediaType(bodyTypes)
	}
	if err != nil {
		return nil, b.malformed(got, t, err)
	}
	if err := t.accept(got); err != nil {
		return nil, err
	}
	if u, ok := t.object.(*unstructured.Unstructured); ok {
		u.SetGroupVersionKind(t.gvk)
		if t.prune != nil {
			for _, path := range t.prune(u) {
				strict = append(strict, fmt.Errorf("unknown field %q", path))
			}
		}
		return strict, nil
	}
	t.object.GetObjectKind().SetGroupVersionKind(schema.GroupVersionKind{})
	return strict, nil
}

// accept checks the kind that a body calls itself. None is taken as the right one.
func (t target) accept(got schema.GroupVersionKind) error {
	for _, other := range t.others {
		if got == other {
			return nil
		}
	}
	if got.Kind == "" && got.Version == "" && got.Group == "" {
		return nil
	}
	if got.GroupVersion() != t.gvk.GroupVersion() && (got.Version != "" || got.Group != "") {
		return apierrors.NewBadRequest(fmt.Sprintf("the API version in the data (%s) does not match the expected API version (%s)", got.GroupVersion(), t.gvk.GroupVersion()))
	}
	if got.Kind != "" && got.Kind != t.gvk.Kind {
		return apierrors.NewBadRequest(fmt.Sprintf("%s in version %q cannot be handled as a %s: the kind in the data does not match the resource", got.Kind, got.Version, t.gvk.Kind))
	}
	return nil
}

// malformed says what kind of object could not be read, and why.
func (b body) malformed(got schema.GroupVersionKind, t target, err error) error {
	if got.Kind != "" {
		return apierrors.NewBadRequest(fmt.Sprintf("%s in version %q cannot be handled as a %s: %v", got.Kind, got.Version, t.gvk.Kind, err))
	}
	return apierrors.NewBadRequest(fmt.Sprintf("the object provided is unrecognized (must be of type %s): %v (%s)", t.gvk.Kind, err, b.summary()))
}

// summary is the beginning of the body, for an error.
func (b body) summary() string {
	const most = 30
	if len(b.data) == 0 {
		return "<empty>"
	}
	show := b.data[:min(len(b.data), most)]
	dots := ""
	if len(b.data) > most {
		dots = " ..."
	}
	if bytes.HasPrefix(b.data, []byte("{")) {
		return string(show) + dots
	}
	return fmt.Sprintf("%x%s", show, dots)
}

var protoMagic = []byte("k8s\x00")

type protoMessage interface{ Unmarshal([]byte) error }

func (b body) decodeProtobuf(t target) (schema.GroupVersionKind, error) {
	raw, ok := bytes.CutPrefix(b.data, protoMagic)
	if !ok {
		return schema.GroupVersionKind{}, errors.New("the body does not begin with the prefix of Kubernetes' protobuf")
	}
	var unknown runtime.Unknown
	if err := unknown.Unmarshal(raw); err != nil {
		return schema.GroupVersionKind{}, err
	}
	got := schema.FromAPIVersionAndKind(unknown.APIVersion, unknown.Kind)
	m, ok := t.object.(protoMessage)
	if !ok {
		return got, errors.New("this kind has no protobuf form")
	}
	return got, m.Unmarshal(unknown.Raw)
}

func (b body) decodeJSON(t target) (got schema.GroupVersionKind, strict []error, err error) {
	data := b.data
	if b.mediaType == typeYAML || !looksLikeJSON(data) && len(data) > 0 {
		if data, strict, err = fromYAML(data); err != nil {
			return got, nil, err
		}
	}
	if u, ok := t.object.(*unstructured.Unstructured); ok {
		var more []error
		if more, err = kjson.UnmarshalStrict(data, &u.Object); err != nil {
			return got, nil, err
		}
		if u.Object == nil {
			u.Object = map[string]any{}
		}
		return u.GroupVersionKind(), append(strict, more...), checkMeta(u)
	}
	more, err := kjson.UnmarshalStrict(data, t.object)
	if err != nil {
		return kindOfJSON(data), nil, fmt.Errorf("%w", err)
	}
	return t.object.GetObjectKind().GroupVersionKind(), append(strict, more...), nil
}

// checkMeta makes sure that an unstructured object's metadata has the types that
// all code relies on.
func checkMeta(u *unstructured.Unstructured) error {
	raw, ok := u.Object["metadata"]
	if !ok || raw == nil {
		u.Object["metadata"] = map[string]any{}
		return nil
	}
	m, ok := raw.(map[string]any)
	if !ok {
		return fmt.Errorf("json: cannot unmarshal %T into Go struct field .metadata of type v1.ObjectMeta", raw)
	}
	var typed metav1.ObjectMeta
	if err := runtime.DefaultUnstructuredConverter.FromUnstructured(m, &typed); err != nil {
		return fmt.Errorf("metadata: %w", err)
	}
	return nil
}

func fromYAML(data []byte) (json []byte, strict []error, err error) {
	if json, err = yaml.YAMLToJSONStrict(data); err == nil {
		return json, nil, nil
	}
	complaint := err
	if json, err = yaml.YAMLToJSON(data); err != nil {
		return nil, nil, err
	}
	return json, []error{complaint}, nil // a key stands twice
}

func looksLikeJSON(data []byte) bool {
	return bytes.HasPrefix(bytes.TrimLeft(data, " \t\r\n"), []byte("{"))
}

// kindOfJSON finds what a body that cannot be read as a whole calls itself.
func kindOfJSON(data []byte) schema.GroupVersionKind {
	var meta metav1.TypeMeta
	if err := kjson.UnmarshalCaseSensitivePreserveInts(data, &meta); err != nil {
		return schema.GroupVersionKind{}
	}
	return meta.GroupVersionKind()
}

// applyFieldValidation turns strict complaints into an error, warnings or nothing.
func applyFieldValidation(mode string, kind schema.GroupVersionKind, strict []error, warn func(string)) error {
	if len(strict) == 0 || mode == metav1.FieldValidationIgnore {
		return nil
	}
	if mode == metav1.FieldValidationStrict {
		return apierrors.NewBadRequest(fmt.Sprintf("%s in version %q cannot be handled as a %s: %v", kind.Kind, kind.Version, kind.Kind, runtime.NewStrictDecodingError(strict)))
	}
	for _, err := range strict {
		warn(strings.TrimSpace(err.Error()))
	}
	return nil
}
