// Package image keeps the node's images: pulls, imports, builds and removes them.
//
//	in:   references, pull policies, credentials; OCI archives
//	out:  images unpacked in containerd, with what a container needs to know of them
//
// A reference is resolved to the same image until someone pulls it anew: what is
// known of an image is read once and kept.
package image

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"strings"
	"sync"

	"github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/errdefs"
	"github.com/containerd/platforms"
	"github.com/distribution/reference"
	"github.com/opencontainers/image-spec/identity"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Config is what a Store works with.
type Config struct {
	Client      *client.Client
	Snapshotter string // default "overlayfs"
	Hosts       Hosts  // how registries are reached; the zero value is as Docker does
	Log         *slog.Logger
}

// Image is one image that is on the node and unpacked.
type Image struct {
	Ref     string // normalised: docker.io/library/busybox:latest
	ID      string // digest of its configuration, as `imageID` shows it
	Digest  string // of its manifest or index
	ChainID string // the snapshot that containers start from
	Size    int64  // bytes of its compressed layers
	Config  ocispec.ImageConfig
}

// Store is the node's images.
type Store struct {
	cfg   Config
	mu    sync.Mutex
	known map[string]*Image // by normalised reference
	pulls map[string]*pull
	told  func()
}

// OnChange registers who is told that the node has other images than before.
func (s *Store) OnChange(f func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.told = f
}

func (s *Store) changed() {
	s.mu.Lock()
	f := s.told
	s.mu.Unlock()
	if f != nil {
		f()
	}
}

type pull struct {
	done chan struct{}
	img  *Image
	err  error
}

// New checks the configuration.
func New(cfg Config) (*Store, error) {
	if cfg.Client == nil {
		return nil, errors.New("configure images: Client is needed")
	}
	if cfg.Snapshotter == "" {
		cfg.Snapshotter = "overlayfs"
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	return &Store{cfg: cfg, known: map[string]*Image{}, pulls: map[string]*pull{}}, nil
}

// Snapshotter is the name of the snapshotter that images are unpacked with.
func (s *Store) Snapshotter() string { return s.cfg.Snapshotter }

// ErrInvalidName says that a reference cannot be one.
var ErrInvalidName = errors.New("invalid image name")

// Normalize completes a reference as Docker does: registry, library, tag.
func Normalize(ref string) (string, error) {
	named, err := reference.ParseDockerRef(ref)
	if err != nil {
		return "", fmt.Errorf("%w: couldn't parse image name %q: %w", ErrInvalidName, ref, err)
	}
	return named.String(), nil
}

// ErrNotPresent says that an image is not on the node.
var ErrNotPresent = errors.New("image is not present")

// Get returns an image that is on the node, or ErrNotPresent.
func (s *Store) Get(ctx context.Context, ref string) (*Image, error) {
	ref, err := Normalize(ref)
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	img := s.known[ref]
	s.mu.Unlock()
	if img != nil {
		return img, nil
	}
	record, err := s.cfg.Client.ImageService().Get(ctx, ref)
	if errdefs.IsNotFound(err) {
		return nil, ErrNotPresent
	}
	if err != nil {
		return nil, fmt.Errorf("get image %s: %w", ref, err)
	}
	return s.learn(ctx, record)
}

// learn unpacks an image where that is not done and remembers it.
func (s *Store) learn(ctx context.Context, record images.Image) (*Image, error) {
	ci := client.NewImageWithPlatform(s.cfg.Client, record, platforms.Default())
	if err := s.unpack(ctx, ci); err != nil {
		return nil, fmt.Errorf("unpack image %s: %w", record.Name, err)
	}
	desc, err := ci.Config(ctx)
	if err != nil {
		return nil, fmt.Errorf("read image %s: %w", record.Name, err)
	}
	blob, err := content.ReadBlob(ctx, s.cfg.Client.ContentStore(), desc)
	if err != nil {
		return nil, fmt.Errorf("read image %s: %w", record.Name, err)
	}
	var spec ocispec.Image
	if err := json.Unmarshal(blob, &spec); err != nil {
		return nil, fmt.Errorf("read image %s: %w", record.Name, err)
	}
	size, err := ci.Size(ctx)
	if err != nil {
		size = 0
	}
	img := &Image{
		Ref: record.Name, ID: desc.Digest.String(), Digest: record.Target.Digest.String(),
		ChainID: identity.ChainID(spec.RootFS.DiffIDs).String(), Size: size, Config: spec.Config,
	}
	s.mu.Lock()
	s.known[record.Name] = img
	s.mu.Unlock()
	return img, nil
}

func (s *Store) unpack(ctx context.Context, ci client.Image) error {
	done, err := ci.IsUnpacked(ctx, s.cfg.Snapshotter)
	if err != nil || done {
		return err
	}
	return ci.Unpack(ctx, s.cfg.Snapshotter)
}

// List returns all images of the node.
func (s *Store) List(ctx context.Context) ([]*Image, error) {
	records, err := s.cfg.Client.ImageService().List(ctx)
	if err != nil {
		return nil, fmt.Errorf("list images: %w", err)
	}
	var out []*Image
	for _, r := range records {
		if img, err := s.Get(ctx, r.Name); err == nil {
			out = append(out, img)
		}
	}
	slices.SortFunc(out, func(a, b *Image) int { return strings.Compare(a.Ref, b.Ref) })
	return out, nil
}

// Import loads an OCI or Docker archive, unpacks its images and returns them.
func (s *Store) Import(ctx context.Context, tar io.Reader) ([]*Image, error) {
	records, err := s.cfg.Client.Import(ctx, tar)
	if err != nil {
		return nil, fmt.Errorf("import images: %w", err)
	}
	var out []*Image
	for _, r := range records {
		img, err := s.learn(ctx, r)
		if err != nil {
			return nil, err
		}
		out = append(out, img)
	}
	s.changed()
	return out, nil
}

// Remove removes an image; its layers go with the next collection.
func (s *Store) Remove(ctx context.Context, ref string) error {
	ref, err := Normalize(ref)
	if err != nil {
		return err
	}
	s.mu.Lock()
	delete(s.known, ref)
	s.mu.Unlock()
	if err := s.cfg.Client.ImageService().Delete(ctx, ref, images.SynchronousDelete()); err != nil && !errdefs.IsNotFound(err) {
		return fmt.Errorf("remove image %s: %w", ref, err)
	}
	s.changed()
	return nil
}
