package main

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"strconv"
	"syscall"
	"time"
)

const createTime = 60 * time.Second

var (
	valueMark   = []byte(`"value":"`)
	createdMark = []byte(`"created":true`)
	endMarks    = [][]byte{[]byte(`"canceled":true`), []byte(`"error":`)}
)

// encodedNumber is the length of "put-00000000" in base64, with which each value begins.
const encodedNumber = 16

// partialBytes is more than an answer that is no event has; those are looked at whole.
const partialBytes = 1_024

// watchRun is a thousand watchers of one prefix, and the puts below it.
type watchRun struct {
	watchers []*watcher
	created  int
	ended    int // Streams that the server ended or cancelled.
	refused  error

	sentAt       []time.Duration // By the number of the put.
	acknowledged []bool
	events       int // Without duplicates.
	duplicates   int
	strange      int // Values that no put of ours has.
	lastEvent    time.Duration
	delay        histogram
}

// watcher is one stream over a connection of its own.
type watcher struct {
	run      *watchRun
	head     []byte // Of the answer, while it has not arrived whole.
	headSeen bool
	chunks   chunks
	partial  []byte // The end of a payload, a line that goes on in the next one.
	created  bool
	ended    bool
	seen     []uint64 // One bit a put.
}

func newWatchRun(loop *loop, load options) (*watchRun, error) {
	puts := load.rate * load.seconds
	run := &watchRun{sentAt: make([]time.Duration, puts), acknowledged: make([]bool, puts)}
	request := watchRequest(load.address)
	for len(run.watchers) < load.watchers {
		one := &watcher{run: run, seen: make([]uint64, (puts+63)/64)}
		fd, err := loop.open(load.address, one)
		if err != nil {
			return nil, err
		}
		if _, err := syscall.Write(fd, request); err != nil {
			return nil, fmt.Errorf("watch: %w", err)
		}
		run.watchers = append(run.watchers, one)
	}
	return run, run.waitCreated(loop)
}

// waitCreated waits until the server has confirmed each watcher.
func (w *watchRun) waitCreated(loop *loop) error {
	deadline := now() + createTime
	for w.created < len(w.watchers) {
		if err := loop.poll(deadline - now()); err != nil {
			return err
		}
		if w.refused != nil {
			return w.refused
		}
		if w.ended > 0 || now() >= deadline {
			return fmt.Errorf("%d of %d watchers were created, %d ended",
				w.created, len(w.watchers), w.ended)
		}
	}
	return nil
}

func (w *watcher) broken(error) { w.end() }

func (w *watcher) received(data []byte, at time.Duration) {
	if !w.headSeen {
		w.head = append(w.head, data...)
		found, err := parseHead(w.head)
		if err == nil && found.size == 0 {
			return
		}
		if err == nil && (found.status != 200 || !found.chunked) {
			err = fmt.Errorf("a watch was answered with %q", w.head)
		}
		if err != nil {
			w.run.refused = err
			return
		}
		w.headSeen, data, w.head = true, w.head[found.size:], nil
	}
	if err := w.payloads(data, at); err != nil {
		w.run.refused = err
	}
}

// payloads hands on what is in the chunks.
func (w *watcher) payloads(data []byte, at time.Duration) error {
	for {
		payload, rest, err := w.chunks.next(data)
		if err != nil || len(payload) == 0 {
			if w.chunks.ended() {
				w.end()
			}
			return err
		}
		w.scan(payload, at)
		data = rest
	}
}

// scan looks for the values of events, by their name in the JSON: to parse all of it would cost
// more than to make it. Reads and chunks may cut a value anywhere.
func (w *watcher) scan(payload []byte, at time.Duration) {
	text := payload
	if len(w.partial) > 0 {
		w.partial = append(w.partial, payload...)
		text = w.partial
	}
	found := false
	for {
		mark := bytes.Index(text, valueMark)
		first := mark + len(valueMark)
		if mark < 0 || len(text) < first+encodedNumber {
			break
		}
		found = true
		w.run.deliver(w, text[first:first+encodedNumber], at)
		text = text[first+encodedNumber:]
	}
	if !found {
		w.news(text)
	}
	w.keep(text)
}

// keep leaves an unfinished line for the next payload, of a long one what may begin a value.
func (w *watcher) keep(text []byte) {
	if len(text) == 0 || text[len(text)-1] == '\n' {
		w.partial = w.partial[:0]
		return
	}
	if len(text) > partialBytes {
		first := bytes.Index(text, valueMark)
		if first < 0 {
			first = len(text) - len(valueMark) + 1
		}
		text = text[first:]
	}
	// It may be a part of itself: then the bytes move to the front.
	w.partial = append(w.partial[:0], text...)
}

// news reads what is no event.
func (w *watcher) news(text []byte) {
	if !w.created && bytes.Contains(text, createdMark) {
		w.created = true
		w.run.created++
	}
	for _, mark := range endMarks {
		if bytes.Contains(text, mark) {
			w.end()
		}
	}
}

// end counts a watcher that hears no more, once.
func (w *watcher) end() {
	if !w.ended {
		w.ended = true
		w.run.ended++
	}
}

// deliver counts one event.
func (w *watchRun) deliver(to *watcher, encoded []byte, at time.Duration) {
	number, err := decodeNumber(encoded)
	if err != nil || number >= len(w.sentAt) || w.sentAt[number] == 0 {
		w.strange++
		return
	}
	word, bit := number/64, uint64(1)<<(number%64)
	if to.seen[word]&bit != 0 {
		w.duplicates++
		return
	}
	to.seen[word] |= bit
	w.events++
	w.lastEvent = at
	w.delay.add(at - w.sentAt[number])
}

var errNoNumber = errors.New("the value is none of ours")

func decodeNumber(encoded []byte) (int, error) {
	var text [encodedNumber]byte
	count, err := base64.StdEncoding.Decode(text[:], encoded)
	if err != nil || !bytes.HasPrefix(text[:count], []byte("put-")) {
		return 0, errNoNumber
	}
	number, err := strconv.Atoi(string(text[4:count]))
	if err != nil || number < 0 {
		return 0, errNoNumber
	}
	return number, nil
}

// missing counts events of acknowledged puts that a watcher has not seen.
func (w *watchRun) missing() int {
	count := 0
	for number, acknowledged := range w.acknowledged {
		if !acknowledged {
			continue
		}
		for _, one := range w.watchers {
			if one.seen[number/64]&(1<<(number%64)) == 0 {
				count++
			}
		}
	}
	return count
}

// watchResult is what the mode `watch` prints.
type watchResult struct {
	Puts       outcome `json:"puts"`
	Watchers   int     `json:"watchers"`
	Events     int     `json:"events"`
	Missing    int     `json:"missing"`
	Duplicates int     `json:"duplicates"`
	Strange    int     `json:"strange"`
	Ended      int     `json:"ended"`
	ElapsedUs  int64   `json:"elapsed_us"`
	Delay      latency `json:"delay"`
	OwnCPUUs   int64   `json:"own_cpu_us"`
}

// runWatch puts at a fixed rate below a prefix that is watched.
func runWatch(loop *loop, load options) (any, error) {
	run, err := newWatchRun(loop, load)
	if err != nil {
		return nil, err
	}
	puts, err := newOpenLoop(loop, load, watchedPutRequest(load.address))
	if err != nil {
		return nil, err
	}
	puts.sending = func(number int, at time.Duration) { run.sentAt[number] = at }
	puts.done = func(number int) { run.acknowledged[number] = true }
	cpu := announceStart()
	puts.start = now()
	for at := now(); !run.over(puts, at); at = now() {
		if err := loop.poll(puts.step(at)); err != nil {
			return nil, err
		}
		if puts.calls.failed != nil || run.refused != nil {
			return nil, firstOf(puts.calls.failed, run.refused)
		}
	}
	puts.end()
	return run.result(puts, cpu), nil
}

func firstOf(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

// over says whether all events are in, or have been waited for long enough.
func (w *watchRun) over(puts *openLoop, at time.Duration) bool {
	if !puts.over(at) {
		return false
	}
	// Of a put whose connection broke we cannot know whether it was done: its events may come.
	wanted := (puts.Sent - puts.Refused) * len(w.watchers)
	return w.events >= wanted || at > puts.due(puts.Due)+graceTime
}

func (w *watchRun) result(puts *openLoop, cpu int64) watchResult {
	elapsed := puts.due(puts.Due) - puts.start
	if took := w.lastEvent - puts.start; took > elapsed {
		elapsed = took
	}
	return watchResult{
		Puts:       puts.outcome,
		Watchers:   len(w.watchers),
		Events:     w.events,
		Missing:    w.missing(),
		Duplicates: w.duplicates,
		Strange:    w.strange,
		Ended:      w.ended,
		ElapsedUs:  elapsed.Microseconds(),
		Delay:      w.delay.report(),
		OwnCPUUs:   ownCPU() - cpu,
	}
}
