package cache

import (
	"fmt"
	"log/slog"
	"time"

	"github.com/xebec-mesh/xebec/orchestrator/store"
)

// Config says what a Hub follows and how much it keeps.
type Config struct {
	Store  store.Store  // required
	Log    *slog.Logger // required
	Prefix string       // of all keys; default "/registry/"

	// HistoryAge, HistoryEvents and HistoryBytes bound how far back a watch may
	// start, for each resource. Defaults: 3 minutes, 16384 events, 32 MiB.
	HistoryAge    time.Duration
	HistoryEvents int
	HistoryBytes  int
	// PageAge is how long the next page of a list may be asked for consistently.
	// Default: 5 minutes.
	PageAge time.Duration
	// BookmarkEvery is how often watchers that allow it get a bookmark. Default: 1 minute.
	BookmarkEvery time.Duration
	// EncodingAge is for how long an encoding that nobody reads is kept. Default: 5 minutes.
	EncodingAge time.Duration
	// Verify compares objects with their encodings every EncodingAge and reports
	// those that somebody has changed in place. For tests: it costs an encoding each.
	Verify bool
}

func (c *Config) check() error {
	if c.Store == nil {
		return fmt.Errorf("make watch cache: no store given")
	}
	if c.Log == nil {
		return fmt.Errorf("make watch cache: no log given")
	}
	if c.Prefix == "" {
		c.Prefix = "/registry/"
	}
	orElse(&c.HistoryAge, 3*time.Minute)
	orElse(&c.HistoryEvents, 16384)
	orElse(&c.HistoryBytes, 32<<20)
	orElse(&c.PageAge, 5*time.Minute)
	orElse(&c.BookmarkEvery, time.Minute)
	orElse(&c.EncodingAge, 5*time.Minute)
	return nil
}

func orElse[T int | time.Duration](v *T, d T) {
	if *v == 0 {
		*v = d
	}
}
