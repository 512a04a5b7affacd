package main

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

// testOptions load a server of net/http, which is another implementation than our client.
func testOptions(t *testing.T, serve http.HandlerFunc) (*loop, options) {
	t.Helper()
	server := httptest.NewServer(serve)
	t.Cleanup(server.Close)
	loop, err := newLoop()
	if err != nil {
		t.Fatal(err)
	}
	return loop, options{
		address: strings.TrimPrefix(server.URL, "http://"),
		rate:    1_000, seconds: 1, connections: 2, outstanding: 100, watchers: 3, leases: 10,
	}
}

func TestPutsThatAreRefusedOrBrokenAreCounted(t *testing.T) {
	var turn int
	loop, load := testOptions(t, func(w http.ResponseWriter, r *http.Request) {
		turn++
		switch turn {
		case 1:
			w.WriteHeader(503)
		case 2:
			panic(http.ErrAbortHandler)
		default:
			fmt.Fprint(w, "{}")
		}
	})
	load.connections, load.rate = 1, 20
	found, err := runPuts(loop, load)
	if err != nil {
		t.Fatal(err)
	}
	puts := found.(putsResult)
	want := outcome{Due: 20, Sent: 20, Done: 18, Refused: 1, Broken: 1}
	if puts.outcome != want || puts.Latency.Count != 18 {
		t.Errorf("%+v", puts)
	}
}

func TestTheLatencyOfACallCountsFromWhenItWasDue(t *testing.T) {
	o := &openLoop{rate: 1_000, start: 5 * time.Second}
	o.answered(call{number: 500, sentAt: 7 * time.Second}, answer{status: 200}, 8*time.Second)
	if o.latency.max != 2_500*time.Millisecond {
		t.Errorf("%v", o.latency.max)
	}
}

func TestCallsThatFindNoRoomOverflow(t *testing.T) {
	o := &openLoop{rate: 10, outstanding: 3, calls: &callers{}}
	o.Due = 10
	o.step(time.Second)
	o.end()
	// Nothing could be sent, so those that waited are lost as well.
	if o.Overflowed != 10 || o.Sent != 0 || o.late.max != time.Second {
		t.Errorf("%+v", o.outcome)
	}
}

func TestEventsAreFoundWhereverTheStreamIsCut(t *testing.T) {
	event := `{"result":{"events":[{"kv":{"key":"a","value":"` + encode("put-00000007rest") +
		`"}},{"kv":{"value":"` + encode("put-00000042rest") + `"}}]}}` + "\n"
	stream := "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
	for _, part := range []string{`{"result":{"created":true}}` + "\n", event[:70], event[70:]} {
		stream += fmt.Sprintf("%x\r\n%s\r\n", len(part), part)
	}
	for cut := 1; cut < len(stream); cut++ {
		run := &watchRun{sentAt: make([]time.Duration, 64)}
		run.sentAt[7], run.sentAt[42] = 1, 2
		one := &watcher{run: run, seen: make([]uint64, 1)}
		one.received([]byte(stream[:cut]), 10)
		one.received([]byte(stream[cut:]), 20)
		if run.events != 2 || run.created != 1 || run.strange != 0 || run.ended != 0 {
			t.Fatalf("cut at %d: %d events, %d created", cut, run.events, run.created)
		}
	}
}

func TestEventsAreCountedOnceAndMissed(t *testing.T) {
	run := &watchRun{sentAt: []time.Duration{1, 1, 0}, acknowledged: []bool{true, true, false}}
	one := &watcher{run: run, seen: make([]uint64, 1)}
	run.watchers = []*watcher{one, {run: run, seen: make([]uint64, 1)}}
	for _, text := range []string{"put-00000000", "put-00000000", "put-00000002", "who-00000001"} {
		run.deliver(one, []byte(encode(text)), 5)
	}
	if run.events != 1 || run.duplicates != 1 || run.strange != 2 || run.missing() != 3 {
		t.Errorf("%+v, %d missing", run, run.missing())
	}
}

func TestALongLineIsReadWhereverItIsCut(t *testing.T) {
	line := `{"events":[` + strings.Repeat(`{"kv":{}},`, 200) + `{"value":"` + encode("put-00000000") +
		`"}` + strings.Repeat(" ", 2*partialBytes) + "\n"
	for cut := 1; cut < len(line); cut++ {
		run := &watchRun{sentAt: []time.Duration{1}}
		one := &watcher{run: run, seen: make([]uint64, 1)}
		one.scan([]byte(line[:cut]), 1)
		one.scan([]byte(line[cut:]), 2)
		if run.events != 1 || len(one.partial) != 0 {
			t.Fatalf("cut at %d: %d events", cut, run.events)
		}
	}
}

func TestAWatchThatIsCancelledIsSeen(t *testing.T) {
	for _, text := range []string{`{"result":{"canceled":true}}`, `{"error":{"code":14}}`} {
		run := &watchRun{}
		one := &watcher{run: run}
		one.scan([]byte(text[:len(text)-1]), 1)
		one.scan([]byte(text[len(text)-1:]), 2)
		if run.ended != 1 {
			t.Errorf("%s was not seen", text)
		}
	}
}

func TestKeepAlivesOfLeasesThatAreGoneAreWrong(t *testing.T) {
	loop, load := testOptions(t, func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		if strings.Contains(string(body), fmt.Sprint(firstLease)) && len(body) < 30 {
			fmt.Fprint(w, `{"result":{}}`)
			return
		}
		fmt.Fprint(w, `{"result":{"TTL":"600"}}`)
	})
	found, err := runLeases(loop, load)
	if err != nil {
		t.Fatal(err)
	}
	leases := found.(leasesResult)
	if leases.Wrong == 0 || leases.Done == 0 || leases.Wrong > leases.Done/8 ||
		leases.Sent != leases.Done+leases.Wrong+leases.Unanswered || leases.FirstBad == "" {
		t.Errorf("%+v", leases)
	}
}

func TestAServerThatIsGoneIsAnError(t *testing.T) {
	listener, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := listener.Addr().String()
	listener.Close()
	loop, err := newLoop()
	if err != nil {
		t.Fatal(err)
	}
	load := options{address: address, rate: 1, seconds: 1, connections: 1}
	if _, err := runPuts(loop, load); err == nil {
		t.Error("there was nobody to load")
	}
}

func TestOptionsAreChecked(t *testing.T) {
	for _, arguments := range [][]string{
		{}, {"gets"}, {"puts", "-rate=0"}, {"puts", "-rate=99999999", "-seconds=9"}, {"puts", "-x"},
	} {
		if _, _, err := parse(arguments); err == nil {
			t.Errorf("%v was accepted", arguments)
		}
	}
}

func TestRequestsAreWhole(t *testing.T) {
	for _, request := range []string{
		string(putRequest("a:1")(3)), string(watchedPutRequest("a:1")(3)),
		string(watchRequest("a:1")), string(grantRequest("a:1")(3)),
		string(keepAliveRequest("a:1")(3)),
	} {
		head, body, _ := strings.Cut(request, "\r\n\r\n")
		if !strings.Contains(head, fmt.Sprintf("Content-Length: %d", len(body))) {
			t.Errorf("%q", request)
		}
	}
	put := string(watchedPutRequest("a:1")(1_234))
	for _, text := range []string{encode("watch/234"), encode("put-00001234")} {
		if !strings.Contains(put, text) {
			t.Errorf("%q is not in %q", text, put)
		}
	}
	if !strings.Contains(string(keepAliveRequest("a:1")(12)), `{"ID":"7000000000012"}`) {
		t.Error("the keep-alive of another lease")
	}
}
