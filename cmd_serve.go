package main

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"runtime/debug"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"
)

func serveCommand() *cobra.Command {
	var conf config
	cmd := &cobra.Command{
		Use:   "serve",
		Short: "Run the component and the web server",
		Long: `Run the component and the web server until SIGTERM or SIGINT.

Every flag can come from the environment: WEBSTATUS_ and its name in capitals, with _ for -.`,
		Args: cobra.NoArgs,
		RunE: action(func(cmd *cobra.Command, _ []string, problems *usageError) error {
			component, err := conf.resolve(problems, cmd.ErrOrStderr())
			if err != nil && conf.domain == "" {
				return fmt.Errorf("%w\nTo see it work without any configuration: webstatus demo", err)
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

// serve opens everything in order, runs until ctx is done, and closes it the other way round.
func serve(ctx context.Context, conf config, component componentConfig) error {
	lock, err := lockDatabase(conf.db)
	if err != nil {
		return err
	}
	defer lock.Close()
	db, err := openDatabase(ctx, conf.db, true)
	if err != nil {
		return err
	}
	defer db.Close()
	listener, err := handedListener()
	if err == nil && listener == nil {
		listener, err = listen(conf.listen, "listen")
	}
	if err != nil {
		return err
	}
	doors := doors{web: listener}
	defer doors.close()
	if doors.tls, doors.redirection, err = conf.tls.listenerConfig(component.baseURL, component.log); err != nil {
		return err
	}
	for _, door := range []struct {
		address, flag string
		listener      *net.Listener
	}{{conf.metrics, "metrics-listen", &doors.metrics}, {conf.redirect, "redirect-listen", &doors.redirect}} {
		if door.address != "" {
			if *door.listener, err = listen(door.address, door.flag); err != nil {
				return err
			}
		}
	}
	return serveAt(ctx, doors, db, conf.website, component, nil)
}

// doors are where others come in.
type doors struct {
	web         net.Listener
	tls         *tls.Config  // of web, nil for plain HTTP
	metrics     net.Listener // nil for none
	redirect    net.Listener // the same
	redirection http.Handler // what answers there
}

func (d doors) close() {
	for _, l := range []net.Listener{d.web, d.metrics, d.redirect} {
		if l != nil {
			l.Close()
		}
	}
}

// serveAt runs the component and the web servers. What goes around the website, if not nil, comes before it.
func serveAt(ctx context.Context, doors doors, db *database, webConf websiteConfig, conf componentConfig,
	around func(http.Handler) http.Handler) error {
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
	debug.FreeOSMemory() // what the start has taken and will not take again
	conf.log.Info("serving", "version", version, "listen", doors.web.Addr().String(), "base_url", conf.baseURL)
	// The component takes its leave when the last request has been answered.
	linked, leave := context.WithCancel(context.WithoutCancel(ctx))
	g, ctx := errgroup.WithContext(ctx)
	webConf.domain, webConf.baseURL, webConf.jidLinks, webConf.board = conf.domain, conf.baseURL, conf.jidLinks, c.board
	webConf.now, webConf.log, webConf.closing = conf.now, conf.log, ctx
	site := newWebsite(webConf, r)
	g.Go(func() error { site.reload(ctx); return nil })
	g.Go(func() error {
		defer leave()
		handler := site.handler()
		if doors.metrics != nil {
			handler = site.answers.count(handler)
		}
		if around != nil {
			handler = around(handler)
		}
		return serveWeb(ctx, doors.web, doors.tls, handler, conf.log)
	})
	g.Go(func() error { return c.run(linked) })
	g.Go(func() error { notifySystemd(ctx, c); return nil })
	g.Go(func() error { return serveAuxiliary(ctx, doors.metrics, collector{c, site, db}.handler()) })
	g.Go(func() error { return serveAuxiliary(ctx, doors.redirect, doors.redirection) })
	err = g.Wait()
	conf.log.Info("stopped")
	return err
}

// listen opens an address that a flag names: host:port or unix:/path.
func listen(address, flag string) (net.Listener, error) {
	path, isUnix := strings.CutPrefix(address, "unix:")
	if !isUnix {
		l, err := net.Listen("tcp", address)
		if errors.Is(err, syscall.EADDRINUSE) {
			return nil, fmt.Errorf("another program uses the address %s: stop that one, or choose another with --%s", address, flag)
		}
		if err != nil {
			return nil, fmt.Errorf("cannot listen at %s: check --%s (%w)", address, flag, err)
		}
		return l, nil
	}
	if conn, err := net.Dial("unix", path); err == nil {
		conn.Close()
		return nil, fmt.Errorf("another program uses the socket %s: stop that one, or choose another with --%s", path, flag)
	} else if errors.Is(err, syscall.ECONNREFUSED) {
		os.Remove(path) // left behind by a process that was killed; if it stays, listening says why
	}
	l, err := net.Listen("unix", path)
	if err != nil {
		return nil, fmt.Errorf("cannot listen at the socket %s: check --%s (%w)", path, flag, err)
	}
	// What is served is public. Who shall not reach the socket is kept out by its directory.
	return l, os.Chmod(path, 0o666)
}
