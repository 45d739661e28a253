package main

import (
	"bytes"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"strings"

	"gosrc.io/xmpp/stanza"
)

// Namespaces of received elements. Those of sent elements are in their types.
const (
	nsComponent = "jabber:component:accept" // XEP-0114
	nsClient    = "jabber:client"           // RFC 6120; jabberd2 uses it in stanzas to components too
	nsRegister  = "jabber:iq:register"      // XEP-0077
	nsForm      = "jabber:x:data"           // XEP-0004
	nsDiscoInfo = "http://jabber.org/protocol/disco#info"
	nsDiscoItem = "http://jabber.org/protocol/disco#items"
	nsPing      = "urn:xmpp:ping"   // XEP-0199
	nsDelay     = "urn:xmpp:delay"  // XEP-0203
	nsOldDelay  = "jabber:x:delay"  // XEP-0091
	nsIdle      = "urn:xmpp:idle:1" // XEP-0319
	nsStanzas   = "urn:ietf:params:xml:ns:xmpp-stanzas"
	nsXML       = "http://www.w3.org/XML/1998/namespace"
)

// An element is an XML element of a stanza, not yet validated.
type element struct {
	name     xml.Name
	attrs    []xml.Attr
	text     string // character data, without that of children
	children []element
}

// attr returns the value of an attribute without a namespace, empty if there is none.
func (e *element) attr(name string) string {
	for i := range e.attrs {
		if a := &e.attrs[i]; a.Name.Local == name && a.Name.Space == "" {
			return a.Value
		}
	}
	return ""
}

// lang returns the value of xml:lang, or the inherited value if there is none.
func (e *element) lang(inherited string) string {
	for _, a := range e.attrs {
		if a.Name.Local == "lang" && a.Name.Space == nsXML {
			return a.Value
		}
	}
	return inherited
}

// child returns the first direct child of that name, nil if there is none.
func (e *element) child(space, local string) *element {
	for i := range e.children {
		if c := &e.children[i]; c.name.Local == local && c.name.Space == space {
			return c
		}
	}
	return nil
}

// childText returns the text of the first direct child of that name, empty if there is none.
func (e *element) childText(space, local string) string {
	if c := e.child(space, local); c != nil {
		return c.text
	}
	return ""
}

// A received is a stanza from the server: message, presence or iq (RFC 6120 §8).
type received struct {
	element
	from jid // empty if missing or malformed
	to   jid // empty if missing or malformed
	id   string
	typ  string
}

// isRequest reports whether the stanza is an iq that requires a response.
func (s *received) isRequest() bool {
	return s.name.Local == "iq" && (s.typ == "get" || s.typ == "set")
}

const maxDepth = 32 // nesting depth beyond which elements are skipped

// Errors of decodeStanza.
var (
	errNotWellFormed = errors.New("not well-formed")
	errNoSender      = errors.New("no valid sender")
)

// decodeStanza decodes one element returned by a framer. The errors are errNotWellFormed and errNoSender; the stanza is never nil, and
// after an error holds what was decoded, so that an error can be sent in reply.
func decodeStanza(data []byte) (*received, error) { return new(decoder).decode(data) }

// A decoder decodes stanzas one after the other; it is not safe for concurrent use. It reuses an xml.Decoder, because creating one
// takes as long as decoding a short stanza.
type decoder struct {
	data bytes.Reader
	xml  *xml.Decoder // nil before the first stanza and after a malformed one
}

// decode is like decodeStanza.
func (d *decoder) decode(data []byte) (*received, error) {
	d.data.Reset(data)
	if d.xml == nil {
		d.xml = xml.NewDecoder(&d.data)
		d.xml.DefaultSpace = nsComponent
	}
	s := &received{}
	if err := s.read(d.xml); err != nil || d.data.Len() > 0 {
		d.xml = nil
		return s, fmt.Errorf("%w: %v", errNotWellFormed, err)
	}
	if s.from.bare == "" {
		return s, errNoSender
	}
	return s, nil
}

// startTag decodes only the start tag of a stanza. Fields that cannot be decoded stay empty.
func (d *decoder) startTag(data []byte) *received {
	d.data.Reset(data)
	d.xml = nil
	x := xml.NewDecoder(&d.data)
	x.DefaultSpace = nsComponent
	s := &received{}
	s.readStart(x) // partial on error
	return s
}

// read decodes a stanza. After an error it holds what was decoded.
func (s *received) read(d *xml.Decoder) error {
	if err := s.readStart(d); err != nil {
		return err
	}
	s.children = make([]element, 0, 6) // enough for most presence stanzas
	return s.element.decode(d, 1)
}

// readStart decodes the start tag of a stanza.
func (s *received) readStart(d *xml.Decoder) error {
	tok, err := d.Token()
	if err != nil {
		return err
	}
	start, ok := tok.(xml.StartElement)
	if !ok {
		return errors.New("no start tag")
	}
	s.name, s.attrs = componentName(start.Name), start.Attr
	s.id, s.typ = s.attr("id"), s.attr("type")
	s.from, _ = parseJID(s.attr("from")) // empty if malformed
	s.to, _ = parseJID(s.attr("to"))     // the same
	return nil
}

// componentName maps the namespace jabber:client to jabber:component:accept, in the name of a stanza or of its child.
func componentName(name xml.Name) xml.Name {
	if name.Space == nsClient {
		name.Space = nsComponent
	}
	return name
}

// decode decodes the content of e, up to its end tag.
func (e *element) decode(d *xml.Decoder, depth int) error {
	var more strings.Builder // character data after the first token
	for {
		tok, err := d.Token()
		if err != nil {
			return err
		}
		switch tok := tok.(type) {
		case xml.StartElement:
			if depth == maxDepth {
				if err := d.Skip(); err != nil {
					return err
				}
				continue
			}
			name := tok.Name
			if depth == 1 {
				name = componentName(name)
			}
			e.children = append(e.children, element{name: name, attrs: tok.Attr})
			if err := e.children[len(e.children)-1].decode(d, depth+1); err != nil {
				return err
			}
		case xml.EndElement:
			if more.Len() > 0 {
				e.text += more.String()
			}
			return nil
		case xml.CharData:
			if e.text == "" {
				e.text = string(tok)
			} else {
				more.Write(tok)
			}
		}
	}
}

// An envelope is a stanza to send. Unlike the types of gosrc.io/xmpp/stanza, it has xml:lang.
type envelope struct {
	XMLName xml.Name
	Type    string `xml:"type,attr,omitempty"`
	ID      string `xml:"id,attr,omitempty"`
	From    string `xml:"from,attr"`
	To      string `xml:"to,attr"`
	Lang    string `xml:"http://www.w3.org/XML/1998/namespace lang,attr,omitempty"`
	Payload any
}

// encode returns the stanza as XML. It panics if the payload cannot be marshaled, which is a programming error.
func (e envelope) encode() []byte { return newEncoder().encode(e) }

// An encoder encodes stanzas one after the other; it is not safe for concurrent use. It reuses an xml.Encoder, whose buffer is larger than
// most stanzas.
type encoder struct {
	out bytes.Buffer
	xml *xml.Encoder
}

func newEncoder() *encoder {
	c := &encoder{}
	c.xml = xml.NewEncoder(&c.out)
	return c
}

// encode is like envelope.encode.
func (c *encoder) encode(e envelope) []byte {
	c.out.Reset()
	if err := c.xml.Encode(e); err != nil {
		panic(fmt.Sprintf("cannot encode a stanza of type %T: %v", e.Payload, err))
	}
	return bytes.Clone(c.out.Bytes())
}

// reply returns a stanza of the same kind to the sender (RFC 6120 §8.1.2, §8.2.3), with the ID and the language of the request.
func (s *received) reply(typ string, payload any) envelope {
	return envelope{
		XMLName: xml.Name{Local: s.name.Local},
		Type:    typ, ID: s.id, From: s.to.String(), To: s.from.String(), Lang: s.lang(""), Payload: payload,
	}
}

// A stanzaError is a stanza error (RFC 6120 §8.3). It has the legacy code of XEP-0086 too, as XEP-0077 §4 requires.
type stanzaError struct {
	XMLName   xml.Name         `xml:"error"`
	Code      int              `xml:"code,attr"`
	Type      stanza.ErrorType `xml:"type,attr"`
	Condition conditionElement
	Specific  *conditionElement // application-specific condition, nil for none
}

// A conditionElement is an empty element that names an error condition.
type conditionElement struct{ XMLName xml.Name }

func (e *stanzaError) Error() string { return e.Condition.XMLName.Local }

// newStanzaError returns a stanza error with a legacy code, a type and a defined condition (RFC 6120 §8.3.3).
func newStanzaError(code int, typ stanza.ErrorType, condition string) *stanzaError {
	return &stanzaError{Code: code, Type: typ, Condition: conditionElement{xml.Name{Space: nsStanzas, Local: condition}}}
}

func badRequest() *stanzaError { return newStanzaError(400, stanza.ErrorTypeModify, "bad-request") }
func forbidden() *stanzaError  { return newStanzaError(403, stanza.ErrorTypeAuth, "forbidden") }
func itemNotFound() *stanzaError {
	return newStanzaError(404, stanza.ErrorTypeCancel, "item-not-found")
}
func notAcceptable() *stanzaError {
	return newStanzaError(406, stanza.ErrorTypeModify, "not-acceptable")
}
func registrationRequired() *stanzaError {
	return newStanzaError(407, stanza.ErrorTypeAuth, "registration-required")
}
func internalError() *stanzaError {
	return newStanzaError(500, stanza.ErrorTypeWait, "internal-server-error")
}
func resourceConstraint() *stanzaError {
	return newStanzaError(500, stanza.ErrorTypeWait, "resource-constraint")
}
func serviceUnavailable() *stanzaError {
	return newStanzaError(503, stanza.ErrorTypeCancel, "service-unavailable")
}

// streamHeader returns the initial stream header of a component (XEP-0114 §3).
func streamHeader(domain string) []byte {
	var b bytes.Buffer
	b.WriteString(`<?xml version='1.0'?><stream:stream xmlns='jabber:component:accept' xmlns:stream='http://etherx.jabber.org/streams' to='`)
	xml.EscapeText(&b, []byte(domain)) // writing to a buffer cannot fail
	b.WriteString(`'>`)
	return b.Bytes()
}

// parseStreamHeader returns the stream ID in the server's response header, empty if there is none.
func parseStreamHeader(header []byte) (id string, err error) {
	tok, err := xml.NewDecoder(io.MultiReader(bytes.NewReader(header), strings.NewReader("</stream:stream>"))).Token()
	if err != nil {
		return "", fmt.Errorf("not an XMPP stream: %w", err)
	}
	start, ok := tok.(xml.StartElement)
	if !ok || start.Name.Local != "stream" {
		return "", errors.New("not an XMPP stream")
	}
	for _, a := range start.Attr {
		if a.Name.Local == "id" && a.Name.Space == "" {
			return a.Value, nil
		}
	}
	return "", nil
}
