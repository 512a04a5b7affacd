package main

import (
	"strings"
	"testing"
)

const (
	plainAnswer = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n" +
		"content-length: 5\r\n\r\nhello"
	chunkedAnswer = "HTTP/1.1 404 Not Found\r\nTransfer-Encoding: chunked\r\n\r\n" +
		"3\r\nhel\r\nA;name=value\r\nlo, world!\r\n0\r\nTrailer: x\r\n\r\n"
)

func TestAnAnswerIsReadWhereverItIsCut(t *testing.T) {
	for text, want := range map[string]answer{
		plainAnswer:   {200, []byte("hello")},
		chunkedAnswer: {404, []byte("hello, world!")},
	} {
		for cut := 0; cut < len(text); cut++ {
			if _, size, err := parseAnswer([]byte(text[:cut])); size != 0 || err != nil {
				t.Fatalf("%d bytes of %q: size %d, %v", cut, text, size, err)
			}
		}
		found, size, err := parseAnswer([]byte(text + "more"))
		if err != nil || size != len(text) || found.status != want.status ||
			string(found.body) != string(want.body) {
			t.Errorf("%q: %d, %q, size %d, %v", text, found.status, found.body, size, err)
		}
	}
}

func TestWhatIsNoAnswerIsAnError(t *testing.T) {
	for _, text := range []string{
		"HTTP/1.1 200 OK\r\n\r\n",
		"HTTP/1.1 abc\r\nContent-Length: 0\r\n\r\n",
		"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxyz",
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nabc",
		"SSH-2.0\r\n\r\n",
		strings.Repeat("x", headBytesMax+1),
	} {
		if _, _, err := parseAnswer([]byte(text)); err == nil {
			t.Errorf("%q was taken for an answer", text)
		}
	}
}

func TestTheBytesThatWereReadAreLeftAsTheyWere(t *testing.T) {
	data := []byte(chunkedAnswer)
	if _, _, err := parseAnswer(data); err != nil || string(data) != chunkedAnswer {
		t.Errorf("%q, %v", data, err)
	}
}
