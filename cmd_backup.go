package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"
)

func backupCommand() *cobra.Command {
	var conf config
	cmd := &cobra.Command{
		Use:   "backup FILE",
		Short: "Write a consistent copy of the database",
		Long: `Write a consistent copy of the database file to FILE, or to standard output if FILE is "-". This is safe while serve is running. To
restore the copy, stop serve, replace the database file with it, remove the database's -wal and -shm files, and start serve. For a
PostgreSQL database, use pg_dump instead.`,
		Args: cobra.ExactArgs(1),
		RunE: action(func(cmd *cobra.Command, args []string, problems *usageError) error {
			conf.resolveDB(problems)
			if err := problems.orNil(); err != nil {
				return err
			}
			return backup(cmd.Context(), conf, args[0], cmd.OutOrStdout(), progressBar(cmd.ErrOrStderr()))
		}),
	}
	conf.dbFlag(cmd.Flags())
	return cmd
}

// backup writes a copy of the database to a new file, or to out if target is "-". The database may have an older schema.
func backup(ctx context.Context, conf config, target string, out io.Writer, progress func(done, total int)) error {
	if isPostgres(conf.db) {
		return fmt.Errorf("%s is a PostgreSQL database: back it up with pg_dump", databaseName(conf.db))
	}
	db, _, err := inspectDatabase(ctx, conf.db, false)
	if err != nil {
		return err
	}
	defer db.Close()
	if target == "-" {
		return db.backupToStream(ctx, out, progress)
	}
	if _, err := os.Lstat(target); err == nil {
		return fmt.Errorf("%s already exists: choose another file, or remove it first", target)
	}
	return db.backup(ctx, target, progress)
}

// backupToStream writes a copy of the database to out. It uses a temporary file, since SQLite cannot write to a stream.
func (db *database) backupToStream(ctx context.Context, out io.Writer, progress func(done, total int)) error {
	dir, err := os.MkdirTemp("", "webstatus-backup-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir) // best effort
	path := filepath.Join(dir, "copy.db")
	if err := db.backup(ctx, path, progress); err != nil {
		return err
	}
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = io.Copy(out, f)
	return err
}

// progressBar returns a function that shows a percentage on out, or nil if out is not a terminal.
func progressBar(out io.Writer) func(done, total int) {
	f, ok := out.(*os.File)
	if !ok {
		return nil
	}
	if info, err := f.Stat(); err != nil || info.Mode()&os.ModeCharDevice == 0 {
		return nil
	}
	return func(done, total int) {
		fmt.Fprintf(out, "\r%3d %%", 100*done/max(total, 1))
		if done == total {
			fmt.Fprint(out, "\r     \r")
		}
	}
}
