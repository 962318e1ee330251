// Package auth says who sent a request and whether they may do what it asks.
//
//	in:   TLS client certificates, bearer tokens, impersonation headers;
//	      Roles, bindings, ServiceAccounts, Secrets, Pods (through informers)
//	out:  user.Info, a decision with its reason, signed tokens, certificates
//
// Nothing is allowed unless something allows it: system:masters, a rule that
// RBAC binds to the user, or, for a node, the pods that are bound to it. What a
// check costs depends on the bindings of its user, never on how many there are.
// A token or a key is never part of an error or a log line.
//
// The files: pki.go and kubeconfig.go make the cluster's certificates;
// authenticate.go, token.go and bootstrap.go say who asks; authorize.go,
// rules.go, node.go say whether they may; review.go answers the review kinds of
// authentication.k8s.io and authorization.k8s.io; escalate.go guards role writes.
package auth

import (
	"k8s.io/apiserver/pkg/authentication/user"
)

// Group names that the server itself gives meaning to.
const (
	GroupMasters         = "system:masters"
	GroupAuthenticated   = "system:authenticated"
	GroupUnauthenticated = "system:unauthenticated"
	GroupNodes           = "system:nodes"
	GroupServiceAccounts = "system:serviceaccounts"
	GroupBootstrappers   = "system:bootstrappers"

	userAnonymous    = "system:anonymous"
	prefixNode       = "system:node:"
	prefixBootstrap  = "system:bootstrap:"
	prefixAccount    = "system:serviceaccount:"
	prefixAccountsNS = "system:serviceaccounts:"
)

// Anonymous is whoever shows no credential.
var Anonymous user.Info = &user.DefaultInfo{Name: userAnonymous, Groups: []string{GroupUnauthenticated}}

// System is the server itself: an in-process caller with every right.
func System(name string) user.Info {
	return &user.DefaultInfo{Name: name, Groups: []string{GroupMasters, GroupAuthenticated}}
}

// Attributes describe one request to the authorizer.
type Attributes struct {
	User user.Info
	Verb string // get, list, watch, create, update, patch, delete, deletecollection, impersonate, …; for a Path the HTTP method in lower case

	// A resource request, if Resource is not empty.
	Group, Version, Resource, Subresource string
	Namespace, Name                       string
	FieldSelector                         string // of list, watch and deletecollection

	Path string // a non-resource request otherwise
}

// Decision is what an authorizer says.
type Decision uint8

const (
	NoOpinion Decision = iota // nothing allows it; as good as Deny unless another authorizer allows it
	Allow
	Deny // nothing else may allow it
)

func hasGroup(u user.Info, group string) bool {
	for _, g := range u.GetGroups() {
		if g == group {
			return true
		}
	}
	return false
}
