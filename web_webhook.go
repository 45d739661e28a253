package main

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"sync"
	"sync/atomic"
	"time"
)

// A webhookConfig is the operator's webhook. The URL is not logged, because receivers often put a secret into it.
type webhookConfig struct {
	url    string        // empty for none
	secret string        // key of the signatures
	retry  time.Duration // pause after a first failure; doubled after each further one
}

const (
	webhookTimeout  = 10 * time.Second // of a request
	webhookRetry    = time.Second      // default of webhookConfig.retry
	maxWebhookRetry = 5 * time.Minute
	webhookGrace    = 5 * time.Second // for what is waiting at shutdown

	maxWebhookWaiting = 10_000 // people whose status waits to be posted
)

// A webhook posts the status of people who allow it to a URL of the operator, after each change. There is one request at a time, so
// that the changes of a person arrive in order. While a person waits, later changes replace earlier ones.
type webhook struct {
	webhookConfig
	w      *website
	client *http.Client
	added  chan struct{} // has a value if somebody may be waiting

	mu      sync.Mutex
	waiting map[Token]*entry // by the token of the page that changed
	queue   []Token          // keys of waiting, in order

	failingSince time.Time // of the last request; zero while all is well. Only used by run.

	sent, failed, dropped atomic.Uint64 // requests that succeeded and that failed, and changes that were given up
}

func newWebhook(conf webhookConfig, w *website) *webhook {
	h := &webhook{webhookConfig: conf, w: w, added: make(chan struct{}, 1), waiting: make(map[Token]*entry)}
	h.client = &http.Client{
		Timeout: webhookTimeout,
		Transport: &http.Transport{
			DialContext:         (&net.Dialer{Timeout: webhookTimeout / 2}).DialContext,
			TLSHandshakeTimeout: webhookTimeout / 2,
			IdleConnTimeout:     time.Minute,
			ForceAttemptHTTP2:   true,
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	return h
}

// isPosted reports whether the webhook gets the status; a nil snapshot is that of a user who has been removed.
func (s *snapshot) isPosted() bool { return s != nil && s.options.has(fieldPost) }

// observe is called by the board after it has replaced a snapshot. Of several nodes, which all have the same snapshots, one posts.
func (h *webhook) observe(e *entry, old, current *snapshot) {
	switch {
	case !old.isPosted() && !current.isPosted(), !h.w.leads():
	case !current.isPosted():
		h.add(old.token, e)
	case !old.isPosted():
		h.add(current.token, e)
	case old.token != current.token:
		h.add(old.token, e)
		h.add(current.token, e)
	case !bytes.Equal(h.status(old), h.status(current)):
		h.add(current.token, e)
	}
}

// add lets the page of a token wait for its turn.
func (h *webhook) add(token Token, e *entry) {
	h.mu.Lock()
	_, known := h.waiting[token]
	switch {
	case known:
	case len(h.waiting) >= maxWebhookWaiting:
		h.dropped.Add(1)
	default:
		h.waiting[token] = e
		h.queue = append(h.queue, token)
	}
	h.mu.Unlock()
	notify(h.added)
}

// next removes the page that has waited longest.
func (h *webhook) next() (token Token, e *entry, ok bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.queue) == 0 {
		h.queue = nil
		return token, nil, false
	}
	token, h.queue = h.queue[0], h.queue[1:]
	e = h.waiting[token]
	delete(h.waiting, token)
	return token, e, true
}

// length returns the number of pages that wait.
func (h *webhook) length() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return len(h.queue)
}

// run posts changes until ctx is done. What is waiting then is still posted within webhookGrace, unless a request fails.
func (h *webhook) run(ctx context.Context) {
	go h.watchLink(ctx)
	requests, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	context.AfterFunc(ctx, func() { time.AfterFunc(webhookGrace, cancel) })
	delay := h.retry
	for {
		token, e, ok := h.next()
		if !ok {
			select {
			case <-h.added:
				continue
			case <-ctx.Done():
			}
			if h.length() == 0 {
				return
			}
			continue
		}
		err := h.post(requests, h.body(token, e))
		h.report(err)
		var refused *refusedError
		switch {
		case err == nil:
			delay = h.retry
			continue
		case errors.As(err, &refused) && !refused.isTemporary():
			h.dropped.Add(1)
			continue
		}
		h.add(token, e)
		if ctx.Err() != nil {
			h.dropped.Add(uint64(h.length()))
			return
		}
		select {
		case <-time.After(delay):
			delay = min(2*delay, maxWebhookRetry)
		case <-ctx.Done():
		}
	}
}

// watchLink posts the status of everybody when it expires because the link to the XMPP server has been down for long.
func (h *webhook) watchLink(ctx context.Context) {
	link := h.w.board.link.Load()
	for {
		select {
		case <-ctx.Done():
			return
		case <-link.replaced:
		}
		before := link.oldestValid
		if link = h.w.board.link.Load(); link.oldestValid == before || !h.w.leads() {
			continue
		}
		for e := range h.w.board.all() {
			if s := e.snapshot.Load(); s.isPosted() {
				h.add(s.token, e)
			}
		}
	}
}

// status returns the JSON of a snapshot, that of the unknown view if it is nil.
func (h *webhook) status(s *snapshot) []byte {
	english := h.w.renderer.Load().languages.english()
	v := unknownView(english)
	if s != nil {
		s.fill(&v, s.freshness(h.w.board.link.Load(), h.w.now()), english, 0)
	}
	var b bytes.Buffer
	if err := appendJSON(&b, &v); err != nil {
		panic(err) // strings can be encoded
	}
	return b.Bytes()
}

// body returns the page's URL and its status, which is unknown if the page has ended or the webhook does not get it anymore.
func (h *webhook) body(token Token, e *entry) []byte {
	s := e.snapshot.Load()
	if !s.isPosted() || s.token != token {
		s = nil
	}
	return fmt.Appendf(nil, `{"page":"%s","status":%s}`, tokenURL(h.w.baseURL, token), h.status(s))
}

// A refusedError is a response that is not 2xx.
type refusedError struct{ status int }

func (e *refusedError) Error() string {
	return fmt.Sprintf("the response is %d %s", e.status, http.StatusText(e.status))
}

// isTemporary reports whether the same request may succeed later.
func (e *refusedError) isTemporary() bool {
	switch e.status {
	case http.StatusRequestTimeout, http.StatusTooEarly, http.StatusTooManyRequests:
		return true
	}
	return e.status >= 500
}

// sign returns the signature of a body at a time: HMAC-SHA256 in hexadecimal of the time, a dot, and the body.
func (c webhookConfig) sign(timestamp string, body []byte) string {
	mac := hmac.New(sha256.New, []byte(c.secret))
	mac.Write([]byte(timestamp + "."))
	mac.Write(body)
	return hex.EncodeToString(mac.Sum(nil))
}

// post sends a body. No error contains the URL.
func (h *webhook) post(ctx context.Context, body []byte) error {
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, h.url, bytes.NewReader(body))
	if err != nil {
		return errors.New("invalid request")
	}
	timestamp := strconv.FormatInt(h.w.now().Unix(), 10)
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("User-Agent", "webstatus/"+version)
	r.Header.Set("Webstatus-Timestamp", timestamp)
	r.Header.Set("Webstatus-Signature", h.sign(timestamp, body))
	resp, err := h.client.Do(r)
	if err != nil {
		var wrapped *url.Error
		if errors.As(err, &wrapped) {
			err = wrapped.Err
		}
		return err
	}
	defer resp.Body.Close()
	io.CopyN(io.Discard, resp.Body, 64<<10) // so that the connection can be used again; an error only prevents that
	if resp.StatusCode/100 != 2 {
		return &refusedError{resp.StatusCode}
	}
	return nil
}

// report counts a request, and logs when requests begin to fail and when they succeed again.
func (h *webhook) report(err error) {
	if err == nil {
		h.sent.Add(1)
		if !h.failingSince.IsZero() {
			h.w.log.Info("the webhook works again", "after", h.w.now().Sub(h.failingSince).Round(time.Second))
			h.failingSince = time.Time{}
		}
		return
	}
	h.failed.Add(1)
	if h.failingSince.IsZero() {
		h.failingSince = h.w.now()
		h.w.log.Warn("the webhook fails; check --webhook and its receiver", "cause", err)
	}
}
