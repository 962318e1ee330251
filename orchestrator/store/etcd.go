package store

import (
	"context"
	"crypto/tls"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/server/v3/embed"
	"golang.org/x/sync/errgroup"
)

// Config says where the database is: Dir for an embedded member, Endpoints for
// an external cluster. One of the two is required.
type Config struct {
	// Dir is where an embedded member keeps its data.
	Dir string
	// Socket is a Unix socket on which the embedded member answers etcdctl; "" is none.
	Socket string
	// Member makes the embedded member one of several; nil is a single one.
	Member *Member

	// Endpoints are the client URLs of an external cluster; TLS is how to reach them.
	Endpoints []string
	TLS       *tls.Config

	// Prefix opens the keys of which this Store knows; default "/registry/".
	Prefix string
	// Quota is the size limit of an embedded database in bytes; default 4 GiB.
	Quota int64
	// MinFree is the space in bytes below which an embedded database takes no more
	// writes, since its log must never meet a full disk. Default 192 MiB.
	MinFree int64
	// Timeout bounds one request. Default 10 s.
	Timeout time.Duration
	// CompactEvery is how often history older than CompactEvery is dropped. Default 5 minutes.
	CompactEvery time.Duration

	Log *slog.Logger // required
}

// Member is the place of an embedded member among several.
type Member struct {
	Name     string
	PeerURL  string            // https://host:port, where the others reach this one
	Peers    map[string]string // all members, this one included: name to peer URL
	Existing bool              // join a cluster that runs already
	// CertFile, KeyFile and CAFile secure the traffic between members.
	CertFile, KeyFile, CAFile string
}

// Etcd is a Store in etcd. Its methods wait until Run has it ready.
type Etcd struct {
	cfg    Config
	ready  chan struct{}
	client *clientv3.Client // set before ready is closed
	member *embed.Etcd      // nil for an external cluster

	current  single       // batches reads of the current revision
	full     atomic.Bool  // no space on the disk
	newest   atomic.Int64 // newest revision that a response carried
	done     chan struct{}
	doneOnce sync.Once
}

// NewEtcd checks cfg.
func NewEtcd(cfg Config) (*Etcd, error) {
	if (cfg.Dir == "") == (len(cfg.Endpoints) == 0) {
		return nil, fmt.Errorf("make store: give either a directory for an embedded database or endpoints of an external one")
	}
	if cfg.Log == nil {
		return nil, fmt.Errorf("make store: no log given")
	}
	if cfg.Prefix == "" {
		cfg.Prefix = "/registry/"
	}
	if cfg.Quota == 0 {
		cfg.Quota = 4 << 30
	}
	if cfg.MinFree == 0 {
		cfg.MinFree = 192 << 20
	}
	if cfg.Timeout == 0 {
		cfg.Timeout = 10 * time.Second
	}
	if cfg.CompactEvery == 0 {
		cfg.CompactEvery = 5 * time.Minute
	}
	e := &Etcd{cfg: cfg, ready: make(chan struct{}), done: make(chan struct{})}
	e.current.read = e.readCurrent
	return e, nil
}

// Ready is closed when requests are answered.
func (e *Etcd) Ready() <-chan struct{} { return e.ready }

// Run connects or starts the member, keeps the database compact, and closes it
// when ctx ends.
func (e *Etcd) Run(ctx context.Context) error {
	defer e.doneOnce.Do(func() { close(e.done) })
	stop, err := e.open(ctx)
	if err != nil {
		return err
	}
	defer stop()
	close(e.ready)
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return e.compactLoop(ctx) })
	if e.member != nil {
		g.Go(func() error { return e.watchDisk(ctx) })
		g.Go(func() error { return e.watchMember(ctx) })
	}
	return g.Wait()
}

func (e *Etcd) open(ctx context.Context) (stop func(), err error) {
	if e.cfg.Dir != "" {
		return e.startMember(ctx)
	}
	e.client, err = clientv3.New(clientv3.Config{
		Endpoints:            e.cfg.Endpoints,
		TLS:                  e.cfg.TLS,
		DialTimeout:          e.cfg.Timeout,
		DialKeepAliveTime:    10 * time.Second,
		DialKeepAliveTimeout: 5 * time.Second,
		MaxCallSendMsgSize:   maxRequest,
		MaxCallRecvMsgSize:   1 << 30,
		Logger:               zapLogger(e.cfg.Log),
		Context:              ctx,
	})
	if err != nil {
		return nil, fmt.Errorf("connect to etcd %v: %w", e.cfg.Endpoints, err)
	}
	if err := e.reach(ctx); err != nil {
		_ = e.client.Close()
		return nil, err
	}
	return func() { _ = e.client.Close() }, nil
}

// reach waits until the external cluster answers, saying every ten seconds that it does not.
func (e *Etcd) reach(ctx context.Context) error {
	for {
		try, cancel := context.WithTimeout(ctx, e.cfg.Timeout)
		_, err := e.client.Get(try, e.cfg.Prefix, clientv3.WithCountOnly())
		cancel()
		if err == nil {
			return nil
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		e.cfg.Log.Warn("etcd does not answer yet", "endpoints", e.cfg.Endpoints, "err", err)
		select {
		case <-time.After(time.Second):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// begin waits for readiness and bounds a request.
func (e *Etcd) begin(ctx context.Context) (context.Context, context.CancelFunc, error) {
	select {
	case <-e.ready:
	default:
		select {
		case <-e.ready:
		case <-e.done:
			return nil, nil, fmt.Errorf("%w: it has been stopped", ErrUnavailable)
		case <-ctx.Done():
			return nil, nil, ctx.Err()
		}
	}
	ctx, cancel := context.WithTimeout(ctx, e.cfg.Timeout)
	return ctx, cancel, nil
}

// saw remembers the newest revision that was acknowledged.
func (e *Etcd) saw(rev int64) int64 {
	for {
		old := e.newest.Load()
		if rev <= old || e.newest.CompareAndSwap(old, rev) {
			return rev
		}
	}
}
