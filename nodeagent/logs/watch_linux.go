package logs

import (
	"fmt"
	"os"
	"path/filepath"
	"syscall"
)

// watch tells when the file at path, or what stands at path, may have changed.
// The channel holds one: a change that comes while the reader is busy is not lost.
func watch(path string) (<-chan struct{}, func(), error) {
	fd, err := syscall.InotifyInit1(syscall.IN_CLOEXEC | syscall.IN_NONBLOCK)
	if err != nil {
		return nil, nil, fmt.Errorf("watch log: %w", err)
	}
	const events = syscall.IN_MODIFY | syscall.IN_CREATE | syscall.IN_MOVED_TO | syscall.IN_MOVED_FROM
	if _, err := syscall.InotifyAddWatch(fd, filepath.Dir(path), events); err != nil {
		syscall.Close(fd)
		return nil, nil, fmt.Errorf("watch log: %w", err)
	}
	f := os.NewFile(uintptr(fd), "inotify")
	c := make(chan struct{}, 1)
	c <- struct{}{} // what came between the first read and the watch
	go func() {
		buf := make([]byte, 4096)
		for {
			if _, err := f.Read(buf); err != nil {
				return
			}
			select {
			case c <- struct{}{}:
			default:
			}
		}
	}()
	return c, func() { f.Close() }, nil
}
