package resource

import (
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
)

func serviceAccountKind() *Kind {
	return &Kind{
		GroupVersionKind: corev1.SchemeGroupVersion.WithKind("ServiceAccount"),
		Resource:         "serviceaccounts",
		Singular:         "serviceaccount",
		ShortNames:       []string{"sa"},
		Namespaced:       true,
		New:              func() Object { return &corev1.ServiceAccount{} },
		NewList:          func() runtime.Object { return &corev1.ServiceAccountList{} },
		PrepareCreate:    func(o Object) { onlyNames(o.(*corev1.ServiceAccount)) },
		PrepareUpdate:    func(o, _ Object) { onlyNames(o.(*corev1.ServiceAccount)) },

		Columns: columns(nameColumn,
			col("Secrets", "string", corev1.ServiceAccount{}.SwaggerDoc()["secrets"]),
			ageColumn),
		Row: func(o Object, now time.Time) []any {
			s := o.(*corev1.ServiceAccount)
			return []any{s.Name, int64(len(s.Secrets)), age(s.CreationTimestamp, now)}
		},
	}
}

// onlyNames: an account can refer only to secrets of its own namespace.
func onlyNames(s *corev1.ServiceAccount) {
	for i := range s.Secrets {
		s.Secrets[i] = corev1.ObjectReference{Name: s.Secrets[i].Name}
	}
}
