package cache

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"k8s.io/utils/clock"

	"github.com/xebec-mesh/xebec/orchestrator/store"
)

// Config says what a Hub follows and how much it keeps.
type Config struct {
	Store store.Store
	Clock clock.WithTicker // default: the machine's
	Log   *slog.Logger

	// HistoryAge and HistoryEvents bound how far back a watch may start, for each
	// resource. Defaults: 3 minutes, 16384 events.
	HistoryAge    time.Duration
	HistoryEvents int
	// BookmarkEvery is how often watchers that allow it get a bookmark. Default: 1 minute.
	BookmarkEvery time.Duration
}

// Watcher is one watch. It is used by one goroutine.
type Watcher struct{}

// Next waits for events and returns at least one, in order, as many as are
// there. It ends with ctx's error, or with an error of
// k8s.io/apimachinery/pkg/api/errors: 410 Gone when the watcher was too slow.
// The slice is valid until the next call.
func (w *Watcher) Next(ctx context.Context) ([]*Event, error) {
	return nil, errors.New("not written yet")
}

// Stop ends the watch; a Next that waits returns.
func (w *Watcher) Stop() {}
