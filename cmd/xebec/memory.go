package main

import (
	"bufio"
	"context"
	"os"
	"runtime/debug"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// trimEvery is how often pages of the program that have not been used are given back.
const trimEvery = 15 * time.Second

// trim gives memory back that only the start needed: the heap's free pages, and
// pages of the program's own file, most of which are touched once, when packages
// initialise themselves. What is used again is mapped again from the page cache,
// 16 pages at a fault, which costs about a millisecond each time.
func trim(ctx context.Context) error {
	timer := time.NewTimer(3 * time.Second)
	defer timer.Stop()
	for first := true; ; first = false {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-timer.C:
		}
		if first {
			debug.FreeOSMemory()
		}
		if err := dropFilePages(); err != nil {
			return err
		}
		timer.Reset(trimEvery)
	}
}

// dropFilePages unmaps (not: unloads) the pages of read-only file mappings of
// which no page has been written, madvise(2) MADV_DONTNEED.
func dropFilePages() error {
	f, err := os.Open("/proc/self/smaps")
	if err != nil {
		return err
	}
	defer f.Close()
	var start, end uint64
	var candidate bool
	for lines := bufio.NewScanner(f); lines.Scan(); {
		fields := strings.Fields(lines.Text())
		switch {
		case len(fields) >= 6 && strings.Contains(fields[0], "-") && strings.HasPrefix(fields[5], "/"):
			from, to, _ := strings.Cut(fields[0], "-")
			start, _ = strconv.ParseUint(from, 16, 64)
			end, _ = strconv.ParseUint(to, 16, 64)
			candidate = start < end && fields[1][0] == 'r' && fields[1][1] == '-' && fields[1][3] == 'p'
		case len(fields) >= 5 && strings.Contains(fields[0], "-"):
			candidate = false
		case candidate && fields[0] == "Anonymous:":
			candidate = false
			if fields[1] == "0" {
				if _, _, errno := unix.Syscall(unix.SYS_MADVISE, uintptr(start), uintptr(end-start), unix.MADV_DONTNEED); errno != 0 {
					return os.NewSyscallError("madvise", errno)
				}
			}
		}
	}
	return nil
}
