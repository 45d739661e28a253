package main

import (
	"bytes"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"time"
)

const (
	eventComment = 15 * time.Second // between comments that keep proxies from closing a quiet stream
	eventWrite   = 10 * time.Second // for a client to take an event
)

// Texts of event streams.
var (
	eventRetry    = []byte("retry: 3000\n\n")
	eventShutdown = []byte("retry: 1000\n\n")  // the next process takes over soon
	eventRefused  = []byte("retry: 30000\n\n") // as Retry-After of other requests beyond a limit
	eventNothing  = []byte(":\n\n")            // a comment
)

// An eventStream is a live stream of one client: server-sent events (HTML Living Standard §9.2).
type eventStream struct {
	eventConn
	client netip.Addr
	last   string // id of the last event that the client has
	leave  func() // ends the stream's count among the open ones
}

// An eventConn is the connection of a live stream.
type eventConn interface {
	// send writes to the client, and reports whether it has taken it.
	send(text []byte) bool
	// arm sets the time at which the next wait ends. A wake after it is not lost.
	arm(until time.Time)
	// wait waits until the stream is woken or the time of arm has come. It returns false if the client has gone.
	wait() bool
	wake()
}

// events sends the status of an address now and after each change, until the client goes away or the address ends.
func (w *website) events(rw http.ResponseWriter, r *http.Request, address string) {
	t := w.lookUpAll(address, nil)
	if t.people == nil {
		w.notFound(rw, r)
		return
	}
	note(rw, formatEvents.metric)
	h := rw.Header()
	h["Content-Type"], h["Cache-Control"] = formatEvents.contentType, formatEvents.cacheControl
	h["Content-Security-Policy"], h["X-Content-Type-Options"] = headerNothing, headerNoSniff
	h["X-Accel-Buffering"], h["Access-Control-Allow-Origin"] = headerNo, headerAnyOrigin
	if r.Method == http.MethodHead {
		return
	}
	spec, err := specOf(w.renderer.Load(), r, formatEvents, t.many)
	s := &eventStream{client: w.client(r), last: strings.Clone(r.Header.Get("Last-Event-ID"))}
	if err == nil {
		s.leave, err = w.limits.streams.enter(s.client, 1)
	}
	if err == nil && !w.topics.begin() {
		s.leave()
		err = errBusy // the next process takes over soon
	}
	if err != nil {
		w.fail(rw, r, formatEvents, err)
		return
	}
	// The goroutine of a request and the buffers of its connection take several times as much memory as a stream needs, so HTTP/1.1
	// connections are taken over.
	topic := newTopicKey(address, &spec)
	if conn, _, err := http.NewResponseController(rw).Hijack(); err == nil {
		s.eventConn = &hijackedStream{Conn: conn}
		head := eventHead(h)
		go func() {
			defer w.topics.running.Done()
			defer conn.Close()
			s.serve(w.topics, topic, head)
		}()
		return
	}
	s.eventConn = &responseStream{rw: rw, gone: r.Context().Done(), woken: make(chan struct{}, 1)}
	defer w.topics.running.Done()
	s.serve(w.topics, topic, nil)
}

// eventHead returns the start of the response on a connection that was taken over. Its end is that of the connection.
func eventHead(h http.Header) []byte {
	var b bytes.Buffer
	h["Date"], h["Connection"] = []string{time.Now().UTC().Format(http.TimeFormat)}, []string{"close"}
	b.WriteString("HTTP/1.1 200 OK\r\n")
	h.Write(&b) // to a buffer, which cannot fail
	b.WriteString("\r\n")
	return b.Bytes()
}

// writeEvent writes JSON as an event, whose id is its hash.
func writeEvent(r *renderer, spec *renderSpec, views []view) ([]byte, error) {
	data, err := writeJSON(r, spec, views)
	if err != nil {
		return nil, err
	}
	text := append(make([]byte, 0, len(data)+32), "id: "...)
	text = appendHash(text, data)
	text = append(append(text, "\ndata: "...), data...)
	return append(text, "\n\n"...), nil
}

// eventID returns the id of an event that writeEvent has written.
func eventID(text []byte) string {
	line, _, _ := bytes.Cut(text, []byte("\n"))
	return string(bytes.TrimPrefix(line, []byte("id: ")))
}

// serve sends events until the stream ends. The head is sent before them.
func (s *eventStream) serve(topics *eventTopics, key topicKey, head []byte) {
	defer s.leave()
	t := topics.join(key, s)
	defer topics.leave(t, s)
	comment := time.Now().Add(eventComment)
	for alive := s.send(append(head, eventRetry...)); alive; {
		s.arm(comment)
		event := t.current.Load()
		switch {
		case topics.closing.Err() != nil:
			s.send(eventShutdown)
			return
		case event == nil: // nothing has been rendered yet
			alive = s.wait()
		case event.rendering == nil:
			s.send(event.last)
			return
		case event.id != s.last:
			release, err := topics.hold(event.rendering, s.client)
			if err != nil { // a newer one has replaced it
				continue
			}
			s.last = event.id
			alive = s.send(event.rendering.body)
			release()
		case !time.Now().Before(comment):
			comment = time.Now().Add(eventComment)
			alive = s.send(eventNothing)
		default:
			alive = s.wait()
		}
	}
}

// A hijackedStream is a stream on a connection of HTTP/1.1. It waits for the end of the connection, and a deadline in the past
// wakes it.
type hijackedStream struct{ net.Conn }

func (s *hijackedStream) send(text []byte) bool {
	s.SetWriteDeadline(time.Now().Add(eventWrite))
	_, err := s.Write(text)
	return err == nil
}

func (s *hijackedStream) arm(until time.Time) { s.SetReadDeadline(until) }

func (s *hijackedStream) wait() bool {
	_, err := s.Read(make([]byte, 1)) // the client has nothing to say
	timeout, ok := err.(net.Error)
	return ok && timeout.Timeout()
}

func (s *hijackedStream) wake() { s.SetReadDeadline(time.Unix(1, 0)) }

// A responseStream is a stream of HTTP/2.
type responseStream struct {
	rw    http.ResponseWriter
	gone  <-chan struct{} // closed when the client has gone
	woken chan struct{}
	until time.Time
}

func (s *responseStream) send(text []byte) bool {
	control := http.NewResponseController(s.rw)
	control.SetWriteDeadline(time.Now().Add(eventWrite)) // where none can be set, the server's own applies
	_, err := s.rw.Write(text)
	return err == nil && control.Flush() == nil
}

func (s *responseStream) arm(until time.Time) { s.until = until }

func (s *responseStream) wait() bool {
	timer := time.NewTimer(time.Until(s.until))
	defer timer.Stop()
	select {
	case <-s.gone:
		return false
	case <-s.woken:
	case <-timer.C:
	}
	return true
}

func (s *responseStream) wake() { notify(s.woken) }
