package main

import (
	"fmt"

	"github.com/spf13/cobra"
)

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
