package service

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"

	"github.com/xebec-mesh/xebec/dataplane/bpf"
)

// Run ends UDP sockets that are connected to backends that are gone, until ctx
// ends: their owners get ECONNABORTED, connect again, and reach a live one.
// Without Run, and before Linux 6.5, such sockets learn it only from ICMP errors.
func (b *Balancer) Run(ctx context.Context) error {
	prog, err := b.loadSockets()
	if err != nil {
		b.cfg.Log.Warn("UDP sockets of backends that are gone cannot be ended", "err", err)
		<-ctx.Done()
		return nil
	}
	defer prog.Close()
	iterator, err := link.AttachIter(link.IterOptions{Program: prog})
	if err != nil {
		return fmt.Errorf("iterate UDP sockets: %w", err)
	}
	defer iterator.Close()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-b.departed:
			if err := endSockets(iterator); err != nil {
				b.cfg.Log.Error("end UDP sockets of backends that are gone", "err", err)
			}
		}
	}
}

// loadSockets loads the program with the maps that Open has loaded.
func (b *Balancer) loadSockets() (*ebpf.Program, error) {
	spec, err := bpf.LoadSockets()
	if err != nil {
		return nil, fmt.Errorf("read sockets program: %w", err)
	}
	var programs bpf.SocketsPrograms
	err = spec.LoadAndAssign(&programs, &ebpf.CollectionOptions{MapReplacements: map[string]*ebpf.Map{
		"peers": b.objects.Peers, "members": b.objects.Members,
	}})
	if err != nil {
		return nil, fmt.Errorf("load sockets program: %w", err)
	}
	return programs.EndSockets, nil
}

// noteDeparted wakes Run if a plan takes a UDP backend away.
func (b *Balancer) noteDeparted(v vip, p Plan) {
	if v.Proto != UDP {
		return
	}
	for _, s := range p.steps {
		if s.action != deleteMember {
			continue
		}
		select {
		case b.departed <- struct{}{}:
		default: // it will see this one too
		}
		return
	}
}

// endSockets runs the iterator in every network namespace that a process is in.
func endSockets(iterator *link.Iter) error {
	var all error
	seen := map[string]bool{}
	paths, err := filepath.Glob("/proc/[0-9]*/ns/net")
	if err != nil {
		return err
	}
	for _, path := range paths {
		name, err := os.Readlink(path)
		if err != nil || seen[name] {
			continue // the process is gone, or somebody else's namespace was the same
		}
		seen[name] = true
		if err := inNamespace(path, func() error { return drain(iterator) }); err != nil && !errors.Is(err, os.ErrNotExist) {
			all = errors.Join(all, err)
		}
	}
	return all
}

// drain opens the iterator, for the namespace of this thread, and reads it to its end.
func drain(iterator *link.Iter) error {
	r, err := iterator.Open()
	if err != nil {
		return fmt.Errorf("open UDP iterator: %w", err)
	}
	defer r.Close()
	_, err = io.Copy(io.Discard, r)
	return err
}

func inNamespace(path string, f func() error) error {
	ns, err := os.Open(path)
	if err != nil {
		return err
	}
	defer ns.Close()
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // for good: the thread ends with the goroutine
		if err := unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET); err != nil {
			done <- fmt.Errorf("enter %s: %w", path, err)
			return
		}
		done <- f()
	}()
	return <-done
}
