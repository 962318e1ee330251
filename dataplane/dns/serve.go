package dns

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"

	"golang.org/x/sync/errgroup"
)

// ServeConfig says what the DNS program serves.
type ServeConfig struct {
	Dir         string // of snapshot, socket and pid
	Listen      []netip.AddrPort
	Domain      string           // default cluster.local
	Upstream    []netip.AddrPort // default from Resolv
	Resolv      string           // default /etc/resolv.conf
	Fingerprint string           // of program and arguments: who connects compares it with what it would start
	Log         *slog.Logger
}

// Files in the directory of the program.
const (
	snapshotFile = "snapshot.json"
	socketFile   = "dns.sock"
	pidFile      = "pid"
	logFile      = "log"
)

// hello is the first message to whoever connects.
type hello struct {
	Fingerprint string `json:"fingerprint"`
	PID         int    `json:"pid"`
}

// ack says that updates up to a generation are served.
type ack struct {
	Generation uint64 `json:"generation"`
}

// Serve is the DNS program: it serves what the snapshot has, and then what comes
// over the socket. A later program with the same directory takes the socket over.
func Serve(ctx context.Context, cfg ServeConfig) error {
	if cfg.Domain == "" {
		cfg.Domain = DefaultDomain
	}
	if cfg.Resolv == "" {
		cfg.Resolv = "/etc/resolv.conf"
	}
	if len(cfg.Upstream) == 0 {
		servers, err := upstreams(cfg.Resolv, cfg.Listen)
		if err != nil {
			cfg.Log.Warn("no upstream", "file", cfg.Resolv, "err", err)
		}
		cfg.Upstream = servers
	}
	t := newTable()
	if err := load(filepath.Join(cfg.Dir, snapshotFile), t); err != nil {
		cfg.Log.Warn("snapshot not used", "err", err)
	}
	udp, tcp, err := listen(ctx, cfg.Listen)
	if err != nil {
		return err
	}
	socket := filepath.Join(cfg.Dir, socketFile)
	if err := os.Remove(socket); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	control, err := net.Listen("unix", socket)
	if err != nil {
		return fmt.Errorf("listen: %w", err)
	}
	// The file is the next program's by the time that this one ends.
	control.(*net.UnixListener).SetUnlinkOnClose(false)
	if err := os.Chmod(socket, 0o600); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(cfg.Dir, pidFile), []byte(strconv.Itoa(os.Getpid())), 0o600); err != nil {
		return err
	}
	s := &server{zone: zone{cfg.Domain + ".", t}, forward: newForwarder(cfg.Upstream), log: cfg.Log}
	f := &feed{cfg: cfg, table: t, dirty: make(chan struct{}, 1)}
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return s.run(ctx, udp, tcp) })
	g.Go(func() error { return f.accept(ctx, control) })
	g.Go(func() error { return f.save(ctx) })
	return g.Wait()
}

// feed takes updates in and writes snapshots out.
type feed struct {
	cfg   ServeConfig
	table *table
	dirty chan struct{}
}

func (f *feed) accept(ctx context.Context, l net.Listener) error {
	defer context.AfterFunc(ctx, func() { l.Close() })()
	for {
		c, err := l.Accept()
		if err != nil {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			return fmt.Errorf("accept: %w", err)
		}
		go f.take(ctx, c)
	}
}

// take serves one connection: updates in, acknowledgements out.
func (f *feed) take(ctx context.Context, c net.Conn) {
	defer c.Close()
	defer context.AfterFunc(ctx, func() { c.Close() })()
	out := json.NewEncoder(c)
	if err := out.Encode(hello{f.cfg.Fingerprint, os.Getpid()}); err != nil {
		return
	}
	first := true
	for in := json.NewDecoder(c); ; {
		var u Update
		if err := in.Decode(&u); err != nil {
			if !errors.Is(err, io.EOF) && ctx.Err() == nil {
				f.cfg.Log.Warn("update not understood", "err", err)
			}
			return
		}
		if first && u.Full { // a new feeder counts generations from its own start
			f.table.mu.Lock()
			f.table.generation = 0
			f.table.mu.Unlock()
		}
		first = false
		f.table.apply(u)
		select {
		case f.dirty <- struct{}{}:
		default:
		}
		if err := out.Encode(ack{u.Generation}); err != nil {
			return
		}
	}
}

// save writes a snapshot after changes; those that come meanwhile go into the next.
func (f *feed) save(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-f.dirty:
		}
		if err := store(filepath.Join(f.cfg.Dir, snapshotFile), f.table); err != nil {
			f.cfg.Log.Error("snapshot not written", "err", err)
		}
	}
}

func load(file string, t *table) error {
	data, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	u, err := decodeUpdate(data)
	if err != nil {
		return fmt.Errorf("%s: %w", file, err)
	}
	t.apply(u)
	return nil
}

func decodeUpdate(data []byte) (Update, error) {
	var u Update
	err := json.Unmarshal(data, &u)
	return u, err
}

// store replaces the file in one step.
func store(file string, t *table) error {
	data, err := json.Marshal(t.snapshot())
	if err != nil {
		return err
	}
	next := file + ".next"
	if err := os.WriteFile(next, data, 0o600); err != nil {
		return err
	}
	return os.Rename(next, file)
}

// ReadSnapshot returns what the program with this directory serves, as of its
// last change.
func ReadSnapshot(dir string) (Update, error) {
	data, err := os.ReadFile(filepath.Join(dir, snapshotFile))
	if err != nil {
		return Update{}, fmt.Errorf("read DNS records: %w", err)
	}
	return decodeUpdate(data)
}
