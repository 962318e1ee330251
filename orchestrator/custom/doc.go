// Package custom turns CustomResourceDefinitions into kinds.
//
//	in:   CustomResourceDefinitions
//	out:  resource.Kind values for the registry; the definitions' conditions, names
//	      and stored versions; the deletion of instances of a deleted definition
//
// It is the only writer of CustomResourceDefinition.status. A kind is served from
// when its definition is Established until the definition is gone, and the
// condition is written only after the kind is served. Schemas are compiled when
// the first object needs them: a definition that nobody uses costs nothing.
//
// The stored kind of a definition is its storage version; other served versions
// are views of it, alike but for apiVersion (conversion strategy None).
package custom
