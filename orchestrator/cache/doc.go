// Package cache keeps every resource in memory as the store has it, decoded once.
//
//	in:   the store's events, all resources in one stream, in the order of their revisions
//	out:  immutable objects with their encodings; lists; watches
//
// Invariants: a resource's state is a persistent tree, so that a reader takes a
// snapshot by loading one pointer and never blocks or is blocked by the writer;
// one goroutine (the Hub's) applies events; an Object is decoded and encoded at
// most once, however many read it. A watcher that does not keep up loses its
// watch, and nobody else notices.
//
// Freshness: all resources are fed by one stream, so one number, the Hub's
// progress, says how new everything is. A consistent read asks the store for its
// current revision and waits until the progress has reached it.
package cache
