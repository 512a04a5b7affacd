package main

import "time"

// graceTime is how long the last answers are waited for.
const graceTime = 10 * time.Second

// outcome counts the calls of a load.
type outcome struct {
	// Due is how many calls there were to be.
	Due int `json:"due"`
	// Sent is how many were sent: done, refused, broken and unanswered.
	Sent int `json:"sent"`
	// Done were answered with status 200.
	Done int `json:"done"`
	// Refused were answered with another one.
	Refused int `json:"refused"`
	// Broken lost their connection.
	Broken int `json:"broken"`
	// Unanswered were still under way when the time was over.
	Unanswered int `json:"unanswered"`
	// Overflowed were due and never sent: too many others were waiting.
	Overflowed int `json:"overflowed"`
}

// openLoop makes calls at times that are fixed beforehand, however long the answers take. Their
// latency counts from then, also if all connections were busy: a server that stands still for a
// second delays all calls of that second, and not only those that happened to be under way.
type openLoop struct {
	calls   *callers
	request func(number int) []byte
	// sending and done are told of each call, if they are not nil.
	sending func(number int, at time.Duration)
	done    func(number int)

	start       time.Duration
	rate        int // Calls a second.
	outstanding int // The most that are waiting and under way.
	waiting     []int
	next        int // The first call that is not due yet.
	finished    int
	lastAnswer  time.Duration
	latency     histogram
	late        histogram // From when a call was due to when we noticed.
	outcome
}

func newOpenLoop(loop *loop, load options, request func(int) []byte) (*openLoop, error) {
	o := &openLoop{request: request, rate: load.rate, outstanding: load.outstanding}
	o.Due = load.rate * load.seconds
	calls, err := newCallers(loop, load.address, load.connections, o)
	o.calls = calls
	return o, err
}

// due is when a call is to be made.
func (o *openLoop) due(number int) time.Duration {
	return o.start + time.Duration(number)*time.Second/time.Duration(o.rate)
}

// step makes the calls that are due and returns how long nothing is to be done but to listen.
func (o *openLoop) step(at time.Duration) time.Duration {
	for ; o.next < o.Due && o.due(o.next) <= at; o.next++ {
		o.late.add(at - o.due(o.next))
		if o.admitted()-o.finished >= o.outstanding {
			o.Overflowed++
		} else {
			o.waiting = append(o.waiting, o.next)
		}
	}
	for len(o.waiting) > 0 && len(o.calls.free) > 0 && o.calls.failed == nil {
		number := o.waiting[0]
		o.waiting = o.waiting[1:]
		o.Sent++
		if o.sending != nil {
			o.sending(number, now())
		}
		o.calls.send(number, o.request(number))
	}
	if o.next < o.Due {
		return o.due(o.next) - now()
	}
	return graceTime / 100
}

// admitted is how many calls have been due and found room.
func (o *openLoop) admitted() int { return o.Sent + len(o.waiting) }

// over says whether all calls have been made and answered, or waited for long enough.
func (o *openLoop) over(at time.Duration) bool {
	if o.next < o.Due {
		return false
	}
	return o.finished == o.admitted() || at > o.due(o.Due)+graceTime
}

// end counts what has had no answer.
func (o *openLoop) end() {
	o.Unanswered = o.Sent - o.finished
	o.Overflowed += len(o.waiting)
	o.waiting = nil
}

// elapsed is the time from the first call to the last answer, and no less than was planned.
func (o *openLoop) elapsed() time.Duration {
	planned := o.due(o.Due) - o.start
	if took := o.lastAnswer - o.start; took > planned {
		return took
	}
	return planned
}

func (o *openLoop) answered(call call, found answer, at time.Duration) {
	o.finished++
	if found.status != 200 {
		o.Refused++
		return
	}
	o.Done++
	o.lastAnswer = at
	o.latency.add(at - o.due(call.number))
	if o.done != nil {
		o.done(call.number)
	}
}

func (o *openLoop) lost(call) {
	o.finished++
	o.Broken++
}

// putsResult is what the mode `puts` prints.
type putsResult struct {
	outcome
	ElapsedUs int64   `json:"elapsed_us"`
	Latency   latency `json:"latency"`
	Late      latency `json:"late"`
	OwnCPUUs  int64   `json:"own_cpu_us"`
}

// runPuts puts at a fixed rate.
func runPuts(loop *loop, load options) (any, error) {
	puts, err := newOpenLoop(loop, load, putRequest(load.address))
	if err != nil {
		return nil, err
	}
	cpu := announceStart()
	puts.start = now()
	for at := now(); !puts.over(at); at = now() {
		if err := loop.poll(puts.step(at)); err != nil {
			return nil, err
		}
		if puts.calls.failed != nil {
			return nil, puts.calls.failed
		}
	}
	puts.end()
	return putsResult{
		outcome:   puts.outcome,
		ElapsedUs: puts.elapsed().Microseconds(),
		Latency:   puts.latency.report(),
		Late:      puts.late.report(),
		OwnCPUUs:  ownCPU() - cpu,
	}, nil
}
