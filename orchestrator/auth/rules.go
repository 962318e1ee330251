package auth

import (
	"slices"
	"strings"

	rbacv1 "k8s.io/api/rbac/v1"
)

// ruleAllows says whether one rule allows what a describes.
func ruleAllows(rule *rbacv1.PolicyRule, a *Attributes) bool {
	if !matches(rule.Verbs, a.Verb) {
		return false
	}
	if a.Resource == "" {
		return slices.ContainsFunc(rule.NonResourceURLs, func(pattern string) bool { return pathMatches(pattern, a.Path) })
	}
	return matches(rule.APIGroups, a.Group) && resourceMatches(rule.Resources, a.Resource, a.Subresource) && nameMatches(rule.ResourceNames, a.Name)
}

// rulesAllow says whether any rule allows what a describes.
func rulesAllow(rules []rbacv1.PolicyRule, a *Attributes) bool {
	for i := range rules {
		if ruleAllows(&rules[i], a) {
			return true
		}
	}
	return false
}

func matches(list []string, value string) bool {
	for _, v := range list {
		if v == value || v == "*" {
			return true
		}
	}
	return false
}

// resourceMatches knows "pods", "pods/log", "*/scale" and "*".
func resourceMatches(list []string, resource, subresource string) bool {
	for _, pattern := range list {
		if pattern == "*" {
			return true
		}
		r, sub, _ := strings.Cut(pattern, "/")
		if sub == subresource && (r == resource || r == "*" && sub != "") {
			return true
		}
	}
	return false
}

func nameMatches(names []string, name string) bool {
	return len(names) == 0 || slices.Contains(names, name)
}

// pathMatches knows "/healthz" and "/openapi/*".
func pathMatches(pattern, path string) bool {
	if prefix, ok := strings.CutSuffix(pattern, "*"); ok {
		return strings.HasPrefix(path, prefix)
	}
	return pattern == path
}
