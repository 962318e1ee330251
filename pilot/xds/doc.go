// Package xds serves Envoy's configuration: delta xDS over one aggregated stream for
// each proxy, and the state-of-the-world variant for clients that want it.
//
//	in:   model.Mesh and what changed in it, through Update; streams, through For
//	out:  DiscoveryResponses; Rejections, for whatever a proxy refused
//
// One goroutine, the engine, owns the mesh, the views and the cache. It gives each
// stream an immutable target; a stream's own goroutine brings its proxy there, one
// response of a type in flight at a time. So changes are batched exactly while the
// previous batch is under way, and a slow proxy slows nobody.
//
// Order keeps every request whole. What is referred to arrives and is in force before
// what refers to it; what is no longer referred to goes last:
//
//	clusters → their endpoints → (both acknowledged) → listeners, tables, hosts
//	                                                 → (all acknowledged) → removed clusters
//
// A resource that a proxy refuses is not sent again to anybody; package view shows
// the last good one in its place. If a response held many, it is sent again in parts
// until the one to blame is alone.
package xds
