// Package store keeps bytes under keys, with a revision for every change.
//
//	in:   transactions on single keys, each guarded by the revision it expects
//	out:  revisions; one ordered stream of changes
//
// There are two implementations that pass one suite: Etcd, an embedded member
// or an external cluster, and Memory, which keeps everything in this process.
// Revisions grow by one with each change, over all keys.
package store

import (
	"context"
	"errors"
	"fmt"
)

// Entry is one version of one key. Its bytes are shared and must not be changed.
type Entry struct {
	Key      string
	Value    []byte
	Revision int64
}

// Event is one change. For a deletion Value is nil and Revision that of the deletion.
type Event struct {
	Entry
	Created bool
	Deleted bool
}

// Batch is what a watch delivers: events in the order of their revisions, none
// split between batches. Everything up to Revision has been delivered.
type Batch struct {
	Events   []Event
	Revision int64
}

// Store is the database.
type Store interface {
	// Get reads the newest version of a key; ErrNotFound if there is none.
	Get(ctx context.Context, key string) (Entry, error)

	// List calls each for every key under prefix, sorted, as of one revision,
	// which it returns.
	List(ctx context.Context, prefix string, each func(Entry) error) (revision int64, err error)

	// Create stores a key that does not exist; ErrExists if it does.
	Create(ctx context.Context, key string, value []byte) (revision int64, err error)

	// Update replaces the version expect; a *ConflictError if another is there or none.
	Update(ctx context.Context, key string, value []byte, expect int64) (revision int64, err error)

	// Delete removes the version expect; a *ConflictError if another is there or none.
	Delete(ctx context.Context, key string, expect int64) (revision int64, err error)

	// Watch sends all changes under prefix after revision, until ctx ends or the
	// returned channel is closed; then Err of the stream says why. ErrCompacted:
	// revision is too old.
	Watch(ctx context.Context, prefix string, revision int64) *Stream

	// Current is the newest revision of any change that was acknowledged to
	// anybody before the call. It is cheap: concurrent calls share one round trip.
	Current(ctx context.Context) (int64, error)
}

// The kinds of errors. Every error of a Store is one of these, wrapped, or a
// context's error.
var (
	ErrNotFound    = errors.New("key not found")
	ErrExists      = errors.New("key exists")
	ErrCompacted   = errors.New("revision has been compacted")
	ErrNoSpace     = errors.New("the database has reached its size limit (quota)")
	ErrTooLarge    = errors.New("value is too large")
	ErrUnavailable = errors.New("the database does not answer")
)

// ConflictError says that a key was not at the expected revision.
type ConflictError struct {
	Key     string
	Expect  int64
	Current *Entry // nil if the key is gone
}

func (e *ConflictError) Error() string {
	if e.Current == nil {
		return fmt.Sprintf("key %s is gone, expected revision %d", e.Key, e.Expect)
	}
	return fmt.Sprintf("key %s is at revision %d, expected %d", e.Key, e.Current.Revision, e.Expect)
}

// Stream is one watch.
type Stream struct {
	C   <-chan Batch
	err error // set before C is closed
}

// Err is why C was closed; nil when its context ended.
func (s *Stream) Err() error { return s.err }
