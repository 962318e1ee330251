package deployment

import (
	"encoding/json"
	"fmt"
	"hash/fnv"
	"maps"
	"slices"
	"strconv"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/rand"
)

// Annotations that kubectl rollout reads, on the deployment and on its sets.
const (
	revisionAnnotation = "deployment.kubernetes.io/revision"
	historyAnnotation  = "deployment.kubernetes.io/revision-history" // revisions that a set had before a rollback to it
	desiredAnnotation  = "deployment.kubernetes.io/desired-replicas" // the deployment's replicas when the set was last scaled
	maxAnnotation      = "deployment.kubernetes.io/max-replicas"     // the same with maxSurge
)

// notCopied are the deployment's annotations that its sets do not inherit.
var notCopied = []string{
	corev1.LastAppliedConfigAnnotation, revisionAnnotation, historyAnnotation, desiredAnnotation, maxAnnotation,
	appsv1.DeprecatedRollbackTo,
}

// sameTemplate compares two templates without the label that tells sets apart.
func sameTemplate(a, b *corev1.PodTemplateSpec) bool {
	return equality.Semantic.DeepEqual(withoutHash(a), withoutHash(b))
}

func withoutHash(t *corev1.PodTemplateSpec) *corev1.PodTemplateSpec {
	if _, ok := t.Labels[appsv1.DefaultDeploymentUniqueLabelKey]; !ok {
		return t
	}
	out := *t // only its labels are replaced
	out.Labels = maps.Clone(t.Labels)
	delete(out.Labels, appsv1.DefaultDeploymentUniqueLabelKey)
	return &out
}

// templateHash names a template; collisions is added to it after two templates have
// had the same hash.
func templateHash(t *corev1.PodTemplateSpec, collisions *int32) string {
	h := fnv.New32a()
	if err := json.NewEncoder(h).Encode(t); err != nil {
		panic(err) // an API type always has a JSON form
	}
	if collisions != nil {
		fmt.Fprint(h, *collisions)
	}
	return rand.SafeEncodeString(strconv.FormatUint(uint64(h.Sum32()), 10))
}

// newSet is the set for the deployment's template, without replicas.
func newSet(d *appsv1.Deployment) *appsv1.ReplicaSet {
	hash := templateHash(&d.Spec.Template, d.Status.CollisionCount)
	template := *d.Spec.Template.DeepCopy()
	template.Labels = withLabel(template.Labels, hash)
	selector := d.Spec.Selector.DeepCopy()
	selector.MatchLabels = withLabel(selector.MatchLabels, hash)
	return &appsv1.ReplicaSet{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: d.Namespace, Name: d.Name + "-" + hash, Labels: template.Labels,
			OwnerReferences: []metav1.OwnerReference{*metav1.NewControllerRef(d, appsv1.SchemeGroupVersion.WithKind("Deployment"))},
		},
		Spec: appsv1.ReplicaSetSpec{Selector: selector, Template: template, MinReadySeconds: d.Spec.MinReadySeconds},
	}
}

func withLabel(l map[string]string, hash string) map[string]string {
	out := maps.Clone(l)
	if out == nil {
		out = map[string]string{}
	}
	out[appsv1.DefaultDeploymentUniqueLabelKey] = hash
	return out
}

// syncNew brings the new set's annotations and minReadySeconds in line, and gives it
// the highest revision: after a rollback an old set becomes the newest again.
func (r *rollout) syncNew() {
	if r.new == nil {
		return
	}
	r.inherit(r.new)
	r.new.minReady = r.d.Spec.MinReadySeconds
	r.plan.Revision = r.revisionIfChanged(r.new.annotations[revisionAnnotation])
	if r.hasDeadline() && r.condition(appsv1.DeploymentProgressing) == nil {
		r.progressing(corev1.ConditionTrue, "FoundNewReplicaSet", fmt.Sprintf("Found new replica set %q", r.new.Name))
	}
}

// inherit copies the deployment's annotations and updates the revision.
func (r *rollout) inherit(s *set) {
	for k, v := range r.d.Annotations {
		if !slices.Contains(notCopied, k) {
			s.annotate(k, v)
		}
	}
	newest := int64(0)
	for _, old := range r.old {
		newest = max(newest, revision(old.annotations))
	}
	was := revision(s.annotations)
	if was > newest {
		return
	}
	if was > 0 {
		s.annotate(historyAnnotation, appendRevision(s.annotations[historyAnnotation], was))
	}
	s.annotate(revisionAnnotation, strconv.FormatInt(newest+1, 10))
}

// appendRevision adds to a list of revisions that the API limits in size.
func appendRevision(history string, revision int64) string {
	const most = 2000 // bytes
	all := strings.Split(history, ",")
	if history == "" {
		all = nil
	}
	all = append(all, strconv.FormatInt(revision, 10))
	for len(strings.Join(all, ",")) > most {
		all = all[1:]
	}
	return strings.Join(all, ",")
}

func revision(annotations map[string]string) int64 {
	n, err := strconv.ParseInt(annotations[revisionAnnotation], 10, 64)
	if err != nil {
		return 0
	}
	return n
}

func (r *rollout) revisionIfChanged(want string) string {
	if want == r.d.Annotations[revisionAnnotation] {
		return ""
	}
	return want
}

// ensureNew plans the new set if there is none.
func (r *rollout) ensureNew(failure string) {
	if r.new != nil {
		return
	}
	rs := newSet(r.d)
	s := &set{ReplicaSet: rs, minReady: rs.Spec.MinReadySeconds}
	r.inherit(s)
	r.new = s
	s.replicas = r.newReplicas()
	r.markScaled(s)
	rs.Spec.Replicas, rs.Annotations = &s.replicas, s.annotations
	r.plan.Create = rs
	r.plan.Revision = r.revisionIfChanged(s.annotations[revisionAnnotation])
	switch {
	case !r.hasDeadline():
	case failure != "":
		r.progressing(corev1.ConditionFalse, "ReplicaSetCreateError", fmt.Sprintf("Failed to create new replica set %q: %s", rs.Name, failure))
	default:
		r.progressing(corev1.ConditionTrue, "NewReplicaSetCreated", fmt.Sprintf("Created new replica set %q", rs.Name))
	}
}

// cleanUp deletes the oldest empty sets beyond the revision history limit.
func (r *rollout) cleanUp() {
	keep := int(deref(r.d.Spec.RevisionHistoryLimit, 10))
	if r.d.Spec.RevisionHistoryLimit != nil && *r.d.Spec.RevisionHistoryLimit == 1<<31-1 {
		return
	}
	old := slices.DeleteFunc(slices.Clone(r.old), func(s *set) bool { return s.DeletionTimestamp != nil })
	slices.SortStableFunc(old, func(a, b *set) int { return int(revision(a.annotations) - revision(b.annotations)) })
	for _, s := range old[:max(len(old)-keep, 0)] {
		if s.replicas == 0 && s.Status.Replicas == 0 && s.Status.ObservedGeneration >= s.Generation && deref(s.Spec.Replicas, 1) == 0 {
			ref := ref(s)
			r.plan.Delete = append(r.plan.Delete, ref)
		}
	}
}
