package main

import (
	"fmt"
	"io"
	"net"
	"runtime"
	"syscall"
	"time"
	"unsafe"
)

const (
	// A small batch, so that a thousand readable streams do not delay a call that is due.
	eventsMax       = 64
	readBytesMax    = 256 << 10
	sysEpollPwait2  = 441 // The same number on all 64-bit architectures; Linux 5.11.
	prSetTimerslack = 29
)

var began = time.Now()

// now is the time since the process began, on the monotonic clock.
func now() time.Duration { return time.Since(began) }

// handler is the owner of one connection.
type handler interface {
	// received takes what one read brought; the bytes are only valid during the call.
	received(data []byte, at time.Duration)
	// broken says that the connection has ended; it is closed already.
	broken(err error)
}

// loop waits for all connections in one thread, without a goroutine a connection: one read brings
// what has arrived, where the scheduler of Go would read once more to learn that there is no more.
// The generator shares its processors with the systems that it measures.
type loop struct {
	epoll  int
	owners []handler // By file descriptor.
	events [eventsMax]syscall.EpollEvent
	buffer []byte
}

func newLoop() (*loop, error) {
	runtime.LockOSThread()
	// The kernel may end a wait 50 us late by default: at 4,000 calls a second that is a fifth of
	// the interval. If it refuses, calls leave that much later, and their latency says so.
	syscall.RawSyscall(syscall.SYS_PRCTL, prSetTimerslack, 1, 0)
	epoll, err := syscall.EpollCreate1(syscall.EPOLL_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("epoll: %w", err)
	}
	return &loop{epoll: epoll, buffer: make([]byte, readBytesMax)}, nil
}

// open connects to an address and returns the file descriptor.
func (l *loop) open(address string, owner handler) (int, error) {
	fd, err := connect(address)
	if err != nil {
		return -1, fmt.Errorf("connect to %s: %w", address, err)
	}
	event := syscall.EpollEvent{Events: syscall.EPOLLIN, Fd: int32(fd)}
	if err := syscall.EpollCtl(l.epoll, syscall.EPOLL_CTL_ADD, fd, &event); err != nil {
		syscall.Close(fd)
		return -1, fmt.Errorf("epoll: %w", err)
	}
	for len(l.owners) <= fd {
		l.owners = append(l.owners, nil)
	}
	l.owners[fd] = owner
	return fd, nil
}

func connect(address string) (int, error) {
	target, err := net.ResolveTCPAddr("tcp4", address)
	if err != nil {
		return -1, err
	}
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	to := &syscall.SockaddrInet4{Port: target.Port}
	copy(to.Addr[:], target.IP.To4())
	for _, step := range []func() error{
		func() error { return syscall.Connect(fd, to) },
		func() error { return syscall.SetNonblock(fd, true) },
		func() error {
			return syscall.SetsockoptInt(fd, syscall.IPPROTO_TCP, syscall.TCP_NODELAY, 1)
		},
	} {
		if err := step(); err != nil {
			syscall.Close(fd)
			return -1, err
		}
	}
	return fd, nil
}

// close ends a connection; its owner is not told.
func (l *loop) close(fd int) {
	l.owners[fd] = nil
	syscall.Close(fd)
}

// poll waits until something has arrived, at most so long, and hands it to the owners.
func (l *loop) poll(wait time.Duration) error {
	if wait < 0 {
		wait = 0
	}
	limit := syscall.NsecToTimespec(int64(wait))
	// Raw, or the runtime would wake another thread at each wait to see whether there is work for
	// it, which doubles what a call costs us. There is no other goroutine that could miss a turn.
	count, _, errno := syscall.RawSyscall6(sysEpollPwait2, uintptr(l.epoll),
		uintptr(unsafe.Pointer(&l.events[0])), eventsMax, uintptr(unsafe.Pointer(&limit)), 0, 0)
	if errno == syscall.EINTR {
		return nil
	}
	if errno != 0 {
		return fmt.Errorf("epoll_pwait2 (it needs Linux 5.11): %w", errno)
	}
	for _, event := range l.events[:count] {
		l.read(int(event.Fd))
	}
	return nil
}

func (l *loop) read(fd int) {
	owner := l.owners[fd]
	if owner == nil {
		return
	}
	count, err := syscall.Read(fd, l.buffer)
	if err == syscall.EAGAIN || err == syscall.EINTR {
		return
	}
	if err == nil && count == 0 {
		err = io.EOF
	}
	if err != nil {
		l.close(fd)
		owner.broken(err)
		return
	}
	owner.received(l.buffer[:count], now())
}
