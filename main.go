// Webstatus shows the presence of an XMPP server's users on the web.
//
// It is an external component (XEP-0114) for Prosody and ejabberd, and a web server, with one SQLite file or a PostgreSQL database.
// Users find it by service discovery, register in-band (XEP-0077), accept its subscription request, and get a URL: a page for an
// iframe, a badge, JSON and XML, a live stream. Clients without data forms register by chat or by ad-hoc commands (XEP-0050).
//
// # Commands
//
//	webstatus serve             run the component and the web server
//	webstatus migrate           migrate the database to the schema of this version
//	webstatus users list        list the registered users as a table, --json or --csv
//	webstatus users show JID    show one user, with the URL of the status page
//	webstatus users remove JID  remove a user; a running serve notices within 2 s
//	webstatus users export      export all users as JSON Lines
//	webstatus users import      import users from JSON Lines, or from ejabberd's mod_webpresence
//	webstatus backup FILE       write a consistent copy of the database, even while serve is running
//	webstatus templates export  write the embedded templates to a directory, for serve --templates
//	webstatus check             check the configuration, the database and the link to the XMPP server
//	webstatus healthcheck       check the health of a running serve, for containers
//	webstatus demo              run everything against a built-in XMPP server with simulated users; --nodes 3 runs several nodes
//	webstatus version           print the version
//
// Every flag of serve can also be set with an environment variable. Its name is WEBSTATUS_ followed by the flag's name in upper case,
// with "_" instead of "-". The component secret is read from --secret-file, WEBSTATUS_SECRET or a systemd credential named secret.
//
// # Routes
//
//	GET /                   the index page: what the service does and how to register
//	GET /status/ID          the status page; ID is the user's token or the base64url of the bare JID, or several, comma-separated
//	GET /status/ID.json     the status as JSON; also .txt, .xml, .js
//	GET /status/ID.svg      the status as an image; also .png
//	GET /status/ID/events   the JSON as server-sent events: the current status, then each change
//	GET /status/ID/embed    HTML and other snippets for embedding, with a preview
//	GET /room/JID.svg       a room badge; also .png, .json
//	GET /webstatus.js       the custom element <xmpp-status>
//	GET /oembed             oEmbed data for the page in the parameter url
//	GET /presence/…         the URLs of ejabberd's mod_webpresence; those of Prosody's are /status/JID/…
//
// # Signals and exit status
//
// SIGHUP reloads the files in --templates.
//
// SIGTERM and SIGINT shut down in order: running requests are finished, contacts get unavailable presence, and the database is closed.
// The exit status is 0 on success, 1 on failure, 2 on wrong usage or configuration.
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

// A failure is a run-time error of a command, as opposed to wrong usage. It makes the exit status 1.
type failure struct{ error }

func (f failure) Unwrap() error { return f.error }

// run executes the command line in args and returns the exit status.
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

// newCommand returns the root command with all subcommands.
func newCommand() *cobra.Command {
	root := &cobra.Command{
		Use:           "webstatus",
		Short:         "Show the presence of your XMPP server's users on the web",
		SilenceErrors: true,
		SilenceUsage:  true,
		Args:          cobra.NoArgs,
		RunE:          func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	users := &cobra.Command{
		Use:   "users",
		Short: "List, show, remove, export and import registered users",
		Args:  cobra.NoArgs,
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	users.AddCommand(usersListCommand(), usersShowCommand(), usersRemoveCommand(), usersExportCommand(), usersImportCommand())
	root.AddCommand(serveCommand(), migrateCommand(), users, backupCommand(), templatesCommand(), checkCommand(), healthcheckCommand(), demoCommand(), versionCommand(), manCommand(), configurationTopic())
	return root
}

// action returns a RunE that sets flags from the environment, then calls f. An error of f is wrapped in a failure unless it is a
// usageError.
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
