// Package apiserver speaks HTTP for the registry: Kubernetes' API as its own
// clients expect it.
//
//	in:   HTTPS requests
//	out:  verbs on the registry; objects, lists, tables, watches and Status errors
//
// A request passes, in order: panic guard, authentication, its description
// (request.go), fairness (flow.go), impersonation, authorization, dispatch. What
// a kind is comes from its resource.Kind; no handler knows any kind, but for the
// table of subresources that are not objects (connect.go) and of the kinds that
// are only answered and never stored (review.go).
//
// Invariants: an object is written from the encoding that all readers share; an
// error leaves as a Status of the right code and reason, a panic as a 500; a
// request holds a seat of its flow while it runs, unless it is long-running.
package apiserver
