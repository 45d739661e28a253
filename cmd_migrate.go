package main

import (
	"context"
	"fmt"
	"io"

	"github.com/spf13/cobra"
)

func migrateCommand() *cobra.Command {
	var conf config
	cmd := &cobra.Command{
		Use:   "migrate",
		Short: "Migrate the database to the schema of this version",
		Long: `Migrate the database to the schema of this version, in one transaction, after copying the old file next to it. A missing database
is created.`,
		Args: cobra.NoArgs,
		RunE: action(func(cmd *cobra.Command, _ []string, problems *usageError) error {
			if err := problems.orNil(); err != nil {
				return err
			}
			return migrate(cmd.Context(), conf, cmd.OutOrStdout(), progressBar(cmd.ErrOrStderr()))
		}),
	}
	conf.dbFlag(cmd.Flags())
	return cmd
}

// migrate migrates the database and prints what it did.
func migrate(ctx context.Context, conf config, out io.Writer, progress func(done, total int)) error {
	lock, err := lockDatabase(conf.db)
	if err != nil {
		return err
	}
	defer lock.Close()
	logf := func(format string, args ...any) { fmt.Fprintf(out, conf.db+": "+format+"\n", args...) }
	from, to, err := migrateDatabase(ctx, conf.db, logf, progress)
	switch {
	case err != nil:
		return err
	case from == 0:
		fmt.Fprintf(out, "%s: created with schema %d\n", conf.db, to)
	case from == to:
		fmt.Fprintf(out, "%s: already has schema %d, nothing to do\n", conf.db, to)
	default:
		fmt.Fprintf(out, "%s: migrated from schema %d to schema %d\n", conf.db, from, to)
	}
	return nil
}
