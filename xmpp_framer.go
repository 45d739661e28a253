package main

import (
	"bytes"
	"errors"
	"fmt"
	"hash/maphash"
	"io"
)

// Errors of framer.next.
var (
	errStreamClosed = errors.New("the server closed the stream") // the end tag of the stream (RFC 6120 §4.4)
	errMalformed    = errors.New("the server sent XML that is not well-formed")
	errTagInTag     = fmt.Errorf("%w: < in a tag", errMalformed)
)

// A framer splits an XML stream into its top-level elements without decoding them.
//
// It parses only what is needed to find the end of an element: tags, quoted attribute values, comments, CDATA sections and processing
// instructions. The content is decoded later, by decodeStanza, so that one stanza cannot end the stream that all users share. Only tags
// that do not match or do not end are an error: where an element ends is unknown then, and servers send well-formed XML whatever their
// users write.
// Deep nesting takes no memory, and an element larger than max bytes is skipped without being buffered.
type framer struct {
	r   io.Reader
	max int // size of the largest element that is returned, in bytes

	buf      []byte
	start    int    // offset in buf of the current element
	pos      int    // offset of the first byte that has not been scanned
	end      int    // offset of the end of the data
	inside   bool   // an element or other tag has begun
	skipping bool   // the element is larger than max; scanned bytes are discarded
	tagEnd   int    // offset of the end of the element's start tag, 0 while unknown
	startTag []byte // start tag of the element being skipped; nil if it is itself larger than max

	seed maphash.Seed
	name uint64              // hash of the name of the last start or end tag
	open [maxMatching]uint64 // hashes of the names of the open elements
}

const (
	framerBuffer = 64 << 10 // initial size of the buffer, in bytes
	maxMatching  = 64       // depth up to which the names of start and end tags are compared
)

func newFramer(r io.Reader, max int) *framer {
	return &framer{r: r, max: max, buf: make([]byte, framerBuffer), seed: maphash.MakeSeed()}
}

// A frame is one top-level element. Its data is valid until the next call of a framer method.
type frame struct {
	data      []byte // the element; if truncated, only its start tag, or nothing
	truncated bool   // the element was larger than the framer's max and has been skipped
}

// header reads the stream header: everything up to the end of the first start tag (RFC 6120 §4.2).
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
			if depth < maxMatching {
				f.open[depth] = f.name
			}
			depth++
		case endTag:
			if depth--; depth >= 0 && depth < maxMatching && f.open[depth] != f.name {
				return frame{}, fmt.Errorf("%w: an end tag does not match", errMalformed)
			}
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
			return frame{data: f.startTag, truncated: true}, nil
		case depth == 0:
			return frame{data: f.buf[f.start:f.pos]}, nil
		}
	}
}

// reset starts a new element, and shrinks a buffer that has grown for a large one.
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
	emptyTag // an empty-element tag
	otherTag // a comment, CDATA section or processing instruction
)

// tag advances pos past the next tag.
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
		f.pos++
		if err := f.tagName(); err != nil {
			return 0, err
		}
		return endTag, f.seek(">")
	case '?':
		f.pos++
		return otherTag, f.seek("?>")
	case '!':
		f.pos++
		return otherTag, f.declaration()
	}
	if err := f.tagName(); err != nil {
		return 0, err
	}
	return f.element()
}

// tagName advances pos past the name of a tag, and hashes it.
func (f *framer) tagName() error {
	var h maphash.Hash
	h.SetSeed(f.seed)
	for {
		for i, c := range f.buf[f.pos:f.end] {
			switch c {
			case '>', '/', ' ', '\t', '\r', '\n':
				h.Write(f.buf[f.pos : f.pos+i])
				f.name = h.Sum64()
				f.pos += i
				return nil
			case '<':
				return errTagInTag
			}
		}
		h.Write(f.buf[f.pos:f.end])
		f.pos = f.end
		if err := f.fill(); err != nil {
			return err
		}
	}
}

// declaration advances pos past a comment or a CDATA section. Other declarations are prohibited in a stream (RFC 6120 §11.1) and are
// an error.
func (f *framer) declaration() error {
	for _, d := range [][2]string{{"--", "-->"}, {"[CDATA[", "]]>"}} {
		if ok, err := f.has(d[0]); err != nil {
			return err
		} else if ok {
			return f.seek(d[1])
		}
	}
	return errors.New("the server sent a document type declaration, which no XMPP stream may contain")
}

// has reports whether s comes next, and if so advances pos past it.
func (f *framer) has(s string) (bool, error) {
	for f.end-f.pos < len(s) {
		if err := f.fill(); err != nil {
			return false, err
		}
	}
	if !bytes.HasPrefix(f.buf[f.pos:f.end], []byte(s)) {
		return false, nil
	}
	f.pos += len(s)
	return true, nil
}

// element advances pos past the ">" of a start tag, ignoring those in quoted attribute values.
func (f *framer) element() (tagKind, error) {
	var quote, last byte
	for {
		for i, c := range f.buf[f.pos:f.end] {
			switch {
			case c == '<':
				return 0, errTagInTag
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

// seek advances pos past the next occurrence of s.
func (f *framer) seek(s string) error {
	for {
		if i := bytes.Index(f.buf[f.pos:f.end], []byte(s)); i >= 0 {
			f.pos += i + len(s)
			return nil
		}
		f.pos = max(f.pos, f.end-len(s)+1) // s may straddle two reads
		if err := f.fill(); err != nil {
			return err
		}
	}
}

// fill reads more data, after discarding what is no longer needed. An end of file inside an element is io.ErrUnexpectedEOF.
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

// skip discards the scanned part of an element that is too large, except for its start tag.
func (f *framer) skip() {
	if !f.skipping && f.tagEnd > 0 && f.tagEnd-f.start <= f.max {
		f.startTag = bytes.Clone(f.buf[f.start:f.tagEnd])
	}
	f.skipping = true
	f.start = f.pos
}

// attribute returns the raw value of an attribute of a start tag, with entities unresolved, nil if there is none. The dispatcher uses
// it to choose a queue before the stanza is decoded.
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

// elementName returns the qualified name in a start tag.
func elementName(tag []byte) string {
	if end := bytes.IndexAny(tag, " \t\r\n/>"); end > 0 {
		return string(tag[1:end])
	}
	return ""
}
