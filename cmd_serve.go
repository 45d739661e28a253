package main

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/crypto/acme/autocert"
	"golang.org/x/sync/errgroup"
)

func serveCommand() *cobra.Command {
	var conf config
	cmd := &cobra.Command{
		Use:   "serve",
		Short: "Run the component and the web server",
		Long: `Run the component and the web server until SIGTERM or SIGINT.

Every flag can also be set with an environment variable. Its name is WEBSTATUS_ followed by the flag's name in upper case, with _ instead
of -. See "webstatus help configuration".`,
		Args: cobra.NoArgs,
		RunE: action(func(cmd *cobra.Command, _ []string, problems *usageError) error {
			component, err := conf.resolve(problems, cmd.ErrOrStderr())
			if err != nil && conf.domain == "" {
				return fmt.Errorf("%w\nTo try it without any configuration, run: webstatus demo", err)
			}
			if err != nil {
				return err
			}
			return serve(cmd.Context(), conf, component)
		}),
	}
	conf.serveFlags(cmd.Flags())
	return cmd
}

// serve locks and opens the database, opens the listeners, and runs the service until ctx is done. It closes them in reverse order.
func serve(ctx context.Context, conf config, component componentConfig) error {
	limitMemory(conf.memoryLimit)
	db, unlock, err := openForServe(ctx, conf, component.log)
	if err != nil {
		return err
	}
	defer unlock()
	defer db.Close()
	var certificates autocert.Cache // shared with other nodes
	if db.shared != nil {
		certificates = sharedCertificates{db}
	}
	listeners, err := openListeners(conf, certificates, component)
	defer listeners.close()
	if err != nil {
		return err
	}
	return serveOn(ctx, listeners, db, conf.website, component, nil)
}

// openForServe opens the database: PostgreSQL as one of several nodes, a file for this process alone.
func openForServe(ctx context.Context, conf config, log *slog.Logger) (db *database, unlock func(), err error) {
	if isPostgres(conf.db) {
		db, err = awaitDatabase(ctx, conf, log)
		return db, func() {}, err
	}
	lock, err := lockDatabase(ctx, conf.db)
	if err != nil {
		return nil, nil, err
	}
	if db, err = openDatabase(ctx, conf.db, true); err != nil {
		lock.Close()
		return nil, nil, err
	}
	db.file.patience = maxWait // the workers wait meanwhile; commands wait for queryTimeout
	return db, func() { lock.Close() }, nil
}

// awaitDatabase joins the nodes of a PostgreSQL database, as soon as it is reachable.
func awaitDatabase(ctx context.Context, conf config, log *slog.Logger) (*database, error) {
	for waiting := false; ; waiting = true {
		db, err := joinDatabase(ctx, conf.db, conf.node)
		if !errors.Is(err, ErrUnreachable) || ctx.Err() != nil {
			return db, err
		}
		if !waiting {
			log.Warn("waiting for the database: " + err.Error())
		}
		select {
		case <-ctx.Done():
			return nil, err
		case <-time.After(time.Second):
		}
	}
}

// listeners are the listeners of the web servers.
type listeners struct {
	web             net.Listener
	tls             *tls.Config  // of web, nil for plain HTTP
	metrics         net.Listener // nil without --metrics-listen
	redirect        net.Listener // nil without --redirect-listen
	redirectHandler http.Handler // of redirect
}

// openListeners opens all listeners of the configuration; a socket passed by systemd replaces --listen. After an error, the result
// holds those that were opened.
func openListeners(conf config, certificates autocert.Cache, component componentConfig) (l listeners, err error) {
	if l.web, err = systemdListener(); err == nil && l.web == nil {
		l.web, err = listen(conf.listen, "listen")
	}
	if err != nil {
		return l, err
	}
	if l.tls, l.redirectHandler, err = conf.tls.listenerConfig(component.baseURL, certificates, component.log); err != nil {
		return l, err
	}
	if conf.metrics != "" {
		if l.metrics, err = listen(conf.metrics, "metrics-listen"); err != nil {
			return l, err
		}
	}
	if conf.redirect != "" {
		l.redirect, err = listen(conf.redirect, "redirect-listen")
	}
	return l, err
}

func (l listeners) close() {
	for _, listener := range []net.Listener{l.web, l.metrics, l.redirect} {
		if listener != nil {
			listener.Close()
		}
	}
}

// serveOn runs the component and the web servers until ctx is done or one of them fails. The middleware, unless nil, wraps the
// website.
func serveOn(ctx context.Context, listeners listeners, db *database, webConf websiteConfig, conf componentConfig,
	middleware func(http.Handler) http.Handler) error {
	r, err := loadRenderer(conf.domain, webConf.templates)
	if err != nil {
		return err
	}
	users, err := newRegistry(ctx, registryConfig{now: time.Now, random: rand.Reader, log: conf.log}, db)
	if err != nil {
		return err
	}
	conf.now, conf.languages = time.Now, r.languages
	if conf.avatar, err = serviceAvatar(); err != nil {
		return err
	}
	c := newComponent(conf, users)
	go releaseStartup()
	conf.log.Info("serving", "version", version, "listen", listeners.web.Addr().String(), "base_url", conf.baseURL)
	// The component stops after the web server, so that the last responses still show live presence.
	componentCtx, stopComponent := context.WithCancel(context.WithoutCancel(ctx))
	g, ctx := errgroup.WithContext(ctx)
	webConf.domain, webConf.baseURL, webConf.jidLinks, webConf.board, webConf.rooms = conf.domain, conf.baseURL, conf.jidLinks, c.board, c.rooms.board
	webConf.now, webConf.log, webConf.closing = conf.now, conf.log, ctx
	webConf.leads = users.Leads
	site := newWebsite(webConf, r)
	g.Go(func() error { site.reload(ctx); return nil })
	if site.webhook != nil {
		g.Go(func() error { site.webhook.run(ctx); return nil })
	}
	g.Go(func() error {
		defer stopComponent()
		handler := site.handler()
		if listeners.metrics != nil {
			handler = site.answers.count(handler)
		}
		if middleware != nil {
			handler = middleware(handler)
		}
		defer site.topics.drain(graceTime)
		return serveWeb(ctx, listeners.web, listeners.tls, handler, site.limits.connections, conf.log)
	})
	g.Go(func() error { return c.run(componentCtx) })
	g.Go(func() error { notifySystemd(ctx, c); return nil })
	g.Go(func() error {
		return serveAuxiliary(ctx, listeners.metrics, collector{c, site, db}.handler(), nil, conf.log)
	})
	g.Go(func() error {
		return serveAuxiliary(ctx, listeners.redirect, listeners.redirectHandler, site.limits.connections, conf.log)
	})
	err = g.Wait()
	conf.log.Info("stopped")
	return err
}

// listen listens on the address in a flag: host:port or unix:/path. It replaces a stale Unix socket.
func listen(address, flag string) (net.Listener, error) {
	path, isUnix := strings.CutPrefix(address, "unix:")
	if !isUnix {
		l, err := net.Listen("tcp", address)
		if errors.Is(err, syscall.EADDRINUSE) {
			return nil, fmt.Errorf("address %s is in use by another program: stop it, or choose another address with --%s", address, flag)
		}
		if err != nil {
			return nil, fmt.Errorf("cannot listen on %s: check --%s (%w)", address, flag, err)
		}
		return l, nil
	}
	if conn, err := net.Dial("unix", path); err == nil {
		conn.Close()
		return nil, fmt.Errorf("socket %s is in use by another program: stop it, or choose another path with --%s", path, flag)
	} else if errors.Is(err, syscall.ECONNREFUSED) {
		os.Remove(path) // stale, from a process that was killed; on failure, listening fails too
	}
	l, err := net.Listen("unix", path)
	if err != nil {
		return nil, fmt.Errorf("cannot listen on socket %s: check --%s (%w)", path, flag, err)
	}
	// The content is public. To restrict access, restrict the directory.
	return l, os.Chmod(path, 0o666)
}
