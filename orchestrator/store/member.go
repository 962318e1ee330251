package store

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"sort"
	"strings"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/server/v3/embed"
	"go.etcd.io/etcd/server/v3/etcdserver/api/v3client"
	"golang.org/x/sys/unix"
)

// maxRequest is the largest request in bytes: an object of the API's limit, 1.5
// MiB, with what surrounds it.
const maxRequest = 2 << 20

// startMember starts the embedded member and waits until it has a leader.
func (e *Etcd) startMember(ctx context.Context) (stop func(), err error) {
	if err := os.MkdirAll(e.cfg.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("make etcd's directory: %w", err)
	}
	cfg, err := e.memberConfig()
	if err != nil {
		return nil, err
	}
	m, err := embed.StartEtcd(cfg)
	if err != nil {
		return nil, fmt.Errorf("start etcd in %s: %w", e.cfg.Dir, err)
	}
	stop = func() {
		_ = e.client.Close()
		m.Close()
	}
	e.member, e.client = m, v3client.New(m.Server)
	select {
	case <-m.Server.ReadyNotify():
		return stop, e.guardSocket()
	case err = <-m.Err():
	case <-m.Server.StopNotify():
		err = errors.New("it stopped")
	case <-ctx.Done():
		err = ctx.Err()
	}
	stop()
	return nil, fmt.Errorf("start etcd in %s: %w", e.cfg.Dir, err)
}

// guardSocket keeps everybody but the server's own user from the database.
func (e *Etcd) guardSocket() error {
	if e.cfg.Socket == "" {
		return nil
	}
	if err := os.Chmod(e.cfg.Socket, 0o600); err != nil {
		return fmt.Errorf("guard etcd's socket: %w", err)
	}
	return nil
}

func (e *Etcd) memberConfig() (*embed.Config, error) {
	cfg := embed.NewConfig()
	cfg.Dir = e.cfg.Dir
	cfg.ZapLoggerBuilder = embed.NewZapLoggerBuilder(zapLogger(e.cfg.Log))
	cfg.QuotaBackendBytes = e.cfg.Quota
	cfg.MaxRequestBytes = maxRequest
	cfg.EnableGRPCGateway = false
	cfg.BackendFreelistType = "map"
	// Entries that only a lagging member would want stay in memory otherwise.
	cfg.SnapshotCount, cfg.SnapshotCatchUpEntries = 5000, 500
	cfg.ListenClientUrls, cfg.AdvertiseClientUrls = nil, nil
	if e.cfg.Socket != "" {
		// Removed first: a socket that a killed process left cannot be bound.
		if err := os.Remove(e.cfg.Socket); err != nil && !errors.Is(err, os.ErrNotExist) {
			return nil, fmt.Errorf("make etcd's socket: %w", err)
		}
		u := url.URL{Scheme: "unix", Path: e.cfg.Socket}
		cfg.ListenClientUrls, cfg.AdvertiseClientUrls = []url.URL{u}, []url.URL{u}
	}
	if e.cfg.Member == nil {
		// Nobody else votes: an election costs one timeout of waiting and nothing more.
		cfg.TickMs, cfg.ElectionMs = 20, 100
		cfg.SnapshotCatchUpEntries = 10
		cfg.ListenPeerUrls = nil
		return cfg, nil
	}
	return cfg, e.joinPeers(cfg)
}

// joinPeers makes the member one of several.
func (e *Etcd) joinPeers(cfg *embed.Config) error {
	m := e.cfg.Member
	u, err := url.Parse(m.PeerURL)
	if err != nil {
		return fmt.Errorf("read etcd's peer URL: %w", err)
	}
	cfg.Name = m.Name
	cfg.ListenPeerUrls, cfg.AdvertisePeerUrls = []url.URL{*u}, []url.URL{*u}
	cfg.PeerTLSInfo.CertFile, cfg.PeerTLSInfo.KeyFile = m.CertFile, m.KeyFile
	cfg.PeerTLSInfo.TrustedCAFile, cfg.PeerTLSInfo.ClientCertAuth = m.CAFile, m.CAFile != ""
	if m.Existing {
		cfg.ClusterState = embed.ClusterStateFlagExisting
	}
	var all []string
	for name, peer := range m.Peers {
		all = append(all, name+"="+peer)
	}
	sort.Strings(all)
	cfg.InitialCluster = strings.Join(all, ",")
	return nil
}

// watchMember ends when the member ends by itself.
func (e *Etcd) watchMember(ctx context.Context) error {
	select {
	case err := <-e.member.Err():
		return fmt.Errorf("run etcd in %s: %w", e.cfg.Dir, err)
	case <-e.member.Server.StopNotify():
		return fmt.Errorf("run etcd in %s: it stopped by itself", e.cfg.Dir)
	case <-ctx.Done():
		return nil
	}
}

// watchDisk refuses writes in good time: etcd ends the process when its log
// cannot be written, so the disk must never be full.
func (e *Etcd) watchDisk(ctx context.Context) error {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		e.checkDisk()
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
	}
}

func (e *Etcd) checkDisk() {
	var s unix.Statfs_t
	if err := unix.Statfs(filepath.Clean(e.cfg.Dir), &s); err != nil {
		e.cfg.Log.Warn("cannot read free space", "dir", e.cfg.Dir, "err", err)
		return
	}
	free := int64(s.Bavail) * s.Bsize
	full := free < e.cfg.MinFree
	if e.full.Swap(full) != full {
		if full {
			e.cfg.Log.Error("disk is nearly full, writes are refused", "dir", e.cfg.Dir, "free", free, "needed", e.cfg.MinFree)
		} else {
			e.cfg.Log.Info("disk has space again, writes are accepted", "dir", e.cfg.Dir, "free", free)
		}
	}
}

// compactLoop drops history older than one period. What is newer serves
// servers that resume their watch after a pause.
func (e *Etcd) compactLoop(ctx context.Context) error {
	tick := time.NewTicker(e.cfg.CompactEvery)
	defer tick.Stop()
	last := e.newest.Load()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		now, err := e.Current(ctx)
		if err == nil && last > 0 {
			err = e.Compact(ctx, last)
		}
		if err != nil && ctx.Err() == nil {
			e.cfg.Log.Warn("compact etcd", "err", err)
			continue
		}
		last = now
	}
}

// Compact drops all history before rev. Where the database had reached its
// quota, it is also defragmented and, if that made space, opened again.
func (e *Etcd) Compact(ctx context.Context, rev int64) error {
	ctx, cancel, err := e.begin(ctx)
	if err != nil {
		return err
	}
	defer cancel()
	_, err = e.client.Compact(ctx, rev)
	if err = e.kind("compact", "", err); err != nil && !errors.Is(err, ErrCompacted) {
		return err
	}
	return e.relieve(ctx)
}

// relieve lifts the alarm that stops all writes, once there is space.
func (e *Etcd) relieve(ctx context.Context) error {
	if e.member == nil {
		return nil // the operator of an external cluster decides
	}
	alarms, err := e.client.AlarmList(ctx)
	if err != nil || len(alarms.Alarms) == 0 {
		return e.kind("list alarms", "", err)
	}
	b := e.member.Server.Backend()
	// What a compaction has freed counts only after the commits that follow it, and
	// without writes there are none.
	b.ForceCommit()
	b.ForceCommit()
	if b.SizeInUse() > e.cfg.Quota*9/10 {
		e.cfg.Log.Error("the database is full: delete objects or raise the quota", "used", b.SizeInUse(), "quota", e.cfg.Quota)
		return nil
	}
	if err := b.Defrag(); err != nil {
		return fmt.Errorf("defragment etcd: %w", err)
	}
	for _, a := range alarms.Alarms {
		if _, err := e.client.AlarmDisarm(ctx, (*clientv3.AlarmMember)(a)); err != nil {
			return fmt.Errorf("disarm etcd's alarm: %w", err)
		}
	}
	e.cfg.Log.Info("the database has space again, writes are accepted", "used", b.SizeInUse(), "quota", e.cfg.Quota)
	return nil
}
