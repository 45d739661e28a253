package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"
)

// reportTo returns a function that shows progress on a terminal, nil where there is none.
func reportTo(out io.Writer) func(done, total int) {
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

func backupCommand() *cobra.Command {
	var conf config
	cmd := &cobra.Command{
		Use:   "backup FILE",
		Short: "Write a consistent copy of the database, while serve runs",
		Long: `Write a copy of the database as it is at one moment, while serve runs; - writes it to standard output. To restore it, stop serve,
put the copy in the place of the database, remove the files beside it that end in -wal and -shm, and start serve.`,
		Args: cobra.ExactArgs(1),
		RunE: action(func(cmd *cobra.Command, args []string, problems *usageError) error {
			if err := problems.orNil(); err != nil {
				return err
			}
			db, _, err := inspectDatabase(cmd.Context(), conf.db, false)
			if err != nil {
				return err
			}
			defer db.Close()
			if args[0] == "-" {
				return db.backupToStream(cmd.Context(), cmd.OutOrStdout(), reportTo(cmd.ErrOrStderr()))
			}
			return db.backup(cmd.Context(), args[0], reportTo(cmd.ErrOrStderr()))
		}),
	}
	conf.dbFlag(cmd.Flags())
	return cmd
}

// backupToStream copies a database by way of a temporary file.
func (db *database) backupToStream(ctx context.Context, out io.Writer, progress func(done, total int)) error {
	dir, err := os.MkdirTemp("", "webstatus-backup-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir) // what stays is a temporary file
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
