package main

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"
)

func checkCommand() *cobra.Command {
	var conf config
	cmd := &cobra.Command{
		Use:   "check",
		Short: "Check the configuration, the database and the link to the XMPP server",
		Long: `Load the configuration as serve does, open the database, and log in to the XMPP server. Print the result of each check, and suggest how
to fix each problem. The command does not change anything.`,
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

// check tests what serve depends on, in the order in which serve uses it, and prints one line per check. A failed check does not
// stop the others.
func check(ctx context.Context, out io.Writer, conf config, component componentConfig) error {
	failed := 0
	report := func(name, note string, err error) {
		if err != nil {
			failed++
			fmt.Fprintf(out, "FAIL  %s: %v\n", name, err)
			return
		}
		fmt.Fprintf(out, "ok    %s%s\n", name, note)
	}
	report("configuration", "", nil)
	note, err := checkDatabase(ctx, conf.db)
	report("database", note, err)
	for _, server := range component.servers {
		note, err := checkLink(ctx, server, component)
		report("link to "+server, note, err)
	}
	if failed > 0 {
		return fmt.Errorf("%d of the checks failed", failed)
	}
	return nil
}

// checkDatabase opens a database without writing to it. A missing one is not an error, because serve creates it.
func checkDatabase(ctx context.Context, location string) (note string, err error) {
	db, err := openDatabase(ctx, location, false)
	if errors.Is(err, errNoDatabase) {
		return fmt.Sprintf(": %s does not exist yet; serve creates it", databaseName(location)), nil
	}
	if err != nil {
		return "", err
	}
	return "", db.Close()
}

// checkLink completes a handshake with a server. A conflict is not an error, because a server reports it only to a component that
// knows the secret.
func checkLink(ctx context.Context, server string, conf componentConfig) (note string, err error) {
	l := &link{domain: conf.domain, secret: conf.secret, server: server, tls: conf.tls, times: conf.linkTimes}
	s, err := l.open(ctx)
	if err == nil {
		s.conn.Close()
		return "", nil
	}
	var streamErr *streamError
	if errors.As(err, &streamErr) && streamErr.condition == "conflict" {
		return ": the secret is accepted; the component is already connected, perhaps by a running serve", nil
	}
	fault := diagnose(err, l)
	return "", fmt.Errorf("%s; check %s", fault.cause, fault.remedy)
}
