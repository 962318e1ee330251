package auth

import (
	"context"
	"net/http"
	"net/url"
	"strings"

	authenticationv1 "k8s.io/api/authentication/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apiserver/pkg/authentication/serviceaccount"
	"k8s.io/apiserver/pkg/authentication/user"
)

// Impersonate returns the user whom the request's Impersonate- headers name, if
// u may act as them, and u itself if there are none. It removes the headers.
func (a *Authorizer) Impersonate(ctx context.Context, u user.Info, h http.Header) (user.Info, error) {
	as, found, err := impersonated(h)
	if err != nil || !found {
		return u, err
	}
	for _, at := range impersonations(u, as) {
		if d, reason := a.Authorize(ctx, at); d != Allow {
			return nil, Forbidden(at, reason)
		}
	}
	dropImpersonation(h)
	return withImpliedGroups(as), nil
}

func impersonated(h http.Header) (*user.DefaultInfo, bool, error) {
	as := &user.DefaultInfo{
		Name: h.Get(authenticationv1.ImpersonateUserHeader), UID: h.Get(authenticationv1.ImpersonateUIDHeader),
		Groups: h[authenticationv1.ImpersonateGroupHeader],
	}
	for key, values := range h {
		name, ok := cutPrefixFold(key, authenticationv1.ImpersonateUserExtraHeaderPrefix)
		if !ok {
			continue
		}
		if as.Extra == nil {
			as.Extra = map[string][]string{}
		}
		name = strings.ToLower(name)
		if plain, err := url.PathUnescape(name); err == nil {
			name = plain
		}
		as.Extra[name] = append(as.Extra[name], values...)
	}
	if as.Name == "" && (as.UID != "" || len(as.Groups) > 0 || len(as.Extra) > 0) {
		return nil, false, apierrors.NewBadRequest("requested impersonation without impersonating a user: the header Impersonate-User is missing")
	}
	return as, as.Name != "", nil
}

// impersonations are the checks that acting as another user needs, one for each
// thing that is claimed.
func impersonations(u user.Info, as *user.DefaultInfo) []Attributes {
	var out []Attributes
	if namespace, name, err := serviceaccount.SplitUsername(as.Name); err == nil {
		out = append(out, Attributes{User: u, Verb: "impersonate", Version: "v1", Resource: "serviceaccounts", Namespace: namespace, Name: name})
	} else {
		out = append(out, Attributes{User: u, Verb: "impersonate", Version: "v1", Resource: "users", Name: as.Name})
	}
	for _, g := range as.Groups {
		out = append(out, Attributes{User: u, Verb: "impersonate", Version: "v1", Resource: "groups", Name: g})
	}
	if as.UID != "" {
		out = append(out, Attributes{User: u, Verb: "impersonate", Group: authenticationv1.GroupName, Version: "v1", Resource: "uids", Name: as.UID})
	}
	for key, values := range as.Extra {
		for _, v := range values {
			out = append(out, Attributes{User: u, Verb: "impersonate", Group: authenticationv1.GroupName, Version: "v1", Resource: "userextras", Subresource: key, Name: v})
		}
	}
	return out
}

// withImpliedGroups adds the groups that a login would have given.
func withImpliedGroups(as *user.DefaultInfo) user.Info {
	if as.Name == userAnonymous {
		if !hasGroup(as, GroupUnauthenticated) {
			as.Groups = append(as.Groups[:len(as.Groups):len(as.Groups)], GroupUnauthenticated)
		}
		return as
	}
	if namespace, _, err := serviceaccount.SplitUsername(as.Name); err == nil && len(as.Groups) == 0 {
		as.Groups = serviceaccount.MakeGroupNames(namespace)
	}
	return authenticated(as)
}

func dropImpersonation(h http.Header) {
	for key := range h {
		if strings.HasPrefix(key, "Impersonate-") {
			delete(h, key)
		}
	}
}

func cutPrefixFold(s, prefix string) (string, bool) {
	if len(s) < len(prefix) || !strings.EqualFold(s[:len(prefix)], prefix) {
		return "", false
	}
	return s[len(prefix):], true
}
