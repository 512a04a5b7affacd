package main

import "errors"

var errNoChunk = errors.New("the chunks of an answer are malformed")

// chunkBytesMax is far beyond what is asked for; a larger size is no size.
const chunkBytesMax = 1 << 30

type chunkState int

const (
	inSize chunkState = iota
	inExtension
	inData
	afterData
	inTrailer
	atEnd
)

// chunks takes the framing from a chunked body (RFC 9112, section 7.1), wherever reads have cut
// it. The zero value is at the beginning of a body.
type chunks struct {
	state  chunkState
	size   int // Of this chunk: its digits so far, then what is left of it.
	digits int
	line   int // Bytes of this line of the trailer.
}

func (c *chunks) ended() bool { return c.state == atEnd }

// next returns the next stretch of payload and what follows it. An empty payload means that all
// data is used up, or that the body has ended.
func (c *chunks) next(data []byte) (payload, rest []byte, err error) {
	for len(data) > 0 && c.state != atEnd {
		if c.state == inData {
			count := c.size
			if count > len(data) {
				count = len(data)
			}
			c.size -= count
			if c.size == 0 {
				c.state = afterData
			}
			return data[:count], data[count:], nil
		}
		if err := c.frame(data[0]); err != nil {
			return nil, nil, err
		}
		data = data[1:]
	}
	return nil, data, nil
}

// frame takes one byte that is no payload.
func (c *chunks) frame(letter byte) error {
	switch c.state {
	case inSize:
		return c.sizeByte(letter)
	case inExtension:
		if letter == '\n' {
			c.endSize()
		}
	case afterData:
		if letter == '\n' {
			c.state, c.size, c.digits = inSize, 0, 0
		} else if letter != '\r' {
			return errNoChunk
		}
	case inTrailer:
		c.trailerByte(letter)
	}
	return nil
}

func (c *chunks) sizeByte(letter byte) error {
	digit := hexDigit(letter)
	switch {
	case digit >= 0:
		c.size = c.size<<4 | digit
		c.digits++
	case c.digits == 0:
		return errNoChunk
	case letter == '\n':
		c.endSize()
	case letter == '\r' || letter == ';':
		c.state = inExtension
	default:
		return errNoChunk
	}
	if c.size > chunkBytesMax {
		return errNoChunk
	}
	return nil
}

func (c *chunks) endSize() {
	if c.size == 0 {
		c.state = inTrailer
	} else {
		c.state = inData
	}
}

func (c *chunks) trailerByte(letter byte) {
	switch {
	case letter == '\n' && c.line == 0:
		c.state = atEnd
	case letter == '\n':
		c.line = 0
	case letter != '\r':
		c.line++
	}
}

func hexDigit(letter byte) int {
	switch {
	case '0' <= letter && letter <= '9':
		return int(letter - '0')
	case 'a' <= letter && letter <= 'f':
		return int(letter-'a') + 10
	case 'A' <= letter && letter <= 'F':
		return int(letter-'A') + 10
	}
	return -1
}
