// Webstatus shows on the web whether people on an XMPP server are available.
//
// It is an external component (XEP-0114) of a Prosody or ejabberd, and a web server, with one SQLite file. People find it in
// their client's service discovery, register, accept its contact request, and get a web address: a page for an iframe, a badge,
// data for scripts, a live stream. Clients without forms register by chat or by ad-hoc commands.
//
// # Commands
//
//	webstatus serve             run the component and the web server
//	webstatus migrate           bring the database file to this version's schema
//	webstatus users list        who is registered, as a table, --json or --csv
//	webstatus users show JID    one user, with the page's address
//	webstatus users remove JID  as if the user had unregistered; a running serve hears of it
//	webstatus users export      all users as JSON lines; users import reads them
//	webstatus backup FILE       a consistent copy of the database, while serve runs
//	webstatus templates export  write the templates of the pages, to be changed
//	webstatus check             say what is wrong with the configuration, the database, the link
//	webstatus healthcheck       ask a running serve whether it is well, for containers
//	webstatus demo              everything against a built-in XMPP server with simulated people
//	webstatus version
//
// Every flag can come from the environment: WEBSTATUS_ and its name in capitals, "-" as "_". The component secret comes from
// --secret-file, WEBSTATUS_SECRET or a systemd credential named secret, never from a flag.
//
// # Routes
//
//	GET /                   what this is and how to register
//	GET /status/ID          the page; ID is the user's random token, or the bare JID in base64; several with commas between
//	GET /status/ID.json     the same as data; also .txt, .xml, .js
//	GET /status/ID.svg      the same as an image; also .png
//	GET /status/ID/events   the JSON as server-sent events: now, and at each change
//	GET /status/ID/embed    how it looks elsewhere, and what to copy for that
//	GET /presence/…         what ejabberd's mod_webpresence answered; Prosody's is at /status/JID/…
//
// # Signals and exit status
//
// SIGHUP reads the files of --templates again.
//
// SIGTERM and SIGINT stop in order: running requests are finished, contacts are told that we go, the database is closed. The
// exit status is 0 when done, 1 after a failure, 2 for wrong usage or configuration.
package main

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/signal"
	"runtime"
	"runtime/debug"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"
)

const version = "0.1.0"

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	os.Exit(run(ctx, os.Args[1:], os.Stdout, standardError()))
}

// A failure is an error of a command that was called rightly.
type failure struct{ error }

func (f failure) Unwrap() error { return f.error }

// run runs a command and returns the exit status.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	root := newCommand()
	root.SetArgs(args)
	root.SetOut(stdout)
	root.SetErr(stderr)
	cmd, err := root.ExecuteContextC(ctx)
	var failed failure
	switch {
	case err == nil:
		return 0
	case errors.As(err, &failed):
		fmt.Fprintln(stderr, "webstatus: "+err.Error())
		return 1
	}
	fmt.Fprintf(stderr, "webstatus: %v\nSee `%s --help`.\n", err, cmd.CommandPath())
	return 2
}

// newCommand makes the command line.
func newCommand() *cobra.Command {
	root := &cobra.Command{
		Use:           "webstatus",
		Short:         "Show on the web whether people on your XMPP server are available",
		SilenceErrors: true,
		SilenceUsage:  true,
		Args:          cobra.NoArgs,
		RunE:          func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	users := &cobra.Command{
		Use:   "users",
		Short: "List, show, remove, export and import those who are registered",
		Args:  cobra.NoArgs,
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	users.AddCommand(usersListCommand(), usersShowCommand(), usersRemoveCommand(), usersExportCommand(), usersImportCommand())
	root.AddCommand(serveCommand(), migrateCommand(), users, backupCommand(), templatesCommand(), checkCommand(), healthcheckCommand(), demoCommand(), versionCommand(), manCommand(), configurationTopic())
	return root
}

// action makes a command's RunE of a function: the environment is read first, and what the function returns counts as a
// failure unless it is a usageError.
func action(f func(cmd *cobra.Command, args []string, problems *usageError) error) func(*cobra.Command, []string) error {
	return func(cmd *cobra.Command, args []string) error {
		err := f(cmd, args, readEnvironment(cmd.Flags()))
		var usage *usageError
		if err == nil || errors.As(err, &usage) {
			return err
		}
		return failure{err}
	}
}

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
	conf.now, conf.random, conf.languages = time.Now, rand.Reader, r.languages
	c, err := newComponent(ctx, conf, db)
	if err != nil {
		return err
	}
	debug.FreeOSMemory() // what the start has taken and will not take again
	conf.log.Info("serving", "version", version, "listen", doors.web.Addr().String(), "base_url", conf.baseURL)
	// The component takes its leave when the last request has been answered.
	linked, leave := context.WithCancel(context.WithoutCancel(ctx))
	g, ctx := errgroup.WithContext(ctx)
	site := newWebsite(c, r, webConf, ctx)
	g.Go(func() error { site.reload(ctx, conf.domain); return nil })
	g.Go(func() error {
		defer leave()
		handler := site.handler()
		if doors.metrics != nil {
			handler = c.counters.count(handler)
		}
		if around != nil {
			handler = around(handler)
		}
		return serveWeb(ctx, doors.web, doors.tls, handler, conf.log)
	})
	g.Go(func() error { return c.run(linked) })
	g.Go(func() error { c.notifySystemd(ctx); return nil })
	g.Go(func() error { return serveBeside(ctx, doors.metrics, collector{c, site}.handler()) })
	g.Go(func() error { return serveBeside(ctx, doors.redirect, doors.redirection) })
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

func migrateCommand() *cobra.Command {
	var conf config
	cmd := &cobra.Command{
		Use:   "migrate",
		Short: "Bring the database file to this version's schema",
		Long: `Bring the database file to this version's schema, all of it or nothing, and say what was done. A copy is made first, beside it. A
missing file is created.`,
		Args: cobra.NoArgs,
		RunE: action(func(cmd *cobra.Command, _ []string, problems *usageError) error {
			if err := problems.orNil(); err != nil {
				return err
			}
			lock, err := lockDatabase(conf.db)
			if err != nil {
				return err
			}
			defer lock.Close()
			say := func(format string, args ...any) { fmt.Fprintf(cmd.OutOrStdout(), conf.db+": "+format+"\n", args...) }
			from, to, err := migrateDatabase(cmd.Context(), conf.db, say, reportTo(cmd.ErrOrStderr()))
			switch {
			case err != nil:
				return err
			case from == 0:
				fmt.Fprintf(cmd.OutOrStdout(), "%s: created with schema %d\n", conf.db, to)
			case from == to:
				fmt.Fprintf(cmd.OutOrStdout(), "%s: has schema %d already, nothing to do\n", conf.db, to)
			default:
				fmt.Fprintf(cmd.OutOrStdout(), "%s: schema %d is now schema %d\n", conf.db, from, to)
			}
			return nil
		}),
	}
	conf.dbFlag(cmd.Flags())
	return cmd
}

func checkCommand() *cobra.Command {
	var conf config
	cmd := &cobra.Command{
		Use:   "check",
		Short: "Say what is wrong with the configuration, the database, the link to the XMPP server",
		Long: `Load the configuration as serve would, open the database, log in to the XMPP server, and say of each whether it works and
what to do if not. Nothing is changed.`,
		Args: cobra.NoArgs,
		RunE: action(func(cmd *cobra.Command, _ []string, problems *usageError) error {
			component, err := conf.resolve(problems, io.Discard)
			if err != nil {
				return err
			}
			return check(cmd.Context(), cmd.OutOrStdout(), conf, component)
		}),
	}
	conf.serveFlags(cmd.Flags())
	return cmd
}

// check tries everything that serve needs, in the order of serve, and goes on after what fails.
func check(ctx context.Context, out io.Writer, conf config, component componentConfig) error {
	failed := 0
	report := func(what string, err error) {
		if err != nil {
			failed++
			fmt.Fprintf(out, "FAIL  %s: %v\n", what, err)
			return
		}
		fmt.Fprintf(out, "ok    %s\n", what)
	}
	report("configuration", nil)
	db, err := openDatabase(ctx, conf.db, false)
	if err == nil {
		db.Close()
	}
	if errors.Is(err, errNoDatabase) {
		fmt.Fprintf(out, "ok    database: %s does not exist yet, serve creates it\n", conf.db)
	} else {
		report("database", err)
	}
	for _, server := range component.servers {
		l := &link{domain: component.domain, secret: component.secret, server: server, tls: component.tls, times: component.times}
		s, err := l.open(ctx)
		var said *streamError
		switch {
		case err == nil:
			s.conn.Close()
		case errors.As(err, &said) && said.condition == "conflict":
			fmt.Fprintf(out, "ok    link to %s: the secret is right, and another connection, a running serve perhaps, holds the place\n", server)
			continue
		default:
			fault := diagnose(err, l)
			err = fmt.Errorf("%s; check %s", fault.cause, fault.remedy)
		}
		report("link to "+server, err)
	}
	if failed > 0 {
		return fmt.Errorf("%d of the checks failed", failed)
	}
	return nil
}

func versionCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Print the version",
		Args:  cobra.NoArgs,
		Run: func(cmd *cobra.Command, _ []string) {
			fmt.Fprintf(cmd.OutOrStdout(), "webstatus %s%s %s %s/%s\n", version, commit(), runtime.Version(), runtime.GOOS, runtime.GOARCH)
		},
	}
}

// commit returns what the binary was built from, if the build knew.
func commit() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return ""
	}
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" {
			return " (" + s.Value[:min(12, len(s.Value))] + ")"
		}
	}
	return ""
}
