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

// systemdListener returns the socket passed by systemd (sd_listen_fds(3)), nil if there is none. More than one is an error.
func systemdListener() (net.Listener, error) {
	listeners, err := activation.Listeners()
	if err != nil {
		return nil, fmt.Errorf("cannot use the socket passed by systemd: %w", err)
	}
	switch len(listeners) {
	case 0:
		return nil, nil
	case 1:
		if listeners[0] == nil {
			return nil, errors.New("the socket passed by systemd does not accept connections: use ListenStream=")
		}
		return listeners[0], nil
	}
	return nil, fmt.Errorf("systemd passed %d sockets: only one is supported, for the web server", len(listeners))
}

// notifySystemd sends readiness, the state of the link and watchdog notifications to systemd until ctx is done (sd_notify(3)). The
// watchdog is fed only while stanzas are being handled. Without a notification socket it sends nothing.
func notifySystemd(ctx context.Context, c *component) {
	var watchdog <-chan time.Time
	if period, err := daemon.SdWatchdogEnabled(false); err == nil && period > 0 {
		ticker := time.NewTicker(period / 2)
		defer ticker.Stop()
		watchdog = ticker.C
	}
	notify := func(state string) { daemon.SdNotify(false, state) } // best effort
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

// statusLine returns the text for systemctl status.
func statusLine(c *component, link *linkState) string {
	if link.isUp() {
		return fmt.Sprintf("linked to the XMPP server as %s, %d registered", c.domain, c.board.count())
	}
	return "no link to the XMPP server since " + link.downSince.Format(time.DateTime)
}

// standardError returns the writer for errors and the log: os.Stderr, with priorities if it is the journal.
func standardError() io.Writer {
	if is, err := journal.StderrIsJournalStream(); err == nil && is {
		return journalWriter{os.Stderr}
	}
	return os.Stderr
}

// A journalWriter prefixes each line with its priority (sd-daemon(3)), so that journalctl -p warning selects warnings and errors. Lines
// that are not log lines, such as error messages and panics, have the priority of errors.
type journalWriter struct{ to io.Writer }

var (
	logLine    = regexp.MustCompile(`^(?:level=|\{"level":")([A-Z]+)`) // in both formats, without the time
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

// withoutTime is a slog ReplaceAttr function that removes the time, which the journal records itself.
func withoutTime(groups []string, a slog.Attr) slog.Attr {
	if len(groups) == 0 && a.Key == slog.TimeKey {
		return slog.Attr{}
	}
	return a
}
