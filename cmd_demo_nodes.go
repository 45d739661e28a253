package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"html/template"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"
)

const (
	maxDemoNodes = 9
	nodeStopTime = 10 * time.Second // for a node to shut down
)

// A demoNode is a process of this program that serves as one of the nodes.
type demoNode struct {
	Name string
	URL  string
	env  []string
	to   io.Writer // of the log

	mu   sync.Mutex    // serializes start and end
	cmd  *exec.Cmd     // of the last start
	done chan struct{} // closed when that has ended; nil before the first start
}

// Running reports whether the process runs.
func (n *demoNode) Running() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.running()
}

func (n *demoNode) running() bool {
	if n.done == nil {
		return false
	}
	select {
	case <-n.done:
		return false
	default:
		return true
	}
}

// start starts the process, unless it runs, and waits until it serves or ctx is done.
func (n *demoNode) start(ctx context.Context) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.running() || ctx.Err() != nil {
		return ctx.Err()
	}
	program, err := os.Executable()
	if err != nil {
		return err
	}
	cmd, done := exec.Command(program, "serve"), make(chan struct{})
	cmd.Env, cmd.Stderr = n.env, n.to
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // Ctrl-C is for this process, which then ends the node
	if err := cmd.Start(); err != nil {
		return err
	}
	n.cmd, n.done = cmd, done
	go func() {
		cmd.Wait()
		close(done)
	}()
	for {
		conn, err := net.Dial("tcp", strings.TrimPrefix(n.URL, "http://"))
		if err == nil {
			return conn.Close()
		}
		select {
		case <-done:
			return fmt.Errorf("node %s has exited: see its log", n.Name)
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// end ends the process with a signal, if it runs, and waits for it.
func (n *demoNode) end(s syscall.Signal) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if !n.running() {
		return
	}
	n.cmd.Process.Signal(s)
	select {
	case <-n.done:
	case <-time.After(nodeStopTime):
		n.cmd.Process.Kill()
		<-n.done
	}
}

// newDemoNodes returns nodes that share a database and link to the loopback server.
func newDemoNodes(conf config, nodes int, database string, l *loopback, logTo io.Writer) (all []*demoNode) {
	inherited := slices.DeleteFunc(os.Environ(), func(v string) bool { return strings.HasPrefix(v, "WEBSTATUS_") })
	for i := range nodes {
		name, address := "node"+strconv.Itoa(i+1), "127.0.0.1:"+strconv.Itoa(unusedPort())
		all = append(all, &demoNode{Name: name, URL: "http://" + address, to: logTo, env: append(slices.Clone(inherited),
			"WEBSTATUS_DB="+database, "WEBSTATUS_NODE="+name, "WEBSTATUS_LISTEN="+address, "WEBSTATUS_DOMAIN="+l.domain, "WEBSTATUS_SECRET="+l.secret,
			"WEBSTATUS_SERVER="+l.address(), "WEBSTATUS_ALLOW=*", "WEBSTATUS_LOG_LEVEL="+conf.logLevel, "WEBSTATUS_LOG_FORMAT="+conf.logFormat)})
	}
	return all
}

// demoNodes runs nodes on a temporary PostgreSQL, a loopback server, and a page with all of them, until ctx is done. Then it ends the
// nodes before the database.
func demoNodes(ctx context.Context, conf config, nodes int, listener net.Listener, out, logTo io.Writer, log *slog.Logger) error {
	postgres, err := newPostgresServer(ctx, rand.Text())
	if err != nil && ctx.Err() != nil {
		return nil
	}
	if err != nil {
		return err
	}
	defer postgres.remove()
	l, err := newLoopback(demoDomain, "demo")
	if err != nil {
		return err
	}
	cast, all := demoActors(), newDemoNodes(conf, nodes, postgres.url("postgres"), l, logTo)
	g, ctx := errgroup.WithContext(ctx)
	handler, prefix, err := nodesPage(ctx, cast, all, log)
	if err != nil {
		return err
	}
	g.Go(func() error {
		l.serve(ctx, cast, nodes, func() {
			fmt.Fprintf(out, "Five simulated users come and go, and %d nodes on a PostgreSQL database show them.\n\n", nodes)
			fmt.Fprintf(out, "  all nodes     http://%s%s\n", listener.Addr(), prefix)
			for _, n := range all {
				fmt.Fprintf(out, "  %-12s  %s/\n", n.Name, n.URL)
			}
			fmt.Fprintf(out, "\nOn the first page, nodes can be killed and started. Press Ctrl-C to stop.\n")
		})
		return nil
	})
	g.Go(func() error { return serveAuxiliary(ctx, listener, handler, nil, log) })
	for _, n := range all {
		g.Go(func() error {
			defer n.end(syscall.SIGTERM)
			if err := n.start(ctx); err != nil {
				return err
			}
			<-ctx.Done()
			return nil
		})
	}
	if err = g.Wait(); errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}

// nodesPage returns a handler for a page with the people on each node, and for its buttons. The prefix of its paths is random, so that
// no other site can press them.
func nodesPage(ctx context.Context, cast []*actor, all []*demoNode, log *slog.Logger) (handler http.Handler, prefix string, err error) {
	t, err := template.ParseFS(embeddedTemplates, "nodes.html")
	if err != nil {
		return nil, "", err
	}
	data := struct {
		Nodes []*demoNode
		Page  string // path of the status page of everybody
	}{all, allPath(cast)}
	prefix = "/" + rand.Text() + "/"
	mux := http.NewServeMux()
	mux.HandleFunc("GET "+prefix+"{$}", func(rw http.ResponseWriter, _ *http.Request) {
		rw.Header()["Content-Type"] = headerHTML
		rw.Header().Set("Cache-Control", "no-store")
		if err := t.Execute(rw, data); err != nil {
			log.Debug("the page was not sent", "error", err)
		}
	})
	for _, n := range all {
		mux.HandleFunc("POST "+prefix+n.Name+"/kill", func(rw http.ResponseWriter, r *http.Request) {
			n.end(syscall.SIGKILL)
			http.Redirect(rw, r, prefix, http.StatusSeeOther)
		})
		mux.HandleFunc("POST "+prefix+n.Name+"/start", func(rw http.ResponseWriter, r *http.Request) {
			if err := n.start(ctx); err != nil {
				log.Error("cannot start a node", "error", err)
			}
			http.Redirect(rw, r, prefix, http.StatusSeeOther)
		})
	}
	return mux, prefix, nil
}
