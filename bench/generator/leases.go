package main

import (
	"bytes"
	"fmt"
	"time"
)

var (
	renewed       = []byte(fmt.Sprintf(`"TTL":"%d"`, leaseTTL))
	alreadyExists = []byte("already exists")
)

// closedLoop makes the next call on a connection as soon as the one before is answered.
type closedLoop struct {
	calls   *callers
	request func(number int) []byte
	// right says whether an answer is what was asked for.
	right    func(found answer) bool
	next     int
	most     int // How many calls there are; 0: no end.
	finished int
	wrong    int // Answered with 200, and not with what was asked for.
	firstBad string
	latency  histogram
	outcome
}

func (c *closedLoop) answered(call call, found answer, at time.Duration) {
	c.finished++
	switch {
	case c.right(found):
		c.Done++
		c.latency.add(at - call.sentAt)
		return
	case found.status == 200:
		c.wrong++
	default:
		c.Refused++
	}
	if c.firstBad == "" {
		c.firstBad = fmt.Sprintf("status %d: %s", found.status, found.body)
	}
}

func (c *closedLoop) lost(call) {
	c.finished++
	c.Broken++
}

// run goes on until this moment, or until the last call has been answered.
func (c *closedLoop) run(loop *loop, until time.Duration) error {
	for now() < until && (c.most == 0 || c.finished < c.most) {
		for len(c.calls.free) > 0 && (c.most == 0 || c.next < c.most) {
			c.Sent++
			c.calls.send(c.next, c.request(c.next))
			c.next++
		}
		if err := loop.poll(until - now()); err != nil {
			return err
		}
		if c.calls.failed != nil {
			return c.calls.failed
		}
	}
	c.Unanswered = c.Sent - c.finished
	c.Due = c.Sent
	return nil
}

// grantAll makes the leases, or finds them made by the round before.
func grantAll(loop *loop, load options) error {
	grant := &closedLoop{request: grantRequest(load.address), most: load.leases}
	grant.right = func(found answer) bool {
		return found.status == 200 || bytes.Contains(found.body, alreadyExists)
	}
	calls, err := newCallers(loop, load.address, load.connections, grant)
	if err != nil {
		return err
	}
	grant.calls = calls
	if err := grant.run(loop, now()+createTime); err != nil {
		return err
	}
	if grant.Done < load.leases {
		return fmt.Errorf("%d of %d leases were granted; first refusal: %q",
			grant.Done, load.leases, grant.firstBad)
	}
	for _, one := range calls.free {
		loop.close(one.fd)
	}
	return nil
}

// leasesResult is what the mode `leases` prints.
type leasesResult struct {
	outcome
	Leases    int     `json:"leases"`
	Wrong     int     `json:"wrong"`
	FirstBad  string  `json:"first_bad"`
	ElapsedUs int64   `json:"elapsed_us"`
	Latency   latency `json:"latency"`
	OwnCPUUs  int64   `json:"own_cpu_us"`
}

// runLeases renews leases as fast as that is answered.
func runLeases(loop *loop, load options) (any, error) {
	if err := grantAll(loop, load); err != nil {
		return nil, err
	}
	request := keepAliveRequest(load.address)
	renew := &closedLoop{}
	renew.request = func(number int) []byte { return request(number % load.leases) }
	renew.right = func(found answer) bool {
		return found.status == 200 && bytes.Contains(found.body, renewed)
	}
	calls, err := newCallers(loop, load.address, load.connections, renew)
	if err != nil {
		return nil, err
	}
	renew.calls = calls
	cpu := announceStart()
	start := now()
	if err := renew.run(loop, start+time.Duration(load.seconds)*time.Second); err != nil {
		return nil, err
	}
	return leasesResult{
		outcome:   renew.outcome,
		Leases:    load.leases,
		Wrong:     renew.wrong,
		FirstBad:  renew.firstBad,
		ElapsedUs: (now() - start).Microseconds(),
		Latency:   renew.latency.report(),
		OwnCPUUs:  ownCPU() - cpu,
	}, nil
}
