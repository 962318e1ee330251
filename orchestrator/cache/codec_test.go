package cache

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes/scheme"

	"github.com/xebec-mesh/xebec/orchestrator/resource"
)

var podKind = &resource.Kind{
	GroupVersionKind: corev1.SchemeGroupVersion.WithKind("Pod"),
	Resource:         "pods",
	Namespaced:       true,
	New:              func() resource.Object { return &corev1.Pod{} },
	NewList:          func() runtime.Object { return &corev1.PodList{} },
}

func examplePod(name string) *corev1.Pod {
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name, ResourceVersion: "7", Labels: map[string]string{"b": "2", "a": "1"}},
		Spec:       corev1.PodSpec{NodeName: "n", Containers: []corev1.Container{{Name: "c", Image: "i"}}},
		Status:     corev1.PodStatus{Phase: corev1.PodRunning},
	}
}

// reader decodes as clients do, by apimachinery's own serializers.
var reader = serializer.NewCodecFactory(scheme.Scheme).UniversalDeserializer()

// TestEncodings holds that upstream's decoders read what this package writes.
func TestEncodings(t *testing.T) {
	pod := examplePod("p")
	o := NewObject(podKind, pod, 7)
	l := &List{Kind: podKind, RV: 9, Continue: "next", Items: []*Object{o, NewObject(podKind, examplePod("q"), 7)}}
	var listJSON, listProto bytes.Buffer
	if err := l.WriteJSON(&listJSON); err != nil {
		t.Fatal(err)
	}
	if err := l.WriteProtobuf(&listProto); err != nil {
		t.Fatal(err)
	}
	if l.ProtobufSize() != listProto.Len() {
		t.Errorf("the list is %d bytes, announced as %d", listProto.Len(), l.ProtobufSize())
	}
	for name, data := range map[string][]byte{"JSON": o.JSON(), "protobuf": o.Protobuf()} {
		got, gvk, err := reader.Decode(data, nil, nil)
		if err != nil || *gvk != podKind.GroupVersionKind {
			t.Fatalf("%s: %v, %v", name, gvk, err)
		}
		if p := got.(*corev1.Pod); !equality.Semantic.DeepEqual(withoutKind(p), pod) {
			t.Errorf("%s: %+v", name, p)
		}
	}
	for name, data := range map[string][]byte{"JSON": listJSON.Bytes(), "protobuf": listProto.Bytes()} {
		got, _, err := reader.Decode(data, nil, nil)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		p := got.(*corev1.PodList)
		if len(p.Items) != 2 || p.Items[1].Name != "q" || p.ResourceVersion != "9" || p.Continue != "next" {
			t.Errorf("%s: %+v", name, p)
		}
	}
}

func withoutKind(p *corev1.Pod) *corev1.Pod {
	p.TypeMeta = metav1.TypeMeta{}
	return p
}

func TestEventEncodings(t *testing.T) {
	e := &Event{Type: watch.Modified, Object: NewObject(podKind, examplePod("p"), 7)}
	var line struct {
		Type   string
		Object corev1.Pod
	}
	if err := json.Unmarshal(e.JSON(), &line); err != nil || line.Type != "MODIFIED" || line.Object.Name != "p" {
		t.Errorf("JSON: %+v, %v", line, err)
	}
	b := e.Protobuf()
	if n := binary.BigEndian.Uint32(b); int(n) != len(b)-4 {
		t.Fatalf("frame of %d bytes says %d", len(b)-4, n)
	}
	var w metav1.WatchEvent
	if err := w.Unmarshal(b[4:]); err != nil || w.Type != "MODIFIED" {
		t.Fatalf("protobuf: %+v, %v", w, err)
	}
	got, _, err := reader.Decode(w.Object.Raw, nil, nil)
	if err != nil || got.(*corev1.Pod).Name != "p" {
		t.Errorf("protobuf: %v, %v", got, err)
	}
}

// TestVerify holds that an object changed in place is noticed, in whichever form.
func TestVerify(t *testing.T) {
	for name, encode := range map[string]func(*Object) []byte{"JSON": (*Object).JSON, "protobuf": (*Object).Protobuf} {
		o := NewObject(podKind, examplePod("p"), 7)
		encode(o)
		if !o.dropEncodings(true) {
			t.Errorf("%s: an intact object is reported", name)
		}
		o.Obj.SetLabels(map[string]string{"changed": "yes"})
		if o.dropEncodings(true) {
			t.Errorf("%s: a changed object is not reported", name)
		}
	}
}

func FuzzDecode(f *testing.F) {
	stored, err := Encode(podKind, examplePod("p"))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(stored)
	f.Add([]byte("k8s\x00"))
	f.Fuzz(func(t *testing.T, data []byte) {
		obj, err := Decode(podKind, data)
		if err != nil {
			return
		}
		again, err := Encode(podKind, obj)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := Decode(podKind, again); err != nil {
			t.Errorf("cannot read what was written: %v", err)
		}
	})
}

func FuzzToken(f *testing.F) {
	f.Add(token{RV: 5, Start: "default/a\x00", At: 1}.String())
	f.Add("")
	f.Add("e30")
	f.Fuzz(func(t *testing.T, s string) {
		tok, err := parseToken(s)
		if err != nil {
			return
		}
		if again, err := parseToken(tok.String()); err != nil || again != tok {
			t.Errorf("%q became %+v, then %+v (%v)", s, tok, again, err)
		}
	})
}
