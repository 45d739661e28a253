package main

import (
	"context"
	"errors"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

const (
	eventPause = time.Second // after a change, before the next one is sent
	eventBusy  = time.Second // until a rendering is tried again that found no slot

	maxTopicSteps = 32 // topics of a kind that are rendered at once
)

// A topicKey identifies what a live stream shows. Streams with the same key share its renderings.
type topicKey struct {
	address  string
	accepted string // languages
	options  renderOptions
}

func newTopicKey(address string, spec *renderSpec) topicKey {
	accepted := spec.accepted
	if len(accepted) > maxAccepted { // which is ignored
		accepted = ""
	}
	return topicKey{strings.Clone(address), strings.Clone(accepted), spec.options}
}

// eventTopics are the topics that live streams are open for.
type eventTopics struct {
	w       *website
	closing context.Context // its end ends all streams
	running sync.WaitGroup  // streams; mu is held when one is added
	single  chan struct{}   // holds one value for each topic of one person that is being rendered
	several chan struct{}   // the same for topics of several people

	mu    sync.Mutex
	byKey map[topicKey]*eventTopic
}

func newEventTopics(w *website) *eventTopics {
	ts := &eventTopics{w: w, closing: w.closing, single: make(chan struct{}, maxTopicSteps), several: make(chan struct{}, maxTopicSteps),
		byKey: make(map[topicKey]*eventTopic)}
	context.AfterFunc(w.closing, func() {
		ts.mu.Lock()
		defer ts.mu.Unlock()
		for _, t := range ts.byKey {
			t.wakeAll()
		}
	})
	return ts
}

// begin counts a stream, whose end is to be reported to running. It returns false if no stream may begin anymore.
func (ts *eventTopics) begin() bool {
	ts.mu.Lock()
	defer ts.mu.Unlock()
	if ts.closing.Err() != nil {
		return false
	}
	ts.running.Add(1)
	return true
}

// drain waits until all streams have ended, but not longer than a time. It is called when no stream may begin anymore.
func (ts *eventTopics) drain(most time.Duration) {
	done := make(chan struct{})
	ts.mu.Lock() // so that the last stream has been counted
	go func() { ts.running.Wait(); close(done) }()
	ts.mu.Unlock()
	select {
	case <-done:
	case <-time.After(most):
	}
}

// join adds a stream to its topic.
func (ts *eventTopics) join(key topicKey, s *eventStream) *eventTopic {
	ts.mu.Lock()
	defer ts.mu.Unlock()
	t := ts.byKey[key]
	if t == nil {
		t = &eventTopic{w: ts.w, key: key, left: make(chan struct{}), streams: make(map[*eventStream]bool)}
		ts.byKey[key] = t
		go t.run(ts)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.streams[s] = true
	return t
}

// leave removes a stream from its topic. A topic without streams ends.
func (ts *eventTopics) leave(t *eventTopic, s *eventStream) {
	ts.mu.Lock()
	defer ts.mu.Unlock()
	t.mu.Lock()
	defer t.mu.Unlock()
	if delete(t.streams, s); len(t.streams) == 0 {
		close(t.left)
		ts.remove(t)
	}
}

// remove forgets a topic, so that later streams open another one. The mutex is held.
func (ts *eventTopics) remove(t *eventTopic) {
	if ts.byKey[t.key] == t {
		delete(ts.byKey, t.key)
	}
}

// An eventTopic renders what several streams show.
type eventTopic struct {
	w       *website
	key     topicKey
	current atomic.Pointer[event] // nil before the first one
	left    chan struct{}         // closed when there is no stream anymore

	mu      sync.Mutex
	streams map[*eventStream]bool
}

// An event is the newest one of a topic.
type event struct {
	id        string
	rendering *rendering // of the event, which all streams share; nil for the end of the topic
	last      []byte     // sent at the end
}

// hold counts the memory of an event until release is called. The error is errBusy or errOpen, never for an event that is held already.
func (ts *eventTopics) hold(n *rendering, client netip.Addr) (release func(), err error) {
	if limit := ts.w.limits.events; limit.isLarge(n) {
		return limit.enter(n, client)
	}
	return func() {}, nil
}

// publish replaces the current event and wakes all streams.
func (t *eventTopic) publish(e *event) {
	t.current.Store(e)
	t.wakeAll()
}

func (t *eventTopic) wakeAll() {
	t.mu.Lock()
	defer t.mu.Unlock()
	for s := range t.streams {
		s.wake()
	}
}

// chargedClient returns the client that the next rendering is charged to: that of any stream for which it may begin now. If there is
// none, the result is the time until it may.
func (t *eventTopic) chargedClient() (client netip.Addr, delay time.Duration) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delay = eventBusy
	for s := range t.streams {
		d := t.w.limits.delay(s.client)
		if d == 0 {
			return s.client, 0
		}
		delay = min(delay, d)
	}
	return netip.Addr{}, delay
}

// hold counts the memory of an event for the client of any stream whose limit allows it.
func (t *eventTopic) hold(ts *eventTopics, n *rendering) (release func(), err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	err = errBusy // if all streams have left
	for s := range t.streams {
		if release, err = ts.hold(n, s.client); !errors.Is(err, errOpen) {
			break
		}
	}
	return release, err
}

// end ends all streams of the topic after a last text.
func (t *eventTopic) end(ts *eventTopics, last []byte) {
	ts.mu.Lock()
	ts.remove(t)
	ts.mu.Unlock()
	t.publish(&event{last: last})
}

// run renders the topic after each change, until all streams have left, the address ends, or there is no memory for its events.
func (t *eventTopic) run(ts *eventTopics) {
	release := func() {} // the current event
	defer func() { release() }()
	for {
		step := ts.stepOf(t)
		before := t.current.Load()
		switch {
		case step.ended:
			t.end(ts, nil) // a client that comes again gets 404
			return
		case step.tooLarge:
			t.end(ts, eventRefused)
			return
		case step.rendered == nil:
			if !t.wait(t.w.limits.after(step.delay)) {
				return
			}
			continue
		}
		id := eventID(step.rendered.body)
		if before == nil || before.id != id {
			releaseNew, err := t.hold(ts, step.rendered)
			if err != nil {
				t.end(ts, eventRefused)
				return
			}
			t.publish(&event{id: id, rendering: step.rendered})
			release() // not before the new event, so that a stream that cannot hold this one finds that
			release = releaseNew
			// The first change is sent at once, later ones are merged.
			if before != nil && !t.wait(t.w.limits.after(eventPause)) {
				return
			}
		}
		if !t.wait(step.changes...) {
			return
		}
	}
}

// A topicStep is the result of rendering a topic.
type topicStep struct {
	ended    bool          // the address shows nothing anymore
	tooLarge bool          // no client may have so large an event
	rendered *rendering    // nil if nothing was rendered
	delay    time.Duration // then, until it can be tried again
	changes  []any         // channels, one of which is closed at the next change
}

// stepOf makes a step of a topic in a goroutine of its own, with few others at once: rendering needs a large stack, which a topic would
// keep while it waits. Topics of several people do not hold up the others.
func (ts *eventTopics) stepOf(t *eventTopic) topicStep {
	slots := ts.single
	if strings.Contains(t.key.address, ",") {
		slots = ts.several
	}
	slots <- struct{}{}
	defer func() { <-slots }()
	result := make(chan topicStep)
	go func() { result <- t.step() }()
	return <-result
}

// step renders the topic if that can be charged to a client.
func (t *eventTopic) step() topicStep {
	limits := t.w.limits
	client, delay := t.chargedClient()
	if delay > 0 {
		return topicStep{delay: delay}
	}
	began := limits.now()
	for {
		found := t.w.lookUpAll(t.key.address, nil)
		// The successor is waited for before the state is read, so that no change is missed.
		changes := append(successors(found.people), t.w.board.link.Load().replaced)
		if !slices.Equal(found.people, t.w.lookUpAll(t.key.address, nil).people) {
			continue
		}
		if found.people == nil {
			return topicStep{ended: true}
		}
		n, err := t.render(found.people, found.many, client, began)
		switch {
		case errors.Is(err, errTooLarge):
			return topicStep{tooLarge: true}
		case err != nil:
			// The topic continues with the state at the time when a client's budget or a slot allows it.
			return topicStep{delay: eventBusy}
		case n == nil: // the user was removed just now
			continue
		}
		return topicStep{rendered: n, changes: changes}
	}
}

// render returns the state of people as an event; nil if there is none anymore. The time since began is charged to the client,
// also if the rendering is cached: topics of many people cost time even so.
func (t *eventTopic) render(people []*entry, many bool, client netip.Addr, began time.Time) (*rendering, error) {
	w := t.w
	renderer := w.renderer.Load()
	// Events are not compressed: proxies would hold them back.
	spec := renderSpec{format: formatEvents, lang: renderer.languages.match(t.key.accepted), accepted: t.key.accepted, options: t.key.options, many: many}
	subjects, _ := w.subjectsOf(people, spec.accepted, nil)
	if !many && subjects[0].snapshot == nil {
		return nil, nil
	}
	key := spec.key(subjects)
	n, ok := w.cache.GetIfPresent(key)
	w.limits.charge(client, began)
	if ok {
		return n, nil
	}
	n, err := w.render(w.closing, client, renderer, spec, key, subjects)
	if err != nil && !isLimit(err) && w.closing.Err() == nil {
		w.log.Error("cannot render a status", "cause", err)
	}
	return n, err
}

// wait waits until one of several channels has a value or is closed, and reports whether the topic continues.
func (t *eventTopic) wait(channels ...any) bool {
	return await(append(channels, t.left, t.w.closing.Done())...) < len(channels)
}

// successors returns a channel for each user, which is closed at the next change.
func successors(people []*entry) (channels []any) {
	for _, e := range people {
		if e != nil {
			channels = append(channels, e.successor())
		}
	}
	return channels
}

// await returns the index of the first of several channels that is ready to receive from.
func await(channels ...any) int {
	cases := make([]reflect.SelectCase, len(channels))
	for i, ch := range channels {
		cases[i] = reflect.SelectCase{Dir: reflect.SelectRecv, Chan: reflect.ValueOf(ch)}
	}
	first, _, _ := reflect.Select(cases)
	return first
}
