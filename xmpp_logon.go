package main

import "sync"

// logOns remembers the clients that have logged off from us, as from a gateway, while they stay online (XEP-0100 §4.4, §4.5). A client
// that goes offline looks the same, and its server drops our answer.
type logOns struct {
	mu  sync.Mutex
	off map[jid]bool // full JIDs that were last sent our unavailable presence
}

// maxLogOffs bounds the clients that are remembered. A forgotten one is not answered when it logs on again.
const maxLogOffs = 10000

func newLogOns() *logOns { return &logOns{off: make(map[jid]bool)} }

// onUnavailable notes that a client is about to be sent our unavailable presence.
func (l *logOns) onUnavailable(s *received) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.off) >= maxLogOffs {
		for other := range l.off {
			delete(l.off, other)
			break
		}
	}
	l.off[s.from] = true
}

// onAvailable reports whether a client logs on to us: it has logged off before, or it addresses the full JID of our presence. The
// presence that a client sends to all its contacts is not to be answered.
func (l *logOns) onAvailable(s *received) bool { return l.forget(s.from) || s.to.resource != "" }

// forget notes that a client is about to be sent our presence, and reports whether it had logged off.
func (l *logOns) forget(client jid) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	was := l.off[client]
	delete(l.off, client)
	return was
}
