// Package model is the mesh as the control plane knows it: one immutable value
// that is replaced, never changed.
//
//	in:   services, endpoints, workloads and configuration, from package registry
//	out:  Mesh, a snapshot with indexes, and the Keys by which two snapshots differ
//
// Everything reachable from a Mesh is immutable, and a pointer stands for its
// content: what did not change keeps its pointer from one Mesh to the next, so
// two pointers are equal exactly if nothing that they point at has changed. Caches
// above rely on that and compare pointers instead of contents.
//
// Maps are persistent (Map): an edit copies a shard, so the cost of a change does
// not grow with the size of the mesh.
package model
