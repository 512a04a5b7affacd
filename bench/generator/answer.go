package main

import (
	"bytes"
	"errors"
	"fmt"
	"strconv"
)

// headBytesMax bounds what is kept of an answer that never ends its head.
const headBytesMax = 16 << 10

var (
	headEnd          = []byte("\r\n\r\n")
	contentLength    = []byte("content-length:")
	transferEncoding = []byte("transfer-encoding:")
	errNoHTTP        = errors.New("this is no HTTP/1.1 answer")
)

// head is what we need to know of the head of an answer (RFC 9112).
type head struct {
	status  int
	length  int // Of the body in bytes; -1 if it comes in chunks.
	size    int // Of the head itself, with the blank line.
	chunked bool
}

// parseHead reads the head of an answer; its size is 0 if it has not arrived whole.
func parseHead(data []byte) (head, error) {
	end := bytes.Index(data, headEnd)
	if end < 0 {
		if len(data) > headBytesMax {
			return head{}, errNoHTTP
		}
		return head{}, nil
	}
	found := head{length: -1, size: end + len(headEnd)}
	lines := data[:end]
	if !bytes.HasPrefix(lines, []byte("HTTP/1.1 ")) || len(lines) < 12 {
		return head{}, errNoHTTP
	}
	status, err := strconv.Atoi(string(lines[9:12]))
	if err != nil {
		return head{}, errNoHTTP
	}
	found.status = status
	for len(lines) > 0 {
		line, rest, _ := bytes.Cut(lines, []byte("\r\n"))
		if err := found.field(line); err != nil {
			return head{}, err
		}
		lines = rest
	}
	if found.length < 0 && !found.chunked {
		return head{}, fmt.Errorf("an answer of status %d has no length", status)
	}
	return found, nil
}

func (h *head) field(line []byte) error {
	if value, ok := cutName(line, contentLength); ok {
		length, err := strconv.Atoi(string(value))
		if err != nil || length < 0 {
			return errNoHTTP
		}
		h.length = length
	}
	if value, ok := cutName(line, transferEncoding); ok {
		h.chunked = bytes.EqualFold(value, []byte("chunked"))
	}
	return nil
}

// cutName returns the value of a field if it has this name (in small letters, with the colon).
func cutName(line, name []byte) ([]byte, bool) {
	if len(line) < len(name) || !bytes.EqualFold(line[:len(name)], name) {
		return nil, false
	}
	return bytes.TrimSpace(line[len(name):]), true
}

// answer is a whole answer to one call.
type answer struct {
	status int
	body   []byte
}

// parseAnswer reads an answer from its first byte on. The size is that of all of it; 0 if it has
// not arrived whole: then it is called again with more.
func parseAnswer(data []byte) (answer, int, error) {
	found, err := parseHead(data)
	if err != nil || found.size == 0 {
		return answer{}, 0, err
	}
	rest := data[found.size:]
	if !found.chunked {
		if len(rest) < found.length {
			return answer{}, 0, nil
		}
		return answer{found.status, rest[:found.length]}, found.size + found.length, nil
	}
	body, left, err := wholeBody(rest)
	if err != nil || left == nil {
		return answer{}, 0, err
	}
	return answer{found.status, body}, len(data) - len(left), nil
}

// wholeBody joins the chunks of a body; what is left after it is nil if it has not ended.
func wholeBody(data []byte) (body, left []byte, err error) {
	var reader chunks
	for {
		payload, rest, err := reader.next(data)
		if err != nil {
			return nil, nil, err
		}
		if reader.ended() {
			return body, rest, nil
		}
		if len(payload) == 0 {
			return nil, nil, nil
		}
		if body == nil {
			body = payload // Most answers are one chunk: no copy.
		} else {
			body = append(body[:len(body):len(body)], payload...)
		}
		data = rest
	}
}
