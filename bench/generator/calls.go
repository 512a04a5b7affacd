package main

import (
	"errors"
	"fmt"
	"syscall"
	"time"
)

var errTooMuch = errors.New("more than one answer has arrived for one call")

// listener hears how calls ended.
type listener interface {
	answered(call call, found answer, at time.Duration)
	// lost says that the connection broke before the answer.
	lost(call call)
}

// call is one request that is under way.
type call struct {
	number int
	sentAt time.Duration
}

// callers are keep-alive connections; each has one call under way at most.
type callers struct {
	loop    *loop
	address string
	free    []*caller
	listen  listener
	// failed is why a connection could not be opened again; calls are pointless then.
	failed error
}

type caller struct {
	all     *callers
	fd      int
	busy    bool
	call    call
	partial []byte // The beginning of an answer that has not arrived whole.
}

func newCallers(loop *loop, address string, count int, listen listener) (*callers, error) {
	all := &callers{loop: loop, address: address, listen: listen}
	for len(all.free) < count {
		one := &caller{all: all}
		if err := one.open(); err != nil {
			return nil, err
		}
		all.free = append(all.free, one)
	}
	return all, nil
}

// send puts a call on a free connection; there must be one.
func (c *callers) send(number int, request []byte) {
	one := c.free[len(c.free)-1]
	c.free = c.free[:len(c.free)-1]
	one.busy, one.call = true, call{number, now()}
	// The socket has room: the request is small, and nothing else is under way on it.
	count, err := syscall.Write(one.fd, request)
	if err == nil && count < len(request) {
		err = fmt.Errorf("only %d bytes of a request could be sent", count)
	}
	if err != nil {
		c.loop.close(one.fd)
		one.broken(err)
	}
}

func (c *caller) open() error {
	var err error
	c.fd, err = c.all.loop.open(c.all.address, c)
	return err
}

func (c *caller) received(data []byte, at time.Duration) {
	if len(c.partial) > 0 {
		c.partial = append(c.partial, data...)
		data = c.partial
	}
	found, size, err := parseAnswer(data)
	if err == nil && (size < len(data) && size > 0 || !c.busy) {
		err = errTooMuch
	}
	if err != nil {
		c.all.loop.close(c.fd)
		c.broken(err)
		return
	}
	if size == 0 {
		if len(c.partial) == 0 {
			c.partial = append(c.partial, data...)
		}
		return
	}
	c.busy = false
	c.all.free = append(c.all.free, c)
	c.all.listen.answered(c.call, found, at)
	c.partial = c.partial[:0]
}

// broken tells the listener of the call that is lost, and connects again. A server may close a
// connection that is idle; that loses nothing.
func (c *caller) broken(error) {
	c.partial = c.partial[:0]
	if err := c.open(); err != nil {
		c.all.failed = err
	}
	if c.busy {
		c.busy = false
		c.all.free = append(c.all.free, c)
		c.all.listen.lost(c.call)
	}
}
