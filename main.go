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
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime"
	"syscall"

	"github.com/spf13/cobra"
)

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
