package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"regexp"
	"time"

	"github.com/coreos/go-systemd/v22/activation"
	"github.com/coreos/go-systemd/v22/daemon"
	"github.com/coreos/go-systemd/v22/journal"
)

// handedListener returns the socket that systemd has opened for us (sd_listen_fds(3)), nil if there is none.
func handedListener() (net.Listener, error) {
	listeners, err := activation.Listeners()
	if err != nil {
		return nil, fmt.Errorf("the socket from systemd cannot be used: %w", err)
	}
	switch len(listeners) {
	case 0:
		return nil, nil
	case 1:
		if listeners[0] == nil {
			return nil, errors.New("the socket from systemd is none that accepts connections: use ListenStream=")
		}
		return listeners[0], nil
	}
	return nil, fmt.Errorf("systemd has handed over %d sockets: one is wanted, for the web server", len(listeners))
}

// notifySystemd tells systemd that we are ready, the state of the link, and that stanzas are handled, until ctx is done (sd_notify(3)).
// It does nothing if systemd does not listen.
func notifySystemd(ctx context.Context, c *component) {
	var watchdog <-chan time.Time
	if period, err := daemon.SdWatchdogEnabled(false); err == nil && period > 0 {
		ticker := time.NewTicker(period / 2)
		defer ticker.Stop()
		watchdog = ticker.C
	}
	notify := func(state string) { daemon.SdNotify(false, state) } // an error means that nobody listens
	notify(daemon.SdNotifyReady)
	for {
		link := c.board.link.Load()
		notify("STATUS=" + statusLine(c, link))
		select {
		case <-ctx.Done():
			notify(daemon.SdNotifyStopping)
			return
		case <-link.replaced:
		case <-watchdog:
			if c.isAlive(ctx) {
				notify(daemon.SdNotifyWatchdog)
			}
		}
	}
}

// statusLine describes the state of the link.
func statusLine(c *component, link *linkState) string {
	if link.isUp() {
		return fmt.Sprintf("linked to the XMPP server as %s, %d registered", c.domain, c.board.count())
	}
	return "no link to the XMPP server since " + link.downSince.Format(time.DateTime)
}

// standardError returns where errors and the log go.
func standardError() io.Writer {
	if is, err := journal.StderrIsJournalStream(); err == nil && is {
		return journalWriter{os.Stderr}
	}
	return os.Stderr
}

// A journalWriter tells the journal the priority of each line (sd-daemon(3)), so that journalctl -p warning shows what went wrong. What
// is no line of the log is an error.
type journalWriter struct{ to io.Writer }

var (
	logLine    = regexp.MustCompile(`^(?:level=|\{"level":")([A-Z]+)`) // of either format, without time
	priorities = map[string]journal.Priority{"DEBUG": journal.PriDebug, "INFO": journal.PriInfo, "WARN": journal.PriWarning,
		"ERROR": journal.PriErr}
)

func (w journalWriter) Write(text []byte) (int, error) {
	var out bytes.Buffer
	for line := range bytes.Lines(text) {
		priority := journal.PriErr
		if level := logLine.FindSubmatch(line); level != nil {
			priority = priorities[string(level[1])]
		}
		fmt.Fprintf(&out, "<%d>%s", priority, line)
	}
	if _, err := w.to.Write(out.Bytes()); err != nil {
		return 0, err
	}
	return len(text), nil
}

// withoutTime leaves out the time of a log line, which the journal has anyway.
func withoutTime(groups []string, a slog.Attr) slog.Attr {
	if len(groups) == 0 && a.Key == slog.TimeKey {
		return slog.Attr{}
	}
	return a
}
