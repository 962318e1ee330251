package image

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/core/remotes"
	"github.com/containerd/containerd/v2/core/remotes/docker"
	"github.com/distribution/reference"
	corev1 "k8s.io/api/core/v1"
)

// Hosts says how registries are reached.
type Hosts struct {
	PlainHTTP []string     // registries (host:port) spoken to without TLS
	Client    *http.Client // default http.DefaultClient
}

// Pull fetches and unpacks an image. Calls for one reference at the same time share
// one pull.
func (s *Store) Pull(ctx context.Context, ref string, secrets []*corev1.Secret) (*Image, error) {
	ref, err := Normalize(ref)
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	p := s.pulls[ref]
	if p == nil {
		p = &pull{done: make(chan struct{})}
		s.pulls[ref] = p
		go s.fetch(context.WithoutCancel(ctx), ref, secrets, p)
	}
	s.mu.Unlock()
	select {
	case <-p.done:
		return p.img, p.err
	case <-ctx.Done():
		return nil, fmt.Errorf("pull image %s: %w", ref, ctx.Err())
	}
}

func (s *Store) fetch(ctx context.Context, ref string, secrets []*corev1.Secret, p *pull) {
	defer func() {
		s.mu.Lock()
		delete(s.pulls, ref)
		s.mu.Unlock()
		close(p.done)
	}()
	opts := []client.RemoteOpt{
		client.WithPullUnpack, client.WithPullSnapshotter(s.cfg.Snapshotter), client.WithResolver(s.resolver(secrets)),
	}
	ci, err := s.cfg.Client.Pull(ctx, ref, opts...)
	if err != nil {
		p.err = fmt.Errorf("pull image %s: %w", ref, err)
		return
	}
	p.img, p.err = s.learn(ctx, ci.Metadata())
	s.changed()
}

func (s *Store) resolver(secrets []*corev1.Secret) remotes.Resolver {
	known := logins(secrets)
	auth := docker.NewDockerAuthorizer(docker.WithAuthCreds(func(host string) (string, string, error) {
		l := known[hostOf(host)]
		return l.user, l.password, nil
	}))
	opts := []docker.RegistryOpt{docker.WithAuthorizer(auth)}
	if s.cfg.Hosts.Client != nil {
		opts = append(opts, docker.WithClient(s.cfg.Hosts.Client))
	}
	opts = append(opts, docker.WithPlainHTTP(func(host string) (bool, error) {
		return slices.Contains(s.cfg.Hosts.PlainHTTP, host), nil
	}))
	return docker.NewResolver(docker.ResolverOptions{Hosts: docker.ConfigureDefaultRegistries(opts...)})
}

type login struct{ user, password string }

// logins reads pull secrets of both Docker formats: registry host → who to be.
func logins(secrets []*corev1.Secret) map[string]login {
	type entry struct{ Username, Password, Auth string }
	out := map[string]login{}
	for _, s := range secrets {
		entries := map[string]entry{}
		if b, ok := s.Data[corev1.DockerConfigJsonKey]; ok {
			var file struct{ Auths map[string]entry }
			if json.Unmarshal(b, &file) == nil {
				entries = file.Auths
			}
		} else if b, ok := s.Data[corev1.DockerConfigKey]; ok {
			_ = json.Unmarshal(b, &entries)
		}
		for host, e := range entries {
			if e.Username == "" && e.Auth != "" {
				if b, err := base64.StdEncoding.DecodeString(e.Auth); err == nil {
					e.Username, e.Password, _ = strings.Cut(string(b), ":")
				}
			}
			out[hostOf(host)] = login{e.Username, e.Password}
		}
	}
	return out
}

// hostOf reduces a registry's URL to its host.
func hostOf(s string) string {
	s = strings.TrimPrefix(strings.TrimPrefix(s, "https://"), "http://")
	s, _, _ = strings.Cut(s, "/")
	if s == "index.docker.io" || s == "registry-1.docker.io" {
		return "docker.io"
	}
	return s
}

// Registry is the host that a reference names.
func Registry(ref string) string {
	named, err := reference.ParseDockerRef(ref)
	if err != nil {
		return ""
	}
	return reference.Domain(named)
}
