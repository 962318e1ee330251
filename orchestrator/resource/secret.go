package resource

import (
	"encoding/json"
	"maps"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

func secretKind() *Kind {
	return &Kind{
		GroupVersionKind: corev1.SchemeGroupVersion.WithKind("Secret"),
		Resource:         "secrets",
		Singular:         "secret",
		Namespaced:       true,
		New:              func() Object { return &corev1.Secret{} },
		NewList:          func() runtime.Object { return &corev1.SecretList{} },
		CreateOnUpdate:   true,

		Default: func(o Object) { defaultSecret(o.(*corev1.Secret)) },
		PrepareUpdate: func(o, old Object) {
			if s := o.(*corev1.Secret); s.Type == "" {
				s.Type = old.(*corev1.Secret).Type
			}
		},
		ValidateCreate: func(o Object) field.ErrorList { return validateSecret(o.(*corev1.Secret)) },
		ValidateUpdate: func(o, old Object) field.ErrorList {
			return validateSecretUpdate(o.(*corev1.Secret), old.(*corev1.Secret))
		},
		FieldNames: []string{"type"},
		Fields: func(o Object) fields.Set {
			return fields.Set{"metadata.name": o.GetName(), "metadata.namespace": o.GetNamespace(), "type": string(o.(*corev1.Secret).Type)}
		},
		Columns: columns(nameColumn,
			col("Type", "string", corev1.Secret{}.SwaggerDoc()["type"]),
			col("Data", "string", corev1.Secret{}.SwaggerDoc()["data"]),
			ageColumn),
		Row: func(o Object, now time.Time) []any {
			s := o.(*corev1.Secret)
			return []any{s.Name, string(s.Type), int64(len(s.Data)), age(s.CreationTimestamp, now)}
		},
	}
}

// defaultSecret also moves stringData, which is only ever written, into data.
func defaultSecret(s *corev1.Secret) {
	if s.Type == "" {
		s.Type = corev1.SecretTypeOpaque
	}
	if len(s.StringData) == 0 {
		return
	}
	if s.Data == nil {
		s.Data = make(map[string][]byte, len(s.StringData))
	}
	for k, v := range s.StringData {
		s.Data[k] = []byte(v)
	}
	s.StringData = nil
}

// secretKeys are the keys that a type of secret must have.
var secretKeys = map[corev1.SecretType][]string{
	corev1.SecretTypeDockercfg:        {corev1.DockerConfigKey},
	corev1.SecretTypeDockerConfigJson: {corev1.DockerConfigJsonKey},
	corev1.SecretTypeSSHAuth:          {corev1.SSHAuthPrivateKey},
	corev1.SecretTypeTLS:              {corev1.TLSCertKey, corev1.TLSPrivateKeyKey},
}

func validateSecret(s *corev1.Secret) field.ErrorList {
	data := field.NewPath("data")
	var errs field.ErrorList
	size := 0
	for _, k := range slices.Sorted(maps.Keys(s.Data)) {
		errs = append(errs, invalid(data.Key(k), k, validation.IsConfigMapKey(k))...)
		size += len(s.Data[k])
	}
	if size > corev1.MaxSecretSize {
		errs = append(errs, field.TooLong(data, "", corev1.MaxSecretSize))
	}
	for _, k := range secretKeys[s.Type] {
		v, ok := s.Data[k]
		if !ok {
			errs = append(errs, field.Required(data.Key(k), ""))
			continue
		}
		docker := s.Type == corev1.SecretTypeDockercfg || s.Type == corev1.SecretTypeDockerConfigJson
		if docker && !isJSONObject(v) {
			errs = append(errs, field.Invalid(data.Key(k), "<secret contents redacted>", "invalid JSON"))
		}
	}
	if s.Type == corev1.SecretTypeServiceAccountToken && s.Annotations[corev1.ServiceAccountNameKey] == "" {
		errs = append(errs, field.Required(field.NewPath("metadata", "annotations").Key(corev1.ServiceAccountNameKey), ""))
	}
	if s.Type == corev1.SecretTypeBasicAuth {
		_, user := s.Data[corev1.BasicAuthUsernameKey]
		_, password := s.Data[corev1.BasicAuthPasswordKey]
		if !user && !password {
			errs = append(errs, field.Required(data.Key(corev1.BasicAuthUsernameKey), ""), field.Required(data.Key(corev1.BasicAuthPasswordKey), ""))
		}
	}
	return errs
}

func validateSecretUpdate(s, old *corev1.Secret) field.ErrorList {
	errs := immutable(field.NewPath("type"), s.Type, old.Type)
	if deref(old.Immutable) {
		errs = append(errs, stillImmutable(s.Immutable)...)
		if !equality.Semantic.DeepEqual(s.Data, old.Data) {
			errs = append(errs, field.Forbidden(field.NewPath("data"), whenImmutable))
		}
	}
	return append(errs, validateSecret(s)...)
}

const whenImmutable = "field is immutable when `immutable` is set"

func stillImmutable(now *bool) field.ErrorList {
	if deref(now) {
		return nil
	}
	return field.ErrorList{field.Forbidden(field.NewPath("immutable"), whenImmutable)}
}

func isJSONObject(b []byte) bool { return json.Valid(b) && len(b) > 0 && b[0] == '{' }
