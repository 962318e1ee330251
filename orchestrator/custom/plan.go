package custom

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Plan says what a definition's next step is. The zero Plan means converged.
type Plan struct {
	Serve    bool                                            // its kinds should be served
	Status   *apiextensionsv1.CustomResourceDefinitionStatus // to be written; nil as it is
	Clear    bool                                            // its instances should be deleted
	Finalize bool                                            // its instances are gone: let it go
}

// String prints the plan, one line an action.
func (p Plan) String() string {
	var out strings.Builder
	for _, line := range []struct {
		on   bool
		text string
	}{{p.Serve, "serve"}, {p.Clear, "delete instances"}, {p.Finalize, "remove finalizer"}} {
		if line.on {
			fmt.Fprintln(&out, line.text)
		}
	}
	if p.Status != nil {
		for _, c := range p.Status.Conditions {
			fmt.Fprintf(&out, "condition %s=%s %s: %s\n", c.Type, c.Status, c.Reason, c.Message)
		}
	}
	return out.String()
}

// compute says what a definition needs. others are the definitions of its group;
// instances is how many objects of it there are, -1 if that is not known.
func compute(d *apiextensionsv1.CustomResourceDefinition, others []*apiextensionsv1.CustomResourceDefinition, instances int, now metav1.Time) Plan {
	var p Plan
	status := d.Status.DeepCopy()
	conflict := acceptNames(d, others, status)
	setCondition(status, namesCondition(conflict), now)
	established := isTrue(status, apiextensionsv1.Established)
	switch {
	case established:
	case conflict == "":
		setCondition(status, condition(apiextensionsv1.Established, true, "InitialNamesAccepted", "the initial names have been accepted"), now)
		established = true
	default:
		setCondition(status, condition(apiextensionsv1.Established, false, "NotAccepted", "not all names are accepted"), now)
	}
	if c, ok := approval(d); ok {
		setCondition(status, c, now)
	}
	p.Serve = established
	if d.DeletionTimestamp != nil && slices.Contains(d.Finalizers, Finalizer) {
		switch {
		case !established || instances == 0:
			setCondition(status, condition(apiextensionsv1.Terminating, false, "InstanceDeletionCompleted", "removed all instances"), now)
			p.Finalize = true
		default:
			setCondition(status, condition(apiextensionsv1.Terminating, true, "InstanceDeletionInProgress", "CustomResource deletion is in progress"), now)
			p.Clear = true
		}
	}
	if !equality.Semantic.DeepEqual(*status, d.Status) {
		p.Status = status
	}
	return p
}

// acceptNames takes over the names that nobody in the group has, and returns what
// is wrong with the first that cannot be taken.
func acceptNames(d *apiextensionsv1.CustomResourceDefinition, others []*apiextensionsv1.CustomResourceDefinition, status *apiextensionsv1.CustomResourceDefinitionStatus) string {
	taken, kinds := map[string]bool{}, map[string]bool{}
	for _, o := range others {
		if o.Name == d.Name || o.Spec.Group != d.Spec.Group || !precedes(o, d) {
			continue
		}
		n := o.Status.AcceptedNames
		for _, name := range append([]string{n.Plural, n.Singular}, n.ShortNames...) {
			taken[name] = name != ""
		}
		kinds[n.Kind], kinds[n.ListKind] = n.Kind != "", n.ListKind != ""
	}
	want, have := d.Spec.Names, &status.AcceptedNames
	var problems []string
	claim := func(what, name string, used map[string]bool, into *string) {
		if name != *into && used[name] {
			problems = append(problems, fmt.Sprintf("%s %q is already in use", what, name))
			return
		}
		*into = name
	}
	claim("plural name", want.Plural, taken, &have.Plural)
	claim("singular name", want.Singular, taken, &have.Singular)
	claim("kind", want.Kind, kinds, &have.Kind)
	claim("list kind", want.ListKind, kinds, &have.ListKind)
	short := slices.Clone(want.ShortNames)
	for _, name := range short {
		if taken[name] {
			problems = append(problems, fmt.Sprintf("short name %q is already in use", name))
		}
	}
	if len(problems) == 0 {
		have.ShortNames = short
	}
	have.Categories = slices.Clone(want.Categories)
	return strings.Join(problems, ", ")
}

// precedes says whose claim comes first: the one that is accepted already, then
// the elder.
func precedes(a, b *apiextensionsv1.CustomResourceDefinition) bool {
	accepted := func(d *apiextensionsv1.CustomResourceDefinition) int {
		if isTrue(&d.Status, apiextensionsv1.NamesAccepted) {
			return 0
		}
		return 1
	}
	return cmp.Or(
		accepted(a)-accepted(b),
		a.CreationTimestamp.Compare(b.CreationTimestamp.Time),
		cmp.Compare(a.Name, b.Name),
	) < 0 && a.Status.AcceptedNames.Plural != ""
}

func namesCondition(conflict string) apiextensionsv1.CustomResourceDefinitionCondition {
	if conflict == "" {
		return condition(apiextensionsv1.NamesAccepted, true, "NoConflicts", "no conflicts found")
	}
	return condition(apiextensionsv1.NamesAccepted, false, "NamesConflict", conflict)
}

// approval is the condition of definitions in Kubernetes' own groups.
// https://github.com/kubernetes/enhancements/pull/1111
func approval(d *apiextensionsv1.CustomResourceDefinition) (apiextensionsv1.CustomResourceDefinitionCondition, bool) {
	if !strings.HasSuffix(d.Spec.Group, ".k8s.io") && !strings.HasSuffix(d.Spec.Group, ".kubernetes.io") {
		return apiextensionsv1.CustomResourceDefinitionCondition{}, false
	}
	value := d.Annotations[apiextensionsv1.KubeAPIApprovedAnnotation]
	switch {
	case value == "":
		return condition(apiextensionsv1.KubernetesAPIApprovalPolicyConformant, false, "MissingAnnotation", fmt.Sprintf("protected groups must have approval annotation %q", apiextensionsv1.KubeAPIApprovedAnnotation)), true
	case strings.HasPrefix(value, "unapproved"):
		return condition(apiextensionsv1.KubernetesAPIApprovalPolicyConformant, false, "UnapprovedAnnotation", value), true
	}
	return condition(apiextensionsv1.KubernetesAPIApprovalPolicyConformant, true, "ApprovedAnnotation", "approved in "+value), true
}

func condition(t apiextensionsv1.CustomResourceDefinitionConditionType, on bool, reason, message string) apiextensionsv1.CustomResourceDefinitionCondition {
	status := apiextensionsv1.ConditionFalse
	if on {
		status = apiextensionsv1.ConditionTrue
	}
	return apiextensionsv1.CustomResourceDefinitionCondition{Type: t, Status: status, Reason: reason, Message: message}
}

func setCondition(s *apiextensionsv1.CustomResourceDefinitionStatus, c apiextensionsv1.CustomResourceDefinitionCondition, now metav1.Time) {
	c.LastTransitionTime = now
	for i := range s.Conditions {
		have := &s.Conditions[i]
		if have.Type != c.Type {
			continue
		}
		if have.Status == c.Status {
			c.LastTransitionTime = have.LastTransitionTime
		}
		c.ObservedGeneration = have.ObservedGeneration
		*have = c
		return
	}
	s.Conditions = append(s.Conditions, c)
}

func isTrue(s *apiextensionsv1.CustomResourceDefinitionStatus, t apiextensionsv1.CustomResourceDefinitionConditionType) bool {
	for _, c := range s.Conditions {
		if c.Type == t {
			return c.Status == apiextensionsv1.ConditionTrue
		}
	}
	return false
}
