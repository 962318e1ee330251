package intercept

import (
	"fmt"
	"os"
	"runtime"
	"syscall"

	"golang.org/x/sys/unix"
)

// netns is an open network namespace.
type netns struct {
	file   *os.File
	inode  uint64
	cookie uint64 // unique since boot
}

func openNetNS(path string) (*netns, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("open network namespace: %w", err)
	}
	info, err := f.Stat()
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("open network namespace: %w", err)
	}
	cookie, err := netnsCookie(f)
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("read network namespace's cookie: %w", err)
	}
	return &netns{f, info.Sys().(*syscall.Stat_t).Ino, cookie}, nil
}

// netnsCookie asks a socket that is made inside.
func netnsCookie(f *os.File) (cookie uint64, err error) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // for good: the thread ends with the goroutine
		if err = unix.Setns(int(f.Fd()), unix.CLONE_NEWNET); err != nil {
			return
		}
		var fd int
		if fd, err = unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0); err != nil {
			return
		}
		defer unix.Close(fd)
		cookie, err = unix.GetsockoptUint64(fd, unix.SOL_SOCKET, unix.SO_NETNS_COOKIE)
	}()
	<-done
	return cookie, err
}
