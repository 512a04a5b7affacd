package main

import (
	"encoding/base64"
	"fmt"
	"strings"
)

const (
	keys        = 10_000
	keyStride   = 7_919 // Shares no factor with keys: each has its turn, neighbours lie apart.
	leaseTTL    = 600   // Seconds.
	firstLease  = 7_000_000_000_000
	watchPrefix = "watch/"
	watchedKeys = 1_000
	watchBytes  = 64
)

// template is the bytes of a request that differ in a few places of fixed width only. Requests
// are sent one after another, so one copy that is changed in place serves all of them.
type template struct {
	bytes []byte
}

// newTemplate makes a POST of a JSON body.
func newTemplate(address, path, body string) *template {
	return &template{[]byte(fmt.Sprintf("POST %s HTTP/1.1\r\nHost: %s\r\n"+
		"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n%s",
		path, address, len(body), body))}
}

// place finds where a text stands that is to be replaced.
func (t *template) place(text string) []byte {
	at := strings.Index(string(t.bytes), text)
	if at < 0 {
		panic("the template does not contain " + text)
	}
	return t.bytes[at : at+len(text)]
}

// encode is base64; texts of three, six, nine ... bytes need no padding.
func encode(text string) string { return base64.StdEncoding.EncodeToString([]byte(text)) }

// digits writes a number with leading zeros over all of a place.
func digits(place []byte, number int) {
	for at := len(place) - 1; at >= 0; at-- {
		place[at] = byte('0' + number%10)
		number /= 10
	}
}

// putRequest makes the puts of keys key-00000 to key-09999, those that the other loads use too.
func putRequest(address string) func(number int) []byte {
	value := strings.Repeat("value-", 42) + "valv"
	key := []byte("key-00000")
	put := newTemplate(address, "/v3/kv/put",
		fmt.Sprintf(`{"key":"%s","value":"%s"}`, encode(string(key)), encode(value)))
	place := put.place(encode(string(key)))
	return func(number int) []byte {
		digits(key[4:], number*keyStride%keys)
		base64.StdEncoding.Encode(place, key)
		return put.bytes
	}
}

// watchedPutRequest makes puts below the watched prefix, whose value begins with their number.
func watchedPutRequest(address string) func(number int) []byte {
	key := []byte(watchPrefix + "000")
	mark := []byte("put-00000000")
	value := string(mark) + strings.Repeat("v", watchBytes-len(mark))
	put := newTemplate(address, "/v3/kv/put",
		fmt.Sprintf(`{"key":"%s","value":"%s"}`, encode(string(key)), encode(value)))
	keyPlace := put.place(encode(string(key)))
	valuePlace := put.place(encode(string(mark)))
	return func(number int) []byte {
		digits(key[len(watchPrefix):], number%watchedKeys)
		base64.StdEncoding.Encode(keyPlace, key)
		digits(mark[4:], number)
		base64.StdEncoding.Encode(valuePlace, mark)
		return put.bytes
	}
}

// watchRequest creates one watcher of everything below the prefix.
func watchRequest(address string) []byte {
	end := watchPrefix[:len(watchPrefix)-1] + string(rune(watchPrefix[len(watchPrefix)-1]+1))
	return newTemplate(address, "/v3/watch",
		fmt.Sprintf(`{"create_request":{"key":"%s","range_end":"%s"}}`,
			encode(watchPrefix), encode(end))).bytes
}

// grantRequest makes leases with IDs of our choice, so that keep-alives need no list of them.
func grantRequest(address string) func(number int) []byte {
	return leaseRequest(address, "/v3/lease/grant", fmt.Sprintf(`{"TTL":"%d",`, leaseTTL))
}

func keepAliveRequest(address string) func(number int) []byte {
	return leaseRequest(address, "/v3/lease/keepalive", "{")
}

func leaseRequest(address, path, body string) func(number int) []byte {
	first := fmt.Sprint(firstLease)
	call := newTemplate(address, path, fmt.Sprintf(`%s"ID":"%s"}`, body, first))
	place := call.place(first)
	return func(number int) []byte {
		digits(place, firstLease+number)
		return call.bytes
	}
}
