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
		l := &link{domain: component.domain, secret: component.secret, server: server, tls: component.tls, times: component.linkTimes}
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
