package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
)

// errStreamClosed is returned by framer.next when the peer closed its stream with an end tag (RFC 6120 §4.4).
var errStreamClosed = errors.New("the server closed the stream")

// A framer cuts an XML stream into its top-level elements without decoding them.
//
// It knows just enough of XML to find where an element ends: tags, quoted attribute values, comments, CDATA sections and
// processing instructions. What is inside an element is judged afterwards, by decodeStanza, so that nothing a stranger
// writes into a stanza can end the stream that everybody shares. Depth costs it nothing but a counter, and an element
// larger than max bytes is walked over without being kept.
type framer struct {
	r   io.Reader
	max int // bytes of the largest element that is kept whole

	buf      []byte
	start    int    // of the element being read, in buf
	pos      int    // everything before it has been looked at
	end      int    // of what has been read into buf
	inside   bool   // an element has begun
	skipping bool   // the element is larger than max; what has been looked at is dropped
	tagEnd   int    // end of the element's start tag in buf, 0 before it is known
	startTag []byte // of the element that is being skipped; nil if it alone is larger than max
}

const framerBuffer = 64 << 10 // bytes read at once

func newFramer(r io.Reader, max int) *framer {
	return &framer{r: r, max: max, buf: make([]byte, framerBuffer)}
}

// A frame is one top-level element. Its bytes are valid until the framer is used again.
type frame struct {
	data []byte // the element; only its start tag (or nothing) when cut
	cut  bool   // the element was too large and has been dropped
}

// header reads up to the end of the first start tag, the stream's own (RFC 6120 §4.2).
func (f *framer) header() ([]byte, error) {
	for {
		kind, err := f.tag()
		if err != nil {
			return nil, err
		}
		switch kind {
		case startTag:
			header := bytes.Clone(f.buf[f.start:f.pos])
			f.reset()
			return header, nil
		case otherTag:
			f.reset() // the XML declaration
		default:
			return nil, errors.New("the server did not open a stream")
		}
	}
}

// next reads the next top-level element. It returns errStreamClosed at the stream's end tag.
func (f *framer) next() (frame, error) {
	f.reset()
	for depth := 0; ; {
		kind, err := f.tag()
		if err != nil {
			return frame{}, err
		}
		switch kind {
		case startTag:
			depth++
		case endTag:
			depth--
		case otherTag:
			if depth == 0 {
				f.reset()
			}
			continue
		}
		if f.tagEnd == 0 && !f.skipping {
			f.tagEnd = f.pos
		}
		switch {
		case depth < 0:
			return frame{}, errStreamClosed
		case depth == 0 && (f.skipping || f.pos-f.start > f.max):
			f.skip()
			return frame{data: f.startTag, cut: true}, nil
		case depth == 0:
			return frame{data: f.buf[f.start:f.pos]}, nil
		}
	}
}

// reset forgets the element that has been read, and the room that a large one took.
func (f *framer) reset() {
	f.start = f.pos
	f.inside, f.skipping, f.tagEnd, f.startTag = false, false, 0, nil
	if len(f.buf) > framerBuffer && f.end-f.pos <= framerBuffer {
		buf := make([]byte, framerBuffer)
		f.end = copy(buf, f.buf[f.pos:f.end])
		f.buf, f.start, f.pos = buf, 0, 0
	}
}

type tagKind int

const (
	startTag tagKind = iota
	endTag
	emptyTag // a start tag that is its own end
	otherTag // a comment, CDATA section or processing instruction
)

// tag moves pos behind the next tag.
func (f *framer) tag() (tagKind, error) {
	if err := f.seek("<"); err != nil {
		return 0, err
	}
	if !f.inside {
		f.start, f.inside = f.pos-1, true
	}
	if f.pos == f.end {
		if err := f.fill(); err != nil {
			return 0, err
		}
	}
	switch f.buf[f.pos] {
	case '/':
		return endTag, f.seek(">")
	case '?':
		f.pos++
		return otherTag, f.seek("?>")
	case '!':
		f.pos++
		return otherTag, f.declaration()
	}
	return f.element()
}

// declaration moves pos behind a comment or a CDATA section. Nothing else that begins with "<!" may stand in a stream
// (RFC 6120 §11.1), and a server that lets it through is not to be followed further.
func (f *framer) declaration() error {
	switch {
	case f.has("--"):
		return f.seek("-->")
	case f.has("[CDATA["):
		return f.seek("]]>")
	}
	return errors.New("the server sent a document type declaration, which no XMPP stream may contain")
}

// has reports whether s comes next, and moves pos behind it if so.
func (f *framer) has(s string) bool {
	for f.end-f.pos < len(s) {
		if f.fill() != nil {
			return false
		}
	}
	if !bytes.HasPrefix(f.buf[f.pos:f.end], []byte(s)) {
		return false
	}
	f.pos += len(s)
	return true
}

// element moves pos behind a start tag's ">", which may stand inside quotes without ending it.
func (f *framer) element() (tagKind, error) {
	var quote, last byte
	for {
		for i, c := range f.buf[f.pos:f.end] {
			switch {
			case quote != 0:
				if c == quote {
					quote = 0
				}
			case c == '"' || c == '\'':
				quote = c
			case c == '>':
				f.pos += i + 1
				if last == '/' {
					return emptyTag, nil
				}
				return startTag, nil
			}
			last = c
		}
		f.pos = f.end
		if err := f.fill(); err != nil {
			return 0, err
		}
	}
}

// seek moves pos behind the next occurrence of s.
func (f *framer) seek(s string) error {
	for {
		if i := bytes.Index(f.buf[f.pos:f.end], []byte(s)); i >= 0 {
			f.pos += i + len(s)
			return nil
		}
		f.pos = max(f.pos, f.end-len(s)+1) // s may be cut in two
		if err := f.fill(); err != nil {
			return err
		}
	}
}

// fill reads more, and drops what is no longer needed.
func (f *framer) fill() error {
	switch {
	case !f.inside:
		f.start = f.pos
	case f.skipping || f.pos-f.start > f.max:
		f.skip()
	}
	if f.start > 0 {
		copy(f.buf, f.buf[f.start:f.end])
		f.pos -= f.start
		f.end -= f.start
		f.tagEnd = max(0, f.tagEnd-f.start)
		f.start = 0
	}
	if f.end == len(f.buf) {
		f.buf = append(f.buf, make([]byte, len(f.buf))...)
	}
	n, err := f.r.Read(f.buf[f.end:])
	f.end += n
	if n > 0 {
		return nil
	}
	if err == nil {
		err = io.ErrNoProgress
	}
	if errors.Is(err, io.EOF) && f.inside {
		err = fmt.Errorf("in the middle of a stanza: %w", io.ErrUnexpectedEOF)
	}
	return err
}

// skip drops what has been read of an element that is too large, but for its start tag.
func (f *framer) skip() {
	if !f.skipping && f.tagEnd > 0 && f.tagEnd-f.start <= f.max {
		f.startTag = bytes.Clone(f.buf[f.start:f.tagEnd])
	}
	f.skipping = true
	f.start = f.pos
}

// attribute returns the raw value of an attribute of a start tag, nil if it has none of that name. It is for choosing a
// queue before anything is decoded; entities stay as they are.
func attribute(tag []byte, name string) []byte {
	for i := bytes.IndexAny(tag, " \t\r\n"); i >= 0 && i < len(tag); {
		rest := bytes.TrimLeft(tag[i:], " \t\r\n")
		key, value, ok := bytes.Cut(rest, []byte("="))
		if !ok || bytes.IndexByte(key, '>') >= 0 {
			return nil
		}
		value = bytes.TrimLeft(value, " \t\r\n")
		if len(value) == 0 || value[0] != '"' && value[0] != '\'' {
			return nil
		}
		length := bytes.IndexByte(value[1:], value[0])
		if length < 0 {
			return nil
		}
		if string(bytes.TrimRight(key, " \t\r\n")) == name {
			return value[1 : 1+length]
		}
		i = len(tag) - len(value) + length + 2
	}
	return nil
}

// elementName returns the name in a start tag, with its prefix if it has one.
func elementName(tag []byte) string {
	if end := bytes.IndexAny(tag, " \t\r\n/>"); end > 0 {
		return string(tag[1:end])
	}
	return ""
}
