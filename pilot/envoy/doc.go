// Package envoy is the frame in which Envoy resources are made: generators with
// declared inputs, a cache over them, and the encoded resource that all proxies share.
//
//	in:   comparable structs that hold exactly what a generator may know
//	out:  *Resource, encoded once, with the configuration objects it came from
//
// A generator's input is its cache key. There is nothing to keep in step by hand:
// whatever a generator can read decides whether it runs again. That holds because
// everything in package model is immutable and pointers there stand for contents.
//
// Two inputs that differ may give the same bytes; then they give the same *Resource,
// and nobody is sent anything.
package envoy
