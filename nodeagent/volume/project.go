package volume

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/xebec-mesh/xebec/nodeagent/container"
	"github.com/xebec-mesh/xebec/orchestrator/client"
)

// sources sees every volume that is made of objects as a projected one; nil for others.
func sources(v corev1.VolumeSource) []corev1.VolumeProjection {
	switch {
	case v.ConfigMap != nil:
		return []corev1.VolumeProjection{{ConfigMap: &corev1.ConfigMapProjection{
			LocalObjectReference: v.ConfigMap.LocalObjectReference, Items: v.ConfigMap.Items, Optional: v.ConfigMap.Optional,
		}}}
	case v.Secret != nil:
		return []corev1.VolumeProjection{{Secret: &corev1.SecretProjection{
			LocalObjectReference: corev1.LocalObjectReference{Name: v.Secret.SecretName}, Items: v.Secret.Items, Optional: v.Secret.Optional,
		}}}
	case v.DownwardAPI != nil:
		return []corev1.VolumeProjection{{DownwardAPI: &corev1.DownwardAPIProjection{Items: v.DownwardAPI.Items}}}
	case v.Projected != nil:
		if v.Projected.Sources == nil {
			return []corev1.VolumeProjection{}
		}
		return v.Projected.Sources
	}
	return nil
}

func defaultMode(v corev1.VolumeSource) os.FileMode {
	for _, m := range []*int32{
		modeOf(v.ConfigMap, func(s *corev1.ConfigMapVolumeSource) *int32 { return s.DefaultMode }),
		modeOf(v.Secret, func(s *corev1.SecretVolumeSource) *int32 { return s.DefaultMode }),
		modeOf(v.DownwardAPI, func(s *corev1.DownwardAPIVolumeSource) *int32 { return s.DefaultMode }),
		modeOf(v.Projected, func(s *corev1.ProjectedVolumeSource) *int32 { return s.DefaultMode }),
	} {
		if m != nil {
			return os.FileMode(*m)
		}
	}
	return 0o644
}

func modeOf[T any](v *T, f func(*T) *int32) *int32 {
	if v == nil {
		return nil
	}
	return f(v)
}

// projectedDir is where a projected volume lies: in memory, but for ConfigMaps.
func (m *Manager) projectedDir(pod *corev1.Pod, vol *corev1.Volume) string {
	if vol.ConfigMap != nil {
		return m.disk(pod, vol.Name)
	}
	return filepath.Join(m.memory(pod), vol.Name)
}

// project writes a projected volume.
func (m *Manager) project(ctx context.Context, v *podVolumes, vol *corev1.Volume, src []corev1.VolumeProjection) error {
	files, err := m.collect(ctx, v, vol, src)
	if err != nil {
		return err
	}
	dir := m.projectedDir(v.pod, vol)
	if vol.ConfigMap == nil {
		if err := inMemory(m.memory(v.pod)); err != nil {
			return err
		}
	}
	return Write(dir, files, fsGroup(v.pod))
}

// inMemory mounts a tmpfs at dir unless one is there.
func inMemory(dir string) error {
	var st unix.Statfs_t
	if unix.Statfs(dir, &st) == nil && st.Type == unix.TMPFS_MAGIC {
		if points, err := mountPoints(dir); err == nil && len(points) > 0 && points[0] == dir {
			return nil
		}
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	if err := unix.Mount("tmpfs", dir, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "mode=0755"); err != nil {
		return fmt.Errorf("mount tmpfs at %s: %w", dir, err)
	}
	return nil
}

// File is a file of a projected volume.
type File struct {
	Data []byte
	Mode os.FileMode
}

// collect gathers the files of a projected volume, by path.
func (m *Manager) collect(ctx context.Context, v *podVolumes, vol *corev1.Volume, src []corev1.VolumeProjection) (map[string]File, error) {
	c := &collector{files: map[string]File{}, mode: defaultMode(vol.VolumeSource)}
	ns := v.pod.Namespace
	for _, s := range src {
		var err error
		switch {
		case s.ConfigMap != nil:
			cm, ok := m.ConfigMap(ns, s.ConfigMap.Name)
			data := map[string][]byte{}
			if ok {
				for k, t := range cm.Data {
					data[k] = []byte(t)
				}
				for k, b := range cm.BinaryData {
					data[k] = b
				}
			}
			err = c.object("configmap", ns, s.ConfigMap.Name, ok, isTrue(s.ConfigMap.Optional), data, s.ConfigMap.Items)
		case s.Secret != nil:
			sec, ok := m.Secret(ns, s.Secret.Name)
			var data map[string][]byte
			if ok {
				data = sec.Data
			}
			err = c.object("secret", ns, s.Secret.Name, ok, isTrue(s.Secret.Optional), data, s.Secret.Items)
		case s.DownwardAPI != nil:
			err = c.downward(v.pod, s.DownwardAPI.Items, m.cfg.Allocatable())
		case s.ServiceAccountToken != nil:
			var t string
			if t, err = m.token(ctx, v, vol.Name, s.ServiceAccountToken); err == nil {
				err = c.add(s.ServiceAccountToken.Path, []byte(t), nil)
			}
		default:
			err = errors.New("a source of this kind is not supported on this node")
		}
		if err != nil {
			return nil, err
		}
	}
	return c.files, nil
}

type collector struct {
	files map[string]File
	mode  os.FileMode
}

func isTrue(b *bool) bool { return b != nil && *b }

func (c *collector) add(name string, data []byte, mode *int32) error {
	clean := path.Clean(name)
	if path.IsAbs(name) || clean == "." || clean == ".." || strings.HasPrefix(clean, "../") || strings.HasPrefix(clean, "..data") {
		return fmt.Errorf("path %q: want a relative path that stays inside the volume", name)
	}
	f := File{Data: data, Mode: c.mode}
	if mode != nil {
		f.Mode = os.FileMode(*mode)
	}
	c.files[clean] = f
	return nil
}

func (c *collector) object(kind, ns, name string, found, optional bool, data map[string][]byte, items []corev1.KeyToPath) error {
	if !found && !optional {
		return fmt.Errorf("%s %q not found", kind, name)
	}
	if len(items) == 0 {
		for k, b := range data {
			if err := c.add(k, b, nil); err != nil {
				return err
			}
		}
		return nil
	}
	for _, i := range items {
		b, ok := data[i.Key]
		if !ok {
			if optional {
				continue
			}
			return fmt.Errorf("%s references non-existent key: %s", kind+" "+ns+"/"+name, i.Key)
		}
		if err := c.add(i.Path, b, i.Mode); err != nil {
			return err
		}
	}
	return nil
}

func (c *collector) downward(pod *corev1.Pod, items []corev1.DownwardAPIVolumeFile, allocatable corev1.ResourceList) error {
	for _, i := range items {
		var text string
		var err error
		switch {
		case i.FieldRef != nil:
			text, err = container.Field(pod, i.FieldRef.FieldPath, container.Sources{})
		case i.ResourceFieldRef != nil:
			text, err = container.ResourceField(pod, &corev1.Container{}, i.ResourceFieldRef, allocatable)
		}
		if err != nil {
			return err
		}
		if err := c.add(i.Path, []byte(text), i.Mode); err != nil {
			return err
		}
	}
	return nil
}

// token is a service account's token in a volume.
type token struct {
	value   string
	refresh time.Time // at four fifths of its life
}

// token returns the token for a path, asking for a new one when it is due.
func (m *Manager) token(ctx context.Context, v *podVolumes, volume string, p *corev1.ServiceAccountTokenProjection) (string, error) {
	key := volume + "/" + p.Path
	now := time.Now()
	if t := v.tokens[key]; t != nil && now.Before(t.refresh) {
		return t.value, nil
	}
	life := int64(3600)
	if p.ExpirationSeconds != nil {
		life = *p.ExpirationSeconds
	}
	req := &authenticationv1.TokenRequest{Spec: authenticationv1.TokenRequestSpec{
		ExpirationSeconds: &life,
		BoundObjectRef:    &authenticationv1.BoundObjectReference{APIVersion: "v1", Kind: "Pod", Name: v.pod.Name, UID: v.pod.UID},
	}}
	if p.Audience != "" {
		req.Spec.Audiences = []string{p.Audience}
	}
	account := v.pod.Spec.ServiceAccountName
	if account == "" {
		account = "default"
	}
	answer, err := m.cfg.Client.CreateSub(ctx, client.ServiceAccounts.Resource, types.NamespacedName{Namespace: v.pod.Namespace, Name: account}, "token", req)
	if err != nil {
		return "", fmt.Errorf("fetch token: %w", err)
	}
	got, ok := answer.(*authenticationv1.TokenRequest)
	if !ok {
		return "", fmt.Errorf("fetch token: the server answered with %T", answer)
	}
	t := &token{value: got.Status.Token, refresh: now.Add(time.Duration(life) * time.Second * 4 / 5)}
	if exp := got.Status.ExpirationTimestamp.Time; exp.After(now) {
		t.refresh = now.Add(exp.Sub(now) * 4 / 5)
	}
	v.tokens[key] = t
	return t.value, nil
}

// schedule arranges for the pod's next token to be refreshed.
func (m *Manager) schedule(ctx context.Context, v *podVolumes) {
	if v.timer != nil {
		v.timer.Stop()
	}
	var next time.Time
	for _, t := range v.tokens {
		if next.IsZero() || t.refresh.Before(next) {
			next = t.refresh
		}
	}
	if next.IsZero() || v.gone {
		return
	}
	ctx = context.WithoutCancel(ctx)
	v.timer = time.AfterFunc(max(time.Second, time.Until(next)), func() {
		v.mu.Lock()
		defer v.mu.Unlock()
		if err := m.rewrite(ctx, v); err != nil {
			m.cfg.Log.Info("refresh token", "pod", client.Key(v.pod), "err", err)
		}
	})
}
