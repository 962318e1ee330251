package apiserver

import (
	"context"
	"net/http"

	admissionv1 "k8s.io/api/admission/v1"
	authenticationv1 "k8s.io/api/authentication/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/xebec-mesh/xebec/orchestrator/admission"
	"github.com/xebec-mesh/xebec/orchestrator/auth"
)

// review is a kind that is answered and never stored: it can only be created.
type review struct {
	schema.GroupVersionKind
	resource, singular string
	namespaced         bool
	new                func() runtime.Object
	answer             func(ctx context.Context, c *call, obj runtime.Object) (runtime.Object, error)
}

// reviews are all such kinds.
var reviews = []*review{
	{
		GroupVersionKind: authenticationv1.SchemeGroupVersion.WithKind("TokenReview"), resource: "tokenreviews", singular: "tokenreview",
		new: func() runtime.Object { return &authenticationv1.TokenReview{} },
		answer: func(ctx context.Context, c *call, obj runtime.Object) (runtime.Object, error) {
			return c.s.cfg.Authn.Review(ctx, obj.(*authenticationv1.TokenReview))
		},
	}, {
		GroupVersionKind: authenticationv1.SchemeGroupVersion.WithKind("SelfSubjectReview"), resource: "selfsubjectreviews", singular: "selfsubjectreview",
		new: func() runtime.Object { return &authenticationv1.SelfSubjectReview{} },
		answer: func(_ context.Context, c *call, obj runtime.Object) (runtime.Object, error) {
			return auth.SelfSubject(c.user, obj.(*authenticationv1.SelfSubjectReview)), nil
		},
	}, {
		GroupVersionKind: authorizationv1.SchemeGroupVersion.WithKind("SubjectAccessReview"), resource: "subjectaccessreviews", singular: "subjectaccessreview",
		new: func() runtime.Object { return &authorizationv1.SubjectAccessReview{} },
		answer: func(ctx context.Context, c *call, obj runtime.Object) (runtime.Object, error) {
			return c.s.cfg.Authz.SubjectAccess(ctx, obj.(*authorizationv1.SubjectAccessReview))
		},
	}, {
		GroupVersionKind: authorizationv1.SchemeGroupVersion.WithKind("SelfSubjectAccessReview"), resource: "selfsubjectaccessreviews", singular: "selfsubjectaccessreview",
		new: func() runtime.Object { return &authorizationv1.SelfSubjectAccessReview{} },
		answer: func(ctx context.Context, c *call, obj runtime.Object) (runtime.Object, error) {
			return c.s.cfg.Authz.SelfSubjectAccess(ctx, c.user, obj.(*authorizationv1.SelfSubjectAccessReview))
		},
	}, {
		GroupVersionKind: authorizationv1.SchemeGroupVersion.WithKind("SelfSubjectRulesReview"), resource: "selfsubjectrulesreviews", singular: "selfsubjectrulesreview",
		new: func() runtime.Object { return &authorizationv1.SelfSubjectRulesReview{} },
		answer: func(_ context.Context, c *call, obj runtime.Object) (runtime.Object, error) {
			return c.s.cfg.Authz.SelfSubjectRules(c.user, obj.(*authorizationv1.SelfSubjectRulesReview))
		},
	}, {
		GroupVersionKind: authorizationv1.SchemeGroupVersion.WithKind("LocalSubjectAccessReview"), resource: "localsubjectaccessreviews", singular: "localsubjectaccessreview",
		namespaced: true,
		new:        func() runtime.Object { return &authorizationv1.LocalSubjectAccessReview{} },
		answer: func(ctx context.Context, c *call, obj runtime.Object) (runtime.Object, error) {
			return c.s.cfg.Authz.LocalSubjectAccess(ctx, c.req.Namespace, obj.(*authorizationv1.LocalSubjectAccessReview))
		},
	},
}

func reviewOf(gvr schema.GroupVersionResource) *review {
	if gvr.Group != authenticationv1.GroupName && gvr.Group != authorizationv1.GroupName {
		return nil
	}
	for _, r := range reviews {
		if r.Group == gvr.Group && r.Version == gvr.Version && r.resource == gvr.Resource {
			return r
		}
	}
	return nil
}

func (c *call) review(v *review) {
	if c.req.Verb != "create" || c.req.Subresource != "" || c.req.Name != "" || v.namespaced != (c.req.Namespace != "") {
		c.fail(errMethod(&c.req, c.req.Verb))
		return
	}
	c.answer(v.GroupVersionKind, v.new(), func(ctx context.Context, obj runtime.Object) (runtime.Object, error) {
		return v.answer(ctx, c, obj)
	})
}

// answer reads a body, asks, and writes what comes back as the same kind.
func (c *call) answer(gvk schema.GroupVersionKind, into runtime.Object, ask func(context.Context, runtime.Object) (runtime.Object, error)) {
	f, ok := negotiate(c.r, offers{protobuf: true})
	if !ok {
		c.fail(errNotAcceptable())
		return
	}
	c.format = f
	opts, err := createOptions(c.query)
	if err != nil {
		c.fail(err)
		return
	}
	b, err := readBody(c.w, c.r)
	if err != nil {
		c.fail(err)
		return
	}
	strict, err := b.decode(target{gvk: gvk, object: into})
	if err == nil {
		err = applyFieldValidation(opts.FieldValidation, gvk, strict, c.warn)
	}
	if err != nil {
		c.fail(err)
		return
	}
	out, err := ask(c.r.Context(), into)
	if err != nil {
		c.fail(err)
		return
	}
	raw, err := encode(f, out, gvk)
	if err != nil {
		c.fail(err)
		return
	}
	writeBody(c.w, f, http.StatusCreated, raw)
}

// token answers serviceaccounts/token.
func (c *call) token() {
	if c.req.Verb != "create" {
		c.fail(errMethod(&c.req, c.req.Verb))
		return
	}
	if c.s.cfg.Tokens == nil {
		c.fail(errNotFound(&c.req))
		return
	}
	gvk := authenticationv1.SchemeGroupVersion.WithKind("TokenRequest")
	c.answer(gvk, &authenticationv1.TokenRequest{}, func(ctx context.Context, obj runtime.Object) (runtime.Object, error) {
		req := obj.(*authenticationv1.TokenRequest)
		if req.Namespace != "" && req.Namespace != c.req.Namespace {
			return nil, apierrors.NewBadRequest("the namespace of the provided object does not match the namespace sent on the request")
		}
		if err := c.mayHaveToken(ctx, req); err != nil {
			return nil, err
		}
		if opts, err := createOptions(c.query); err != nil || dryRun(opts.DryRun) {
			return req, err
		}
		return c.s.cfg.Tokens.Issue(ctx, c.req.Namespace, c.req.Name, req)
	})
}

// mayHaveToken holds a node to tokens of its own pods.
func (c *call) mayHaveToken(ctx context.Context, req *authenticationv1.TokenRequest) error {
	return auth.NodeRestriction{}.Validate(ctx, &admission.Attributes{
		Operation: admissionv1.Create, Kind: c.kind, Subresource: "token",
		Namespace: c.req.Namespace, Name: c.req.Name, Object: req, User: c.user,
	})
}
