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
		Long: `Migrate the database to the schema of this version, in one transaction. A database file is first copied to a file next to it. A missing
file is created, and so are missing tables in PostgreSQL.`,
		Args: cobra.NoArgs,
		RunE: action(func(cmd *cobra.Command, _ []string, problems *usageError) error {
			conf.resolveDB(problems)
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
	lock, err := lockDatabase(ctx, conf.db)
	if err != nil {
		return err
	}
	defer lock.Close()
	name := databaseName(conf.db)
	logf := func(format string, args ...any) { fmt.Fprintf(out, name+": "+format+"\n", args...) }
	from, to, err := migrateDatabase(ctx, conf.db, logf, progress)
	switch {
	case err != nil:
		return err
	case from == 0:
		fmt.Fprintf(out, "%s: created with schema %d\n", name, to)
	case from == to:
		fmt.Fprintf(out, "%s: already has schema %d, nothing to do\n", name, to)
	default:
		fmt.Fprintf(out, "%s: migrated from schema %d to schema %d\n", name, from, to)
	}
	return nil
}
