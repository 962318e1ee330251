package admission_test

import (
	"context"
	"encoding/json"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	admissionv1 "k8s.io/api/admission/v1"
	corev1 "k8s.io/api/core/v1"
	schedulingv1 "k8s.io/api/scheduling/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/yaml"

	"github.com/xebec-mesh/xebec/orchestrator/admission"
	"github.com/xebec-mesh/xebec/orchestrator/resource"
)

// world is a Reader over a few objects.
type world map[string]resource.Object

func (w world) Get(_ context.Context, gvr schema.GroupVersionResource, key types.NamespacedName, _ bool) (resource.Object, error) {
	if o, ok := w[gvr.Resource+"/"+key.String()]; ok {
		return o, nil
	}
	return nil, apierrors.NewNotFound(gvr.GroupResource(), key.Name)
}

func (w world) List(_ context.Context, gvr schema.GroupVersionResource, _ string) ([]resource.Object, error) {
	var out []resource.Object
	for k, o := range w {
		if strings.HasPrefix(k, gvr.Resource+"/") {
			out = append(out, o)
		}
	}
	return out, nil
}

func (w world) with(resourceName string, o resource.Object) world {
	w[resourceName+"/"+types.NamespacedName{Namespace: o.GetNamespace(), Name: o.GetName()}.String()] = o
	return w
}

func base() world {
	return world{}.
		with("namespaces", &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "default"}}).
		with("namespaces", &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "leaving"}, Status: corev1.NamespaceStatus{Phase: corev1.NamespaceTerminating}}).
		with("serviceaccounts", &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: "default", Namespace: "default"},
			ImagePullSecrets: []corev1.LocalObjectReference{{Name: "pull"}}}).
		with("priorityclasses", &schedulingv1.PriorityClass{ObjectMeta: metav1.ObjectMeta{Name: "high"}, Value: 100}).
		with("priorityclasses", &schedulingv1.PriorityClass{ObjectMeta: metav1.ObjectMeta{Name: "usual"}, Value: 7, GlobalDefault: true})
}

func mutate(t *testing.T, w world, a *admission.Attributes) error {
	t.Helper()
	a.Reader = w
	return chain(t, admission.Config{Mutators: admission.Builtins()}).Mutate(t.Context(), a)
}

func TestPodIsCompleted(t *testing.T) {
	pod := testPod()
	pod.Spec.InitContainers = []corev1.Container{{Name: "own", VolumeMounts: []corev1.VolumeMount{{Name: "mine", MountPath: "/var/run/secrets/kubernetes.io/serviceaccount"}}}}
	a := create(podKind(), pod)
	for range 2 { // a second run changes nothing
		if err := mutate(t, base(), a); err != nil {
			t.Fatal(err)
		}
	}
	volume := pod.Spec.Volumes[0].Name
	if !strings.HasPrefix(volume, "kube-api-access-") || len(volume) != len("kube-api-access-")+5 {
		t.Errorf("volume %q", volume)
	}
	got, err := yaml.Marshal(pod.Spec)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(wantPod, strings.ReplaceAll(string(got), volume, "kube-api-access-xxxxx")); d != "" {
		t.Error(d)
	}
}

const wantPod = `containers:
- image: nginx
  imagePullPolicy: Always
  name: web
  resources: {}
  terminationMessagePath: /dev/termination-log
  terminationMessagePolicy: File
  volumeMounts:
  - mountPath: /var/run/secrets/kubernetes.io/serviceaccount
    name: kube-api-access-xxxxx
    readOnly: true
dnsPolicy: ClusterFirst
enableServiceLinks: true
imagePullSecrets:
- name: pull
initContainers:
- name: own
  resources: {}
  volumeMounts:
  - mountPath: /var/run/secrets/kubernetes.io/serviceaccount
    name: mine
preemptionPolicy: PreemptLowerPriority
priority: 7
priorityClassName: usual
restartPolicy: Always
schedulerName: default-scheduler
securityContext: {}
serviceAccount: default
serviceAccountName: default
terminationGracePeriodSeconds: 30
tolerations:
- effect: NoExecute
  key: node.kubernetes.io/not-ready
  operator: Exists
  tolerationSeconds: 300
- effect: NoExecute
  key: node.kubernetes.io/unreachable
  operator: Exists
  tolerationSeconds: 300
volumes:
- name: kube-api-access-xxxxx
  projected:
    defaultMode: 420
    sources:
    - serviceAccountToken:
        expirationSeconds: 3607
        path: token
    - configMap:
        items:
        - key: ca.crt
          path: ca.crt
        name: kube-root-ca.crt
    - downwardAPI:
        items:
        - fieldRef:
            apiVersion: v1
            fieldPath: metadata.namespace
          path: namespace
`

func TestPodRefused(t *testing.T) {
	five := int32(5)
	for _, c := range []struct {
		name   string
		change func(*corev1.Pod)
		want   string
	}{
		{"no account", func(p *corev1.Pod) { p.Spec.ServiceAccountName = "ghost" },
			`pods "web" is forbidden: error looking up service account default/ghost: serviceaccounts "ghost" not found`},
		{"no class", func(p *corev1.Pod) { p.Spec.PriorityClassName = "ghost" },
			`pods "web" is forbidden: no PriorityClass with name ghost was found`},
		{"own number", func(p *corev1.Pod) { p.Spec.PriorityClassName = "high"; p.Spec.Priority = &five },
			`pods "web" is forbidden: the integer value of priority (5) must not be provided in pod spec; priority admission controller computed 100 from the given PriorityClass name`},
		{"leaving", func(p *corev1.Pod) { p.Namespace = "leaving" },
			`pods "web" is forbidden: unable to create new content in namespace leaving because it is being terminated`},
		{"nowhere", func(p *corev1.Pod) { p.Namespace = "nowhere" }, `namespaces "nowhere" not found`},
	} {
		t.Run(c.name, func(t *testing.T) {
			pod := testPod()
			c.change(pod)
			err := mutate(t, base(), create(podKind(), pod))
			if err == nil || err.Error() != c.want {
				t.Errorf("got %v, want %s", err, c.want)
			}
		})
	}
}

func TestOneDefaultPriority(t *testing.T) {
	k := resource.LookupKind(schedulingv1.SchemeGroupVersion.WithKind("PriorityClass"))
	for name, ok := range map[string]bool{"usual": true, "other": false} {
		err := mutate(t, base(), create(k, &schedulingv1.PriorityClass{ObjectMeta: metav1.ObjectMeta{Name: name}, GlobalDefault: true}))
		if (err == nil) != ok {
			t.Errorf("%s as the default: %v", name, err)
		}
	}
}

func TestTokenIsNotMountedWhenNotWanted(t *testing.T) {
	no := false
	pod := testPod()
	pod.Spec.AutomountServiceAccountToken = &no
	if err := mutate(t, base(), create(podKind(), pod)); err != nil || len(pod.Spec.Volumes) != 0 {
		t.Errorf("volumes %v, %v", pod.Spec.Volumes, err)
	}
}

func TestSystemNamespacesStay(t *testing.T) {
	k := resource.LookupKind(corev1.SchemeGroupVersion.WithKind("Namespace"))
	for name, stays := range map[string]bool{"default": true, "kube-system": true, "kube-public": true, "shop": false} {
		a := &admission.Attributes{Operation: admissionv1.Delete, Kind: k, Name: name}
		if err := mutate(t, base(), a); apierrors.IsForbidden(err) != stays {
			t.Errorf("delete %s: %v", name, err)
		}
	}
}

func BenchmarkMutatePod(b *testing.B) {
	c, err := admission.New(admission.Config{Mutators: admission.Builtins(), Log: quiet})
	if err != nil {
		b.Fatal(err)
	}
	w, raw := base(), mustJSON(b, testPod())
	b.ReportAllocs()
	for b.Loop() {
		b.StopTimer()
		pod := &corev1.Pod{}
		if err := json.Unmarshal(raw, pod); err != nil {
			b.Fatal(err)
		}
		a := create(podKind(), pod)
		a.Reader = w
		b.StartTimer()
		if err := c.Mutate(b.Context(), a); err != nil {
			b.Fatal(err)
		}
	}
}

func mustJSON(b *testing.B, v any) []byte {
	b.Helper()
	raw, err := json.Marshal(v)
	if err != nil {
		b.Fatal(err)
	}
	return raw
}
