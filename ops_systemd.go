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

// notifySystemd says that we are ready, how the link is, and that we are alive, until ctx is done (sd_notify(3)). Without a
// systemd that listens nothing is said.
func (c *component) notifySystemd(ctx context.Context) {
	var watchdog <-chan time.Time
	if period, err := daemon.SdWatchdogEnabled(false); err == nil && period > 0 {
		ticker := time.NewTicker(period / 2)
		defer ticker.Stop()
		watchdog = ticker.C
	}
	say := func(state string) { daemon.SdNotify(false, state) } // who does not listen need not hear it
	say(daemon.SdNotifyReady)
	for {
		link := c.board.link.Load()
		say("STATUS=" + c.linkLine(link))
		select {
		case <-ctx.Done():
			say(daemon.SdNotifyStopping)
			return
		case <-link.replaced:
		case <-watchdog:
			if c.isAlive(ctx) {
				say(daemon.SdNotifyWatchdog)
			}
		}
	}
}

// linkLine says how the link is, in a line.
func (c *component) linkLine(link *linkState) string {
	if link.downSince.IsZero() {
		return fmt.Sprintf("linked to the XMPP server as %s, %d registered", c.domain, c.board.count())
	}
	return "no link to the XMPP server since " + link.downSince.Format(time.DateTime)
}

// aliveTime is how long our loops may take to answer.
const aliveTime = 5 * time.Second

// isAlive reports whether all loops still turn: every worker does what it is given, and the database answers.
func (c *component) isAlive(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, aliveTime)
	defer cancel()
	done := make(chan struct{}, len(c.workers))
	for _, w := range c.workers {
		select {
		case w.queue <- task{do: func(context.Context) { done <- struct{}{} }}:
		case <-ctx.Done():
			return false
		}
	}
	for range c.workers {
		select {
		case <-done:
		case <-ctx.Done():
			return false
		}
	}
	_, err := c.db.Changes(ctx)
	return err == nil
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
