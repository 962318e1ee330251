package image

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"golang.org/x/sys/unix"
)

// CollectorConfig says when images are removed.
type CollectorConfig struct {
	Store   *Store
	Root    string                                // a path on the disk that images lie on
	High    int                                   // per cent of the disk in use at which removal begins; default 85
	Low     int                                   // … and at which it ends; default 80
	Period  time.Duration                         // between looks at the disk; default 5 minutes
	InUse   func() []string                       // references that pods of the node use
	Context func(context.Context) context.Context // adds containerd's namespace
	Log     *slog.Logger
}

// Collector removes images that no pod uses when the disk fills. Images that were
// built on the node (xebec.local/…) stay: nobody could pull them again.
type Collector struct{ cfg CollectorConfig }

// NewCollector checks the configuration.
func NewCollector(cfg CollectorConfig) (*Collector, error) {
	if cfg.Store == nil || cfg.Root == "" || cfg.InUse == nil || cfg.Context == nil {
		return nil, errors.New("configure image collection: Store, Root, InUse and Context are needed")
	}
	if cfg.High == 0 {
		cfg.High, cfg.Low = 85, 80
	}
	if cfg.Period == 0 {
		cfg.Period = 5 * time.Minute
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	return &Collector{cfg}, nil
}

// Run looks at the disk until ctx ends.
func (c *Collector) Run(ctx context.Context) error {
	t := time.NewTicker(c.cfg.Period)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-t.C:
			if err := c.Collect(c.cfg.Context(ctx)); err != nil {
				c.cfg.Log.Info("collect images", "err", err)
			}
		}
	}
}

// Collect removes what it should remove now.
func (c *Collector) Collect(ctx context.Context) error {
	use, size, err := disk(c.cfg.Root)
	if err != nil {
		return err
	}
	if use*100 < int64(c.cfg.High)*size {
		return nil
	}
	images, err := c.cfg.Store.List(ctx)
	if err != nil {
		return err
	}
	for _, img := range garbage(images, c.cfg.InUse(), use-int64(c.cfg.Low)*size/100) {
		c.cfg.Log.Info("remove unused image", "image", img.Ref)
		if err := c.cfg.Store.Remove(ctx, img.Ref); err != nil {
			return err
		}
	}
	return nil
}

// garbage chooses images to remove until so many bytes are free. It is pure.
func garbage(images []*Image, inUse []string, bytes int64) []*Image {
	used := map[string]bool{}
	for _, ref := range inUse {
		if n, err := Normalize(ref); err == nil {
			used[n] = true
		}
	}
	ids := map[string]bool{}
	for _, i := range images {
		if used[i.Ref] {
			ids[i.ID] = true
		}
	}
	var out []*Image
	for _, i := range images {
		if bytes <= 0 {
			break
		}
		if used[i.Ref] || ids[i.ID] || Registry(i.Ref) == "xebec.local" {
			continue
		}
		out = append(out, i)
		bytes -= i.Size
	}
	return out
}

func disk(path string) (used, size int64, err error) {
	var st unix.Statfs_t
	if err := unix.Statfs(path, &st); err != nil {
		return 0, 0, fmt.Errorf("stat file system of %s: %w", path, err)
	}
	return int64(st.Blocks-st.Bfree) * st.Bsize, int64(st.Blocks) * st.Bsize, nil
}
