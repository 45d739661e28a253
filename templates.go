package main

import (
	"context"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"

	"github.com/spf13/cobra"
)

//go:embed templates
var embedded embed.FS

// embeddedTemplates are the files of the folder templates.
var embeddedTemplates = func() fs.FS {
	files, err := fs.Sub(embedded, "templates")
	if err != nil {
		panic(err) // the folder is part of the program
	}
	return files
}()

// An overlay has files of a directory in place of embedded ones of the same name.
type overlay struct{ over, under fs.FS }

func (o overlay) Open(name string) (fs.File, error) {
	if info, err := fs.Stat(o.under, name); err != nil || info.IsDir() {
		return o.under.Open(name) // which says what there is
	}
	f, err := o.over.Open(name)
	if errors.Is(err, fs.ErrNotExist) {
		return o.under.Open(name)
	}
	return f, err
}

// templateFiles returns the embedded templates, with those of a directory in their place. A file that takes the place of none is
// an error, since it is likely to be a slip.
func templateFiles(dir string) (fs.FS, error) {
	if dir == "" {
		return embeddedTemplates, nil
	}
	over := os.DirFS(dir)
	err := fs.WalkDir(over, ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return fmt.Errorf("%s cannot be read: %w", filepath.Join(dir, name), err)
		}
		if _, err := fs.Stat(embeddedTemplates, name); err != nil {
			return fmt.Errorf("%s is no template's name: `webstatus templates export` writes all that there are", filepath.Join(dir, name))
		}
		return nil
	})
	return overlay{over, embeddedTemplates}, err
}

// loadRenderer makes a renderer of the embedded templates and those of a directory.
func loadRenderer(domain, dir string) (*renderer, error) {
	files, err := templateFiles(dir)
	if err != nil {
		return nil, err
	}
	r, err := newRenderer(domain, files)
	if err == nil && dir != "" { // the embedded ones have been tested
		err = r.check()
	}
	if err != nil && dir != "" {
		return nil, fmt.Errorf("a template cannot be used: correct it in %s, or remove it there (%w)", dir, err)
	}
	return r, err
}

// reload reads the templates again at each SIGHUP, until ctx is done. Where something is wrong with them, the ones before stay.
func (w *website) reload(ctx context.Context, domain string) {
	hangUps := make(chan os.Signal, 1)
	signal.Notify(hangUps, syscall.SIGHUP)
	defer signal.Stop(hangUps)
	for {
		select {
		case <-ctx.Done():
			return
		case <-hangUps:
		}
		r, err := loadRenderer(domain, w.templates)
		if err != nil {
			w.log.Error("the templates have not been read again", "cause", err)
			continue
		}
		w.use(r)
		w.log.Info("the templates have been read again")
	}
}

func templatesCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "templates",
		Short: "Write the templates of the pages, to be changed",
		Args:  cobra.NoArgs,
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(&cobra.Command{
		Use:   "export DIR",
		Short: "Write the embedded templates into a directory",
		Long: `Write the embedded templates into a directory, for serve --templates. Leave there only those that you change: the others are
taken from the program, and so are newer ones after an upgrade. Files that are there already are not touched.`,
		Args: cobra.ExactArgs(1),
		RunE: action(func(cmd *cobra.Command, args []string, _ *usageError) error {
			return exportTemplates(args[0])
		}),
	})
	return cmd
}

func exportTemplates(dir string) error {
	return fs.WalkDir(embeddedTemplates, ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		target := filepath.Join(dir, filepath.FromSlash(name))
		if d.IsDir() {
			return os.MkdirAll(target, 0o755)
		}
		content, err := fs.ReadFile(embeddedTemplates, name)
		if err != nil {
			return err
		}
		f, err := os.OpenFile(target, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
		if errors.Is(err, fs.ErrExist) {
			return fmt.Errorf("%s is there already: choose another directory", target)
		}
		if err != nil {
			return err
		}
		_, err = f.Write(content)
		return errors.Join(err, f.Close())
	})
}
